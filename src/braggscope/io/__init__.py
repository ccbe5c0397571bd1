"""File formats, one file each: `matches(path)`, `scans(path)`; and the writers. Found by core.source."""
