"""Crystals whose scans are known, drawn for simulation.

`drawing` is what all share, `scan` the motors and the instrument, `camera` the detector, `truth` what maps should say; then the
crystals: `grains`, `twins`, `walls`, and in `oblique` those of which several reflections are seen.
"""
