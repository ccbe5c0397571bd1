"""A movie of dislocations that glide through the field while a boundary of others takes some of them up.

The images are those of the straight dislocations of one character (`dislocations.model`): the distortions of all of them add up
in every ray before the resolution is applied, so that two that pass each other make one image and not the sum of two. A boundary
is a row of dislocations one above the other along the normal of the slip plane (a tilt boundary). Places along the Burgers
vector follow

    x_(k+1) = x_k + v dt + sqrt(2 D dt) n(0, 1),     in the boundary  x_(k+1) = x_k - (x_k - x_0) / 4 + sqrt(2 D dt) n(0, 1).

After Gonzalez et al. 2020 (a boundary in aluminium near its melting point, 4 frames a second). Left out: forces between the
dislocations, climb, lines that bend, other characters in the same movie. One that leaves the field is gone, with its field.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from scipy.ndimage import gaussian_filter, maximum_filter

from braggscope.core.errors import InputError
from braggscope.core.noise import Noise
from braggscope.core.simulation import Simulation

from ..dislocations.characters import chosen
from ..dislocations.model import ImageModel
from ..dislocations.setting import Setting, setting_of
from ..geometry import DfxmGeometry

CAMERA = Noise(gain=1.0, offset=100.0, readout=2.0)
ROLES = ("boundary", "passing", "passing", "captured", "boundary", "leaving", "passing", "passing", "captured", "boundary",
         "ending", "starting", "boundary")  # fmt: skip
BLOCK, COARSE = 16, 4  # px: blocks that are drawn, and the grid on which their light is looked for
CORE = 6  # px round a dislocation that are drawn in any case
FAINT = 1e-4  # of full reflection: darker is dark
APART = (2.5, 4.5)  # px across their slip planes, of two that pass each other
NEAR = 12.0  # px within which two images overlap
MARGIN = 3.0  # px beyond the border at which one is gone
FLICKER, MOTTLE = 0.02, 0.05  # standard deviations of the beam's flux in time and of its profile


@dataclass(frozen=True)
class Glide:
    """Pixels (row, column) per nm along the Burgers vector, and the unit vector of a boundary, in pixels."""

    per_nm: np.ndarray
    wall: np.ndarray

    @property
    def unit(self) -> np.ndarray:
        """Direction of glide in the image."""
        return self.per_nm / np.linalg.norm(self.per_nm)


def dislocation_movie(
    geometry: DfxmGeometry | None,
    *,
    shape: tuple[int, ...] = (60,),
    frame_shape: tuple[int, int] = (512, 512),
    seed: int = 0,
    peak: float = 800.0,
    noise: Noise | None = CAMERA,
    dislocations: int = 13,
    rate: float = 4.0,
    speed: float = 200.0,
    diffusion: float = 300.0,
    background: float = 0.05,
    preset: str = "al-002",
    character: str = "12",
) -> Simulation:
    """A movie of gliding dislocations and a boundary that captures some, with their places as truth.

    geometry: Kept with the scan, with the pixel and scattering angle of the preset, whose images these are.
    shape: Number of frames.  frame_shape: Rows (along the beam) and columns.
    peak: Expected photons at full reflection in the middle of the beam.  background: Part of it that is everywhere.
    dislocations: In the movie altogether.  rate: Frames per second.
    speed, diffusion: Mean glide velocity, nm/s, and diffusion coefficient, nm^2/s, in the frame of the dislocation.
    preset, character: Of the images (`dislocations.setting`, `dislocations.characters`).
    Raises InputError for more than one axis and options that cannot be.
    """
    _check(shape, frame_shape, dislocations, {"rate": rate, "speed": speed, "diffusion": diffusion, "background": background})
    if not peak > 0:
        raise InputError(f"peak must be positive, got {peak}")
    setting = setting_of(preset)
    model = ImageModel(setting, chosen(setting, [character]), frame_shape)
    random = np.random.default_rng(seed)
    time_s = np.arange(shape[0]) / rate
    place = paths(model, random, dislocations, shape[0], 1 / rate, speed, diffusion)
    light = illumination(random, frame_shape)
    flux = 1 + FLICKER * gaussian_filter(random.normal(size=shape[0]), 2, mode="nearest") * math.sqrt(2 * math.sqrt(math.pi) * 2)
    full = float(model.optics.weight_nm.sum())

    def expected(index: np.ndarray) -> torch.Tensor:
        frames = np.stack([drawn(model, place[:, i]) / full + background for i in index])
        return torch.from_numpy((peak * flux[index, None, None] * light * frames).astype(np.float32))

    grid = xr.Dataset(coords={"time": (("time",), time_s, {"units": "s"})})
    truth = _truth(model, place, time_s).assign_attrs(preset=preset, character=character, speed=speed, diffusion=diffusion)
    return Simulation(_stated(geometry, setting), grid, frame_shape, expected, truth, noise, seed, "dislocation_movie")


def _stated(geometry: DfxmGeometry | None, setting: Setting) -> DfxmGeometry | None:
    """The geometry with the pixel and the scattering angle of the preset."""
    if geometry is None:
        return None
    pixel = setting.pixel_nm / 1000 * (geometry.magnification or 1.0)
    return geometry.replace(pixel_um=pixel, magnification=geometry.magnification or 1.0, two_theta_deg=setting.two_theta_deg)


def paths(
    model: ImageModel, random: np.random.Generator, count: int, frames: int, step_s: float, speed: float, diffusion: float
) -> np.ndarray:
    """Row and column of each dislocation in each frame, NaN where it is not there; shape (dislocation, frame, 2)."""
    glide = _glide(model)
    roles = [ROLES[i % len(ROLES)] for i in range(count)]
    lanes = _lanes(roles, random)
    size = np.array(model.shape, float)
    length = float((size / np.maximum(np.abs(glide.wall), 1e-6)).min())  # of a boundary that fits into the frame
    jitter = math.sqrt(2 * diffusion * step_s) * float(np.linalg.norm(glide.per_nm))
    run = speed * step_s * float(np.linalg.norm(glide.per_nm))  # px per frame
    found = np.full((count, frames, 2), np.nan)
    partner = 0
    for k, role in enumerate(roles):
        offset = np.zeros(2)
        at = (size - 1) / 2 + ((lanes[k] + 0.5) / (max(lanes) + 1) - 0.5) * 0.86 * length * glide.wall
        along, first, last = 0.0, 0, frames
        velocity = run * random.uniform(0.8, 1.2)
        if role == "passing":
            partner += 1
            side = 1 if partner % 2 else -1
            offset = side * random.uniform(*APART) / 2 * np.array([-glide.unit[1], glide.unit[0]])
            velocity, along = side * velocity, -side * velocity * frames * random.uniform(0.4, 0.6)
            at = at + 0.22 * size[1] * (1 if lanes[k] % 2 else -1) * glide.unit
        elif role == "captured":
            velocity *= random.choice([-1, 1])
            along = -velocity * frames * random.uniform(0.4, 0.7)
        elif role == "leaving":
            edges = np.array([0.0, size[1] - 1])
            rows = at[0] + (edges - at[1]) / glide.unit[1] * glide.unit[0]  # where its slip plane meets the two sides
            edge = edges[np.argmin(np.abs(rows - size[0] / 2))]
            at = at + (edge - at[1]) / glide.unit[1] * glide.unit
            velocity *= float(np.sign((edge - size[1] / 2) * glide.unit[1]))
            along = -velocity * frames * random.uniform(0.5, 0.8)
        elif role in ("starting", "ending"):
            at = at - 0.3 * size[1] * glide.unit
            first = int(frames * random.uniform(0.15, 0.35)) if role == "starting" else 0
            last = int(frames * random.uniform(0.6, 0.8)) if role == "ending" else frames
        way = _walk(random, frames, along, velocity, jitter, role)
        found[k, first:last] = (at + offset + way[:, None] * glide.unit)[first:last]
    outside = ((found < -MARGIN) | (found > size - 1 + MARGIN)).any(-1)
    found[np.maximum.accumulate(outside, axis=1)] = np.nan
    return found


def _glide(model: ImageModel) -> Glide:
    """How a dislocation of the first character moves through the image."""
    pitch = np.array(model.optics.pitch_nm)
    along, across = (model.to_image([0], np.array([one]))[0] / pitch for one in ([1.0, 0.0], [0.0, 1.0]))
    return Glide(along, across / np.linalg.norm(across))


def _lanes(roles: list[str], random: np.random.Generator) -> list[int]:
    """A place along the boundary for each dislocation; two that pass each other share one."""
    lane: list[int] = []
    open_pair = False
    for role in roles:
        pairs = role == "passing" and open_pair
        lane.append(lane[-1] if pairs else (lane[-1] + 1 if lane else 0))
        open_pair = role == "passing" and not pairs
    order = random.permutation(max(lane, default=-1) + 1)
    return [int(order[i]) for i in lane]


def _walk(random: np.random.Generator, frames: int, start: float, velocity: float, jitter: float, role: str) -> np.ndarray:
    """Way along the slip plane from where the boundary is, px, shape (frame,)."""
    way, held = np.empty(frames), role == "boundary"
    now = start + (jitter * random.normal() if held else 0)
    for i in range(frames):
        way[i] = now
        held = held or (role == "captured" and now * velocity > 0)
        now += jitter * random.normal() + (-now / 4 if held else velocity)
    return way


def drawn(model: ImageModel, places: np.ndarray) -> np.ndarray:
    """Depth at full reflection, nm, in every pixel: only blocks that have light, unless the perfect crystal has.

    places: Row and column of each dislocation, NaN where there is none, shape (dislocation, 2).
    """
    at = places[np.isfinite(places).all(-1)]
    which = [0] * len(at)
    x, y = model.axes_nm
    middle = (np.array(model.shape) - 1) / 2
    inner = model.from_image(which, (at - middle) * np.array(model.optics.pitch_nm)) if len(at) else np.empty((0, 2))
    rough, _ = model.at(x[::COARSE], y[::COARSE], which, inner, derivatives=False)
    bright = maximum_filter(rough, 3) > FAINT * model.optics.weight_nm.sum()
    blocks = _blocks(bright, at, model.shape)
    image = np.zeros(model.shape)
    for i, j in blocks:
        part = np.s_[i * BLOCK : (i + 1) * BLOCK, j * BLOCK : (j + 1) * BLOCK]
        image[part], _ = model.at(x[part[0]], y[part[1]], which, inner, derivatives=False)
    return image


def _blocks(bright: np.ndarray, at: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Blocks with light in the rough image, and those round the dislocations, shape (block, 2)."""
    high, wide = (-(-n // BLOCK) for n in shape)
    some, ratio = np.zeros((high, wide), bool), BLOCK // COARSE
    i, j = np.nonzero(bright)
    some[i // ratio, j // ratio] = True
    for row, column in at:
        (top, left), (bottom, right) = ((int(max(n + d, 0) // BLOCK) for n in (row, column)) for d in (-CORE, CORE))
        some[top : bottom + 1, left : right + 1] = True
    return np.argwhere(some)


def illumination(random: np.random.Generator, frame_shape: tuple[int, int]) -> np.ndarray:
    """Profile of the beam: a broad Gaussian along the columns with a mottle, at most 1."""
    y = np.linspace(-1, 1, frame_shape[1])
    mottle = gaussian_filter(random.normal(size=frame_shape), max(frame_shape) / 16)
    light = np.exp(-((y / 1.4) ** 2) / 2) * (1 + MOTTLE * mottle / max(mottle.std(), 1e-12))
    return light / light.max()


def _truth(model: ImageModel, place: np.ndarray, time_s: np.ndarray) -> xr.Dataset:
    """Places, which images overlap, and identities."""
    dims = ("dislocation", "time")
    lab = (place - (np.array(model.shape) - 1) / 2) * np.array(model.optics.pitch_nm)
    apart = np.linalg.norm(place[:, None] - place[None], axis=-1)
    apart[np.arange(len(place)), np.arange(len(place))] = np.inf
    found = {
        "row": (place[..., 0], "px", "true row of the dislocation"),
        "column": (place[..., 1], "px", "true column of the dislocation"),
        "x_nm": (lab[..., 0], "nm", "true x along the beam, from the middle of the frame"),
        "y_nm": (lab[..., 1], "nm", "true y across the beam, from the middle of the frame"),
        "overlapped": (
            np.nan_to_num(apart, nan=np.inf).min(1, initial=np.inf) < NEAR,
            "1",
            f"another dislocation is within {NEAR:g} px",
        ),
    }
    coords = {"time": ("time", time_s, {"units": "s"}), "dislocation": np.arange(1, len(place) + 1)}
    return xr.Dataset(
        {n: (dims, v.astype(np.int8) if v.dtype == bool else v, {"units": u, "long_name": t}) for n, (v, u, t) in found.items()},
        coords=coords,
    )


def _check(shape: tuple[int, ...], frame_shape: tuple[int, int], dislocations: int, positive: dict[str, float]) -> None:
    """Raise InputError for a movie that cannot be."""
    if len(shape) != 1:
        raise InputError(f"phantom dislocation_movie needs one scan axis, the number of frames, got shape {tuple(shape)}")
    if min(frame_shape) < 32:
        raise InputError(f"frame_shape must be at least 32 x 32, got {frame_shape[0]} x {frame_shape[1]}")
    if not 0 <= dislocations <= 200:
        raise InputError(f"option dislocations must be from 0 to 200, got {dislocations}")
    for name, value in positive.items():
        if not (math.isfinite(value) and value >= 0) or (name == "rate" and value == 0):
            raise InputError(f"option {name} must be {'positive' if name == 'rate' else 'at least 0'}, got {value}")
