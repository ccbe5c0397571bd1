"""The page and the API: one for a scan that runs and for a finished map. It reads the run folder, or the map file, and nothing else."""
