"""The same reflection at neighbouring positions of a scan: peaks linked into tracks.

A grain that is larger than a step of the scan shows its reflections at the same place of the detector from position to position,
moved a little where its lattice turns. Peaks of neighbouring positions (along rows, columns and diagonals) that are each other's
nearest within a tolerance are linked, the nearest pairs first, and linked peaks are one track (union-find, Tarjan 1975). Two
tracks are not joined where the whole would then extend over more than a drift limit on the detector, so that a chain of small
steps does not run from one reflection to another, nor where both have a peak at the same position of the scan.

A track's intensities over the scan are the shape of its grain, blurred by the beam (`intensities`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from braggscope.core.errors import InputError
from braggscope.infer.peak_kernels import compiled_small

LARGE = 64  # peaks of a track from which on its positions are kept as bits
STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))  # to neighbours, each pair once


def follow(
    peaks: xr.Dataset,
    shape: Sequence[int],
    *,
    tolerance_px: float = 1.5,
    drift_px: float = 6.0,
    steps: Mapping[str, float] | None = None,
) -> xr.Dataset:
    """Tracks of the peaks of a scan: the table of peaks with `track` (0 = none), and a table over `track`.

    peaks: With `frame`, as `peak_table` gives it; peaks without a place (NaN) stay alone.
    shape: Of the scan, slowest axis first; one or two axes.
    tolerance_px: Largest step of a spot on the detector between neighbouring positions.
    drift_px: Largest extent of a track on the detector along rows and columns.
    steps: Names of the scan axes and their steps in um; without it positions count in steps.
    Raises InputError for a scan of more than two axes and tolerances that are not positive.
    """
    if "frame" not in peaks:
        raise InputError("peaks must have the variable 'frame' to be followed through a scan; search the scan, not one image")
    if len(shape) > 2 or not len(shape):
        raise InputError(f"a scan must have one or two axes for its peaks to be followed, got {len(shape)}")
    if not 0 < tolerance_px <= drift_px:
        raise InputError(f"tolerance_px must be positive and at most drift_px, got {tolerance_px:g} and {drift_px:g}")
    grid = (1, *shape)[-2:]
    frame = peaks["frame"].values
    place = np.stack([peaks["row"].values, peaks["column"].values], axis=1)
    pairs, far = _pairs(frame, place, grid, tolerance_px)
    count = len(frame)
    parent, low, high = np.arange(count), place.copy(), place.copy()
    bits = np.zeros((count // LARGE + 1, math.prod(grid) // 64 + 1), np.uint64)
    tracks = np.arange(count), np.ones(count, np.int64), np.full(count, -1), bits  # rings, sizes and bits of tracks
    _join(pairs[np.argsort(far, kind="stable")], frame, parent, low, high, *tracks, drift_px)
    label = _numbered(parent, peaks["intensity"].values)
    return _table(peaks, label, grid, dict(steps or {}))


def intensities(peaks: xr.Dataset, positions: int) -> csr_matrix:
    """Intensity of each track at each position of the scan, shape (track, position), sparse.

    peaks: From `follow`.  positions: Of the scan.
    """
    track, light = peaks["track_of_peak"].values, np.nan_to_num(peaks["intensity"].values)
    some = track > 0
    return csr_matrix((light[some], (track[some] - 1, peaks["frame"].values[some])), (peaks.sizes["track"], positions))


def _pairs(frame: np.ndarray, place: np.ndarray, grid: Sequence[int], tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of peaks at neighbouring positions that are each other's nearest, shape (pair, 2), and their distances."""
    usable = np.flatnonzero(np.isfinite(place).all(axis=1))
    usable = usable[np.argsort(frame[usable], kind="stable")]
    edges = np.searchsorted(frame[usable], np.arange(math.prod(grid) + 1))
    members = [usable[a:b] for a, b in itertools.pairwise(edges)]
    trees: dict[int, cKDTree] = {}
    found, far = [], []

    def tree(at: int) -> cKDTree:
        if at not in trees:
            trees[at] = cKDTree(place[members[at]])
        return trees[at]

    for at, mine in enumerate(members):
        row, column = divmod(at, grid[1])
        trees.pop(at - grid[1] - 2, None)
        for down, right in STEPS:
            other = (row + down) * grid[1] + column + right
            if row + down >= grid[0] or not 0 <= column + right < grid[1] or not len(mine) or not len(members[other]):
                continue
            distance, there = tree(other).query(place[mine], distance_upper_bound=tolerance)
            near = np.flatnonzero(np.isfinite(distance))
            _, back = tree(at).query(place[members[other][there[near]]])
            near = near[back == near]
            found.append(np.stack([mine[near], members[other][there[near]]], axis=1))
            far.append(distance[near])
    if not found:
        return np.empty((0, 2), np.int64), np.empty(0)
    return np.concatenate(found), np.concatenate(far)


@compiled_small
def _root(parent, a):  # type: ignore[no-untyped-def]
    while parent[a] != a:
        parent[a] = parent[parent[a]]
        a = parent[a]
    return a


@compiled_small
def _join(pairs, frame, parent, low, high, ring, size, slot, bits, drift):  # type: ignore[no-untyped-def]
    """Join pairs one after the other where the limits allow.

    parent: Of each peak.  low, high: Least and largest place of each root's track, shape (peak, 2).
    ring: The next peak of the same track.  size: Of each root's track.
    slot: Row in `bits` of each root whose track is LARGE, else -1.  bits: Which positions of the scan each of these has.
    """
    used = 0
    for n in range(len(pairs)):
        a, b = _root(parent, pairs[n, 0]), _root(parent, pairs[n, 1])
        if a == b:
            continue
        if size[a] < size[b]:
            a, b = b, a
        fits = True
        for k in range(2):
            fits = fits and max(high[a, k], high[b, k]) - min(low[a, k], low[b, k]) <= drift
        if not fits or _share_a_position(a, b, frame, ring, slot, bits):
            continue
        parent[b] = a
        size[a] += size[b]
        for k in range(2):
            low[a, k], high[a, k] = min(low[a, k], low[b, k]), max(high[a, k], high[b, k])
        if slot[a] < 0 and size[a] >= LARGE:
            slot[a] = used
            used += 1
            _mark(a, frame, ring, bits[slot[a]])
        if slot[a] >= 0:
            _mark(b, frame, ring, bits[slot[a]])
        ring[a], ring[b] = ring[b], ring[a]


@compiled_small
def _mark(a, frame, ring, bits):  # type: ignore[no-untyped-def]
    """Set the bits of the positions of a track."""
    i = a
    while True:
        bits[frame[i] >> 6] |= np.uint64(1) << np.uint64(frame[i] & 63)
        i = ring[i]
        if i == a:
            break


@compiled_small
def _share_a_position(a, b, frame, ring, slot, bits):  # type: ignore[no-untyped-def]
    """Whether two tracks, of which b is not the larger, have peaks at the same position of the scan."""
    if slot[b] >= 0:
        one, other = bits[slot[a]], bits[slot[b]]
        for k in range(len(one)):  # noqa: SIM110 - compiled
            if one[k] & other[k] != 0:
                return True
        return False
    j = b
    while True:
        if slot[a] >= 0:
            if bits[slot[a]][frame[j] >> 6] & (np.uint64(1) << np.uint64(frame[j] & 63)) != 0:
                return True
        else:
            i = a
            while True:
                if frame[i] == frame[j]:
                    return True
                i = ring[i]
                if i == a:
                    break
        j = ring[j]
        if j == b:
            return False


def _numbered(parent: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Number of each peak's track, from 1 for the one with most light; 0 for a peak that is alone."""
    root = parent
    while (root[root] != root).any():
        root = root[root]
    count = np.bincount(root, minlength=len(parent))
    total = np.bincount(root, np.nan_to_num(light), minlength=len(parent))
    tracks = np.flatnonzero(count > 1)
    tracks = tracks[np.argsort(-total[tracks], kind="stable")]
    number = np.zeros(len(parent), np.int64)
    number[tracks] = np.arange(1, len(tracks) + 1)
    return number[root]


def _table(peaks: xr.Dataset, label: np.ndarray, grid: Sequence[int], steps: Mapping[str, float]) -> xr.Dataset:
    """The peaks with their tracks, and the table of the tracks; means are weighted by intensity."""
    tracks, some = int(label.max(initial=0)), label > 0
    which = label[some] - 1
    light = np.maximum(np.nan_to_num(peaks["intensity"].values[some]), 0.0) + 1e-30

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(which, values, tracks)

    def extremes(values: np.ndarray) -> np.ndarray:
        low, high = np.full(tracks, np.inf), np.full(tracks, -np.inf)
        np.minimum.at(low, which, values)
        np.maximum.at(high, which, values)
        return high - low

    weight, count = total(light), total(np.ones(len(which)))
    found = {"track_positions": (count, "1", "positions of the scan that have a peak of the track")}
    for name in ("row", "column"):
        values = peaks[name].values[some]
        mean = total(light * values) / weight
        spread = np.sqrt(np.maximum(total(light * (values - mean[which]) ** 2) / weight, 0.0))
        errors = np.nan_to_num(peaks[f"{name}_std"].values[some])
        found |= {
            f"track_{name}": (mean, "px", f"mean {name} of the track"),
            f"track_{name}_std": (np.sqrt(total((light * errors) ** 2)) / weight, "px", f"standard deviation of track_{name}"),
            f"track_{name}_spread": (spread, "px", f"root mean square of {name} about its mean through the track"),
        }
    found["track_intensity"] = (weight, "count", "light of all peaks of the track")
    unit = "um" if steps else "1"
    names, sizes = (list(steps) or ["scan_y", "scan_x"])[-2:], (list(steps.values()) or [1.0, 1.0])[-2:]
    if len(names) == 1:
        names, sizes = ["scan_y", *names], [1.0, *sizes]
    for name, size, at in zip(names, sizes, np.divmod(peaks["frame"].values[some], grid[1]), strict=True):
        found[f"track_{name}"] = (total(light * at * size) / weight, unit, f"middle of the track along {name}")
        found[f"track_{name}_extent"] = (extremes(at * size), unit, f"extent of the track along {name}")
    made = {n: ("track", v, {"units": unit, "long_name": text}) for n, (v, unit, text) in found.items()}
    own = ("peak", label, {"units": "1", "long_name": "number of the track of the peak (0 = none)"})
    return peaks.assign({"track_of_peak": own, **made}).assign_coords(track=np.arange(1, tracks + 1))
