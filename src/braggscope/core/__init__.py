"""The contracts: what a source, a forward model, a noise model, an estimator, a map and a modality are."""
