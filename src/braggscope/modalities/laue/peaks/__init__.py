"""Spots of white-beam patterns: background, search, fits, the table of peaks, and reflections followed through a scan."""
