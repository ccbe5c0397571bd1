"""Analyses of Laue patterns and maps, one function to a file of its name."""
