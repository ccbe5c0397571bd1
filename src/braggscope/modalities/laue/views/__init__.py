"""Maps and patterns as figures, one subject to a file."""
