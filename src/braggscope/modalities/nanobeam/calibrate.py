"""Calibration: the optics of a scan from its own frames.

All frames are fitted together (optics_fit.py): the radii of the ring, the blur by crystal and source, the illumination of the
pupil and the thickness of the film are common to them, strain, tilts, scale and background belong to each. Then

- the beam centre is chosen. It cannot be measured: a shift by one pixel is the same as a constant tilt, along x together with a
  constant strain. By convention the mean tilts of the scan become 0, or a `reference` says what they, or the mean strain, are;
- the illumination's slope along x and the mean strain are nearly the same when the strain varies little; the slope is then
  kept near 0 by its prior, and only strain differences mean something.

A threshold and a clipping of the counts are read off their histogram, and the fit treats such counts as censored.
Left out: an illumination with finer structure than the polynomial, frames that the ring does not explain.
"""

from __future__ import annotations

import atexit
import math
import shutil
import tempfile
import uuid
from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch

from braggscope.core.errors import InputError, one_of
from braggscope.core.source import Source
from braggscope.infer.runtime import single_threaded_torch

from . import pupil as pupil_files
from .calibration import Calibration
from .counts import Counts, read_counts
from .geometry import NanobeamGeometry, check_frame
from .optics_fit import FrameModel, JointFit, Optics, PupilModel, fit_frames, fit_jointly

MOST_FRAMES = 600  # evenly over the scan: enough for uncertainties far below the error of one frame
FEW_FRAMES = 10  # below, the crystal width cannot be told from the source, nor a finer illumination from noise
FEWEST_COUNTS = 300  # of a frame that takes part
ILLUMINATION_SPREAD = 0.2  # prior standard deviation of each polynomial of the illumination, before the frames say more
LEAST_SPREAD, MOST_SPREAD = 0.002, 0.3
ROUNDS = 5  # of choosing the centre and the prior and fitting again
GROUPS = ("ring", "blur", "crystal", "illumination", "thickness", "centre", "background", "counts")


def calibrate(
    scan: Source,
    geometry: NanobeamGeometry | None = None,
    *,
    free: Collection[str] | None = None,
    reference: Mapping[str, float] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """The optics that explain the frames of a scan.

    geometry: Where to start, by default the scan's; ring radii within 15 % and a centre within a few pixels will do. Its
        `pupil_file` is not used.
    free: What to find, of GROUPS; by default all that so many frames can tell.
    reference: Known means over the scan: `chi` (deg) and either `omega` (deg) or `strain`; by default both tilts are 0.
    progress: Called with steps done and steps planned.

    Raises InputError for unknown words, for frames that the ring does not fit on or with too few counts, and where no ring is
    found.
    """
    start = geometry or scan.geometry
    if not isinstance(start, NanobeamGeometry):
        raise InputError("calibrate needs a geometry to start from; give one with --geometry")
    check_frame(start, scan.frame_shape)
    tell = _Progress(progress)
    target = _reference(reference)
    counts, dark = read_counts(scan, MOST_FRAMES, FEWEST_COUNTS)
    wanted = _groups(free, len(counts.frames))
    if "counts" not in wanted:
        counts = Counts(counts.frames, counts.use, round(start.threshold), start.saturation or math.inf)
    job = _Job(start.replace(pupil_file=None), counts, wanted, tell)
    job.left_out = dark
    with single_threaded_torch():
        fit = job.run()
        for _ in range(ROUNDS):
            moved = _recentred(job, fit, target) if "centre" in wanted else 0.0
            changed = job.learn_spread(fit)
            fit = job.joint(fit)
            if moved < 2e-3 and changed < 1.2:
                break
        tell.end()
        return _calibration(job, fit, target)


class _Progress:
    """Steps done of about as many as it takes."""

    def __init__(self, call: Callable[[int, int], None] | None):
        self.call, self.done, self.total = call, 0, 45

    def step(self) -> None:
        self.done = min(self.done + 1, self.total - 1)
        if self.call is not None:
            self.call(self.done, self.total)

    def end(self) -> None:
        if self.call is not None:
            self.call(self.total, self.total)


class _Job:
    """One calibration: the frames that take part and the models, rebuilt when the centre moves."""

    def __init__(self, geometry: NanobeamGeometry, counts: Counts, wanted: tuple[str, ...], tell: _Progress):
        self.geometry, self.counts, self.wanted, self.tell = geometry, counts, wanted, tell
        few = len(counts.frames) < FEW_FRAMES
        self.degree = (2 if few else 4) if "illumination" in wanted else 1
        self.left_out = 0

    @property
    def frame_shape(self) -> tuple[int, int]:
        return self.counts.frames.shape[1], self.counts.frames.shape[2]

    def run(self) -> JointFit:
        """From the geometry to the joint fit, without the choice of the centre."""
        scale, frames = self._find_ring()
        self.geometry = self.geometry.replace(ring_scale=self.geometry.ring_scale * scale)
        terms = (self.degree + 1) * (self.degree + 2) // 2 - 1
        inner, outer = self.geometry.ring_radii_px
        variances = self.geometry.crystal_width_tau**2, self.geometry.source_px**2
        self.spread = np.full(terms, ILLUMINATION_SPREAD)
        self.nominal = Optics(outer, inner, *variances, self.geometry.thickness_a, (0.0,) * terms)
        first = Optics(outer, inner, variances[0], max(variances[1], 0.25 * ("blur" in self.wanted)), *self._film(terms))
        self.pupil = PupilModel(self.geometry, terms)
        self.model = FrameModel(self.geometry, self.frame_shape, self.pupil.grid)
        start = JointFit(first, self._frames_alone(frames), np.zeros(len(frames)))
        _check_ring(outer, self.explained(start), 0.2)
        fit = self.joint(start)
        explained = self.explained(fit)
        middle = _check_ring(outer, explained, 0.5)
        spread = 1.48 * float(np.median(np.abs(explained - middle)))
        good = explained >= min(0.5, middle - 6 * spread)
        if good.all():
            return fit
        self.left_out += int((~good).sum())
        self.counts = self.counts.take(np.flatnonzero(good))
        return self.joint(JointFit(fit.optics, fit.frames[good], fit.deviance[good]))

    def joint(self, start: JointFit) -> JointFit:
        """The joint fit from a start."""
        prior = self.nominal.vector(), np.concatenate([[1e-3, 1e-3, 0.0, 0.0, 1e-3], self.spread**-2.0])
        last = start
        damping = 1e-2 if start.covariance is None else 1e-4
        for state in fit_jointly(self.counts, self.model, self.pupil, start, self._free(), prior, damping=damping):
            self.tell.step()
            if not 0.8 < state.optics.outer / self.nominal.outer < 1.25:  # it has found something else
                _check_ring(self.nominal.outer, np.zeros(1), 0.5)
            last = state
        return last

    def learn_spread(self, fit: JointFit) -> float:
        """Prior of the illumination from the frames themselves; returns the largest factor by which it changed.

        The terms of one degree share one variance, set by the evidence (MacKay 1992, Neural Comput. 4, 415: the sum of squares
        over the number of well-determined terms). Without it a curvature along x, which hardly differs from another thickness,
        would scale all strains; terms across x say how large such terms are.
        """
        assert fit.covariance is not None
        term, variance = np.array(fit.optics.illumination), np.diag(fit.covariance)[5:]
        degree = np.array([d for d in range(1, self.degree + 1) for _ in range(d + 1)])
        before = self.spread.copy()
        for d in range(1, self.degree + 1):
            own = degree == d
            determined = np.clip(1 - variance[own] / before[own] ** 2, 0.02, 1).sum()
            spread = math.sqrt(float((term[own] ** 2).sum()) / determined)
            self.spread[own] = np.clip(np.clip(spread, 0.2 * before[own], 5 * before[own]), LEAST_SPREAD, MOST_SPREAD)
        return float(np.exp(np.abs(np.log(self.spread / before)).max()))

    def explained(self, fit: JointFit) -> np.ndarray:
        """Share of each frame's variance beyond counting noise that the model explains, shape (frame,)."""
        expected = self.expected(fit)
        use = torch.ones_like(expected) if self.counts.use is None else self.counts.use
        seen = expected.clamp(max=self.counts.saturation)
        mean = (self.counts.frames * use).sum((1, 2), keepdim=True) / use.sum((1, 2), keepdim=True)
        flat = (use * (self.counts.frames - mean) ** 2).sum((1, 2))
        left = (use * (self.counts.frames - seen) ** 2).sum((1, 2))
        return ((flat - left) / (flat - (use * seen).sum((1, 2))).clamp(min=1e-9)).numpy()

    def expected(self, fit: JointFit) -> torch.Tensor:
        """Expected counts of the frames, shape (frame, row, column)."""
        table = torch.as_tensor(self.pupil.table(fit.optics), dtype=torch.float32)
        stack = table.expand(3, -1, -1)  # the slopes are not needed
        size = max(1, 2**20 // math.prod(self.frame_shape))
        parts = [self.model(stack, fit.optics.thickness, fit.frames[i : i + size])[0] for i in range(0, len(fit.frames), size)]
        return torch.cat(parts)

    def _film(self, terms: int) -> tuple[float, tuple[float, ...]]:
        return self.geometry.thickness_a, (0.0,) * terms

    def _free(self) -> np.ndarray:
        """Which entries of the optics' vector are free."""
        ring, blur, crystal, light, film = (g in self.wanted for g in ("ring", "blur", "crystal", "illumination", "thickness"))
        return np.array([ring, ring, crystal, blur, film] + [light] * len(self.nominal.illumination))

    def _find_ring(self) -> tuple[float, np.ndarray]:
        """Factor on the ring radii that suits some of the frames best, with a blurred ring; and a start for all frames."""
        start = self._start()
        if "ring" not in self.wanted:
            return 1.0, start
        some = np.unique(np.linspace(0, len(start) - 1, 24).astype(int))
        factors = np.concatenate([[1.0], np.arange(0.85, 1.16, 0.03)])
        deviance = [self._frames_alone(start[some], self.counts.take(some), factor, 6, deviance=True).sum() for factor in factors]
        self.tell.step()
        return float(factors[int(np.argmin(deviance))]), start

    def _frames_alone(
        self, start: np.ndarray, counts: Counts | None = None, factor: float = 1.0, steps: int = 8, *, deviance: bool = False
    ) -> np.ndarray:
        """Frames fitted with the ring blurred by more than a pixel, which every start finds."""
        inner, outer = self.geometry.ring_radii_px
        optics = Optics(
            factor * outer,
            factor * inner,
            self.geometry.crystal_width_tau**2,
            max(self.geometry.source_px, 1.2) ** 2,
            *self._film(2),
        )
        pupil = PupilModel(self.geometry, 2)
        model = FrameModel(self.geometry, self.frame_shape, pupil.grid)
        fit = fit_frames(counts or self.counts, model, pupil.tables(optics, derivatives=False), optics.thickness, start, steps)
        self.tell.step()
        return fit.deviance if deviance else fit.frames

    def _start(self) -> np.ndarray:
        """chi from the centre of mass across, scale and background from the brightness, the rest 0."""
        frames, geometry = self.counts.frames, self.geometry
        rows = torch.linspace(*geometry.rows_px(self.frame_shape[0]), self.frame_shape[0])
        profile = frames.sum(2)
        total = profile.sum(1)
        centre = ((profile * rows).sum(1) / total).double().numpy()
        inner, outer = geometry.ring_radii_px
        level = (total / (math.pi * (outer**2 - inner**2))).double().numpy()
        chi = -centre * geometry.pixel_angle * geometry.wavevector / geometry.reciprocal_length
        background = np.full(len(frames), math.log(max(geometry.background, 1e-3)))
        return np.column_stack([0 * chi, 0 * chi, chi, np.log(1.5 * level), background])


def _recentred(job: _Job, fit: JointFit, target: Mapping[str, float]) -> float:
    """Move the beam centre so that the mean tilts (or strain) are those wanted; the tilts follow. Returns the shift, px.

    A centre moved by c px adds a tilt omega of c k sin(alpha) / G p / R and a strain of c cot(alpha) / 2 p / R.
    """
    geometry, means = job.geometry, fit.frames[:, :3].mean(0)
    k, angle, g = geometry.wavevector, geometry.pixel_angle, geometry.reciprocal_length
    omega_px = k * geometry.bragg_sine * angle / g
    strain_px = angle / math.tan(geometry.bragg_angle) / 2
    chi_px = k * angle / g
    if "strain" in target:
        right = (target["strain"] - means[0]) / strain_px
    else:
        right = (math.radians(target["omega"]) - means[1]) / omega_px
    down = (math.radians(target["chi"]) - means[2]) / chi_px
    job.geometry = geometry.replace(
        centre_row_px=geometry.centre_row_px + down, centre_column_px=geometry.centre_column_px + right
    )
    job.model = FrameModel(job.geometry, job.frame_shape, job.pupil.grid)
    fit.frames[:, 0] += right * strain_px
    fit.frames[:, 1] += right * omega_px
    fit.frames[:, 2] += down * chi_px
    return math.hypot(right, down)


def _reference(reference: Mapping[str, float] | None) -> dict[str, float]:
    """The means that fix the centre. Raises InputError for a quantity that does not, or two that fix the same."""
    given = dict(reference or {})
    for name, value in given.items():
        if name not in ("strain", "omega", "chi"):
            raise one_of("reference", name, ["strain", "omega", "chi"])
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"reference {name} must be a number, got {value!r}")
    if "strain" in given and "omega" in given:
        raise InputError("reference may give strain or omega, not both: they fix the same thing, the column of the beam centre")
    default = {"chi": 0.0} if "strain" in given else {"omega": 0.0, "chi": 0.0}
    return default | given


def _groups(free: Collection[str] | None, frames: int) -> tuple[str, ...]:
    """What to find. Raises InputError for a word that is not in GROUPS."""
    if free is None:
        return tuple(g for g in GROUPS if frames >= FEW_FRAMES or g != "crystal")
    for word in free:
        if word not in GROUPS:
            raise one_of("part of the calibration", word, list(GROUPS))
    return tuple(free)


def _check_ring(outer: float, explained: np.ndarray, least: float) -> float:
    """The median share of contrast that is explained. Raises InputError where it is not even the least."""
    middle = float(np.median(explained))
    if not middle > least:
        raise InputError(
            f"no ring of light like that of the geometry (outer radius {outer:.1f} px) was found in the frames: it explains "
            f"{100 * max(middle, 0):.0f} % of their contrast; check pixel_um, distance_m, zone_plate_um and the roi"
        )
    return middle


def _calibration(job: _Job, fit: JointFit, target: Mapping[str, float]) -> Calibration:
    """The fit as a geometry, its pupil as an image, and the summary."""
    nominal, optics, counts = job.geometry, fit.optics, job.counts
    inner, outer = (r / nominal.ring_scale for r in nominal.ring_radii_px)
    background = np.exp(fit.frames[:, 4])
    values: dict[str, float] = {"ring_scale": optics.outer / outer} if "ring" in job.wanted else {}
    if "ring" in job.wanted and inner > 0:
        values["stop_um"] = nominal.stop_um * (optics.inner / optics.outer) / (inner / outer)
    if "crystal" in job.wanted:
        values["crystal_width_tau"] = math.sqrt(optics.crystal)
    if "blur" in job.wanted:
        values["source_px"] = math.sqrt(optics.source)
    if "thickness" in job.wanted:
        values["thickness_a"] = optics.thickness
    if "background" in job.wanted:
        values["background"] = float(background.mean())
    limits: dict[str, float] = {}
    if "counts" in job.wanted:
        limits = {"threshold": float(counts.threshold)}
        limits["saturation"] = counts.saturation if math.isfinite(counts.saturation) else 0.0
    uncertainty = _uncertainty(job, fit, values)
    image, light, step = _pupil_image(job.pupil, optics)
    path = _temporary_folder() / f"{uuid.uuid4().hex}.pupil.npz"
    pupil_files.save_pupil(path, image, step)
    geometry = nominal.replace(**values, **limits, pupil_file=str(path))
    summary = _summary(job, fit, geometry, uncertainty, target)
    return Calibration(geometry, uncertainty, image, step, light, len(fit.frames), summary)


@cache
def _temporary_folder() -> Path:
    """Where pupils lie until they are saved; it goes when the program ends."""
    folder = tempfile.mkdtemp(prefix="braggscope-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _uncertainty(job: _Job, fit: JointFit, values: Mapping[str, float]) -> dict[str, float]:
    """One standard deviation of each value, from the joint fit."""
    assert fit.covariance is not None and fit.frame_variance is not None
    optics, covariance, count = fit.optics, fit.covariance, len(fit.frames)
    std = np.sqrt(np.diag(covariance))
    ratio = np.array([-1 / optics.outer, 1 / max(optics.inner, 1e-9)])  # of log(inner / outer)
    found = {"thickness_a": std[4], "crystal_width_tau": _root_std(optics.crystal, std[2])}
    found |= {"source_px": _root_std(optics.source, std[3])}
    if "ring_scale" in values:
        found["ring_scale"] = std[0] / optics.outer * values["ring_scale"]
    if "stop_um" in values:
        found["stop_um"] = values["stop_um"] * math.sqrt(max(float(ratio @ covariance[:2, :2] @ ratio), 0.0))
    if "background" in values:
        found["background"] = float(np.sqrt((fit.frame_variance[:, 4] * np.exp(2 * fit.frames[:, 4])).sum())) / count
    uncertainty = {name: float(found[name]) for name in values}
    if "centre" in job.wanted:
        geometry = job.geometry
        tilt_px = geometry.wavevector * geometry.pixel_angle / geometry.reciprocal_length
        mean = np.sqrt(fit.frame_variance[:, 1:3].sum(0)) / count
        uncertainty["centre_row_px"] = float(mean[1] / tilt_px)
        uncertainty["centre_column_px"] = float(mean[0] / (tilt_px * geometry.bragg_sine))
    return uncertainty


def _root_std(variance: float, std: float) -> float:
    """Standard deviation of a square root: to first order, or near zero where that fails, the root of the deviation."""
    return std / (2 * math.sqrt(variance)) if variance > std else math.sqrt(std)


def _pupil_image(pupil: PupilModel, optics: Optics) -> tuple[np.ndarray, np.ndarray, float]:
    """Pupil and illumination as the detector sees them (mirrored along x), cut around the ring, and their sampling in px."""
    is_open = pupil.disc(optics.outer) - pupil.disc(optics.inner)
    light = pupil.illumination(optics)
    level = float((is_open * light).sum() / is_open.sum())
    spread = math.sqrt(optics.crystal / 2 / pupil.sine**2 + optics.source)
    half = math.ceil((optics.outer + 1.5 + 5 * spread) / pupil.grid.pitch)
    middle = pupil.grid.count // 2
    cut = slice(max(middle - half, 0), min(middle + half, pupil.grid.count))
    image = np.clip(pupil.table(optics)[cut, cut] / level, 0, None)
    return np.round(image[:, ::-1], 6), light[cut, cut][:, ::-1] / level, pupil.grid.pitch


def _summary(
    job: _Job, fit: JointFit, geometry: NanobeamGeometry, uncertainty: Mapping[str, float], target: Mapping[str, float]
) -> list[str]:
    """What was found and how, a sentence each."""
    optics, counts = fit.optics, job.counts
    lines = [f"calibrated from {len(fit.frames)} frames; {job.left_out} were left out as too dark or without the ring"]
    for name, value in geometry.to_mapping().items():
        if name in uncertainty:
            unit = geometry.__dataclass_fields__[name].metadata["unit"]
            lines.append(f"{name} = {value:.5g} +- {uncertainty[name]:.2g}" + (f" {unit}" if unit != "1" else ""))
    lines.append(f"ring radii: outer {optics.outer:.3f} px, inner {optics.inner:.3f} px")
    across = math.sqrt(optics.crystal / 2 + optics.source)
    along = math.sqrt(optics.crystal / 2 / geometry.bragg_sine**2 + optics.source)
    lines.append(f"edge blur (standard deviation, without the pixel): {along:.3f} px along columns, {across:.3f} px along rows")
    if "illumination" in job.wanted:
        lines.append(
            "illumination: {:.1f} % brighter at the top, {:.1f} % at the left than opposite".format(*_slopes(job, optics))
        )
    if "centre" in job.wanted:
        given = ", ".join(f"{name} {value:g}" for name, value in target.items())
        lines.append(
            f"beam centre chosen so that the means of the scan are: {given} (it is degenerate with constant tilts and strain)"
        )
    held = [group for group in GROUPS if group not in job.wanted]
    if held:
        lines.append(f"kept as given: {', '.join(held)}")
    if "counts" in job.wanted:
        low = f"counts below {counts.threshold} are reported as 0" if counts.threshold > 1 else "no threshold"
        high = f"{counts.saturation:g} means that or more" if math.isfinite(counts.saturation) else "no clipping"
        lines.append(f"counts: {low}, {high}")
    lines.append(f"the model explains {100 * float(np.median(job.explained(fit))):.1f} % of the contrast of the median frame")
    return lines


def _slopes(job: _Job, optics: Optics) -> tuple[float, float]:
    """How much brighter the open pupil is in the top half and in the left half of the frame than opposite, per cent."""
    lit = (job.pupil.disc(optics.outer) - job.pupil.disc(optics.inner)) * job.pupil.illumination(optics)
    half = len(lit) // 2
    top, left = lit[:half].sum() / lit[-half:].sum(), lit[:, -half:].sum() / lit[:, :half].sum()  # u = -x
    return 100 * (float(top) - 1), 100 * (float(left) - 1)
