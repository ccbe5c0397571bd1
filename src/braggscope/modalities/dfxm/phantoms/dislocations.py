"""Images of straight dislocations, or of a network from a file, with known places: what localisation is tried on.

One image for each configuration, or, where the goniometer is scanned, a rocking stack of each. Scan axes: `image` (where there
are several), then `phi` and `chi`, degrees from the peak. Rows are x of the laboratory and columns y. Truth over `image`, for
each dislocation k = 1, 2, ...: `character_k` (number in the list of the setting's characters), its place `x_k`, `y_k` in its own
frame and `image_x_k`, `image_y_k` where its line crosses z = 0 of the laboratory, nm.

Noise "low" and "high" are the published ones (Brennan et al.), d = I + beta + sqrt(I + beta + sigma^2) n with n standard normal;
beta and sigma are 5 and 1 %, or 10 and 5 %, of the brightest pixel of each image. In a rocking stack, where most images are
dark, they are of full reflection. "counts" is a detector's: gain x Poisson(I + background) + offset + read-out noise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from braggscope.core.errors import InputError
from braggscope.core.noise import Noise
from braggscope.core.simulation import Simulation
from braggscope.infer.runtime import single_threaded_torch
from braggscope.physics.dislocation_segments import segment_distortion
from braggscope.physics.elasticity import CRYSTALS, crystal_stiffness, rotated_stiffness

from ..dislocations import imaging
from ..dislocations.characters import Character, characters_of, chosen, straight
from ..dislocations.model import ImageModel
from ..dislocations.optics import optics_of
from ..dislocations.setting import Setting, setting_of
from ..files import Network, read_paradis, read_vtk
from ..geometry import DfxmGeometry

PUBLISHED_NOISE = {"low": (0.05, 0.01), "high": (0.10, 0.05)}
NOISES = (*PUBLISHED_NOISE, "counts", "none")
REGIONS = ("auto", "box", "field")
RESOLUTIONS = ("auto", *imaging.RESOLUTIONS)
FULL = 440.0  # counts at full reflection through the whole beam: 1.8 per nm over the published weights
HC = 12.398419843  # keV angstrom
# Widths of the published prior boxes along y and along x / tan 2theta, nm, of characters 1 to 12 (Brennan et al.)
BOXES = (
    (800, 800), (500, 1000), (500, 1000), (800, 800), (1500, 1500), (1500, 1500), (1000, 1500), (1000, 1500), (500, 1200),
    (1000, 1000), (1000, 1000), (500, 1200),
)  # fmt: skip


@dataclass(frozen=True)
class PublishedNoise(Noise):
    """Background and scatter as shares of the brightest pixel of each image, or of a fixed level.

    background_share, readout_share: beta and sigma over that.  level: Counts; None: the brightest pixel.
    """

    background_share: float = 0.0
    readout_share: float = 0.0
    level: float | None = None

    def sample(self, expected: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """d = I + beta + sqrt(I + beta + sigma^2) n, not rounded, same shape and dtype."""
        level = float(expected.max()) if self.level is None else self.level
        mean = expected + self.background_share * level
        normal = torch.randn(expected.shape, generator=generator, dtype=expected.dtype, device=expected.device)
        return mean + (mean + (self.readout_share * level) ** 2).sqrt() * normal


@dataclass(frozen=True)
class Configuration:
    """Dislocations of one image: numbers of their characters and places in their own frames, nm, shape (dislocation, 2)."""

    which: tuple[int, ...]
    places: np.ndarray


def dislocations(
    geometry: DfxmGeometry | None,
    *,
    shape: tuple[int, ...] = (),
    frame_shape: tuple[int, int] = (50, 50),
    seed: int = 0,
    peak: float | None = None,
    noise: str | None = "low",
    preset: str = "al-002",
    characters: str = "",
    images: int = 1,
    count: int = 1,
    region: str = "auto",
    half_deg: tuple[float, ...] = (0.06, 0.15),
    resolution: str = "auto",
    crystal: str = "",
    gain: float = 1.0,
    offset: float = 100.0,
    readout: float = 3.0,
    background: float = 10.0,
    network: str = "",
    burgers_nm: float = 0.0,
    core_nm: float = 0.0,
) -> Simulation:
    """Images of straight dislocations at random places, or of a network from a file, one or a rocking stack of each.

    geometry: Its goniometer is kept with the scan; the rest is that of the setting.
    shape: Points along phi and chi of a rocking stack; left out, one image at the setting's angles.
    peak: Counts at full reflection through the whole beam; left out, of the setting's amplitude, else 440.
    noise: low, high, counts or none.
    preset: al-002, al-002-legacy or a TOML file.
    characters: Names or numbers, separated by commas; left out, all of the setting.
    images: Of each character.  count: Dislocations in an image; the first has the character, the others random ones.
    region: Where they are: in the published boxes, anywhere in the field, or (auto) in the boxes where the characters have them.
    half_deg: Half of the range of phi and chi.
    resolution: closed, full, or (auto) full where chi is scanned, along which the closed form has no limits.
    crystal: Anisotropic field of this crystal (Al, Cu, ...); left out, isotropic.
    gain, offset, readout: Of the detector, for counts.  background: Photons per pixel, for counts.
    network: ParaDiS or VTK file in crystal axes, instead of straight dislocations; the origin is in the middle of the image.
    burgers_nm: Unit of its lengths and Burgers vectors (ParaDiS; by default the Burgers vector of the setting), or of the Burgers
        vectors alone (VTK; by default nm, as the coordinates are).
    core_nm: Width of the core; left out, the largest Burgers vector.
    Raises InputError where an option cannot be.
    """
    setting = setting_of(preset)
    if resolution == "auto":
        resolution = "full" if len(shape) > 1 else "closed"
    _check(shape, half_deg, images, count, noise, region, resolution, crystal, network, setting)
    _check_detector(gain, offset, readout, background)
    full = float(optics_of(setting).weight_nm.sum())
    amplitude = (setting.amplitude or FULL / full) if peak is None else peak / full
    if not 0 < amplitude < math.inf:
        raise InputError(f"peak must be positive, got {peak:g}")
    known = characters_of(setting)
    angles = [np.linspace(-h, h, n) for h, n in zip(half_deg, shape, strict=False)]
    if network:
        depth = _of_network(setting, _network(network, setting, burgers_nm), core_nm, frame_shape, resolution)
        configurations: list[Configuration] = []
    else:
        wanted = [known.index(one) for one in (chosen(setting, characters.split(",")) if characters else known)]
        configurations = placed(setting, known, wanted, images, count, _region(region, setting), frame_shape, seed)
        depth = _of_lines(setting, known, configurations, frame_shape, resolution, crystal)
    grid = _grid(len(configurations), angles)
    expected = _expected(grid, depth, setting, amplitude, background if noise == "counts" else 0.0)
    truth = _truth(setting, known, configurations, "image" in grid.dims)
    truth.attrs |= {
        "preset": preset,
        "setting": json.dumps(setting.to_mapping()),
        "counts_per_nm": amplitude,
        "noise": noise or "none",
    }
    drawn = _noise(noise, amplitude * full if shape else None, gain, offset, readout)
    return Simulation(_geometry(geometry, setting), grid, frame_shape, expected, truth, drawn, seed, f"dislocations, {preset}")


def placed(
    setting: Setting, known: list[Character], wanted: list[int], images: int, count: int, region: str,
    frame_shape: tuple[int, int], seed: int,
) -> list[Configuration]:  # fmt: skip
    """Random configurations: `images` of each wanted character in order, with others drawn from the wanted ones."""
    random, optics = np.random.default_rng((seed, 5)), optics_of(setting)
    project = straight(known, setting, optics).project
    found = []
    for first in np.repeat(wanted, images).tolist():
        which = (first, *(int(k) for k in random.choice(wanted, count - 1)))
        widths = [_widths(k, region, optics.pitch_nm, frame_shape, 1 / optics.tilt) for k in which]
        in_image = random.uniform(-0.5, 0.5, (count, 2)) * np.array(widths)
        places = np.einsum("kij,kj->ki", project[list(which)][:, :, :2], in_image)
        found.append(Configuration(which, places))
    return found


def _widths(which: int, region: str, pitch: tuple[float, float], shape: tuple[int, int], tan: float) -> tuple[float, float]:
    """Of the region of one dislocation along x and y of the laboratory, nm."""
    if region == "field":
        return shape[0] * pitch[0], shape[1] * pitch[1]
    y, x = BOXES[which]
    return x * tan, float(y)


def _region(region: str, setting: Setting) -> str:
    """The region that "auto" means. Raises InputError for boxes that the characters do not have."""
    published = setting.characters == "published"
    if region == "box" and not published:
        raise InputError("region box is known for the twelve published characters; take region field")
    return region if region != "auto" else "box" if published else "field"


def _of_lines(
    setting: Setting, known: list[Character], configurations: list[Configuration], frame_shape: tuple[int, int],
    resolution: str, crystal: str,
) -> Callable[[int, Setting], Tensor]:  # fmt: skip
    """Depth seen by configuration and setting (angles), compiled where that does."""
    if resolution == "closed" and not crystal:

        def compiled(index: int, at: Setting) -> Tensor:
            one = configurations[index]
            return torch.from_numpy(ImageModel(at, known, frame_shape).image(one.which, one.places, derivatives=False)[0])

        return compiled
    vectors = imaging.in_sample(known, setting)
    turn = torch.from_numpy(setting.orientation())
    stiffness = rotated_stiffness(crystal_stiffness(crystal), turn) if crystal else None

    def depth(index: int, at: Setting) -> Tensor:
        one = configurations[index]
        parts = (v[list(one.which)] for v in vectors)
        field = imaging.straight_lines(at, torch.from_numpy(one.places), *parts, stiffness=stiffness)
        return imaging.image(at, field, frame_shape, resolution=resolution)

    return depth


def _of_network(
    setting: Setting, network: Network, core_nm: float, frame_shape: tuple[int, int], resolution: str
) -> Callable[[int, Setting], Tensor]:
    """Depth seen of a network; its coordinates are along the axes of the crystal."""
    turn = torch.from_numpy(setting.orientation())
    segments, burgers = torch.from_numpy(network.segments) @ turn.T, torch.from_numpy(network.burgers) @ turn.T
    core = core_nm or float(burgers.norm(dim=-1).max())

    def depth(index: int, at: Setting) -> Tensor:
        def field(points: Tensor) -> Tensor:
            return segment_distortion(points, segments, burgers, at.poisson, core)

        return imaging.image(at, field, frame_shape, resolution=resolution)

    return depth


def _network(name: str, setting: Setting, burgers_nm: float) -> Network:
    """Read from a ParaDiS or, by its suffix, a VTK file."""
    if Path(name).suffix.lower() in (".vtk", ".vtp", ".vtu"):
        return read_vtk(name, burgers_unit_nm=burgers_nm or None)
    return read_paradis(name, burgers_nm=burgers_nm or setting.burgers_nm or setting.lattice_a / 10 / math.sqrt(2))


def _expected(
    grid: xr.Dataset, depth: Callable[[int, Setting], Tensor], setting: Setting, amplitude: float, background: float
) -> Callable[[np.ndarray], Tensor]:
    """Expected counts at flat positions of the scan."""
    shape = tuple(grid.sizes.values())

    def expected(index: np.ndarray) -> Tensor:
        frames = []
        for place in zip(*np.unravel_index(index, shape), strict=True):
            at = dict(zip(map(str, grid.dims), map(int, place), strict=True))
            moved = {f"{n}_deg": float(grid[n].values[at[n]]) for n in ("phi", "chi") if n in at}
            with single_threaded_torch():
                frames.append(depth(at.get("image", 0), setting.replace(**moved)))
        return amplitude * torch.stack(frames) + background

    return expected


def _grid(configurations: int, angles: list[np.ndarray]) -> xr.Dataset:
    """The scan axes: image, where there are several or nothing else, then phi and chi."""
    coords: dict[str, tuple[tuple[str], np.ndarray, dict[str, str]]] = {}
    if configurations > 1 or not angles:
        coords["image"] = (("image",), np.arange(1.0, max(configurations, 1) + 1), {"units": ""})
    for name, values in zip(("phi", "chi"), angles, strict=False):
        coords[name] = ((name,), values, {"units": "deg"})
    return xr.Dataset(coords=coords)


def _truth(setting: Setting, known: list[Character], configurations: list[Configuration], several: bool) -> xr.Dataset:
    """Characters and places, over image where there is that axis."""
    project = straight(known, setting, optics_of(setting)).project
    found = xr.Dataset(attrs={"characters": ", ".join(c.label for c in known)})
    for k in range(len(configurations[0].which) if configurations else 0):
        which = np.array([one.which[k] for one in configurations])
        place = np.array([one.places[k] for one in configurations])
        in_image = np.linalg.solve(project[which][:, :, :2], place[..., None])[..., 0]
        columns = {
            f"character_{k + 1}": (which + 1, "1", f"number of the character of dislocation {k + 1}"),
            f"x_{k + 1}": (place[:, 0], "nm", f"place of dislocation {k + 1} along x of its frame"),
            f"y_{k + 1}": (place[:, 1], "nm", f"place of dislocation {k + 1} along y of its frame"),
            f"image_x_{k + 1}": (in_image[:, 0], "nm", f"where dislocation {k + 1} crosses z = 0, along x of the laboratory"),
            f"image_y_{k + 1}": (in_image[:, 1], "nm", f"where dislocation {k + 1} crosses z = 0, along y of the laboratory"),
        }
        for name, (values, unit, text) in columns.items():
            about = {"units": unit, "long_name": text}
            found[name] = (("image",), values, about) if several else ((), values[0], about)
    return found


def _noise(name: str | None, level: float | None, gain: float, offset: float, readout: float) -> Noise | None:
    if name in PUBLISHED_NOISE:
        background, scatter = PUBLISHED_NOISE[str(name)]
        return PublishedNoise(background_share=background, readout_share=scatter, level=level)
    return Noise(gain=gain, offset=offset, readout=readout) if name == "counts" else None


def _geometry(geometry: DfxmGeometry | None, setting: Setting) -> DfxmGeometry:
    """The microscope of the setting: its pixel is that in the sample, and the energy follows from the reflection."""
    energy = None
    if setting.structure != "hcp":
        energy = HC * math.hypot(*setting.hkl) / (2 * setting.lattice_a * math.sin(math.radians(setting.two_theta_deg) / 2))
    return (geometry or DfxmGeometry()).replace(
        two_theta_deg=setting.two_theta_deg, pixel_um=setting.pixel_nm / 1000, magnification=1.0, energy_kev=energy
    )


def _check(
    shape: tuple[int, ...], half_deg: tuple[float, ...], images: int, count: int, noise: str | None, region: str,
    resolution: str, crystal: str, network: str, setting: Setting,
) -> None:  # fmt: skip
    """Raise InputError where an option cannot be."""
    if len(shape) > 2 or min(shape, default=2) < 2:
        raise InputError(f"shape must be points along phi, or phi and chi, 2 at least, got {'x'.join(map(str, shape))}")
    if len(half_deg) < len(shape) or not all(0 < h <= 5 for h in half_deg):
        raise InputError(f"half_deg must be angles up to 5 deg for phi and chi, got {half_deg}")
    for name, value, high in (("images", images, 100_000), ("count", count, 20)):
        if not 1 <= value <= high:
            raise InputError(f"{name} must be from 1 to {high}, got {value}")
    words = {"noise": (noise or "none", NOISES), "region": (region, REGIONS), "resolution": (resolution, RESOLUTIONS)}
    for name, (word, choices) in words.items():
        if word not in choices:
            raise InputError(f"{name} must be one of {', '.join(choices)}, got '{word}'")
    if crystal and crystal not in CRYSTALS:
        raise InputError(f"crystal must be one of {', '.join(CRYSTALS)}, got '{crystal}'")
    if setting.conventions == "legacy" and (resolution == "full" or crystal or network):
        raise InputError("the conventions of the released code are for isotropic straight lines and the closed resolution alone")


def _check_detector(gain: float, offset: float, readout: float, background: float) -> None:
    """Raise InputError for a detector that cannot be."""
    if not 0 < gain < math.inf:
        raise InputError(f"gain must be positive, got {gain:g}")
    for name, value in (("offset", offset), ("readout", readout), ("background", background)):
        if not 0 <= value < math.inf:
            raise InputError(f"{name} must be 0 or more, got {value:g}")
