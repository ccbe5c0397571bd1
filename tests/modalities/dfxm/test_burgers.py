"""The Burgers vector from tilts: recovery from simulated rocking stacks, the linear model, shapes of curves, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr

import braggscope
from braggscope.core import maps
from braggscope.core.errors import InputError
from braggscope.modalities.dfxm.analysis.burgers import burgers
from braggscope.modalities.dfxm.dislocations import imaging, tilts
from braggscope.modalities.dfxm.dislocations.characters import characters_of
from braggscope.modalities.dfxm.dislocations.curve_shapes import Shapes, shape_map
from braggscope.modalities.dfxm.dislocations.resolution import Resolution, fixed_optics
from braggscope.modalities.dfxm.dislocations.setting import PRESETS, setting_of
from braggscope.modalities.dfxm.views.burgers import burgers as picture

# A beam whose resolution function is smooth on the scale of the steps: with sharp edges, few steps would move the means
SETTING = """[dislocations]
burgers_nm = 0.286
bandwidth_fwhm = 1e-3
horizontal_divergence = 3e-4
aperture_rad = 3e-3
depth_points = 3
"""


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    file = tmp_path_factory.mktemp("setting") / "smooth.toml"
    file.write_text(SETTING)
    return str(file)


def simulated(preset, character, seed, **options):
    """The map and the truth of a rocking stack."""
    given = {"shape": (15, 11), "half_deg": (0.05, 0.4), "frame_shape": (18, 34), "noise": "counts", "peak": 20000.0} | options
    scan = braggscope.simulate("dfxm", "dislocations", progress=False, preset=preset, characters=character, seed=seed, **given)
    return braggscope.map(scan, "moments", progress=False, pedestal=110.0, gain=1.0, readout=3.0), scan.truth


@pytest.fixture(scope="module")
def found(preset):
    dataset, truth = simulated(preset, "2", 2)
    return dataset, truth, burgers(dataset, preset=preset, characters=("1", "2", "3", "8"))


def test_the_right_character_place_and_amplitude_come_back_within_their_errors(preset, found):
    _, truth, result = found
    maps.check_map(result)
    assert str(result["character"].values[0]).startswith("2 ") and result["probability"].values[0] > 0.999
    assert result.attrs["amplitude_of_best"] == pytest.approx(1.0, abs=4 * result.attrs["amplitude_of_best_std"])
    assert result.attrs["amplitude_of_best_std"] < 0.01 and result.attrs["misfit"] < 1.3
    pitch = {"row": setting_of(preset).pixel_nm / math.sin(math.radians(20.73)), "column": 75.0}
    for name, axis, size in (("row", "x", 18), ("column", "y", 34)):
        place = float(truth[f"image_{axis}_1"]) / pitch[name] + (size - 1) / 2
        assert float(result[f"line_{name}"][0]) == pytest.approx(place, abs=4 * float(result[f"line_{name}_std"][0]))


def test_the_free_burgers_vector_is_that_of_the_lattice_within_its_errors(found):
    result = found[2]
    free, std, lattice = (
        np.array([float(w) for w in result.attrs[n].split()]) for n in ("free_burgers_nm", "free_burgers_std_nm", "burgers_nm")
    )
    assert (abs(free - lattice) < 4 * std).all() and std.max() < 0.01
    assert lattice == pytest.approx(np.array([1, 1, 0]) * 0.286 / math.sqrt(2), abs=1e-5)


def test_tilts_without_a_dislocation_are_called_so(preset, found):
    """The tilts of the background alone with their errors; and a fifth of a dislocation's."""
    dataset, _, result = found
    assert result.attrs["none_probability"] < 1e-6 and "no dislocation" not in result.attrs.get("caution", "")
    random, empty, faint = np.random.default_rng(3), dataset.copy(), dataset.copy()
    for name in ("phi", "chi"):
        std = dataset[f"{name}_std"].values
        noise = float(dataset[name].median()) + std * random.standard_normal(std.shape)
        empty[name] = dataset[name].copy(data=noise)
        faint[name] = dataset[name].copy(data=noise + 0.2 * (dataset[name].values - float(dataset[name].median())))
    options = {"preset": preset, "characters": ("1", "2"), "centre": (8.5, 16.5)}
    none = burgers(empty, **options)
    assert none.attrs["none_probability"] > 0.95 and "there is no dislocation has a probability of" in none.attrs["caution"]
    place = float(result["line_row"][0]), float(result["line_column"][0])
    fifth = burgers(faint, **(options | {"centre": place}))
    assert "times those of a Burgers vector of the lattice" in fifth.attrs["caution"]


def test_a_search_that_does_not_end_is_nan(preset, found, monkeypatch):
    dataset, _, _ = found
    search = tilts.least_squares
    monkeypatch.setattr(tilts, "least_squares", lambda *given, **options: search(*given, **(options | {"max_nfev": 1})))
    result = burgers(dataset, preset=preset, characters=("2",))
    assert np.isnan(result["line_row"][0]) and np.isnan(result["amplitude"][0]) and np.isfinite(result["reduced_chi2"][0])
    assert "did not end" in result.attrs["caution"]


def test_opposite_tilts_give_the_opposite_burgers_vector(preset, found):
    dataset, _, result = found
    turned = dataset.copy()
    for name in ("phi", "chi"):
        turned[name] = (-dataset[name]).assign_attrs(dataset[name].attrs)
    other = burgers(turned, preset=preset, characters=("2",))
    assert other.attrs["amplitude_of_best"] == pytest.approx(-result.attrs["amplitude_of_best"], abs=0.01)


def test_a_mixed_line_is_told_from_edge_and_screw(tmp_path):
    file = tmp_path / "mixed.toml"
    file.write_text(SETTING + 'characters = "edge screw -60"\n')
    dataset, _ = simulated(str(file), "[10-1](111) -60", 0)
    result = burgers(dataset, preset=str(file), characters=("[10-1](111) -60", "[10-1](111) edge", "[10-1](111) screw"))
    assert result.attrs["best"] == "[10-1](111) -60" and result.attrs["probability_of_best"] > 0.99
    assert result.attrs["amplitude_of_best"] == pytest.approx(1.0, abs=4 * result.attrs["amplitude_of_best_std"])


def test_tilts_are_the_middles_of_the_resolution_function():
    """Mean over a fine rocking scan of the image of one ray, by the exact rotations, against the linear model."""
    setting = PRESETS["al-002"].replace(depth_points=1, bandwidth_fwhm=1e-3, pixel_nm=400.0, aperture_rad=1e-2)
    character = characters_of(setting)[6]
    b, n, t = (v[[6]] for v in imaging.in_sample(characters_of(setting), setting))
    place = torch.tensor([[150.0, -220.0]], dtype=torch.float64)
    field = imaging.straight_lines(setting, place, b, n, t)
    phi = torch.linspace(-1.2e-3, 1.2e-3, 241, dtype=torch.float64)
    stack = imaging.image(setting, field, (3, 4), phi=phi, chi=torch.zeros_like(phi))
    mean = (stack * phi[:, None, None]).sum(0) / stack.sum(0)
    x, y = fixed_optics(setting).axes_nm((3, 4))
    pixels = np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2)
    some = tilts.ring(setting, pixels, 0 * pixels, np.broadcast_to(np.eye(2), (12, 2, 2)), np.array([1.0, 1.0]))
    project = some.setting.orientation() @ np.stack([np.cross(character.normal, character.line), character.normal], -1)
    gamma = fixed_optics(setting).gamma
    in_image = np.linalg.solve((project.T @ gamma.T)[:, :2], place[0].numpy())
    seen = some.seen(b[0], n[0], t[0], in_image)[:, 0].reshape(3, 4)
    np.testing.assert_allclose(mean.numpy(), seen, atol=0.01 * abs(seen).max())


def test_strain_moves_the_rocking_curve_by_tan_theta_unless_the_aperture_cuts():
    wide = Resolution.of(PRESETS["al-002"].replace(aperture_rad=1e-2))
    assert wide.strain_to_rock() == pytest.approx(math.tan(wide.theta), rel=1e-6)
    cut = Resolution.of(PRESETS["al-002"].replace(bandwidth_fwhm=1e-3)).strain_to_rock()
    assert 0 < cut < 0.6 * math.tan(wide.theta)


def test_shapes_of_curves_have_their_direction_length_and_class():
    angle = np.array([[0.0, 90.0, 45.0, -45.0, 10.0]])
    large, small = 4e-4, 1e-4
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    values = np.stack([large * c**2 + small * s**2, large * s**2 + small * c**2, (large - small) * c * s])
    made = shape_map(Shapes(values, np.full(values.shape, 1e-5)), ("phi", "chi"))
    turned = (made["covariance_angle"].values - angle + 90) % 180 - 90
    np.testing.assert_allclose(turned, 0, atol=1e-9)
    np.testing.assert_allclose(made["covariance_excess"], large)
    np.testing.assert_allclose(made["covariance_ratio"], small / large)
    assert made["covariance_class"].values.tolist() == [[1, 2, 3, 4, 1]]


def test_errors_of_shapes_are_those_of_random_curves():
    random = np.random.default_rng(1)
    std = np.array([2e-5, 1e-5, 1.5e-5])
    drawn = np.array([5e-4, 2e-4, 1e-4])[:, None] + std[:, None] * random.normal(size=(3, 4000))
    made = shape_map(Shapes(drawn[:, None], np.broadcast_to(std[:, None, None], (3, 1, 4000))), ("phi", "chi"))
    for name in ("covariance_angle", "covariance_excess", "covariance_ratio"):
        assert np.std(made[name]) == pytest.approx(float(np.mean(made[f"{name}_std"])), rel=0.08), name


def test_curves_are_broad_beside_the_line_and_the_picture_shows_it(found):
    result = found[2]
    assert set(np.unique(result["covariance_class"].values)) <= {0, 1, 2, 3, 4}
    near = (
        np.hypot(*np.indices(result["flag"].shape) - np.array([result["line_row"][0], result["line_column"][0]])[:, None, None])
        < 2
    )
    assert (result["covariance_class"].values[near] > 0).mean() > 2 * (result["covariance_class"].values[~near] > 0).mean()
    assert picture(result) is not None and picture(xr.Dataset()) is None


def test_bad_input_is_named(preset, found):
    dataset = found[0]
    for change, options, sentence in (
        (dataset.drop_vars("chi"), {}, "needs the peak along a rolling motor"),
        (dataset.drop_vars("phi_std"), {}, "the map lacks phi_std"),
        (dataset, {"centre": (99.0, 3.0)}, "centre must be a pixel of the 18 x 34"),
        (dataset, {"radius_nm": (500.0, 300.0)}, "radius_nm must be two rising lengths"),
        (dataset, {"radius_nm": (5e5, 6e5)}, "widen radius_nm"),
        (dataset, {"motors": ("mu", "chi")}, "not 'mu'"),
    ):
        with pytest.raises(InputError, match=sentence):
            burgers(change, preset=preset, **options)
