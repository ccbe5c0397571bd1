"""Analyses of the tiny modality."""
