"""Pictures of dark-field maps and analyses, one subject to a file."""
