"""Corrections of a dfxm scan, one file each: what finds their parameters from the scan itself (see core.corrections)."""
