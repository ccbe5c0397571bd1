"""The page and the API, one for a scan that runs and for a finished map: they read the run folder, or the map file, nothing else."""
