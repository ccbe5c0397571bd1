"""Who runs a map."""
