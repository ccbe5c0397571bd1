"""How many components a scan has: directions of its points whose signal stands out of the known noise.

Every frame is divided by the root of its mean variance, so that noise alone gives each direction a mean square of 1. The largest
of n such eigenvalues over P pixels lies at (1 + sqrt(nu))^2 with nu = n / P where all counts are equally noisy (Marchenko &
Pastur 1967). Counts are not: a pixel's variance follows its signal, whose products over pixels the Gram matrix has, and

    nu = max over n of sum_m <V_n V_m> / (P <V_n> <V_m>),        <V_n V_m> = g^2 <s_n s_m> + g v (<s_n> + <s_m>) + v^2

(g gain, v variance without signal, s signal, <> mean over pixels) is the row sum that bounds the norm of such a matrix. Three
widths of the Tracy-Widom law (Johnstone 2001) and three standard deviations of the gain are added.

A finite number of curves is a model: a peak that moves continuously through a crystal has no last direction. Then nearly all
stand out of the noise, as do a fixed pattern of the detector and counts that its pixels share; a share of it all says more then.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from .scan_counts import CountNoise, ScanCounts


@dataclass(frozen=True)
class Scree:
    """Strength of the directions of a scan, strongest first.

    eigenvalue: Mean square over pixels in units of the noise's, shape (candidate,); 1 = noise alone.
    edge: The largest that noise alone gives.
    rest: Mean of the eigenvalues after as many as the candidate's number, shape (candidate,): the reduced deviance with it.
    share: Part of what is above the noise that so many components explain, shape (candidate,).
    """

    eigenvalue: np.ndarray
    edge: float
    rest: np.ndarray
    share: np.ndarray

    @property
    def count(self) -> int:
        """Directions that stand out of the noise."""
        return int((self.eigenvalue > self.edge).sum())


def mean_variance(sums: np.ndarray, pixels: int, noise: CountNoise) -> np.ndarray:
    """D_n: mean variance of the counts of each frame, shape (point,)."""
    return noise.gain * np.maximum(sums / pixels, 0) + noise.variance


def scree(gram: np.ndarray, sums: np.ndarray, pixels: int, noise: CountNoise, *, centred: bool = False) -> Scree:
    """Eigenvalues in units of the noise, and its edge.

    gram, sums: Sums over pixels of y_n y_m and y_n.  centred: Whether each pixel's mean over the points is taken off.
    """
    variance = mean_variance(sums, pixels, noise)
    basis = _differences(len(gram)) if centred else np.eye(len(gram))
    root = np.linalg.cholesky(basis.T @ (variance[:, None] * basis))
    inner = np.linalg.solve(root, np.linalg.solve(root, basis.T @ (gram / pixels) @ basis).T)
    values = np.maximum(np.linalg.eigvalsh((inner + inner.T) / 2)[::-1], 0)
    tail = np.append(np.cumsum(values[::-1])[::-1][1:], 0.0)
    rest = tail / np.maximum(len(values) - 1 - np.arange(len(values)), 1)
    above = np.maximum(values - 1, 0)
    share = np.cumsum(above) / max(float(above.sum()), 1e-300)
    return Scree(values, _edge(gram, sums, pixels, noise, variance), rest, share)


def noise_of_weakest(gram: np.ndarray, sums: np.ndarray, pixels: int, noise: CountNoise) -> CountNoise:
    """The noise with the gain at which the weaker half of the directions is noise alone: where photon transfer finds none.

    Signal in those directions makes it too large: fewer components then stand out, and errors are wider. Not below 1.
    """
    from scipy.optimize import brentq

    def excess(log_gain: float) -> float:
        values = scree(gram, sums, pixels, dataclasses.replace(noise, gain=math.exp(log_gain))).eigenvalue
        return float(values[len(values) // 2 :].mean()) - 1

    if excess(0.0) <= 0:
        return noise
    high = 1.0
    while excess(high) > 0 and high < 20:
        high += 1
    if high >= 20:
        return noise
    gain = math.exp(brentq(excess, high - 1, high, xtol=1e-3))
    return dataclasses.replace(noise, gain=gain, gain_from="weakest directions")


def chosen_count(
    criterion: str, found: Scree, counts: ScanCounts, variance: np.ndarray, share: float, most: int
) -> tuple[int, str]:
    """Number of components, and the criterion that gave it, which is another where `auto` is asked for.

    noise: directions above the noise. share: those that explain a share of what is above the noise. auto: noise, and share where
    that is more than `most`. minka: scikit-learn's evidence of a probabilistic principal component model (Minka 2000), on a
    sample of curves.
    """
    if criterion == "auto":
        criterion = "noise" if found.count <= most else "share"
    if criterion == "noise":
        return found.count, criterion
    if criterion == "share":
        return (int(np.searchsorted(found.share, share) + 1) if found.count else 0), criterion
    return _minka(counts, variance, found), criterion


def _minka(counts: ScanCounts, variance: np.ndarray, found: Scree) -> int:
    """Number of components by Minka's evidence; those above the noise where the sample has fewer pixels than points."""
    from sklearn.decomposition import PCA

    curves = counts.sample[:, np.isfinite(counts.sample).all(axis=0)].T.astype(np.float64) / np.sqrt(variance)
    if len(curves) < curves.shape[1]:
        return found.count
    return int(PCA(n_components="mle", svd_solver="full").fit(curves).n_components_)


def _edge(gram: np.ndarray, sums: np.ndarray, pixels: int, noise: CountNoise, variance: np.ndarray) -> float:
    """The largest eigenvalue that noise alone gives."""
    g, v, mean = noise.gain, noise.variance, np.maximum(sums / pixels, 0)
    signal = np.maximum((gram - np.diag(variance * pixels)) / pixels, 0)
    products = g**2 * signal + g * v * (mean[:, None] + mean) + v**2
    nu = float((products / np.outer(variance, variance)).sum(axis=1).max()) / pixels
    points = len(gram)
    alike = points / nu  # pixels of equal noise that would have this edge
    width = (np.sqrt(alike) + np.sqrt(points)) * (1 / np.sqrt(alike) + 1 / np.sqrt(points)) ** (1 / 3) / alike
    unsure = 3 * noise.gain_std / noise.gain if np.isfinite(noise.gain_std) else 0.0
    return float(((1 + np.sqrt(nu)) ** 2 + 3 * width) * (1 + unsure))


def _differences(points: int) -> np.ndarray:
    """An orthonormal basis of the curves whose mean is zero (Helmert), shape (point, point - 1)."""
    from scipy.linalg import helmert

    return helmert(points).T
