"""A simulated scan is mapped as a user would, and the maps say the truth within their errors."""

import math

import numpy as np
import pytest

import braggscope
from braggscope.modalities.dfxm.analysis.strain import strain
from braggscope.modalities.dfxm.geometry import id03


def simulated(phantom, **options):
    return braggscope.simulate("dfxm", phantom, geometry=id03(), progress=False, **options)


def z_of(found, wanted, std):
    return np.asarray((found - wanted) / std)


@pytest.mark.parametrize(
    ("motors", "shape", "angle"), [("ccmth:0.002", (61,), 1), ("obpitch:0.006", (61,), 0.5), ("chi ccmth", (13, 31), 1)]
)
@pytest.mark.parametrize("method", ["moments", "peakfit"])
def test_a_scan_of_energy_or_of_the_objective_gives_the_strain_that_was_put_in(tmp_path, method, motors, shape, angle):
    given = {"motors": motors, "shape": shape, "frame_shape": (30, 40), "peak": 3000.0, "resolution": "microscope"}
    truth = simulated("bent_crystal", **given, output=tmp_path / "scan.h5", layout="id03").truth
    found = braggscope.map(tmp_path / "scan.h5", method=method, progress=False)
    motor = motors.split()[-1].split(":")[0]
    result = strain([found], reference=truth.attrs["strain_reference_deg"])
    clear = result["flag"].values == 0
    # the truth itself, by the derivative of Bragg's law: d eps = -+ cot(theta) d theta to first order
    middle = math.radians(truth.attrs["strain_reference_deg"] * angle)
    slope = (1 if motor == "ccmth" else -1) / math.tan(middle)
    off = np.radians(angle * (truth[motor].values - truth.attrs["strain_reference_deg"]))
    assert np.abs(truth["strain"]).max() > 1e-3
    np.testing.assert_allclose(truth["strain"], slope * off, atol=3 * float(np.abs(off).max()) ** 2 / math.tan(middle) ** 2)
    z = z_of(result["strain"], truth["strain"], result["strain_std"])[clear]
    # of narrow peaks, moments have a flag for the shape that noise hides
    assert clear.mean() > (0.7 if method == "moments" else 0.95) and abs(z.mean()) < 0.1 and 0.9 < z.std() < 1.1, (
        clear.mean(),
        z.mean(),
        z.std(),
    )


def test_where_the_spacing_is_wider_waves_are_longer_and_angles_smaller():
    for motor, sign in (("ccmth", 1), ("obpitch", -1)):
        truth = simulated("bent_crystal", motors=motor, frame_shape=(6, 7)).truth
        assert np.array_equal(np.sign(truth["strain"]), sign * np.sign(truth[motor] - truth.attrs["strain_reference_deg"]))
    assert "strain" not in simulated("bent_crystal", frame_shape=(6, 7)).truth


@pytest.mark.parametrize(
    "options", [{"motors": "mu:0.03", "shape": (61,)}, {"motors": "mu:0.03", "shape": (61,), "jitter": 0.1},
                {"motors": "chi mu", "shape": (15, 21), "resolution": "chi:0.08 mu:0.06", "separation": 8.0}]
)  # fmt: skip
def test_peakfit_finds_both_peaks_of_twins(options):
    source = simulated("twins", frame_shape=(36, 48), peak=2000.0, seed=1, **options)
    found, truth = braggscope.map(source, method="peakfit", progress=False, peaks="2"), source.truth
    two, one = truth["peaks"].values == 2, truth["peaks"].values == 1
    count, clear = found["peaks"].values, (found["flag"].values == 0) & (found["reduced_deviance"].values < 1.6)
    # the lower peak of those missed is in the noise
    missed = two & (count == 1)
    assert (count[one] == 1).mean() > 0.995 and missed.sum() < 0.06 * two.sum()
    assert np.median(truth["amplitude_2"].values[missed]) < 60 < np.median(truth["amplitude_2"].values[two])
    both = two & (count == 2) & clear
    assert both.sum() > 0.8 * two.sum()
    motor = list(source.grid.dims)[-1]
    # the map has the larger volume first, the truth the larger height: which is which, the centre tells
    first, second = (np.abs(found[motor] - truth[f"{motor}_{k}"]).values for k in (1, 2))
    turned = (first > second)[both]
    for name in [n for m in source.grid.dims for n in (m, f"{m}_width")] + ["amplitude"]:
        wanted = [
            np.where(turned, truth[f"{name}_{b}"].values[both], truth[f"{name}_{a}"].values[both]) for a, b in ((1, 2), (2, 1))
        ]
        for ours, true in zip(("", "_2"), wanted, strict=True):
            z = z_of(found[f"{name}{ours}"].values[both], true, found[f"{name}{ours}_std"].values[both])
            near = np.abs(z) < 4
            assert near.mean() > 0.985 and abs(z[near].mean()) < 0.15 and 0.85 < z[near].std() < 1.15, (
                name, ours, near.mean(), z[near].mean(), z[near].std(),
            )  # fmt: skip
        z = z_of(found[name], truth[f"{name}_1"], found[f"{name}_std"])[one & (count == 1) & clear]
        assert len(z) > 100 and abs(z.mean()) < 0.15 and 0.9 < z.std() < 1.1, (name, z.mean(), z.std())
