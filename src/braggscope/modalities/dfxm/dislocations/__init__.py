"""Images of dislocations: how they form, and which dislocations an image shows."""
