"""Methods of Laue maps, one to a file."""
