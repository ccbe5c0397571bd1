"""The methods that turn nanobeam frames into maps, one file each."""
