"""Track: dislocations followed through a movie, with velocities, mean square displacements and errors.

After Gonzalez et al. 2020: images are found by wavelets (`tracking/detecting.py`), linked by a Kalman filter and Munkres'
assignment (`following.py`), twice, the second time with the diffusion and the errors that the first tracks show, and smoothed
(`smoothing.py`). With a preset the place of the line beside its image is known (`cores.py`), and with `refine` every place is
fitted by the forward model (`refining.py`). Frames are read a batch at a time, a second time where places are refined.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import numpy as np
import xarray as xr

from braggscope.core.analysis import Says
from braggscope.core.errors import InputError
from braggscope.core.scan import Scan

from ..carried import cautions
from ..geometry import DfxmGeometry

if TYPE_CHECKING:
    from ..dislocations.model import ImageModel
    from ..tracking.tables import Scale


def track(
    scan: Scan,
    *,
    preset: Annotated[
        str | None, Says("how dislocations are imaged: al-002, al-002-legacy or a TOML file; left out: images alone are followed")
    ] = None,
    characters: Annotated[
        tuple[str, ...] | None, Says("characters that the dislocations may have, by name; left out: all of the preset")
    ] = None,
    refine: Annotated[bool, Says("fit every place by the forward model of the preset")] = False,
    threshold: Annotated[float, Says("standard deviations of the wavelet detail above which an image is bright")] = 3.5,
    smallest: Annotated[int, Says("smaller bright parts are no images", unit="px")] = 10,
    jump: Annotated[
        float | None, Says("largest move from one frame to the next; left out: from the images of neighbouring frames", unit="px")
    ] = None,
    patience: Annotated[int, Says("frames without an image after which a track ends")] = 8,
    shortest: Annotated[int, Says("tracks of fewer frames are flagged as too short")] = 8,
    lags: Annotated[int, Says("lags of the mean square displacement, in frames")] = 20,
    gain: Annotated[
        float | None,
        Says("detector units per photon, for the noise; left out: 1 in a refinement, else scatter over level", unit="count"),
    ] = None,
    geometry: DfxmGeometry | None = None,
) -> xr.Dataset:
    """Dislocations followed through a movie: tracks with velocities, diffusion and mean square displacements.

    scan: Over one axis, time or a motor; what the velocities are per is its unit.
    Returns `row`, `column` (smoothed; with a preset or the size of a pixel also `x_nm`, `y_nm`), velocities, and the places
    `measured_row`, `measured_column` in each frame alone, over track and axis; per track birth, death, mean velocity, diffusion
    coefficient and `track_flag`; `msd` over track and lag, in nm^2 or px^2. Lengths are those in the plane of the
    image, z = 0. Without a preset a place is that of the image's centroid.
    Raises InputError for more than one axis, too few frames, and a movie in which nothing stands out.
    """
    from ..tracking.detecting import Detector
    from ..tracking.following import follow_twice, usual_jump
    from ..tracking.movie import axis_of, images_of
    from ..tracking.placing import placed
    from ..tracking.tables import tracks_map

    photon = 1.0 if gain is None else gain
    _check({"threshold": threshold, "jump": jump, "gain": photon}, {"smallest": smallest, "patience": patience,
           "shortest": shortest, "lags": lags}, preset, characters, refine)  # fmt: skip
    axis = axis_of(scan)
    detector = Detector.of(scan.frame_shape, threshold, smallest, gain)
    model = _model(preset, characters, scan.frame_shape)
    every = images_of(scan, detector, len(axis.values))
    present = np.array([one is not None for one in every])
    if not present.any():
        raise InputError("no frame of the movie is usable: most pixels of each are missing, negative or saturated")
    if not any(every):
        raise InputError(
            f"no dislocation was found in {int(present.sum())} frames: nothing stands {threshold:g} standard deviations out of "
            "the noise; lower threshold or smallest, or look at the movie with multiresolution"
        )
    far = jump or usual_jump(every)
    tracks = follow_twice(every, axis.steps, far, patience, scan.frame_shape)
    if not tracks:
        raise InputError("no image was found in three frames near each other; raise jump or lower threshold")
    followed, motion, names = placed(scan, tracks, axis.steps, detector, model, refine, photon)
    result = tracks_map(followed, motion, axis, scan.frame_shape, _scale(model, geometry), present, shortest, lags)
    if model is not None:
        result["character"] = xr.DataArray(names, dims="track", attrs={"units": "", "long_name": "character of the dislocation"})
    empty = sum(one == [] for one in every)
    result.attrs = {
        "tracks": len(tracks),
        "frames": int(present.sum()),
        "frames_without_dislocation": empty,
        "unusable_or_missing_frames": int((~present).sum()),
        "largest_jump_px": float(far),
        "places": "fitted" if refine else "from the image by the model" if model is not None else "centroids of the images",
        "step": f"{axis.step:g} {axis.unit}".strip(),
        **cautions(
            "" if model is not None else "places are those of the images, beside the lines by up to their size: give a preset",
            f"{empty} frames show no dislocation" if empty else "",
            "" if axis.unit == "s" else f"the axis is {axis.name}, velocities are per {axis.unit or 'its unit'}",
        ),
    }
    return result


def _check(
    positive: dict[str, float | None],
    whole: dict[str, int],
    preset: str | None,
    characters: tuple[str, ...] | None,
    refine: bool,
) -> None:
    """Raise InputError for options that cannot be."""
    for name, value in positive.items():
        if value is not None and not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} must be positive, got {value:g}")
    for name, number in whole.items():
        if number < 1:
            raise InputError(f"{name} must be at least 1, got {number}")
    if preset is None and (refine or characters):
        raise InputError(f"{'refine' if refine else 'characters'} needs a preset, which says how dislocations are imaged")


def _model(preset: str | None, characters: tuple[str, ...] | None, shape: tuple[int, int]) -> ImageModel | None:
    """The images of the preset, where there is one."""
    if preset is None:
        return None
    from ..dislocations.characters import characters_of, chosen
    from ..dislocations.model import ImageModel
    from ..dislocations.setting import setting_of

    setting = setting_of(preset)
    return ImageModel(setting, chosen(setting, characters) if characters else characters_of(setting), shape)


def _scale(model: ImageModel | None, geometry: DfxmGeometry | None) -> Scale:
    """Size of a pixel in the sample: of the preset, else of the geometry, else not known."""
    from ..tracking.tables import Scale

    if model is not None:
        return Scale(np.array(model.optics.pitch_nm), "nm")
    with contextlib.suppress(InputError):
        if geometry is not None:
            return Scale(1000 * np.array(geometry.sample_pixel_um()), "nm")
    return Scale(np.ones(2), "px")
