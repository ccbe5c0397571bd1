"""Shift of the image from frame to frame: the sample or the objective moves while the motors are scanned.

A rocking curve makes contrast wander through a crystal that stands still, so that the registration of two frames sees motion
where there is none. Three questions are therefore asked one after the other:

*Jitter* is what is not a steady motion along a motor. Each frame is registered (sub-pixel phase correlation, Guizar-Sicairos,
Thurman & Fienup 2008, by scikit-image) with the mean of the frames 1 and 2 steps before and after it along each motor, all moved
to where they are thought to be: wandering contrast is on both sides of it and cancels. This is done in rounds for all frames
together, so that errors do not add up along the scan; what changes over many steps only is left at zero.

*Drift* is a steady motion along a motor: the speed that makes frames far apart (an eighth to half of the scan) most alike.

*The rest*, such as a jump, comes from registering each frame with the mean of all others.

Each answer is believed only where frames further apart than those that it was found with are more alike with it than without,
by several standard errors. Noise is made even first (Anscombe 1948), the camera's pattern and all that is wider than a few pixels
is taken away, and structure counts by its contrast. Frames without structure get the shift of those before and after them.
Turns and changes of scale are not looked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import numpy as np

from braggscope.core.analysis import Says
from braggscope.core.corrections import INTERPOLATIONS, Shifted, corrected, raw
from braggscope.core.errors import InputError
from braggscope.core.scan import Scan

from ._noise import believed_noise

ORDER = 30
NEAR = 2  # steps of a motor: frames up to there before and after are what a frame is registered with
ROUNDS = 5  # of registration, each from where the one before has put the frames
FAR_PAIRS = 120  # frames far apart along a motor that must be more alike with a drift than without
PROOF = 3.0  # standard errors by which they must be
FINE, WIDE = 1.0, 6.0  # pixels: structure between these two Gaussian widths is registered
BRIGHT = 5.0  # standard deviations of a count: light above which structure counts by its contrast
STORE_BYTES = 400 * 2**20  # of the transforms of all frames; larger frames are cut to their middle
SIDE = 512  # most pixels along a side that are looked at
CLEAR = 6.0  # standard deviations of the correlation by chance, that a pair must reach
DARK_FRAMES = 32  # whose mean is the pattern of the camera
FINEST = 50  # parts of a pixel that a shift is found to


def shift(
    scan: Scan,
    *,
    interpolation: Annotated[str, Says("between pixels; nearest leaves the noise as it is", choices=INTERPOLATIONS)] = "linear",
    largest: Annotated[float, Says("most that a frame may lie off from another one", unit="px")] = 20.0,
    least: Annotated[float, Says("root mean square shift below which nothing is moved", unit="px")] = 0.05,
) -> Scan:
    """Move every frame back to where the others are, by sub-pixel phase correlation of neighbouring frames."""
    for name, value, low in (("largest", largest, 1.0), ("least", least, 0.0)):
        if not (math.isfinite(value) and value >= low):
            raise InputError(f"{name} must be at least {low:g} px, got {value:g}")
    found = frame_shifts(scan, largest=largest)
    spread = float(np.sqrt(np.mean(found.shifts[found.registered] ** 2)))
    moved = np.where(spread >= least, found.shifts, 0.0)
    record: dict[str, Any] = {
        "name": "shift", "options": {"interpolation": interpolation, "largest": largest, "least": least},
        "rms_px": spread, "jitter_std_px": found.std, "largest_px": float(np.abs(moved).max(initial=0)),
        "drift_px_per_step": found.speed.tolist(), "drift_gain": found.gain.tolist(),
        "frames_registered": int(found.registered.sum()), "moved": int(np.any(moved)),
    }  # fmt: skip
    frames = Shifted(raw(scan), moved, interpolation) if np.any(moved) else None
    return corrected(scan, record, frames=frames)


@dataclass(frozen=True)
class Found:
    """Where frames lie.

    shifts: How far the image of each frame lies down and to the right of the mean of all, in pixels, shape (frame, 2).
    registered: Frames that were registered; the others lie between those before and after them.
    std: Median standard deviation of the jitter of a frame, in pixels.
    speed: Steady motion in pixels per step of each motor, shape (motor, 2); 0 where it is not proven.
    gain: How much more alike frames far apart are with it: rise of the correlation, one number for each motor.
    """

    shifts: np.ndarray
    registered: np.ndarray
    std: float
    speed: np.ndarray
    gain: np.ndarray


@dataclass(frozen=True)
class Images:
    """The fine structure of all frames.

    transforms: Fourier transforms, shape (frame, row, column).
    lit: Frames that have structure at all.
    """

    transforms: np.ndarray
    lit: np.ndarray

    @cached_property
    def norms(self) -> np.ndarray:
        """Root sum square of each transform."""
        return np.array([np.linalg.norm(one) for one in self.transforms])

    @property
    def clear(self) -> float:
        """Correlation that chance alone does not reach: noise is independent in areas of the filter's width only."""
        return CLEAR / math.sqrt(self.transforms[0].size / (4 * math.pi * FINE**2))

    def moved(self, frame: int, by: np.ndarray) -> np.ndarray:
        """The transform of a frame with its image moved down and to the right."""
        rows, columns = (np.fft.fftfreq(n)[:, None] for n in self.transforms.shape[1:])
        phases = [np.exp(-2j * np.pi * f * b).astype(np.complex64) for f, b in zip((rows, columns), by, strict=True)]
        return self.transforms[frame] * (phases[0] * phases[1].T)

    def alike(self, a: int, b: int, by: np.ndarray) -> float:
        """Correlation of frame b with frame a moved by so much."""
        return float(np.vdot(self.moved(a, by), self.transforms[b]).real / (self.norms[a] * self.norms[b] + 1e-30))


def frame_shifts(scan: Scan, *, largest: float = 20.0) -> Found:
    """The shift of each frame of a scan, in order of acquisition.

    Raises InputError where the frames have no structure in common to be registered by.
    """
    scan = _middle(scan.bin(1))
    count = min(raw(scan).shape[0], len(scan.order))
    images = Images(*_transforms(scan, count))
    frame_at = np.full(scan.shape, -1)
    frame_at.ravel()[scan.order[:count]] = np.arange(count)
    places = np.stack(np.unravel_index(scan.order[:count], scan.shape), axis=1).astype(np.float64)
    shifts, std, known = jitter(images, frame_at, places, largest)
    if known.sum() < max(3, images.lit.sum() / 2):
        raise InputError(
            f"shift cannot be found: only {int(known.sum())} of {count} frames share structure finer than {WIDE:g} px with those "
            "before and after them; choose a region that has some with --roi, or leave the correction out"
        )
    speed, gain = drift(images, frame_at, shifts, largest)
    shifts = shifts + (places - places[known].mean(axis=0)) @ speed
    shifts, known = all_together(images, frame_at, shifts, known, largest)
    steady = (places - places[known].mean(axis=0)) @ speed
    rest, at = shifts - steady, np.arange(raw(scan).shape[0])
    full = np.stack([np.interp(at, np.flatnonzero(known), rest[known, k]) for k in range(2)], axis=1)
    full[:count] += steady
    registered = np.zeros(len(at), bool)
    registered[:count] = known
    return Found(full, registered, std, speed, gain)


def _middle(scan: Scan) -> Scan:
    """The middle of the region of interest, as large as can be kept for all frames."""
    top, bottom, left, right = scan.provenance["roi"]
    side = int(min(SIDE, max(64, math.isqrt(STORE_BYTES // (8 * max(1, len(scan.order)))))))
    rows, columns = min(side, bottom - top), min(side, right - left)
    up, across = top + (bottom - top - rows) // 2, left + (right - left - columns) // 2
    return scan.cut(up, up + rows, across, across + columns)


def _transforms(scan: Scan, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Fourier transforms of the fine structure of all frames, and which frames have any."""
    from scipy.fft import fft2
    from scipy.ndimage import gaussian_filter
    from scipy.signal.windows import tukey

    noise, (rows, columns) = believed_noise(scan), scan.frame_shape
    gain, variance = noise.gain, noise.variance
    light = np.concatenate([_light(b.frames, b.mask, noise.level) for b in scan.batches()])[:count]
    pattern = _pattern(scan, light, noise.level, math.sqrt(max(variance, gain**2 / 4)))
    dark = 2 * math.sqrt(0.375 + variance / gain**2)
    taper = tukey(rows, 0.2)[:, None] * tukey(columns, 0.2)
    store = np.zeros((count, rows, columns), np.complex64)
    start = 0
    for batch in scan.batches(16):
        counts = np.where(np.isfinite(batch.frames) if batch.mask is None else batch.mask, batch.frames - pattern, 0.0)
        even = 2 * np.sqrt(np.maximum(counts / gain + 0.375 + variance / gain**2, 0))
        for frame in even:
            wide = gaussian_filter(frame, WIDE, mode="nearest")
            fine = (gaussian_filter(frame, FINE, mode="nearest") - wide) / np.hypot(wide - dark, BRIGHT)
            store[start] = fft2(((fine - fine.mean()) * taper).astype(np.float32))
            start += 1
    return store, np.array([np.linalg.norm(one) > 1e-5 * one.size for one in store])  # more than rounding leaves


def _light(frames: np.ndarray, mask: np.ndarray | None, level: float) -> np.ndarray:
    """Mean count above the dark level in each frame."""
    counts = np.where(np.isfinite(frames) if mask is None else mask, frames - np.float64(level), 0.0)
    return counts.mean(axis=(1, 2))


def _pattern(scan: Scan, light: np.ndarray, level: float, readout: float) -> np.ndarray:
    """What stands still in the image: the mean of the darkest frames where these have next to no light, else the level."""
    darkest = np.argsort(light, kind="stable")[: max(1, min(DARK_FRAMES, len(light) // 4))]
    if len(darkest) < 4 or light[darkest].max() > readout:
        return np.full(scan.frame_shape, level)
    only = np.zeros(math.prod(scan.shape), bool)
    only[scan.order[darkest]] = True
    batches = list(scan.batches(only=only))
    total = sum(np.where(np.isfinite(b.frames) if b.mask is None else b.mask, b.frames, level).sum(axis=0) for b in batches)
    return np.asarray(total) / sum(len(b) for b in batches)


def jitter(images: Images, frame_at: np.ndarray, places: np.ndarray, largest: float) -> tuple[np.ndarray, float, np.ndarray]:
    """Shifts that are no steady motion, in pixels, shape (frame, 2); their standard deviation; and the frames that have one.

    frame_at: Frame at each position of the grid, -1 where there is none.
    places: Grid position of each frame, shape (frame, motor).
    """
    shifts, known = np.zeros((len(places), 2)), np.zeros(len(places), bool)
    beside = [_beside(frame_at, place.astype(int), images.lit) for place in places]
    for _ in range(ROUNDS):
        found = [_move(images, _mean(images, near, shifts), i, largest) for i, near in enumerate(beside)]
        known = np.array([alike > 0 for _, alike in found])
        if known.sum() < 3:
            return shifts, math.nan, known
        shifts = np.where(known[:, None], _without_steady(np.array([move for move, _ in found]), places, known), 0.0)
    halves = [
        np.array([_move(images, _mean(images, near[k::2], shifts), i, largest)[0] for i, near in enumerate(beside)])
        for k in range(2)
    ]
    std = float(np.sqrt(np.median(((halves[0] - halves[1])[known] / 2) ** 2) / 0.455))  # median of chi-squared with one degree
    still = np.zeros_like(shifts)
    proof = _rise(images, frame_at, shifts, still, near=True)
    return (shifts if proof > PROOF else still), std, known


def _beside(frame_at: np.ndarray, place: np.ndarray, lit: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of lit frames that lie as far before a grid position as after it, along each motor, up to NEAR steps."""
    pairs = []
    for axis, size in enumerate(frame_at.shape):
        for lag in range(1, NEAR + 1):
            if lag <= place[axis] < size - lag:
                step = np.eye(frame_at.ndim, dtype=int)[axis] * lag
                before, after = int(frame_at[tuple(place - step)]), int(frame_at[tuple(place + step)])
                if min(before, after) >= 0 and lit[before] and lit[after]:
                    pairs.append((before, after))
    return pairs


def _mean(images: Images, pairs: list[tuple[int, int]], shifts: np.ndarray) -> np.ndarray:
    """The mean of frames, each moved back by its shift."""
    total = np.zeros(images.transforms.shape[1:], np.complex64)
    for one in (frame for pair in pairs for frame in pair):
        total += images.moved(one, -shifts[one])
    return total


def _without_steady(shifts: np.ndarray, places: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Shifts less what is a steady motion along the motors of the known ones."""
    design = np.column_stack([np.ones(len(places)), places])
    return shifts - design @ np.linalg.lstsq(design[known], shifts[known], rcond=None)[0]


def _move(images: Images, reference: np.ndarray, frame: int, largest: float) -> tuple[np.ndarray, float]:
    """How far a frame lies off a reference, and how alike they are then; 0 and 0 where that does not stand out."""
    from skimage.registration import phase_cross_correlation

    if not images.lit[frame] or not np.any(reference):
        return np.zeros(2), 0.0
    move, error, _ = phase_cross_correlation(
        images.transforms[frame], reference, upsample_factor=FINEST, space="fourier", normalization=None
    )
    alike = math.sqrt(max(0.0, 1 - float(error) ** 2))
    return (move, alike) if alike > images.clear and np.abs(move).max() <= largest else (np.zeros(2), 0.0)


def drift(images: Images, frame_at: np.ndarray, shifts: np.ndarray, largest: float) -> tuple[np.ndarray, np.ndarray]:
    """Steady motion in pixels per step of each motor, shape (motor, 2), 0 where it is not proven; and the proof of each.

    The proof is the mean rise of the correlation of frames far apart, over its standard error.
    """
    speed, gain = np.zeros((frame_at.ndim, 2)), np.zeros(frame_at.ndim)
    for axis in range(frame_at.ndim):
        guess = _speed(images, frame_at, shifts, axis, largest)
        steady = shifts + np.take(np.unravel_index(_grid_place(frame_at, len(shifts)), frame_at.shape), axis, 0)[:, None] * guess
        gain[axis] = _rise(images, frame_at, steady, shifts, axes=(axis,))
        speed[axis] = guess if gain[axis] > PROOF else 0.0
    return speed, gain


def _speed(images: Images, frame_at: np.ndarray, shifts: np.ndarray, axis: int, largest: float) -> np.ndarray:
    """The steady motion in pixels per step of a motor with which frames far apart are most alike; from that of near ones."""
    from scipy.optimize import minimize

    near = _some(_pairs(frame_at, images.lit, axis, 1), 4 * FAR_PAIRS)
    moves = [(_move(images, images.transforms[a], b, largest), shifts[b] - shifts[a]) for a, b in near]
    seen = np.array([move - known for (move, alike), known in moves if alike > 0])
    if len(seen) < 3:
        return np.zeros(2)
    products = []
    for lag in _far(frame_at.shape[axis]):
        pairs = _some(_pairs(frame_at, images.lit, axis, int(lag)), FAR_PAIRS // 6)
        scaled = [
            images.transforms[b] * images.moved(a, shifts[b] - shifts[a]).conj() / (images.norms[a] * images.norms[b])
            for a, b in pairs
        ]
        if scaled:
            products.append((lag, np.sum(scaled, axis=0)))
    rows, columns = (2j * np.pi * np.fft.fftfreq(n) for n in images.transforms.shape[1:])

    def unlike(speed: np.ndarray) -> float:
        return -sum(float((np.exp(rows * lag * speed[0]) @ p @ np.exp(columns * lag * speed[1])).real) for lag, p in products)

    start = seen.mean(axis=0)
    around = start + 0.02 * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    options = {"initial_simplex": around, "xatol": 1e-4, "fatol": 1e-9, "maxiter": 200}
    return np.asarray(minimize(unlike, start, method="Nelder-Mead", options=options).x)


def _far(size: int) -> np.ndarray:
    """Steps of a motor that frames far apart lie apart."""
    return np.unique(np.linspace(max(2, size / 8), size / 2, 6).astype(int))


def _rise(
    images: Images,
    frame_at: np.ndarray,
    shifts: np.ndarray,
    instead: np.ndarray,
    *,
    axes: tuple[int, ...] = (),
    near: bool = False,
) -> float:
    """How much more alike frames are with these shifts than with others: mean rise of the correlation, in standard errors.

    near: Whether frames are compared that lie just beyond those that the shifts were found with, instead of far apart.
    """
    rises = []
    for axis in axes or range(frame_at.ndim):
        for lag in range(NEAR + 1, 2 * NEAR + 3) if near else _far(frame_at.shape[axis]):
            for a, b in _some(_pairs(frame_at, images.lit, axis, int(lag)), FAR_PAIRS // 6):
                rises.append(images.alike(a, b, shifts[b] - shifts[a]) - images.alike(a, b, instead[b] - instead[a]))
    error = np.std(rises) / math.sqrt(len(rises) / 4) if len(rises) > 4 else math.inf  # a frame is in several pairs
    return float(np.mean(rises) / max(error, 1e-9)) if rises else 0.0


def all_together(
    images: Images, frame_at: np.ndarray, shifts: np.ndarray, known: np.ndarray, largest: float
) -> tuple[np.ndarray, np.ndarray]:
    """Shifts from registering each frame with the mean of all others, where that makes frames far apart more alike."""
    found, seen = shifts, known
    for _ in range(3):
        total = np.zeros(images.transforms.shape[1:], np.complex64)
        for i in np.flatnonzero(seen).tolist():
            total += images.moved(i, -found[i])
        moves = [_move(images, total - images.moved(i, -found[i]) if seen[i] else total, i, largest) for i in range(len(found))]
        seen = np.array([alike > 0 for _, alike in moves])
        if seen.sum() < 3:
            return shifts, known
        found = np.where(seen[:, None], [move for move, _ in moves], 0.0)
        found = np.where(seen[:, None], found - found[seen].mean(axis=0), 0.0)
    better = seen.sum() >= known.sum() / 2 and _rise(images, frame_at, found, shifts) > PROOF
    return (found, seen) if better else (shifts, known)


def _grid_place(frame_at: np.ndarray, count: int) -> np.ndarray:
    """Flat grid position of each frame."""
    place = np.zeros(count, int)
    there = np.flatnonzero(frame_at.ravel() >= 0)
    place[frame_at.ravel()[there]] = there
    return place


def _pairs(frame_at: np.ndarray, lit: np.ndarray, axis: int, lag: int) -> np.ndarray:
    """Lit frames so many steps apart along a motor, shape (pair, 2)."""
    size = frame_at.shape[axis]
    if lag >= size:
        return np.zeros((0, 2), int)
    pair = np.stack([np.take(frame_at, np.arange(k, size - lag + k), axis).ravel() for k in (0, lag)], axis=1)
    return pair[(pair >= 0).all(axis=1) & lit[pair].all(axis=1)]


def _some(values: np.ndarray, count: int) -> np.ndarray:
    """At most so many, evenly chosen."""
    return values[np.unique(np.linspace(0, len(values) - 1, min(len(values), count)).astype(int))] if len(values) else values
