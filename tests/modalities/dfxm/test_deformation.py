"""The deformation gradient of simulated reflections: recovery within the stated errors, registration, gaps and bad input."""

import numpy as np
import pytest
import torch
import xarray as xr

from braggscope.core.errors import InputError
from braggscope.core.maps import Quantity, check_map, empty_map, flag_counts
from braggscope.modalities.dfxm.analysis.deformation import deformation
from braggscope.modalities.dfxm.estimators.moments import Moments
from braggscope.modalities.dfxm.oblique.component_names import COMPONENTS
from braggscope.modalities.dfxm.oblique.reflections import PUBLISHED, published
from braggscope.modalities.dfxm.phantoms import oblique as phantom

STD_DEG = {"chi": 4e-5, "phi": 2e-5, "obpitch": 3e-5}
FRAME = (34, 62)


@pytest.fixture(scope="module")
def toml(tmp_path_factory):
    path = tmp_path_factory.mktemp("reflections") / "al.toml"
    path.write_text(PUBLISHED)
    return path


@pytest.fixture(scope="module")
def dislocation():
    return [phantom.edge_dislocation(None, frame_shape=FRAME, reflection=k) for k in (1, 2, 3, 4)]


def observed(scan, seed=None, total=None):
    """A map with the true peak positions of a simulated scan, and noise."""
    names = [Quantity(n, "deg", n) for n in STD_DEG]
    found = empty_map([*names, *(q.std() for q in names)], ("row", "column"), scan.frame_shape, {}, {1: "no_signal"})
    random = np.random.default_rng(seed)
    for name, std in STD_DEG.items():
        noise = 0.0 if seed is None else std * random.normal(size=scan.frame_shape)
        found[name].values[...], found[f"{name}_std"].values[...] = scan.truth[name].values + noise, std
    if total is not None:
        found["total"] = (("row", "column"), total, {"units": "count", "long_name": "total"})
    return found


def uniform(f):
    """Maps of a crystal with the same F everywhere."""
    chosen = published()
    from braggscope.modalities.dfxm.oblique.vectors import settings
    from braggscope.physics.deformation import diffraction_vector

    maps = []
    for one, q0 in zip(chosen.reflections, chosen.reference_vectors(), strict=True):
        at = settings(one, chosen.instrument, phantom.SEEN, diffraction_vector(f, torch.from_numpy(q0))[None])[0]
        values = {n: np.full(FRAME, np.degrees(v)) for n, v in zip(phantom.SEEN.names, at.tolist(), strict=True)}
        stds = {f"{n}_std": np.full(FRAME, s) for n, s in STD_DEG.items()}
        found = xr.Dataset({n: (("row", "column"), v, {"units": "deg", "long_name": n}) for n, v in {**values, **stds}.items()})
        found["flag"] = (("row", "column"), np.zeros(FRAME, np.int32), {"flag_masks": np.array([1]), "flag_meanings": "bad"})
        maps.append(found)
    return maps


def tensor(dataset, suffix=""):
    found = np.stack([dataset[f"F_{c}{suffix}"].values for c in COMPONENTS], -1)
    return found.reshape(*found.shape[:-1], 3, 3)


LARGE = torch.tensor([[1.004, -0.006, 0.002], [0.003, 0.995, 0.005], [-0.001, 0.004, 1.008]], dtype=torch.float64)


def test_a_large_uniform_deformation_is_found_in_whole_and_has_no_dislocations(toml):
    found = deformation(uniform(LARGE), reflections=toml, register="none", interpolation="linear")
    check_map(found)
    good = found["flag"].values == 0
    assert good.sum() > 500
    assert np.abs(tensor(found)[good] - LARGE.numpy()).max() < 3e-8  # nine digits of eta and omega in the file
    assert np.nanmax(np.abs(found["dislocation_density_y"])) < 1e-9
    assert found["reduced_deviance"].values[good].max() < 1e-4


def test_three_reflections_do_and_say_nothing_of_a_deviance(toml, tmp_path):
    path = tmp_path / "three.toml"
    path.write_text("[[reflection]]".join(PUBLISHED.split("[[reflection]]")[:4]))
    found = deformation(uniform(LARGE)[:3], reflections=path, register="none")
    assert "reduced_deviance" not in found
    assert np.abs(tensor(found)[found["flag"].values == 0] - LARGE.numpy()).max() < 3e-8


def test_the_crystal_frame_holds_the_same_tensors_whatever_the_sample_frame(toml, tmp_path):
    # the same experiment with one more motor under the crystal: at 37 deg it turns the sample frame, which is that at zero
    turned = PUBLISHED.replace("phi:y", "phi:y rz:z").replace("at = {", "at = {rz = 37.0, ")
    path = tmp_path / "turned.toml"
    path.write_text(turned)
    maps = uniform(LARGE)
    a = deformation(maps, reflections=toml, register="none", frame="crystal", interpolation="linear")
    b = deformation(maps, reflections=path, register="none", frame="crystal", interpolation="linear")
    middle = [t.values[tuple(n // 2 for n in t.shape)] for d in (a, b) for t in (d["F_xy"], d["strain_xz"], d["rotation_z"])]
    assert np.allclose(middle[:3], middle[3:], atol=1e-9)
    stds = [d["F_xy_std"].values[tuple(n // 2 for n in d["F_xy"].shape)] for d in (a, b)]
    assert stds[0] == pytest.approx(stds[1], rel=0.3)  # other places between the pixels


def test_errors_are_calibrated_over_repeated_noise(toml):
    scans = [phantom.finite_strain(None, frame_shape=(24, 44), reflection=k, strain=1e-4) for k in (1, 2, 3, 4)]
    options = {"reflections": toml, "register": "none", "circuit_um": (-0.5, 0.5, -0.4, 0.4), "covariance": True}
    exact = deformation([observed(s) for s in scans], **options)
    found = [deformation([observed(s, seed=10 * n + k) for k, s in enumerate(scans)], **options) for n in range(8)]
    z = np.array([(tensor(f) - tensor(exact)) / tensor(f, "_std") for f in found])
    # 8 x 800 places with two independent in each: 2 % for a component
    assert np.all(np.abs(np.nanstd(z, axis=(0, 1, 2)) - 1) < 0.06)
    assert abs(np.nanmean(z)) < 0.03
    for name in ("strain_yy", "strain_xz", "rotation_x", "rotation_z", "dislocation_density_x", "dislocation_density_z"):
        score = np.array([(f[name] - exact[name]).values / f[f"{name}_std"].values for f in found])
        assert abs(np.nanstd(score) - 1) < 0.05, name
    product = np.nanmean(z[..., 0, 2] * z[..., 2, 0])
    stated = (found[0]["F_xz_zx_covariance"] / (found[0]["F_xz_std"] * found[0]["F_zx_std"])).mean().item()
    assert abs(product - stated) < 0.05
    score = [
        (f.attrs[f"burgers_{c}_nm"] - exact.attrs[f"burgers_{c}_nm"]) / f.attrs[f"burgers_{c}_nm_std"]
        for f in found
        for c in "xyz"
    ]
    assert 0.6 < np.std(score) < 1.4  # 24 values


def test_a_dislocation_is_found_with_its_burgers_vector(toml, dislocation):
    maps = [observed(s, seed=k) for k, s in enumerate(dislocation)]
    # the largest rectangles in the field that all four cameras share, which is a square turned by 18 deg
    found = deformation(maps, reflections=toml, register="none", circuit_um=(-1.1, 1.1, -1.1, 1.05), circuit_width_um=0.2)
    b = 1e3 * phantom.BURGERS_UM * np.array([1, -1, 0]) / np.sqrt(2)
    for c, truth in zip("xyz", b, strict=True):
        assert abs(found.attrs[f"burgers_{c}_nm"] - truth) < 4 * found.attrs[f"burgers_{c}_nm_std"] + 2e-4
        assert found.attrs[f"burgers_{c}_nm_std"] < 0.02 * phantom.BURGERS_UM * 1e3
    # the density over the same area, the circuit's smeared by the differences, without noise
    exact = deformation([observed(s) for s in dislocation], reflections=toml, register="none", circuit_um=(-1, 1, -1, 1))
    inside = exact.sel(x=slice(-1, 1), y=slice(-1, 1))
    step = float(exact["x"][1] - exact["x"][0])
    for c, truth in zip("xyz", b, strict=True):
        assert abs(exact.attrs[f"burgers_{c}_nm"] - truth) < 0.005 * 0.286
        assert abs(1e3 * step**2 * inside[f"dislocation_density_{c}"].sum().item() - truth) < 0.01 * 0.286
    # and the circuit around nothing
    away = deformation([observed(s) for s in dislocation], reflections=toml, register="none", circuit_um=(0.3, 1.05, 0.3, 1.05))
    assert abs(away.attrs["burgers_x_nm"]) < 0.01 * 0.286


def test_shifted_images_are_registered_to_a_hundredth_of_a_pixel(toml):
    # steps of at most 1.6 of the peak's width at fixed other motors: coarser ones would alias the strain into the total
    options = {"shape": (7, 21, 21), "frame_shape": (40, 72), "strain": 1e-5}
    texture = [phantom.finite_strain(None, reflection=k, **options) for k in (1, 2, 3, 4)]
    height = [sum(s.expected(i).double().sum(0) for i in np.array_split(np.arange(3087), 60)).numpy() for s in texture]
    maps = [observed(s, total=np.asarray(h, float)) for s, h in zip(texture, height, strict=True)]
    still = deformation(maps, reflections=toml)
    pixel = 0.75 / 15.1
    assert all(abs(still.attrs[f"shift_{k}_{c}_um"]) < 0.1 * pixel for k in (2, 3, 4) for c in "xy")
    # the third map misses its first rows and columns: the middle of its frame looks elsewhere by (2, 1.5) pixels
    maps[2] = maps[2].isel(row=slice(4, None), column=slice(3, None))
    moved = deformation(maps, reflections=toml)
    step = [moved.attrs[f"shift_3_{c}_um"] - still.attrs[f"shift_3_{c}_um"] for c in "xy"]
    from braggscope.modalities.dfxm.oblique.sample_plane import plane_axes, view

    chosen = published()
    seen = view(chosen.reflections[2], chosen.instrument, plane_axes(np.array([0.0, 0, 1])), (40, 72))
    assert np.allclose(step, -np.linalg.solve(seen.project, [2.0, 1.5]), atol=0.03 * pixel)
    a, b = (d.sel(x=0.3, y=-0.2, method="nearest") for d in (still, moved))
    assert abs(float(a["F_xz"] - b["F_xz"])) < 3e-6


def test_maps_that_do_not_register_are_refused_in_one_sentence(toml, dislocation):
    random = np.random.default_rng(0)
    maps = [observed(s, total=random.normal(size=FRAME)) for s in dislocation]
    with pytest.raises(
        InputError, match=r"map 2 \(-1 1 3\) does not register onto map 1 \(-1 -1 3\): the total correlates by -?0\.\d\d"
    ):
        deformation(maps, reflections=toml)
    with pytest.raises(InputError, match=r"map 1 \(-1 -1 3\) has no total to register by; take register=bending or none"):
        deformation([observed(s) for s in dislocation], reflections=toml)


def test_missing_pixels_leave_what_the_rest_can_tell(toml):
    maps = uniform(LARGE)
    for k, keep in ((0, 40), (1, 30)):
        maps[k]["chi"].values[:, keep:] = np.nan
    maps[2]["flag"].values[:20] = 1
    found = deformation(maps, reflections=toml, register="none", interpolation="linear")
    counts = flag_counts(found)
    assert (
        counts["fewer_than_three_reflections"] > 0 and counts["some_reflections_missing"] > counts["fewer_than_three_reflections"]
    )
    assert counts["doubtful_in_a_reflection"] > 0
    flag, f = found["flag"].values, tensor(found)
    assert np.isnan(f[(flag & 1) != 0]).all()
    three = ((flag & 4) != 0) & ((flag & 1) == 0)
    assert three.any() and np.abs(f[three] - LARGE.numpy()).max() < 1e-7
    assert np.any(flag == 16) and np.abs(f[flag == 16] - LARGE.numpy()).max() < 1e-7


def test_reflections_that_contradict_each_other_are_flagged(toml):
    maps = uniform(LARGE)
    maps[3]["obpitch"] = maps[3]["obpitch"] + 0.01
    maps[3]["obpitch"].attrs = {"units": "deg", "long_name": "obpitch"}
    found = deformation(maps, reflections=toml, register="none", interpolation="linear")
    assert flag_counts(found)["reflections_disagree"] > 500


def test_the_mean_lattice_as_reference_takes_out_a_uniform_deformation(toml):
    found = deformation(uniform(LARGE), reflections=toml, register="none", reference="mean", interpolation="linear")
    assert np.nanmax(np.abs(tensor(found)[found["flag"].values == 0] - np.eye(3))) < 1e-12


def test_frames_to_deformation(toml):
    maps, scans = [], []
    for k in (1, 2, 3, 4):
        scan = phantom.finite_strain(None, shape=(9, 21, 21), frame_shape=(14, 22), reflection=k, seed=k, strain=1e-4)
        estimator = Moments.with_options(None, {"gain": 1.0, "readout": 2.34})
        state = estimator.init(scan)
        for batch in scan.batches():
            state = estimator.update(state, batch)
        maps.append(estimator.result(state))
        scans.append(scan)
    options = {"reflections": toml, "register": "none"}
    exact = deformation([m.assign({n: s.truth[n] for n in STD_DEG}) for m, s in zip(maps, scans, strict=True)], **options)
    found = deformation(maps, **options)
    z = (tensor(found) - tensor(exact)) / tensor(found, "_std")
    assert np.isfinite(z).sum() > 9 * 60
    assert 0.85 < np.nanstd(z) < 1.15  # few independent places
    assert np.nanmedian(tensor(found, "_std")) < 5e-6


BAD = [
    (lambda m: m[:3], "there are 3 maps for 4 reflections"),
    (
        lambda m: [m[0], m[1].drop_vars("obpitch"), *m[2:]],
        r"map 2 \(-1 1 3\) must have peak positions of two motors.*it has chi, phi",
    ),
    (lambda m: [m[0], m[1].rename(chi="tilt"), *m[2:]], "map 2 .* it has phi, obpitch"),
    (lambda m: [m[0].drop_vars("chi_std"), *m[1:]], r"map 1 \(-1 -1 3\): chi has no standard deviation"),
    (lambda m: [m[0].assign(chi=m[0]["chi"].assign_attrs(units="rad")), *m[1:]], "map 1 .*: chi must be in deg, got 'rad'"),
    (lambda m: [m[0].isel(row=slice(1), column=slice(1)), *m[1:]], "share no field|no place|5 x 5"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_maps_that_do_not_fit_are_named(toml, change, message):
    maps = change(uniform(LARGE))
    if "share" in message:
        maps = [one.isel(row=slice(2), column=slice(2)) for one in maps]
    with pytest.raises(InputError, match=message):
        deformation(maps, reflections=toml, register="none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"register": "totl"}, "unknown register of deformation 'totl'; there are: bending, none, total"),
        ({"frame": "lab"}, "unknown frame of deformation 'lab'"),
        ({"step_um": -1.0}, "step_um must be a length from 0 on, got -1"),
        ({"least_correlation": 2.0}, "least_correlation must be between -1 and 1, got 2"),
        ({"circuit_um": (1.0, 2.0)}, "circuit_um must be four lengths"),
        ({"circuit_um": (1.0, -1.0, -1.0, 1.0)}, r"circuit_um must be x start < x stop, y start < y stop in the field \(x -"),
        ({"circuit_um": (-50.0, 50.0, -50.0, 50.0)}, "the Burgers circuit runs through places without a deformation"),
    ],
)
def test_options_that_cannot_be_are_named(toml, options, message):
    with pytest.raises(InputError, match=message):
        deformation(uniform(LARGE), reflections=toml, **{"register": "none", **options})
