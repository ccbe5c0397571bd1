"""The table of peaks: places, intensities and shapes of spots with their errors, as a Dataset over `peak`.

sigma_major and sigma_minor are the standard deviations of the fitted Gaussian along its axes (what LaueTools writes as FWHM are
such sigmas); the full width at half maximum is 2.355 times as much. They contain the pixel: a spot of sigma s shows as
sqrt(s^2 + 1/12). inclination is the angle of the major axis from the direction of rising columns to that of rising rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from ..detector import detector_matrix, two_theta_chi
from ..geometry import LaueGeometry
from .fit import CENTRE_COLUMN, CENTRE_ROW, CHI2, FAILED, FLAG, FLAGS, SHARP, SHARPEST, SUM
from .search import Spots

COLUMNS = {
    "row": ("px", "row of the spot, from 0 at the middle of the first pixel"),
    "row_std": ("px", "standard deviation of row"),
    "column": ("px", "column of the spot, from 0 at the middle of the first pixel"),
    "column_std": ("px", "standard deviation of column"),
    "intensity": ("count", "light of the spot above its background"),
    "intensity_std": ("count", "standard deviation of intensity"),
    "amplitude": ("count", "height of the spot above its background"),
    "amplitude_std": ("count", "standard deviation of amplitude"),
    "background": ("count", "background under the spot"),
    "sigma_major": ("px", "standard deviation of the Gaussian along its major axis (not its full width)"),
    "sigma_major_std": ("px", "standard deviation of sigma_major"),
    "sigma_minor": ("px", "standard deviation of the Gaussian along its minor axis (not its full width)"),
    "sigma_minor_std": ("px", "standard deviation of sigma_minor"),
    "inclination": ("deg", "major axis, from rising columns to rising rows"),
    "significance": ("1", "height in a matched filter over its noise"),
    "reduced_deviance": ("1", "chi-square of the fit over its degrees of freedom"),
}
Columns = dict[str, np.ndarray]
FRAME = ("1", "flat position of the frame in the scan, from 0")


def peak_table(
    spots: Spots | Sequence[Columns], *, frames: Sequence[int] | None = None, geometry: LaueGeometry | None = None
) -> xr.Dataset:
    """The spots of a frame, or of several (as `columns_of` has them), as a table.

    frames: Flat position of each of several frames in their scan; the table says it as `frame`.
    geometry: Gives two_theta and chi (deg) to every peak.
    """
    each = [columns_of(spots)] if isinstance(spots, Spots) else list(spots)
    columns = {n: np.concatenate([one[n] for one in each]) if each else np.empty(0) for n in (*COLUMNS, "flag")}
    texts = dict(COLUMNS)
    if frames is not None:
        counts = [len(one["row"]) for one in each]
        columns["frame"], texts["frame"] = np.repeat(np.asarray(frames, np.int64), counts), FRAME
    if geometry is not None:
        angles = two_theta_chi(detector_matrix(geometry), columns["row"], columns["column"])
        for name, values, text in zip(("two_theta", "chi"), angles, ("2 theta", "chi"), strict=True):
            columns[name], texts[name] = values, ("deg", f"angle {text} of the spot, as in LaueTools")
    found = {n: ("peak", columns[n], {"units": unit, "long_name": text}) for n, (unit, text) in texts.items()}
    flag = (
        "peak",
        columns["flag"].astype(np.int32),
        {
            "long_name": "why a peak is doubtful (0 = good)",
            "flag_masks": np.array(sorted(FLAGS), np.int32),
            "flag_meanings": " ".join(FLAGS[b] for b in sorted(FLAGS)),
        },
    )
    return xr.Dataset({**found, "flag": flag}, coords={"peak": np.arange(1, len(columns["row"]) + 1)})


def columns_of(spots: Spots) -> Columns:
    """The columns of one frame's spots. Where a fit failed the place is the centroid, and what it would tell is NaN."""
    values, errors, about = spots.values, spots.errors, spots.about
    flag = about[:, FLAG].astype(int)
    variance = np.diagonal(errors, axis1=1, axis2=2)
    major, minor, major_std, minor_std, inclination = _axes(values, errors)
    amplitude, light = values[:, 1], _light(values, errors)
    with np.errstate(invalid="ignore"):
        std = np.sqrt(variance)
        flag = flag | np.where((minor < SHARPEST) & (flag & FAILED == 0), SHARP, 0)
    columns = {
        "row": spots.rows + values[:, 2], "row_std": std[:, 2], "column": spots.columns + values[:, 3], "column_std": std[:, 3],
        "intensity": light[0], "intensity_std": light[1], "amplitude": amplitude, "amplitude_std": std[:, 1],
        "background": values[:, 0], "sigma_major": major, "sigma_major_std": major_std, "sigma_minor": minor,
        "sigma_minor_std": minor_std, "inclination": inclination,
    }  # fmt: skip
    failed = flag & FAILED > 0
    columns = {n: np.where(failed, np.nan, v) for n, v in columns.items()}
    columns["row"][failed] = spots.rows[failed] + about[failed, CENTRE_ROW]
    columns["column"][failed] = spots.columns[failed] + about[failed, CENTRE_COLUMN]
    columns["intensity"][failed] = about[failed, SUM]
    misfit = np.where(failed, np.nan, about[:, CHI2])
    return columns | {"significance": spots.significance, "reduced_deviance": misfit, "flag": flag}


def _light(values: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Light of a Gaussian, 2 pi amplitude s_1 s_2, and its standard deviation."""
    light = 2 * np.pi * values[:, 1] * np.exp(values[:, 4] + values[:, 5])
    known = np.nan_to_num(errors[:, [1, 4, 5]][:, :, [1, 4, 5]])  # what is held at a bound has no error
    slope = np.stack([1 / np.where(values[:, 1] > 0, values[:, 1], np.nan), np.ones(len(values)), np.ones(len(values))], axis=1)
    with np.errstate(invalid="ignore"):
        return light, light * np.sqrt(np.einsum("pa,pab,pb->p", slope, known, slope))


def _axes(values: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, ...]:
    """Sigma along the major and the minor axis, their standard deviations, and the inclination in degrees.

    Covariance of the Gaussian: S = [[s1^2, c s1 s2], [., s2^2 (1 + c^2)]]; d lambda = v^T dS v for an eigenvector v.
    """
    s1, s2, c = np.exp(values[:, 4]), np.exp(values[:, 5]), values[:, 6]
    shape = np.empty((len(values), 2, 2))
    shape[:, 0, 0], shape[:, 1, 1] = s1**2, s2**2 * (1 + c**2)
    shape[:, 0, 1] = shape[:, 1, 0] = c * s1 * s2
    square, axes = np.linalg.eigh(shape)
    slopes = np.zeros((len(values), 3, 2, 2))
    slopes[:, 0, 0, 0], slopes[:, 1, 1, 1] = 2 * shape[:, 0, 0], 2 * shape[:, 1, 1]
    slopes[:, 0, 0, 1] = slopes[:, 0, 1, 0] = slopes[:, 1, 0, 1] = slopes[:, 1, 1, 0] = shape[:, 0, 1]
    slopes[:, 2, 0, 1] = slopes[:, 2, 1, 0] = s1 * s2
    slopes[:, 2, 1, 1] = 2 * c * s2**2
    sigma = np.sqrt(np.maximum(square, 0))
    by = np.einsum("pik,paij,pjk->pka", axes, slopes, axes) / (2 * sigma[:, :, None])
    with np.errstate(invalid="ignore"):
        std = np.sqrt(np.einsum("pka,pab,pkb->pk", by, errors[:, 4:7, 4:7], by))
    inclination = np.rad2deg(np.arctan2(axes[:, 0, 1], axes[:, 1, 1]))
    return sigma[:, 1], sigma[:, 0], std[:, 1], std[:, 0], 90 - (90 - inclination) % 180
