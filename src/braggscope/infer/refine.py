"""Maximum likelihood of many small problems at once, by Fisher scoring, with covariance.

Each observation n has its own parameters theta and expectation mu(theta), given by a Forward. With the score s and the
information w of one count (for Poisson counts s = n / mu - 1, w = 1 / mu) and the Jacobian J = d mu / d theta,

    H = J^T diag(w) J        theta <- theta + (H + damping diag H)^-1 J^T s

until the step is far below the standard deviations, sqrt of the diagonal of H^-1 (McCullagh & Nelder 1989, sec. 2.5). For
Gaussian noise this is the Levenberg-Marquardt method. Problems that have converged are left out of further steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from braggscope.core.forward import Forward

Score = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Refined:
    """What `refine` found.

    params: All parameters, shape (problem,) each.
    covariance: Of the free ones, in their own units, shape (problem, free, free); NaN where H is not positive.
    expected: Expected counts, shape (problem, observation axes).
    converged: Whether the last step was far below the standard deviations, shape (problem,).
    at_bound: Whether a free parameter ended at a bound, shape (problem, free).
    """

    params: dict[str, Tensor]
    covariance: Tensor
    expected: Tensor
    converged: Tensor
    at_bound: Tensor


def poisson_score(counts: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """Score and information of Poisson counts by their expectation, n / mu - 1 and 1 / mu."""
    return counts / expected - 1, 1 / expected


def refine(
    forward: Forward,
    counts: Tensor,
    start: Mapping[str, Tensor],
    free: tuple[str, ...],
    *,
    mask: Tensor | None = None,
    score: Score = poisson_score,
    logarithmic: tuple[str, ...] = (),
    longest: Mapping[str, float] | None = None,
    tolerance: float = 1e-7,
    damping: float = 0.01,
    steps: int = 60,
    patience: int = 15,
    shorter: float = 0.8,
    near: float = 0.25,
) -> Refined:
    """Maximise the likelihood of each observation on its own.

    counts: Shape (problem, observation axes), device and dtype as the parameters.
    start: All parameters of the forward, shape (problem,) each; those not in `free` stay.
    mask: True where a count may be used, shape of `counts`; None: all.
    score: Counts and expectation -> score and information of each.
    logarithmic: Free parameters that are stepped in their logarithm; they must be positive.
    longest: Longest step of a parameter, in its unit (in the logarithm for logarithmic ones).
    tolerance: A fit has converged where step^T H step is smaller, that is (step / standard deviation)^2.
    patience, shorter: After so many full steps, each is shorter than the one before by this factor, so that fits that go to and
        fro across a kink of the likelihood contract to it.
    near: Such a fit has converged only if step^T H step of the full step is below this.
    """
    theta, low, high = _inner(forward, start, free, logarithmic)
    limit = torch.tensor([(longest or {}).get(n, math.inf) for n in free], dtype=theta.dtype, device=theta.device)
    converged = torch.zeros(len(theta), dtype=torch.bool, device=theta.device)
    for taken in range(steps):
        active = torch.nonzero(~converged)[:, 0]
        if len(active) == 0:
            break
        part = None if mask is None else mask[active]
        inside = {n: v[active] for n, v in start.items()}
        _, gradient, information = _one_pass(forward, counts[active], inside, theta[active], free, logarithmic, part, score)
        damped = information + damping * torch.diag_embed(torch.diagonal(information, dim1=-2, dim2=-1))
        root, failed = torch.linalg.cholesky_ex(damped)
        step = torch.cholesky_solve(gradient[..., None], root)[..., 0].nan_to_num(0.0, 0.0, 0.0)
        relaxed = shorter ** max(taken - patience, 0)
        target = theta[active] + (relaxed * step).clamp(-limit, limit)
        held = target.clamp(low, high)
        loose = held == target  # a parameter held at its bound does not delay the others
        decrement = (step * gradient * loose).sum(-1)
        theta[active] = held
        small = (relaxed**2 * decrement < tolerance) & (decrement < near)
        converged[active] = small & ~((step.abs() > limit) & loose).any(-1) & (failed == 0)
    expected, _, information = _one_pass(forward, counts, start, theta, free, logarithmic, mask, score)
    root, failed = torch.linalg.cholesky_ex(information)
    covariance = torch.cholesky_inverse(root).masked_fill((failed != 0)[:, None, None], torch.nan)
    params = _outer(start, theta, free, logarithmic)
    unit = torch.stack([params[n] if n in logarithmic else torch.ones_like(params[n]) for n in free], dim=-1)
    return Refined(
        params, covariance * unit[:, :, None] * unit[:, None, :], expected, converged & (failed == 0),
        (theta <= low) | (theta >= high),
    )  # fmt: skip


def _one_pass(
    forward: Forward,
    counts: Tensor,
    start: Mapping[str, Tensor],
    theta: Tensor,
    free: tuple[str, ...],
    logarithmic: tuple[str, ...],
    mask: Tensor | None,
    score: Score,
) -> tuple[Tensor, Tensor, Tensor]:
    """Expected counts, gradient (problem, free) and information matrix (problem, free, free) by the stepped parameters."""
    params = _outer(start, theta, free, logarithmic)
    expected, jacobian = forward.jacobian(params, free)
    unit = torch.stack([params[n] if n in logarithmic else torch.ones_like(params[n]) for n in free], dim=-1)
    jacobian = jacobian.flatten(2) * unit[..., None]
    slope, weight = (x.flatten(1) for x in score(counts, expected))
    if mask is not None:
        slope, weight = slope * mask.flatten(1), weight * mask.flatten(1)
    return expected, torch.einsum("pfo,po->pf", jacobian, slope), (jacobian * weight[:, None]) @ jacobian.mT


def _inner(
    forward: Forward, start: Mapping[str, Tensor], free: tuple[str, ...], logarithmic: tuple[str, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """The stepped parameters (problem, free), and their bounds (free,)."""
    like = start[free[0]]
    edges = torch.tensor([[forward.params[n].low, forward.params[n].high] for n in free], dtype=like.dtype, device=like.device)
    in_log = torch.tensor([n in logarithmic for n in free], device=like.device)
    theta = torch.stack([start[n].log() if n in logarithmic else start[n] for n in free], dim=-1)
    edges = torch.where(in_log[:, None], edges.clamp(min=1e-300 if like.dtype == torch.float64 else 1e-37).log(), edges)
    return theta, edges[:, 0], edges[:, 1]


def _outer(start: Mapping[str, Tensor], theta: Tensor, free: tuple[str, ...], logarithmic: tuple[str, ...]) -> dict[str, Tensor]:
    """All parameters in their own units, the free ones from `theta`."""
    found = {n: theta[:, i].exp() if n in logarithmic else theta[:, i] for i, n in enumerate(free)}
    return {**start, **found}
