"""The expected image of some straight dislocations, with derivatives: the model that `fit` and `search` stand on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from . import kernels
from .characters import Character, Straight, straight
from .optics import Optics, optics_of
from .setting import Setting

Array = np.ndarray
MARGIN = 0.3  # of the image's lengths, half of it on either side: dislocations there still show
REFLECTION = np.array([0.0, 0.0, 1.0])  # direction of the diffraction vector in the sample


@dataclass(frozen=True, eq=False)
class ImageModel:
    """Images of one setting and size.

    characters: Those that a dislocation may have; a dislocation's character is its place in this list.
    shape: Of the image, along x and y.
    step: Only every so many pixels are computed, along both.
    """

    setting: Setting
    characters: Sequence[Character]
    shape: tuple[int, int]
    step: int = field(default=1, kw_only=True)

    @cached_property
    def optics(self) -> Optics:
        """Rays, offset and resolution."""
        return optics_of(self.setting)

    @cached_property
    def straight(self) -> Straight:
        """All characters as the kernel takes them."""
        return straight(self.characters, self.setting, self.optics)

    def of(self, which: Sequence[int]) -> Straight:
        """The characters of some dislocations as the kernel takes them; kept with the model."""
        kept = self.__dict__.setdefault("_of", {})
        key = tuple(which)
        if key not in kept:
            kept[key] = self.straight[key]
        return kept[key]

    @cached_property
    def axes_nm(self) -> tuple[Array, Array]:
        """x of the rows, y of the columns, nm."""
        x, y = self.optics.axes_nm(self.shape)
        return x[:: self.step], y[:: self.step]

    @cached_property
    def coarse(self) -> ImageModel:
        """The same with every second pixel."""
        return ImageModel(self.setting, self.characters, self.shape, step=2)

    @cached_property
    def field_nm(self) -> Array:
        """Half the lengths of the field in which dislocations are looked for: the image and a margin, along x and y."""
        return (1 + MARGIN) / 2 * np.array(self.shape) * self.optics.pitch_nm

    def holds(self, which: Sequence[int], places: Array) -> bool:
        """Whether all places are in the field."""
        return bool((np.abs(self.to_image(which, places)) <= self.field_nm).all())

    def image(self, which: Sequence[int], places: Array, *, derivatives: bool = True) -> tuple[Array, Array]:
        """Depth at full reflection, nm, that each pixel sees, and its derivatives by the places.

        which: Characters, shape (dislocation,).
        places: In the frame of each dislocation, nm, shape (dislocation, 2).
        Returns shapes (x, y) and (2 dislocation, x, y); the second has length 0 without derivatives.
        """
        return self.at(*self.axes_nm, which, places, derivatives=derivatives)

    def at(self, x: Array, y: Array, which: Sequence[int], places: Array, *, derivatives: bool = True) -> tuple[Array, Array]:
        """The same at other places of the laboratory, x and y in nm."""
        o, s = self.optics, self.of(which)
        image, jacobian = kernels.empty((len(x), len(y)), len(which), derivatives)
        kernels.image_and_jacobian(
            x, y, o.depth_nm, o.weight_nm, o.tilt, s.project, s.turn, s.edge, s.screw, self.setting.poisson, o.yy_sign,
            np.ascontiguousarray(places, float).reshape(-1, 2), REFLECTION, o.offset, o.along, o.centre, o.half_width, o.sigma,
            kernels.TAIL, image, jacobian,
        )  # fmt: skip
        return image, jacobian

    def change(self, x: Array, y: Array, which: Sequence[int], places: Array) -> Array:
        """Change of q_1 by the dislocations to first order at every ray, shape (x, y, depth)."""
        o, s = self.optics, self.of(which)
        return kernels.first_order(
            x, y, o.depth_nm, o.tilt, s.project, s.turn, s.edge, s.screw, self.setting.poisson, o.yy_sign,
            np.ascontiguousarray(places, float).reshape(-1, 2), REFLECTION, o.along,
        )  # fmt: skip

    @property
    def undistorted(self) -> float:
        """q_1 without a dislocation."""
        return -float(self.optics.along @ self.optics.offset) - self.optics.centre

    def to_image(self, which: Sequence[int], places: Array) -> Array:
        """Places in the laboratory at z = 0, nm, from those in the frames of the dislocations; shape (dislocation, 2)."""
        return np.einsum("kij,kj->ki", self.of(which).to_image(), np.reshape(places, (-1, 2)))

    def from_image(self, which: Sequence[int], places: Array) -> Array:
        """The inverse of `to_image`."""
        return np.einsum("kij,kj->ki", self.of(which).project[:, :, :2], np.reshape(places, (-1, 2)))
