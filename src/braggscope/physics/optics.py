"""Fresnel zone plates: focal length and the ring of light they send onto a detector.

Lengths carry their unit in the name, angles are radians. Functions take tensors or plain numbers that broadcast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value", float, "Tensor")


def focal_length_mm(diameter_um: Value, outer_zone_nm: Value, wavelength: Value) -> Value:
    """First-order focal length of a zone plate, f = D dr / lambda, in mm (Attwood & Sakdinawat 2016, eq. 10.5).

    diameter_um: Diameter of the outermost zone, um.
    outer_zone_nm: Width of the outermost zone, nm.
    wavelength: angstrom.

    >>> round(focal_length_mm(149.0, 16.0, 1.0972053), 2)
    21.73
    """
    return diameter_um * outer_zone_nm / wavelength * 1e-2  # um nm / angstrom = 1e-5 m


def cone_half_angle(diameter_um: Value, focal_length_mm: Value) -> Value:
    """Half the opening angle of the cone behind an aperture, D / 2f (small angles), in radians.

    diameter_um: Diameter of the aperture (zone plate or beam stop) in the plane of the zone plate, um.
    focal_length_mm: mm.

    >>> round(cone_half_angle(149.0, 21.7279), 7)
    0.0034288
    """
    return diameter_um * 0.5e-3 / focal_length_mm


def pixel_angle(pixel_um: Value, distance_m: Value) -> Value:
    """Angle that one detector pixel covers, p / R, in radians.

    >>> round(pixel_angle(110.0, 0.85), 8)
    0.00012941
    """
    return pixel_um * 1e-6 / distance_m
