"""Scans taken apart: components, strong and weak beams, scales."""
