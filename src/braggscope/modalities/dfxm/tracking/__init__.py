"""Dislocations followed through a movie: found in each frame, followed, refined by the forward model, and their motion."""
