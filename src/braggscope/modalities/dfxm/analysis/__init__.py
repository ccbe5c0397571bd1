"""Analyses of dark-field scans and maps, one to a file; the function of the file's name is the analysis."""
