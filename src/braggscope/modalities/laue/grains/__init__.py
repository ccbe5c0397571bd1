"""Maps of grains without indexing: reduced patterns, an autoencoder, clusters and regions."""
