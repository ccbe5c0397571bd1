"""Samples whose grains are known, and scans of them, for simulation."""
