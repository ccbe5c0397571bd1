"""Localisation of dislocations: published images, recovery within the stated error, and what is refused."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import braggscope
from braggscope.core.errors import InputError
from braggscope.modalities.dfxm.analysis.localise import document
from braggscope.modalities.dfxm.dislocations.characters import characters_of, chosen
from braggscope.modalities.dfxm.dislocations.fit import Level, fit, loss, terms
from braggscope.modalities.dfxm.dislocations.identify import identified
from braggscope.modalities.dfxm.dislocations.model import ImageModel
from braggscope.modalities.dfxm.dislocations.optics import through_the_beam
from braggscope.modalities.dfxm.dislocations.posterior import with_posterior
from braggscope.modalities.dfxm.dislocations.sampling import sampled
from braggscope.modalities.dfxm.dislocations.search import located, start_level
from braggscope.modalities.dfxm.dislocations.setting import PRESETS, setting_of
from braggscope.physics.dislocations import straight_dislocation
from braggscope.physics.slip_systems import hexagonal_axes

DATA = Path(__file__).parents[2] / "reference"
AL, SHAPE = PRESETS["al-002"], (50, 50)
ALL = np.ones(SHAPE, bool)


@pytest.fixture(scope="module")
def legacy():
    setting = PRESETS["al-002-legacy"]
    return ImageModel(setting, characters_of(setting), SHAPE)


def drawn(model, which, places, seed, background=0.05, readout=0.01):
    """An image with the published noise: d = I + beta + sqrt(I + beta + sigma^2) n; and what it was drawn with."""
    rng = np.random.default_rng(seed)
    image = 1.8 * model.image(which, places, derivatives=False)[0]
    beta, sigma = background * image.max(), readout * image.max()
    counts = image + beta + np.sqrt(image + beta + sigma**2) * rng.standard_normal(image.shape)
    return counts, Level(1.8, beta, 1.0, sigma**2, (False,) * 4)


def published(number):
    """A stored image of the publication, with its true place, estimate and covariance (DFXMTools, MIT)."""
    with np.load(DATA / f"dfxmtools_char{number}.npz") as stored:
        return {name: stored[name] for name in stored}


def test_the_quadrature_is_the_published_one():
    """Nodes and weights as in the released code of Brennan et al., which takes 2.355 for the FWHM of a Gaussian."""
    nodes, weights = through_the_beam(PRESETS["al-002-legacy"])
    np.testing.assert_allclose(nodes[5:], [18.855, 54.944, 86.271, 110.033, 124.026], atol=2e-3)
    np.testing.assert_allclose(weights[5:], [37.336, 33.425, 26.413, 17.472, 7.628], atol=2e-3)


@pytest.mark.parametrize(("number", "chi2"), [(1, 0.944), (2, 0.963)])
def test_published_images_are_explained_at_their_true_places(legacy, number, chi2):
    stored = published(number)
    image = 1.8 * legacy.image([number - 1], stored["true_loc_dis"], derivatives=False)[0]
    mean, readout = image + 0.05 * image.max(), 0.01 * image.max()
    found = ((stored["im_obs"] - mean) ** 2 / (mean + readout**2)).mean()
    assert found == pytest.approx(chi2, abs=2e-3)


def test_the_released_likelihood_gives_the_published_answer():
    """Character 2: the stored estimate within 0.3 nm, the covariance of the stored Markov chains within 25 %."""
    stored, setting = published(2), PRESETS["al-002-released"]
    model = ImageModel(setting, characters_of(setting), SHAPE)
    top = 1.8 * model.image([1], stored["true_loc_dis"], derivatives=False)[0].max()
    level = Level(1.8, 0.05 * top, 1.0, (0.01 * top) ** 2, (False,) * 4)
    found = located(model, stored["im_obs"], ALL, level, [1])[0]
    assert np.abs(found.places[0] - stored["map_point"]).max() < 0.3
    whole = with_posterior(model, stored["im_obs"], ALL, found)
    assert np.abs(whole.mean[0] - stored["chain_mean"]).max() < 0.2
    np.testing.assert_allclose(np.diag(whole.covariance), np.diag(stored["chain_covariance"]), rtol=0.25)
    chain = sampled(model, stored["im_obs"], ALL, whole, 600, 3).places[:, 0]
    assert np.abs(chain.mean(0) - stored["chain_mean"]).max() < 0.3


@pytest.mark.parametrize("preset", ["al-002", "al-002-legacy"])
def test_derivatives_are_those_of_the_image(preset):
    setting = PRESETS[preset]
    model = ImageModel(setting, characters_of(setting), (14, 18))
    which, places, step = [1, 6], np.array([[31.0, -12.0], [260.0, 410.0]]), 1e-3
    _, jacobian = model.image(which, places)
    for k in range(4):
        move = np.zeros((2, 2))
        move.flat[k] = step
        up, down = (model.image(which, places + s * move, derivatives=False)[0] for s in (1, -1))
        by_difference = (up - down) / (2 * step)
        assert np.abs(jacobian[k] - by_difference).max() < 1e-4 * np.abs(by_difference).max()


def test_the_image_is_that_of_the_field(legacy):
    """Independent of the kernel: F from the physics module, inverted by torch; at nu = 0 the released sign in H_yy is none."""
    setting = legacy.setting.replace(poisson=0.0)
    model = ImageModel(setting, legacy.characters, (9, 11))
    x, y = model.axes_nm
    optics, place = model.optics, np.array([[40.0, -30.0]])
    (one,) = chosen(setting, ["7"])
    turn = torch.from_numpy(model.straight[[6]].turn[0])
    total = np.zeros((9, 11))
    for z, weight in zip(optics.depth_nm, optics.weight_nm, strict=True):
        ray = np.stack(np.broadcast_arrays(x[:, None] + z * optics.tilt, y[None, :], z), -1) @ optics.gamma
        origin = place @ model.straight[[6]].turn[0, :2]  # of the line, in the sample
        burgers = torch.tensor(one.burgers, dtype=torch.float64)
        burgers = burgers / burgers.norm() * 0.286
        field = straight_dislocation(
            torch.from_numpy(ray - origin), burgers, torch.tensor(one.normal).double(), torch.tensor(one.line).double(), 0.0
        )
        q = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        bent = torch.linalg.solve((torch.eye(3, dtype=torch.float64) + field).mT, q.expand(9, 11, 3)[..., None])[..., 0]
        q_1 = (bent - q).numpy() @ optics.along - optics.along @ optics.offset - optics.centre
        t = torch.from_numpy((optics.half_width - np.abs(q_1)) / optics.sigma)
        total += weight * torch.special.ndtr(t).numpy()
    assert turn.shape == (3, 3)
    np.testing.assert_allclose(model.image([6], place, derivatives=False)[0], total, atol=2e-4 * total.max())


def test_loss_and_gradient_agree(legacy):
    counts, level = drawn(legacy, [4], np.array([[50.0, 20.0]]), seed=1)
    level = Level(1.7, level.background, 1.1, level.readout2, (True, True, True, True))
    at = fit(legacy, counts, ALL, [4], np.array([[60.0, 10.0]]), level, steps=0)
    gradient, step = terms(legacy, counts, ALL, at).gradient, 1e-4
    values = np.concatenate([at.places.ravel(), level.values])
    for k in range(6):
        sides = []
        for sign in (1, -1):
            moved = values.copy()
            moved[k] += sign * step * max(1.0, abs(values[k]))
            changed = Level(*moved[2:].tolist(), free=level.free)
            sides.append(loss(legacy, counts, ALL, [4], moved[:2], changed))
        slope = -(sides[0] - sides[1]) / (2 * step * max(1.0, abs(values[k])))
        assert gradient[k] == pytest.approx(slope, rel=2e-3, abs=2e-3 * abs(gradient).max())


def test_places_are_found_within_their_error(legacy):
    """24 images: the squares of the standard errors follow chi^2 with two degrees of freedom (their mean is 2 +- 0.41)."""
    squares, errors = [], []
    rng = np.random.default_rng(8)
    for n in range(24):
        which = [n % 12]
        true = legacy.from_image(which, (rng.random(2) - 0.5) * 1400)
        counts, level = drawn(legacy, which, true, seed=n)
        found = with_posterior(legacy, counts, ALL, located(legacy, counts, ALL, level, which)[0])
        off = (found.mean - true)[0]
        squares.append(off @ np.linalg.solve(found.covariance[:2, :2], off))
        errors.append(np.hypot(*off))
    assert 2 - 1.3 < np.mean(squares) < 2 + 1.6
    assert np.median(errors) < 1.3  # nm; 0.8 over many images


def test_background_amplitude_and_noise_are_found(legacy):
    true = legacy.from_image([4], np.array([100.0, -80.0]))
    counts, level = drawn(legacy, [4], true, seed=5)
    start = start_level(legacy, counts, ALL)
    start = Level(start.amplitude * 1.2, start.background, 1.0, start.readout2, (True, True, False, True))
    found = with_posterior(legacy, counts, ALL, located(legacy, counts, ALL, start, [4])[0])
    spread = np.sqrt(np.diag(found.covariance))
    assert abs(found.level.amplitude - 1.8) < 4 * spread[2]
    assert abs(found.level.background - level.background) < 4 * spread[3]
    assert np.hypot(*(found.mean - true)[0]) < 5


def test_character_and_number_are_inferred(legacy):
    true = legacy.from_image([6], np.array([300.0, 200.0]))
    counts, _ = drawn(legacy, [6], true, seed=2)
    found = identified(legacy, counts, ALL, start_level(legacy, counts, ALL), most=2)
    assert found.fit.which == (6,)
    assert found.number.argmax() == 1 and found.probability[0] > 0.99
    empty = 20 + np.sqrt(24) * np.random.default_rng(3).standard_normal(SHAPE)
    none = identified(legacy, empty, ALL, start_level(legacy, empty, ALL), most=2)
    assert none.fit.which == () and none.number[0] > 0.95


@pytest.fixture
def stack(tmp_path, legacy):
    places = [np.array([[120.0, -60.0]]), np.array([[-200.0, 90.0]])]
    counts = [drawn(legacy, [w], p, seed=w)[0] for w, p in zip((4, 9), places, strict=True)]
    np.save(tmp_path / "images.npy", np.array(counts))
    return tmp_path / "images.npy", places


def test_the_document_has_each_image(stack):
    path, places = stack
    result = braggscope.analyse("dfxm", "localise", path, preset="al-002-legacy", character=("5", "10"))
    images = document(result)["images"]
    for one, true in zip(images, places, strict=True):
        (only,) = one["dislocations"]
        covariance = np.array(only["covariance_nm2"])
        off = np.array([only["x_nm"], only["y_nm"]]) - true[0]
        assert off @ np.linalg.solve(covariance, off) < 20
    assert [one["dislocations"][0]["character"] for one in images] == [5, 10]


def test_frames_are_turned_into_each_other(stack):
    path, _ = stack
    told = {"preset": "al-002-legacy", "character": ("5", "10")}
    own = braggscope.analyse("dfxm", "localise", path, **told)
    image = braggscope.analyse("dfxm", "localise", path, **told, frame="image")
    np.testing.assert_allclose(image["x"], own["image_x"], atol=1e-6)
    determinant = own["x_variance"] * own["y_variance"] - own["xy_covariance"] ** 2
    assert (determinant > 0).all() and not np.allclose(own["x"], image["x"])


def test_a_saturated_image_is_flagged(tmp_path):
    np.save(tmp_path / "full.npy", np.full((1, 20, 20), 65535, np.uint16))
    result = braggscope.analyse("dfxm", "localise", tmp_path / "full.npy", character=("2",))
    assert result["flag"].values[0] == 2 and result.sizes["dislocation"] == 0


@pytest.mark.parametrize("preset", ["al-002", "al-002-legacy"])
def test_an_image_without_a_dislocation_is_flagged_where_one_was_asked_for(tmp_path, preset):
    np.save(tmp_path / "empty.npy", np.random.default_rng(1).poisson(10, (30, 40)))
    found = braggscope.analyse("dfxm", "localise", str(tmp_path / "empty.npy"), preset=preset, character=("1",))
    assert found.number == 1
    assert found.none_probability > 0.05
    assert found.flag.item() & 5


def test_what_is_too_faint_to_be_seen_is_flagged(tmp_path, legacy):
    """An amplitude so small that no place is told from another: none is as likely as one, and nothing is found."""
    counts, _ = drawn(legacy, [4], np.array([[50.0, 20.0]]), seed=1)
    np.save(tmp_path / "image.npy", counts)
    options = {"preset": "al-002-legacy", "character": ("5",)}
    found = braggscope.analyse("dfxm", "localise", str(tmp_path / "image.npy"), amplitude=1e-9, **options)
    assert found.none_probability == pytest.approx(0.5, abs=0.01)
    assert found.flag.item() & 1 and found.flag.item() & 4
    seen = braggscope.analyse("dfxm", "localise", str(tmp_path / "image.npy"), **options)
    assert seen.none_probability < 1e-6 and seen.flag.item() == 0


def test_an_image_of_next_to_nothing_holds_no_dislocation(tmp_path, legacy):
    """Counts of 1e-9 without noise: a level of the background tells nothing of any place."""
    image = 4e-12 * legacy.image([4], np.array([[50.0, 20.0]]), derivatives=False)[0]
    np.save(tmp_path / "image.npy", image.astype(np.float32))
    found = braggscope.analyse("dfxm", "localise", str(tmp_path / "image.npy"), preset="al-002-legacy", most=1)
    assert found.flag.item() != 0


def test_an_image_with_its_brightest_pixels_cut_off_is_fitted_and_flagged(tmp_path):
    """No place explains more than the background at the amplitude of the preset; the place is right all the same."""
    stored = published(1)
    np.save(tmp_path / "cut.npy", np.minimum(stored["im_obs"], 60))
    found = braggscope.analyse("dfxm", "localise", str(tmp_path / "cut.npy"), preset="al-002-legacy", character=("1",))
    assert found.flag.item() & 64
    assert np.hypot(found.x.item() - stored["true_loc_dis"][0], found.y.item() - stored["true_loc_dis"][1]) < 10


def test_the_released_likelihood_tells_no_readout_noise_beside_the_background(tmp_path):
    """Both are in its variance alone, so that only their sum is inferred."""
    stored = published(2)
    np.save(tmp_path / "image.npy", stored["im_obs"])
    found = braggscope.analyse("dfxm", "localise", str(tmp_path / "image.npy"), preset="al-002-released", character=("2",))
    assert found.flag.item() == 0
    assert np.hypot(found.x.item() - stored["true_loc_dis"][0], found.y.item() - stored["true_loc_dis"][1]) < 3


def test_a_published_character_goes_by_its_slip_system_too():
    setting = PRESETS["al-002"]
    assert [one.name for one in chosen(setting, ["[110](1-11)", "2"])] == ["2", "2"]
    with pytest.raises(InputError, match=r"unknown character '13'; there are: 1 or \[110\]\(-111\), 2 or"):
        chosen(setting, ["13"])


def test_a_scan_of_motors_is_refused():
    scan = braggscope.simulate("dfxm", "subgrains", shape=(3, 4), frame_shape=(8, 9), seed=1)
    with pytest.raises(InputError, match=r"images of one setting, .* not a scan of"):
        braggscope.analyse("dfxm", "localise", scan)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preset": "al-200"}, "preset must be one of al-002"),
        ({"preset": "nothing.toml"}, "does not exist"),
        ({"character": ("13",)}, "unknown character .13.; there are: 1 or "),
        ({"character": ("1", "2", "3")}, "character must be one for all or one for each of the 2 images, got 3"),
        ({"dislocations": -1}, "dislocations must be between 0 and 12, got -1"),
        ({"most": 99999}, "most must be between 1 and 12, got 99999"),
        ({"readout": -3.0}, "readout must be between 0"),
    ],
)
def test_bad_options_are_named(stack, options, words):
    with pytest.raises(InputError, match=words):
        braggscope.analyse("dfxm", "localise", stack[0], **options)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('hkl = "-1-11"', "hkl must be three numbers, not all 0, got '-1-11'"),
        ("hkl = [0, 0, true]", "hkl must be three numbers"),
        ('background_in_mean = "no"', "background_in_mean must be true or false, got 'no'"),
        ('structure = "diamond"', "structure must be one of fcc, bcc, hcp, got 'diamond'"),
    ],
)
def test_a_wrong_word_in_a_setting_is_named(tmp_path, line, words):
    (tmp_path / "own.toml").write_text(f"[dislocations]\n{line}\n")
    with pytest.raises(InputError, match=words):
        setting_of(str(tmp_path / "own.toml"))


def test_the_indices_of_a_hexagonal_crystal_are_those_of_its_lattice():
    """g.b of the prismatic reflection 10-10 with the lattice vectors a_1, a_2 and c is 1, 0 and 0, so that it lies along z so."""
    setting = AL.replace(structure="hcp", characters="screw", hkl=(1.0, 0.0, 0.0), along_x=(0.0, 0.0, 1.0), c_over_a=1.587)
    a_1, a_2, c = (setting.orientation() @ v for v in hexagonal_axes(1.587)[[0, 1, 3]])
    np.testing.assert_allclose([a_1[2], a_2[2], c[2]], [math.sqrt(3) / 2, 0, 0], atol=1e-12)
    np.testing.assert_allclose(c, [1.587, 0, 0], atol=1e-12)
    slanted = AL.replace(structure="hcp", characters="screw", hkl=(1.0, 0.0, 1.0), along_x=(0.0, 1.0, 0.0), c_over_a=1.587)
    np.testing.assert_allclose(slanted.orientation() @ hexagonal_axes(1.587)[1], [1, 0, 0], atol=1e-12)  # a_2 lies in (10-11)
    with pytest.raises(InputError, match="c_over_a is needed for hcp"):
        AL.replace(structure="hcp", characters="screw")


def test_a_toml_file_takes_the_place_of_a_preset(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(
        '[dislocations]\nstructure = "bcc"\ncharacters = "edge screw"\nlattice_a = 2.866\nhkl = [1, 1, 0]\nalong_x = [0, 0, 1]\n'
    )
    setting = setting_of(str(file))
    found = characters_of(setting)
    assert len(found) == 2 * 2 * 48 and np.linalg.norm(found[0].burgers) == pytest.approx(np.sqrt(3) / 2)
    np.testing.assert_allclose(setting.orientation() @ np.array([1, 1, 0]) / np.sqrt(2), [0, 0, 1], atol=1e-12)
    file.write_text("[dislocations]\nalong_x = [0, 0, 4]\n")
    with pytest.raises(InputError, match=r"along_x .* must not be parallel to hkl"):
        setting_of(str(file))
