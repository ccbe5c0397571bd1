"""Scans of polycrystalline films on a substrate: patterns that mix the grains under the beam.

A frame is background + hot pixels + substrate + sum over grains g of w_g(r) sum over spots I_s Gaussian(s): w the overlap of the
grain with the beam (`beam`), I kinematic (`brightness`), scaled so that the brightest pixel of a fully lit grain has `peak`
counts (the median of orientations). A spot is as wide as that of a perfect grain. The background is fluorescence: it falls with
the solid angle of the pixels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy.spatial.transform import Rotation

from braggscope.core.errors import InputError
from braggscope.core.noise import Noise
from braggscope.core.simulation import Simulation
from braggscope.physics.crystals import Crystal

from ..brightness import layer
from ..detector import detector_matrix, rays
from ..frames import surface_axes
from ..geometry import LaueGeometry
from ..orientations import reduced
from ..patterns import Mixture, brightest_pixel, spot_image, spot_lists, spots_of, strong
from ..reflections import material
from . import beam
from .microstructure import Microstructure, check_range, microstructure, strains
from .truth import truth_of

CCD = Noise(offset=10.0, readout=1.5, saturation=65534.0)  # the next value means an overflow in a file of 16 bits
PER_GRAIN, PER_BEAM = 18.5, 15.0  # points of the fine map of grains across a grain and across the beam, at least
MOST_POINTS = 10**8  # of the fine map
PERFECT = 0.1  # of the kinematic intensity is left to a substrate, because a perfect crystal extinguishes its own beam
MISCUT_DEG = (0.8, -0.5, 12.0)  # of the substrate: tilts about x and y, turn about its normal
HOT_COUNTS = (200.0, 20000.0)  # of hot pixels, evenly in the logarithm


def film(
    geometry: LaueGeometry,
    *,
    shape: tuple[int, ...] = (40, 40),
    frame_shape: tuple[int, int] | None = None,
    seed: int = 0,
    noise: Noise | None = CCD,
    peak: float = 2000.0,
    background: float = 5.0,
    hot: float = 1e-4,
    step: float = 0.1,
    size: float = 0.37,
    elongation: float = 1.5,
    texture: str = "random",
    fibre: str = "1 1 1",
    spread: float = 5.0,
    twins: float = 0.0,
    strain: float = 3e-4,
    substrate: float = PERFECT,
    footprint: str = "",
) -> Simulation:
    """A film of grains smaller than the beam, elongated along x, on a substrate whose spots stay.

    shape: Points along y (slow) and x (fast).  step: Between them, um.
    frame_shape: Rows and columns of a detector of the same size with other pixels; by default those of the geometry.
    peak: Expected counts in the brightest pixel of a grain that takes all the light, at the median of orientations.
    background: Expected counts of a pixel nearest to the sample.  hot: Part of the pixels that are hot.
    size: Root of the mean area of a grain, um.  elongation: Mean length along x over that along y.
    texture: random, or fibre: planes `fibre` along the surface, but for tilts of `spread` degrees.
    twins: Part of the grains with a band of a Sigma 3 twin.  strain: Standard deviation of the grains' strains.
    substrate: Its intensity over that of an ideally imperfect thick crystal; 0 for none.
    footprint: stretched (along the beam by 1 / sin of the sample's tilt) or round; by default as the geometry says.
    Raises InputError for options that cannot be, and a geometry without detector size or material.
    """
    geometry = with_frames(geometry, frame_shape)
    geometry = geometry.replace(footprint=footprint) if footprint else geometry
    y, x = positions(shape, step)
    crystal = material(geometry.material)
    fine = _around(y, x, geometry.footprint_um, size)
    sample = microstructure(
        seed, *fine, crystal, geometry, size_um=size, elongation=elongation, texture=texture,
        fibre=fibre, spread_deg=spread, twins=twins, strain=strain,
    )  # fmt: skip
    same = constant_light(geometry, seed, background, hot)
    return scanned(geometry, sample, crystal, y, x, same, peak, substrate, noise, seed, "film")


def polycrystal(
    geometry: LaueGeometry,
    *,
    shape: tuple[int, ...] = (30, 30),
    frame_shape: tuple[int, int] | None = None,
    seed: int = 0,
    noise: Noise | None = CCD,
    peak: float = 20000.0,
    background: float = 5.0,
    hot: float = 1e-4,
    step: float = 1.0,
    size: float = 8.0,
    elongation: float = 1.0,
    texture: str = "random",
    fibre: str = "1 1 1",
    spread: float = 5.0,
    twins: float = 0.0,
    strain: float = 3e-4,
    substrate: float = 0.0,
    footprint: str = "",
) -> Simulation:
    """Grains larger than the beam, equiaxed, without a substrate. Arguments as in `film`."""
    given = dict(locals())
    return film(**given)


def single(
    geometry: LaueGeometry,
    *,
    shape: tuple[int, ...] = (1, 1),
    frame_shape: tuple[int, int] | None = None,
    seed: int = 0,
    noise: Noise | None = CCD,
    peak: float = 20000.0,
    background: float = 5.0,
    hot: float = 1e-4,
    step: float = 1.0,
    strain: float = 0.0,
    rotation: tuple[float, float, float] = (2.0, -3.0, 25.0),
) -> Simulation:
    """One crystal, the same at every position: for the calibration of a detector. Arguments as in `film`.

    rotation: Of the crystal, deg: a rotation vector, after its z axis has been laid along the surface normal and x along y.
    strain: Standard deviation of its strain components, drawn by the seed.
    """
    geometry = with_frames(geometry, frame_shape)
    y, x = positions(shape, step)
    crystal = material(geometry.material)
    if len(rotation) != 3 or not np.isfinite(rotation).all():
        raise InputError(f"option rotation must be three angles in degrees, got {rotation}")
    fine = _around(y, x, geometry.footprint_um)
    u = reduced(on_surface(geometry, rotation)[None], crystal.rotations)
    deformation = strains(np.random.default_rng((seed, 5)), 1, strain)
    sample = Microstructure(np.zeros((len(fine[0]), len(fine[1])), int), *fine, u, deformation)
    same = constant_light(geometry, seed, background, hot)
    return scanned(geometry, sample, crystal, y, x, same, peak, 0.0, noise, seed, "single")


def scanned(
    geometry: LaueGeometry,
    sample: Microstructure,
    crystal: Crystal,
    y: np.ndarray,
    x: np.ndarray,
    same: np.ndarray,
    peak: float,
    substrate: float,
    noise: Noise | None,
    seed: int,
    label: str,
) -> Simulation:
    """The scan of a sample: frames are made when they are asked for.

    same: Counts in every frame, without the substrate.
    """
    check_range("peak", peak, 1e-6, 1e12)
    check_range("substrate", substrate, 0.0, 1e6)
    own = layer(geometry, crystal, thickness_um=geometry.thickness_um)
    margin = 6 * geometry.spot_px
    spots = [spots_of(own, u, e, margin_px=margin) for u, e in zip(sample.orientation, sample.strain, strict=True)]
    scale = peak / (strong(own) * brightest_pixel(geometry.spot_px))
    if substrate > 0 and geometry.substrate:
        same = same + substrate * scale * substrate_light(geometry, crystal)
    start, grain, weight = beam.weights(sample, y, x, geometry.footprint_um)
    mixture = Mixture(*spot_lists(spots, scale), start, grain, weight, same.astype(np.float32), geometry.spot_px)
    grid = xr.Dataset(coords={n: ((n,), v, {"units": "um"}) for n, v in (("y", y), ("x", x))})
    truth = truth_of(sample, grid, (start, grain, weight))
    truth.attrs = {"peak": peak}

    def expected(index: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(mixture.frames(index))

    return Simulation(geometry, grid, geometry.frame_shape, expected, truth, noise, seed, f"simulation of {label}")


def substrate_light(geometry: LaueGeometry, over: Crystal) -> np.ndarray:
    """The substrate's spots through the film, on the scale of the film's relative intensities, shape (row, column)."""
    below = material(geometry.substrate, "substrate")
    covered = (over, geometry.thickness_um) if geometry.thickness_um is not None else None
    if covered is None:
        raise InputError("the light of a substrate needs thickness_um of the film in the geometry")
    return spot_image(geometry, spots_of(layer(geometry, below, above=covered), on_surface(geometry, MISCUT_DEG), margin_px=10.0))


def on_surface(geometry: LaueGeometry, rotation_deg: tuple[float, ...]) -> np.ndarray:
    """U of a crystal turned from where its z axis is the surface normal, y the y of the laboratory, and x uphill.

    rotation_deg: Rotation vector in the axes of the surface (uphill, y, normal).
    """
    return np.asarray(surface_axes(geometry).T @ Rotation.from_rotvec(np.deg2rad(rotation_deg)).as_matrix())


def constant_light(geometry: LaueGeometry, seed: int, background: float, hot: float) -> np.ndarray:
    """Expected counts of the fluorescence and the hot pixels, the same in every frame, shape (row, column).

    The solid angle of a pixel at the distance r, seen at the angle a to the detector's normal, goes as cos a / r^2.
    """
    check_range("background", background, 0.0, 1e6)
    check_range("hot", hot, 0.0, 0.1)
    rows, columns = geometry.frame_shape
    place = np.stack(rays(detector_matrix(geometry), *np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")))
    solid_angle = np.linalg.norm(place, axis=0) ** -3.0
    light = background * solid_angle / solid_angle.max()
    random = np.random.default_rng((seed, 6))
    chosen = random.random(light.shape) < hot
    low, high = np.log(HOT_COUNTS)
    light[chosen] += np.exp(random.uniform(low, high, int(chosen.sum())))
    return np.asarray(light)


def positions(shape: tuple[int, ...], step: float) -> tuple[np.ndarray, np.ndarray]:
    """Places of the scan along y and x, um; a scan of one axis runs along x at y = 0."""
    if len(shape) not in (1, 2) or min(shape) < 1:
        raise InputError(f"the shape of a laue scan must be one or two positive lengths, got {shape}")
    check_range("step", step, 1e-4, 1e5)
    both = (1, *shape)[-2:]
    return step * np.arange(both[0]), step * np.arange(both[1])


def with_frames(geometry: LaueGeometry, frame_shape: tuple[int, int] | None) -> LaueGeometry:
    """The geometry with a detector of the same size but other pixels; spots keep their width in pixels."""
    if frame_shape is None:
        geometry.frame_shape  # noqa: B018  it says what is missing
        return geometry
    rows, columns = geometry.frame_shape
    larger = math.sqrt(rows * columns / math.prod(frame_shape))
    values: dict[str, Any] = {"rows": frame_shape[0], "columns": frame_shape[1], "pixel_um": geometry.pixel_um * larger}
    values["xcen_px"] = (geometry.xcen_px - (columns + 1) / 2) / larger + (frame_shape[1] + 1) / 2
    values["ycen_px"] = (geometry.ycen_px - (rows + 1) / 2) / larger + (frame_shape[0] + 1) / 2
    return geometry.replace(**values)


def _around(
    y: np.ndarray, x: np.ndarray, footprint_um: tuple[float, float], size_um: float = math.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Places of the fine map for grains of this size: as far as the beam reaches beyond the scan.

    Raises InputError for a size that cannot be, and where the map would be too large.
    """
    if size_um < math.inf:
        check_range("size", size_um, 1e-3, 1e4)
    pitch = min(size_um / PER_GRAIN, min(footprint_um) / PER_BEAM)
    ends = []
    for places, width in zip((y, x), footprint_um, strict=True):
        reach = beam.REACH * width / beam.FWHM + pitch
        ends.append((math.floor((places[0] - reach) / pitch), math.ceil((places[-1] + reach) / pitch) + 1))
    if not math.prod(stop - start for start, stop in ends) <= MOST_POINTS:
        raise InputError(
            f"grains of {size_um:g} um under a scan of {y[-1] - y[0]:g} x {x[-1] - x[0]:g} um are too many to draw; "
            "a shorter scan, a smaller step or larger grains would do"
        )
    along_y, along_x = (pitch * np.arange(start, stop) for start, stop in ends)
    return along_y, along_x
