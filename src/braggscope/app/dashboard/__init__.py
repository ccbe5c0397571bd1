"""The page and the API, one for a running scan and for a finished map: they read the run folder, or the map file."""
