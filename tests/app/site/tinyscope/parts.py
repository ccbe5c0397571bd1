"""Geometry, phantom, views and calibration of the tiny modality."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import xarray as xr

from braggscope.core.geometry import Geometry, quantity
from braggscope.core.maps import Quantity, empty_map
from braggscope.core.noise import Noise
from braggscope.core.simulation import Simulation
from braggscope.plot.panels import maps_figure

POISSON = Noise()


@dataclass(frozen=True)
class TinyGeometry(Geometry):
    """One number."""

    modality: ClassVar[str] = "tiny"
    own_suffixes: ClassVar[tuple[str, ...]] = (".gain",)
    gain: float = quantity("count", low=0.1, high=10, default=1.0, doc="counts per photon")
    image_file: str | None = None

    @classmethod
    def from_file(cls, path):
        """A file of another program holds the number alone."""
        return cls(float(Path(path).read_text())) if Path(path).suffix in cls.own_suffixes else cls.from_toml(path)


def ramp(geometry, *, shape, frame_shape=(5, 4), seed=0, peak=9.0, noise=POISSON, flat=0.0):
    """A level that rises along the scan, from 1 to `peak`; `flat` is added."""
    levels = np.linspace(1, peak, int(np.prod(shape))) + flat
    names = ("y", "x")[-len(shape) :]
    coords = {n: ((n,), np.arange(size) * 0.5, {"units": "um"}) for n, size in zip(names, shape, strict=True)}
    truth = empty_map([Quantity("level", "count", "level")], names, shape, coords, {1: "no_frame"})
    truth["level"].values[...] = levels.reshape(shape)

    def expected(index):
        return torch.as_tensor(levels[index])[:, None, None].expand(-1, *frame_shape)

    return Simulation(geometry, xr.Dataset(coords=coords), frame_shape, expected, truth, noise, seed, "simulation of ramp")


def overview(dataset, scan=None):
    """Every quantity beside its error."""
    return maps_figure(dataset)


def frame(dataset, scan=None):
    """The first frame."""
    if scan is None:
        return None
    figure = maps_figure(dataset)
    figure.suptitle(f"frame of {scan.frame_shape}")
    return figure


@dataclass
class Found:
    """A calibration."""

    geometry: TinyGeometry
    uncertainty: dict
    summary: list

    def save(self, path):
        Path(path).write_text(f"[tiny]\ngain = {self.geometry.gain}\n")


def calibrate(scan, geometry, *, free=None, reference=None, progress=None):
    """Take the reference for the gain."""
    progress(1, 1)
    return Found(geometry.replace(gain=(reference or {}).get("gain", 2.0)), {"gain": 0.01}, [f"free: {free}"])
