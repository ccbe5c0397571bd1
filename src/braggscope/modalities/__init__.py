"""The microscopies, a folder each; found by core.modality."""
