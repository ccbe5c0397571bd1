"""Method machinery that knows no modality."""
