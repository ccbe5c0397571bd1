"""Drift of the motors: where they really were, line by line, told by the rocking curves themselves.

A line is one step of the slowest motor (a frame, in a scan of one motor). Near its top the logarithm of a peak is a quadratic
form in the motor positions; every bright pixel has its own. An offset d of a motor during a line moves all peaks that the line
cuts the same way and changes the logarithm by d times its slope. All forms and all offsets are solved together by weighted least
squares (the forms are eliminated pixel by pixel), so that what centres and widths of the pixels explain is no drift.

Afterwards the positions are uneven. `peakfit` uses them as they are; `moments`, whose means would lean to where points lie close,
refuses them from 0.2 steps (root mean square) on.

The brightness of each line is found as well (within a few per cent), so that a flickering beam is no drift.

Left alone, because the crystal could do the same: a drift that is a polynomial of third degree in the line (a shift of all peaks,
a change of all widths or a common shear, a common asymmetry, what is left of the background).

A drift is the same all over the image, what is no Gaussian in a peak is not: it is believed where the left and the right of the
image, and the top and the bottom, each alone, agree about it. What is applied is d t^2 / (t^2 + std^2), with t^2 the covariance
of these halves and the std from their difference. Only lines that both halves know count for that (in a bent crystal each half
lights up in lines of its own). Peaks must be seen on enough points: in a scan with steps wider than its peaks no drift can be
seen, and the record says that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from braggscope.core.analysis import Says
from braggscope.core.corrections import corrected
from braggscope.core.errors import InputError
from braggscope.core.estimator import motor_positions
from braggscope.core.scan import Scan

from ._noise import believed_noise

ORDER = 40
REACH = {1: 24, 2: 4, 3: 2}  # steps from the highest count of a pixel that are looked at, for so many motors
PIXELS, COUNTS = 4000, 2**25  # bright pixels that take part at most; counts looked at to find them
BRIGHT = 30.0  # standard deviations of a dark count that the highest count of such a pixel has at least
TOP = 0.15  # of it: lower counts are left out, where another peak or the background may matter
POINTS = 3  # more points than numbers in a pixel's form that must be seen
ENOUGH = 100  # such pixels
PIECE = 256  # pixels worked on together
PARTS = 5  # of the image along rows and columns, whose scatter gives the errors
MISFIT = 0.05  # of a count: real peaks are not exactly Gaussian
KNOWN = math.sqrt(0.5)  # of BELIEF: standard deviation of a line's offset below which the counts say more than was expected
BELIEF = 0.5  # steps: standard deviation of a line's offset expected beforehand; holds lines that hardly any peak cuts
FLICKER = 0.02  # standard deviation of the brightness of a line expected beforehand, relative
FLATTEST = -1 / 20**2  # second derivative of the logarithm: peaks of at most 20 steps (standard deviation)
ROUNDS = 4


def motor_drift(
    scan: Scan,
    *,
    proof: Annotated[float, Says("how surely halves of the image must agree about it, in standard deviations")] = 4.0,
) -> Scan:
    """Put the recorded motor positions right, line by line, by what all rocking curves say together."""
    if not (math.isfinite(proof) and proof >= 0):
        raise InputError(f"proof must be a number of standard deviations from 0 on, got {proof:g}")
    found = line_offsets(scan)
    record: dict[str, Any] = {"name": "motor-drift", "options": {"proof": proof}, "pixels": found.pixels}
    positions, lines = motor_positions(scan), scan.shape[0]
    changed = {}
    for m, name in enumerate(axis.name for axis in scan.axes):
        applied, proven = agreed_offsets(found.offsets[m], found.std[m], found.halves[:, :, m], found.common[:, m], proof)
        record |= {f"{name}_proof": proven, f"{name}_rms": float(np.sqrt(np.mean(applied**2)))}
        record[f"{name}_std"] = float(np.median(found.std[m])) if found.pixels >= ENOUGH else None
        if np.any(applied):
            changed[name] = positions[name] + np.repeat(applied, len(positions[name]) // lines)
    if found.pixels < ENOUGH:
        record["why_nothing"] = f"only {found.pixels} pixels have peaks on enough points (of {ENOUGH} needed)"
    elif not changed:
        record["why_nothing"] = f"halves of the image do not agree about a drift by more than {proof:g} standard deviations"
    return corrected(scan, record, positions=changed or None)


def agreed_offsets(
    offsets: np.ndarray, std: np.ndarray, halves: np.ndarray, common: np.ndarray, proof: float
) -> tuple[np.ndarray, float]:
    """The offsets to apply, and by how many standard deviations two halves of the image agree about them (Fisher 1921).

    halves: Offsets found from the left and the right, and from the top and the bottom of the image alone, shape (2, 2, line).
    common: Lines that both halves know, shape (2, line).
    """
    if not np.isfinite(std).all():
        return np.zeros_like(offsets), 0.0
    shared, proven = [], []
    for pair, both in zip(halves, common, strict=True):
        free = int(both.sum()) - 4  # as many as polynomials of third degree take
        if free < 4:
            return np.zeros_like(offsets), 0.0
        one, other = (_without_polynomial(half, both) for half in pair)
        product, power = float(one @ other), math.sqrt(float((one @ one) * (other @ other))) + 1e-300
        shared.append(product / free)
        proven.append(math.atanh(min(max(product / power, -0.999999), 0.999999)) * math.sqrt(max(free - 3, 1)))
    if min(proven) <= proof:
        return np.zeros_like(offsets), min(proven)
    together = float(np.mean(shared))
    return offsets * together / (together + std**2), min(proven)


def _without_polynomial(offsets: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """The offsets of some lines less the polynomial of third degree that fits them best."""
    basis, _ = np.linalg.qr(np.vander(np.linspace(-1, 1, len(offsets))[lines], 4))
    return offsets[lines] - basis @ (basis.T @ offsets[lines])


@dataclass(frozen=True)
class Offsets:
    """What was found.

    offsets: True minus recorded position of each motor in each line, in the motor's unit, shape (motor, line).
    std: Their standard deviations; NaN where nothing is known.
    halves: The same from the left and the right, the top and the bottom of the image alone, shape (2, 2, motor, line).
    common: Lines that the left and the right, the top and the bottom both know, shape (2, motor, line).
    pixels: Pixels that took part.
    """

    offsets: np.ndarray
    std: np.ndarray
    halves: np.ndarray
    common: np.ndarray
    pixels: int


def line_offsets(scan: Scan) -> Offsets:
    """The offsets of all motors, line by line (see above)."""
    shape = scan.shape
    if not 1 <= len(shape) <= 3 or min(shape) < 2:
        raise InputError(f"motor-drift needs a scan over one to three motors with two positions or more each, got {shape}")
    noise = believed_noise(scan)
    gain, variance = noise.gain, max(noise.variance, 1 / 12, noise.gain**2 / 4)
    peaks = _peaks(scan, variance)
    axes = [motor_positions(scan)[axis.name].reshape(shape) for axis in scan.axes]
    steps = np.array([np.mean(np.diff(a.mean(axis=tuple(k for k in range(len(shape)) if k != n)))) for n, a in enumerate(axes)])
    offsets = np.zeros((len(shape), shape[0]))
    coordinates = [(a - a.mean()) / s for a, s in zip(axes, steps, strict=True)]
    for _ in range(ROUNDS):
        equations = _equations(peaks, coordinates, offsets, gain, variance)
        if equations.pixels < ENOUGH:
            nothing, unknown = np.zeros((2, 2, *offsets.shape)), np.full_like(offsets, np.nan)
            return Offsets(np.zeros_like(offsets), unknown, nothing, np.zeros((2, *offsets.shape), bool), equations.pixels)
        offsets = offsets + np.clip(equations.step(), -0.5, 0.5)
    equations = _equations(peaks, coordinates, offsets, gain, variance)
    std, pixels = equations.std(), equations.pixels
    del equations  # one square matrix is kept at a time
    halves, known = np.zeros((2, 2, *offsets.shape)), np.zeros((2, 2, *offsets.shape), bool)
    for (k, half), parts in zip(np.ndindex(2, 2), (side for sides in _sides() for side in sides), strict=True):
        equations = _equations(peaks.within(parts), coordinates, offsets, gain, variance)
        halves[k, half] = offsets + equations.step()
        known[k, half] = equations.std() < KNOWN * BELIEF
    common = np.asarray(known.all(axis=1))
    worse = np.ones((len(shape), 1))  # than the noise of the counts says: real peaks are no Gaussians
    for k, m in np.ndindex(common.shape[:2]):
        if common[k, m].sum() >= 8:
            apart = _without_polynomial(halves[k, 0, m] - halves[k, 1, m], common[k, m]) / (2 * std[m, common[k, m]])
            worse[m] = max(worse[m, 0], math.sqrt(float(apart @ apart) / (len(apart) - 4)))
    size = np.abs(steps)[:, None]
    return Offsets(offsets * steps[:, None], std * worse * size, halves * steps[:, None], common, pixels)


@dataclass(frozen=True)
class _Peaks:
    """Bright pixels.

    points: Grid position of each point round the highest, line by line, shape (pixel, point, motor); -1 outside the scan.
    counts: Above the pedestal, shape (pixel, point); NaN where there is none.
    part: Part of the image that a pixel is in.
    """

    points: np.ndarray
    counts: np.ndarray
    part: np.ndarray

    def within(self, parts: np.ndarray) -> _Peaks:
        """Those in some parts of the image."""
        here = np.isin(self.part, parts)
        return _Peaks(self.points[here], self.counts[here], self.part[here])


def _peaks(scan: Scan, variance: float) -> _Peaks:
    """The curves of bright pixels, spread over the image, round their highest count."""
    from ..photon_transfer import sampled_curves

    rows, columns = scan.frame_shape
    points = math.prod(scan.shape)
    every = max(1, math.ceil(rows * columns * points / COUNTS)) | 1
    chosen = np.arange(0, rows * columns, every)
    curves = sampled_curves(scan, frames=None, pixels=chosen).counts
    curves = np.where(np.isfinite(curves), curves, np.float32(np.nan))
    lively = np.isfinite(curves).any(axis=0)
    curves, chosen = curves[:, lively], chosen[lively]
    ground = np.nanpercentile(curves, 20, axis=0) + 0.8416 * math.sqrt(variance)  # the quantile of a normal distribution
    curves -= ground.astype(np.float32)
    top = np.nanmax(curves, axis=0)
    best = np.argsort(-top, kind="stable")
    best = np.sort(best[top[best] > BRIGHT * math.sqrt(variance)])
    best = best[np.unique(np.linspace(0, len(best) - 1, min(len(best), PIXELS)).astype(int))] if len(best) else best
    at = (
        np.stack(np.unravel_index(np.nanargmax(curves[:, best], axis=0), scan.shape), axis=-1)
        if len(best)
        else np.zeros((0, 1), int)
    )
    reach = np.arange(-REACH[len(scan.shape)], REACH[len(scan.shape)] + 1)
    around = np.stack(np.meshgrid(*[reach] * len(scan.shape), indexing="ij"), axis=-1).reshape(-1, len(scan.shape))
    place = at[:, None, :] + around if len(best) else np.zeros((0, len(around), len(scan.shape)), int)
    inside = np.all((place >= 0) & (place < np.array(scan.shape)), axis=-1)
    place = np.where(inside[..., None], place, 0)
    flat = np.ravel_multi_index(tuple(np.moveaxis(place, -1, 0)), scan.shape)
    counts = np.where(inside, curves[flat, best[:, None]], np.nan)
    pixel = chosen[best]
    part = (pixel // columns) * PARTS // rows * PARTS + (pixel % columns) * PARTS // columns
    return _Peaks(np.where(inside[..., None], place, -1), counts.astype(np.float64), part)


@dataclass(frozen=True)
class _Equations:
    """Normal matrix and right side of offsets and brightness from some pixels, at some offsets (in steps).

    normal: Shape (unknown, unknown), the offsets of one motor after the other in all lines, then the brightness of all lines.
    score: Shape (unknown,).  pixels: That took part.
    """

    normal: np.ndarray
    score: np.ndarray
    pixels: int
    offsets: np.ndarray

    def step(self) -> np.ndarray:
        """What to add to the offsets, shape (motor, line)."""
        normal, before, fixed = self._believing()
        right = self.score - before * np.append(self.offsets.ravel(), np.zeros(self.offsets.shape[1]))
        found = np.linalg.solve(normal, right)
        return self._of_motors(found - fixed @ (fixed.T @ found))

    def std(self) -> np.ndarray:
        """Standard deviations of the offsets by the noise of the counts alone, shape (motor, line)."""
        return self._of_motors(np.sqrt(np.diag(np.linalg.inv(self._believing()[0]))))

    def _believing(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The normal matrix with what is expected beforehand and without what cannot be known, and these two."""
        motors, lines = self.offsets.shape
        before = np.repeat([BELIEF**-2, FLICKER**-2], [motors * lines, lines])  # the last ones: brightness, as a logarithm
        normal, fixed = self.normal + np.diag(before), _unknowable(motors + 1, lines)
        return normal + np.trace(normal) * fixed @ fixed.T, before, fixed

    def _of_motors(self, unknowns: np.ndarray) -> np.ndarray:
        """The unknowns but the brightness, shape (motor, line)."""
        return unknowns[: self.offsets.size].reshape(self.offsets.shape)


def _equations(peaks: _Peaks, coordinates: list[np.ndarray], offsets: np.ndarray, gain: float, variance: float) -> _Equations:
    """The equations of these peaks, each one's form eliminated.

    A peak is looked at in the lines round its highest count only, which gives a small square of unknowns; those that begin in the
    same line are summed together.
    """
    motors, lines = offsets.shape
    reach = REACH[motors]
    wide = 2 * reach + 1
    normal = np.zeros((lines + 2 * reach, motors + 1, lines + 2 * reach, motors + 1))  # as many lines outside as are looked at
    score, pixels = np.zeros((lines + 2 * reach, motors + 1)), 0
    first = peaks.points[:, peaks.points.shape[1] // 2, 0]  # line looked at, counted from the first outside
    order = np.argsort(first, kind="stable")
    for start in range(0, len(order), PIECE):
        piece = order[start : start + PIECE]
        forms = _forms(peaks.points[piece], peaks.counts[piece], coordinates, offsets, gain, variance)
        own, across, right = forms.by_line(wide)
        solved = forms.inner @ across
        for line in np.unique(first[piece]):
            same, here = first[piece] == line, slice(line, line + wide)
            rows = across[same].reshape(-1, wide * (motors + 1))
            eliminated = rows.T @ solved[same].reshape(rows.shape)
            normal[here, :, here] -= eliminated.reshape(wide, motors + 1, wide, motors + 1)
            score[here] += right[same].sum(axis=0)
            each = np.arange(line, line + wide)
            normal[each, :, each] += own[same].sum(axis=0)
        pixels += forms.pixels
    size = (motors + 1) * lines
    inside = slice(reach, reach + lines)
    square = normal[inside, :, inside].transpose(1, 0, 3, 2).reshape(size, size)
    return _Equations(square, score[inside].T.ravel(), pixels, offsets)


@dataclass(frozen=True)
class _Forms:
    """Quadratic forms that fit the logarithms of some pixels' counts, at their points.

    form: Terms of the form, shape (pixel, point, term).  inner: Covariance of their coefficients, shape (pixel, term, term).
    weight: Inverse variance of a logarithm, shape (pixel, point); 0 where it does not count.
    residual: Of the logarithms, less what a change of the form explains, shape (pixel, point).
    slope: Of the logarithm with the offset of each motor, and with the brightness: 1, shape (pixel, point, motors + 1).
    pixels: That took part.
    """

    form: np.ndarray
    inner: np.ndarray
    weight: np.ndarray
    residual: np.ndarray
    slope: np.ndarray
    pixels: int

    def by_line(self, wide: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weighted sums over the points of each line that a pixel is looked at in (so many), of products of

        slope and slope, shape (pixel, line, motors + 1, motors + 1); form and slope, (pixel, term, line x (motors + 1));
        slope and residual, (pixel, line, motors + 1).
        """
        pixels, _, terms = self.form.shape
        form, slope = (one.reshape(pixels, wide, -1, one.shape[-1]) for one in (self.form, self.slope))
        weighted = slope * self.weight.reshape(pixels, wide, -1, 1)
        own = slope.swapaxes(2, 3) @ weighted
        across = (form.swapaxes(2, 3) @ weighted).swapaxes(1, 2).reshape(pixels, terms, -1)
        right = (weighted * self.residual.reshape(pixels, wide, -1, 1)).sum(axis=2)
        return own, across, right


def _forms(
    points: np.ndarray, counts: np.ndarray, coordinates: list[np.ndarray], offsets: np.ndarray, gain: float, variance: float
) -> _Forms:
    """The form of each pixel, fitted to its counts at the positions with the offsets."""
    motors = len(offsets)
    at = tuple(np.moveaxis(np.maximum(points, 0), -1, 0))
    middle = counts.shape[1] // 2
    u = [c[at] + offsets[m][at[0]] for m, c in enumerate(coordinates)]
    u = [x - x[:, middle : middle + 1] for x in u]
    pairs = [(i, j) for i in range(motors) for j in range(i, motors)]
    form = np.stack([np.ones_like(u[0]), *u, *(u[i] * u[j] for i, j in pairs)], axis=-1)
    size = form.shape[-1]
    top = np.nanmax(counts, axis=1, keepdims=True)
    faint = 6 * math.sqrt(variance)
    seen = (points >= 0).all(axis=-1) & (counts > np.maximum(TOP * top, faint))
    seen &= (seen.sum(axis=1) >= size + POINTS)[:, None]
    logarithm = np.log(np.where(seen, counts, 1.0))
    fitted, weight = np.where(seen, counts, 1.0), np.zeros_like(counts)
    for again in range(3):
        if again == 2:  # chosen by what is fitted, not by what noise has raised
            level = np.maximum(1.3 * TOP * np.where(seen, fitted, 0).max(axis=1, keepdims=True), 1.3 * faint)
            seen &= (fitted > level) & ((seen & (fitted > level)).sum(axis=1) >= size + POINTS)[:, None]
        weight = np.where(seen, fitted**2 / (gain * fitted + variance + (MISFIT * fitted) ** 2), 0.0)
        inner = _covariance(form, weight)
        q = np.einsum("pij,pkj,pk,pk->pi", inner, form, weight, logarithm, optimize=True)
        fit = np.einsum("pki,pi->pk", form, q)
        fitted = np.exp(np.clip(fit, -30, 30))
    residual = np.where(seen, logarithm - fit, 0.0)
    curved = np.zeros((len(q), motors, motors))
    for n, (i, j) in enumerate(pairs):
        curved[:, i, j] += q[:, 1 + motors + n]
        curved[:, j, i] += q[:, 1 + motors + n]
    good = seen.any(axis=1) & (np.linalg.eigvalsh(curved).max(axis=1) < FLATTEST)
    weight = np.where(good[:, None], weight * np.clip(1 - weight * residual**2 / 25, 0, 1) ** 2, 0.0)  # Tukey
    slope = q[:, None, 1 : 1 + motors] + np.einsum("pij,pkj->pki", curved, np.stack(u, axis=-1))
    inner = _covariance(form, weight)
    residual -= np.einsum("pki,pij,plj,pl,pl->pk", form, inner, form, weight, residual, optimize=True)
    slope = np.concatenate([slope, np.ones((*counts.shape, 1))], axis=-1)
    return _Forms(form, inner, weight, residual, slope, int(good.sum()))


def _covariance(form: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Of the coefficients of each pixel's form, shape (pixel, term, term)."""
    return np.asarray(np.linalg.inv(form.swapaxes(1, 2) @ (form * weight[..., None]) + 1e-9 * np.eye(form.shape[-1])))


def _sides() -> list[tuple[np.ndarray, np.ndarray]]:
    """Parts of the image on the left and on the right, at the top and at the bottom; those between them are left out."""
    row, column = np.divmod(np.arange(PARTS**2), PARTS)
    return [(np.flatnonzero(axis < PARTS // 2), np.flatnonzero(axis > PARTS // 2)) for axis in (column, row)]


def _unknowable(motors: int, lines: int) -> np.ndarray:
    """Orthonormal offsets that the crystal could make as well: polynomials of third degree in the line, for each motor."""
    t = np.linspace(-1, 1, lines)
    powers = np.stack([t**k for k in range(min(4, lines))], axis=1)
    basis, _ = np.linalg.qr(powers)
    return np.kron(np.eye(motors), basis)
