"""Grains below the beam size: sums of frames, grains found in them, the light on each, and its deblurring."""
