"""The likelihood fit in torch, many frames at a time: the reference of the compiled kernel, and the way to a GPU."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from braggscope.core.noise import poisson_deviance
from braggscope.infer.refine import Refined, Score, poisson_score, refine
from braggscope.infer.runtime import device as named_device

from . import kernels
from .columns import CELLS_PER_ROOT
from .compiled import FAULTS, IN_RADIANS, Tables, fit, soft_pupil, transposed
from .forward import DEGREE, NanobeamForward
from .geometry import NanobeamGeometry

LOGARITHMIC = ("scale", "background", "thickness")
AT_ONCE = {"cpu": 64, "cuda": 1024}  # frames fitted together


def fit_batched(
    geometry: NanobeamGeometry, made: Tables, frames: np.ndarray, mask: np.ndarray | None, free: int, device: str
) -> dict[str, np.ndarray]:
    """Fit frames as compiled.fit does, in float64 torch on a device; the same arguments and results.

    Raises InputError where there is no such device.
    """
    where = named_device(device)
    shape = (frames.shape[1], frames.shape[2])
    exact, soft = (NanobeamForward(geometry, shape, pupil_table=t).to(where) for t in (None, soft_pupil(geometry)))
    parts = []
    for first in range(0, len(frames), AT_ONCE[where.type]):
        some = slice(first, first + AT_ONCE[where.type])
        counts = transposed(frames[some], None if mask is None else mask[some])
        start = np.zeros((len(counts), kernels.PARAMETERS))
        kernels.start_frames(counts, made.light, made.optics, geometry.thickness_a, start)
        parts.append(_fit_some(exact, soft, made, torch.from_numpy(counts).mT.to(where, torch.float64), start, free))
    result = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    lost = np.flatnonzero(result["state"] & FAULTS != kernels.CONVERGED)
    if len(lost):  # few, as a rule: the compiled fit knows further starts
        again = fit(made, frames[lost], None if mask is None else mask[lost], free, geometry.thickness_a)
        for name, value in result.items():
            value[lost] = again[name]
    return result


def _fit_some(
    exact: NanobeamForward, soft: NanobeamForward, made: Tables, counts: Tensor, start: np.ndarray, free: int
) -> dict[str, np.ndarray]:
    names, good = tuple(exact.params), counts >= 0
    values = start.copy()
    values[:, :3] /= IN_RADIANS
    values[:, 3:] = np.exp(values[:, 3:])
    params = {n: torch.from_numpy(values[:, i].copy()).to(counts.device) for i, n in enumerate(names)}
    longest = {n: float(kernels.CLAMP[i]) / (DEGREE if n in ("omega", "chi") else 1) for i, n in enumerate(names)}
    score = censored_score(made.threshold, made.saturation)
    for forward, steps in ((soft, kernels.SOFT_STEPS), (exact, kernels.MAX_STEPS - kernels.SOFT_STEPS)):
        found = refine(
            forward, counts.clamp(min=0), params, names[:free], mask=good, score=score, logarithmic=LOGARITHMIC,
            longest=longest, tolerance=kernels.DECREMENT if forward is exact else -math.inf, damping=kernels.DAMPING, steps=steps,
            patience=kernels.PATIENCE, shorter=kernels.SHORTER, near=kernels.NEAR,
        )  # fmt: skip
        params = found.params
    return _as_compiled(exact, found, made, counts, good, free)


def _as_compiled(
    forward: NanobeamForward, found: Refined, made: Tables, counts: Tensor, good: Tensor, free: int
) -> dict[str, np.ndarray]:
    """The result in the form of compiled.fit."""
    names = tuple(forward.params)
    params = torch.stack([found.params[n].log() if n in LOGARITHMIC else found.params[n] for n in names], dim=-1)
    radians = torch.as_tensor(IN_RADIANS, device=params.device)
    params[:, :3] *= radians
    unit = torch.stack([1 / found.params[n] if n in LOGARITHMIC else torch.ones_like(found.params[n]) for n in names], dim=-1)
    unit[:, :3] *= radians
    covariance = params.new_full((len(counts), len(names), len(names)), math.nan)
    covariance[:, :free, :free] = found.covariance * unit[:, :free, None] * unit[:, None, :free]
    goodness = torch.stack([*_deviance(forward, found, made, counts, good, free), forward.light(found.params)], dim=-1)
    state = found.converged * kernels.CONVERGED + (
        found.at_bound * (kernels.AT_BOUND << torch.arange(free).to(counts.device))
    ).sum(-1)
    result = {"parameters": params, "covariance": covariance, "goodness": goodness, "state": state}
    return {name: value.cpu().numpy() for name, value in result.items()}


def _deviance(
    forward: NanobeamForward, found: Refined, made: Tables, counts: Tensor, good: Tensor, free: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Deviance of each frame, its expectation and its variance given the estimate; shape (frame,) each."""
    mean = found.expected
    each = poisson_deviance(counts.clamp(min=0), mean)
    if made.threshold >= 2:
        each = torch.where(counts < made.threshold, -2 * _below(mean, made.threshold)[0].log(), each)
    if made.saturation > 0:
        each = torch.where(counts >= made.saturation, -2 * _above(mean, made.saturation)[0].log(), each)
    first, second, joint = _interpolated(torch.as_tensor(made.moments, device=mean.device), mean)
    _, jacobian = forward.jacobian(found.params, tuple(forward.params)[:free])
    shared = torch.einsum("fnrc,frc->fn", jacobian, good * joint / mean)
    explained = torch.einsum("fi,fij,fj->f", shared, found.covariance, shared)
    over = (-2, -1)
    return (each * good).sum(over), (first * good).sum(over) - free, (second * good).sum(over) - explained


def _interpolated(moments: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The columns of kernels.deviance_moments at these means."""
    place = mean.sqrt() * CELLS_PER_ROOT
    last = len(moments) - 2
    cell = place.clamp(max=last - 1).long()
    part = (place - cell)[..., None]
    inside = moments[cell] * (1 - part) + moments[cell + 1] * part
    beyond = torch.stack([1 + 1 / (6 * mean), 2 + 2 / (3 * mean), torch.zeros_like(mean)], dim=-1)
    if moments[-1, 0] < 0.5:  # beyond a saturation every report is the same, and expected
        beyond = torch.zeros_like(beyond)
    return torch.where((place < last)[..., None], inside, beyond).unbind(-1)  # type: ignore[return-value]


def _below(mean: Tensor, threshold: int) -> tuple[Tensor, Tensor, Tensor]:
    """For N ~ Poisson(mean): P(N < threshold), P(N = threshold - 1) and the information lost by knowing only that."""
    term = (-mean).exp()
    total, lost = term, term
    for n in range(1, threshold):
        term = term * mean / n
        total, lost = total + term, lost + term * (n / mean - 1) ** 2
    return total.clamp(min=1e-300), term, lost


def _above(mean: Tensor, saturation: int) -> tuple[Tensor, Tensor, Tensor]:
    """For N ~ Poisson(mean): P(N >= saturation), P(N = saturation - 1) and the information lost by knowing only that."""
    _, edge, kept = _below(mean, saturation)
    above = torch.special.gammainc(torch.full_like(mean, saturation), mean).clamp(min=1e-300)
    return above, edge, (1 / mean - kept).clamp(min=0)


def censored_score(threshold: int, saturation: int = 0) -> Score:
    """Score and information of Poisson counts reported as 0 below a threshold and as the saturation from there on.

    A threshold below 2 and a saturation of 0 are none.
    """

    def score(counts: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
        slope, information = counts / expected - 1, 1 / expected
        if threshold >= 2:
            total, edge, lost = _below(expected, threshold)
            slope = torch.where(counts < threshold, -edge / total, slope)
            information = information - lost + edge**2 / total
        if saturation > 0:
            total, edge, lost = _above(expected, saturation)
            slope = torch.where(counts >= saturation, edge / total, slope)
            information = information - lost + edge**2 / total
        return slope, information.clamp(min=0)

    return score if threshold >= 2 or saturation > 0 else poisson_score
