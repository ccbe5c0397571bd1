"""Indexing of white-beam patterns: orientation search, refinement, many grains, calibration of the detector."""
