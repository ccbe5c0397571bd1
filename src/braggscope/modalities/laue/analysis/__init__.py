"""Analyses of Laue patterns and maps, one a file."""
