"""Simulated scans: microstructure, light on the grains, truth, and files."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import braggscope
from braggscope.core.errors import InputError
from braggscope.modalities.laue.geometry import LaueGeometry
from braggscope.modalities.laue.geometry import film as instrument
from braggscope.modalities.laue.orientations import reduced
from braggscope.modalities.laue.phantoms import beam, microstructure
from braggscope.modalities.laue.phantoms.film import film, on_surface, polycrystal, single, with_frames
from braggscope.modalities.laue.spectrum import surface_normal
from braggscope.physics.crystals import crystal_of

SMALL = {"shape": (6, 9), "frame_shape": (61, 51)}
FINE = 0.02 * np.arange(-150, 351)  # um
AU = crystal_of("Au")


def sample(seed=0, **options):
    given = {
        "size_um": 0.37,
        "elongation": 1.5,
        "texture": "random",
        "fibre": "1 1 1",
        "spread_deg": 3.0,
        "twins": 0.0,
        "strain": 0.0,
    }
    return microstructure.microstructure(seed, FINE, FINE, AU, instrument(), **{**given, **options})


def test_grains_have_the_size_and_elongation_asked_for():
    one = sample()
    area = np.bincount(one.number.ravel()) * 0.02**2
    assert np.sqrt(area.mean()) == pytest.approx(0.37, rel=0.01)
    # boundaries met along y over boundaries met along x: lengths along x over lengths along y
    along_x, along_y = ((np.diff(one.number, axis=a) != 0).sum() for a in (1, 0))
    assert along_y / along_x == pytest.approx(1.5, rel=0.06)
    assert 0.45 < area.std() / area.mean() < 0.6  # 0.53 of Poisson-Voronoi cells (Hinde & Miles 1980)


def test_grains_have_their_smallest_rotation():
    angle = Rotation.from_matrix(sample().orientation).magnitude()
    assert np.rad2deg(angle).max() < 62.8  # the largest of cubic crystals
    u = Rotation.random(20, rng=np.random.default_rng(1)).as_matrix()
    assert np.allclose(reduced(u @ AU.rotations[7], AU.rotations), reduced(u, AU.rotations))


def test_a_fibre_texture_lays_its_planes_along_the_surface():
    one = sample(texture="fibre", fibre="1 1 1", spread_deg=4.0)
    every = one.orientation[:, None] @ AU.rotations @ (np.ones(3) / np.sqrt(3))
    away = np.rad2deg(np.arccos((every @ surface_normal(instrument())).max(1).clip(-1, 1)))
    assert np.sqrt((away**2).mean() / 2) == pytest.approx(4.0, rel=0.1)


def test_twins_share_a_111_axis_with_their_grain():
    before, one = sample(3), sample(3, twins=0.3)
    old, new = len(before.orientation), len(one.orientation)
    assert 0.2 < (new - old) / old < 0.36
    for twin in range(old, old + 40):
        grain = np.unique(before.number[one.number == twin])
        assert len(grain) == 1
        between = one.orientation[grain[0]].T @ one.orientation[twin] @ AU.rotations
        assert np.rad2deg(Rotation.from_matrix(between).magnitude()).min() == pytest.approx(60.0, abs=1e-6)


def test_the_light_on_the_grains_is_all_the_light():
    one = sample()
    y, x = 0.1 * np.arange(5), 0.1 * np.arange(8)
    start, grain, weight = beam.weights(one, y, x, (1.0, 1.0))
    total = np.add.reduceat(weight, start[:-1])
    assert len(total) == 40 and np.allclose(total, 1, atol=5e-3)  # faint grains are left out
    p = 3 * 8 + 6  # at y = 0.3, x = 0.6
    sigma = 1 / beam.FWHM
    profile = np.exp(-((FINE[:, None] - 0.3) ** 2 + (FINE - 0.6) ** 2) / (2 * sigma**2)) * 0.02**2 / (2 * np.pi * sigma**2)
    direct = np.bincount(one.number.ravel(), profile.ravel())
    assert np.allclose(direct[grain[start[p] : start[p + 1]]], weight[start[p] : start[p + 1]], atol=2e-5)


def test_a_stretched_footprint_lights_more_grains_along_x():
    one = sample()
    at = np.zeros(1)
    widths = {}
    for name, footprint in (("round", (1.0, 1.0)), ("stretched", instrument().footprint_um)):
        _, grain, weight = beam.weights(one, at, at, footprint)
        place = np.array([[FINE[np.nonzero(one.number == g)[a]].mean() for a in (0, 1)] for g in grain])
        widths[name] = np.sqrt((weight[:, None] * place**2).sum(0) / weight.sum())
    ratio = widths["stretched"] / widths["round"]
    assert ratio[1] == pytest.approx(1 / np.sin(np.deg2rad(40)), rel=0.1) and ratio[0] == pytest.approx(1, rel=0.1)


def test_truth_names_the_grain_under_the_beam():
    scan = film(instrument(), **SMALL, seed=4)
    truth = scan.truth
    assert truth["grain"].dims == ("y", "x") and truth.sizes["x"] == 9
    fine = truth["fine_grain"].sel(fine_y=truth["y"], fine_x=truth["x"], method="nearest")
    assert (fine.values == truth["grain"].values).all()
    vector = np.stack([truth[f"orientation_{a}"].values for a in "xyz"], -1)
    matrix = truth["matrix"].sel(number=truth["grain"]).values
    assert np.allclose(Rotation.from_rotvec(np.deg2rad(vector.reshape(-1, 3))).as_matrix().reshape(6, 9, 3, 3), matrix)
    trace = sum(truth[f"strain_{n}"].values for n in ("xx", "yy", "zz"))
    assert np.abs(trace).max() < 1e-15 < np.abs(truth["strain_xy"].values).min()
    assert (truth["fraction"].values > 0.001).all() and (truth["fraction"].values < 1).all()


def test_the_same_seed_gives_the_same_frames_in_any_order_and_another_another():
    one, again, other = (film(instrument(), **SMALL, seed=s) for s in (4, 4, 5))
    index = np.array([40, 3, 17])
    assert np.array_equal(one.frames(index), again.frames(index[::-1])[::-1])
    assert not np.array_equal(one.truth["grain"], other.truth["grain"])


def test_background_substrate_and_hot_pixels_are_the_same_in_all_frames_and_grains_are_not():
    full, bare = (film(instrument(), **SMALL, seed=4, noise=None, substrate=s) for s in (0.1, 0.0))
    index = np.array([0, 25, 53])
    of_substrate = full.frames(index) - bare.frames(index)
    # single precision of frames that differ by grains of thousands of counts
    assert np.abs(of_substrate - of_substrate[0]).max() < 0.05 and of_substrate.max() > 100
    dark = film(instrument(), **SMALL, seed=4, noise=None, substrate=0.0, hot=0.0)
    hot = (bare.frames(index) - dark.frames(index))[0]
    assert 0 <= (hot > 100).sum() <= 3
    assert np.abs(np.diff(bare.frames(index), axis=0)).max() > 1


def test_a_fully_lit_grain_has_the_peak_asked_for():
    """Brightest pixels over grains of a coarse polycrystal: their median, each spot somewhere within its pixel."""
    scan = polycrystal(
        instrument(), shape=(12, 12), step=6.0, peak=5000.0, noise=None, hot=0.0, background=0.0, footprint="round"
    )
    lit = scan.truth["fraction"].values.ravel() > 0.99
    frames = scan.frames(np.flatnonzero(lit)[:60])
    assert 0.5 * 5000 < np.median(frames.max((1, 2))) < 1.1 * 5000


def test_single_shows_the_substrate_like_crystal_everywhere():
    scan = single(instrument(), frame_shape=(244, 204), shape=(2, 2), noise=None)
    frames = scan.frames(np.arange(4))
    assert np.array_equal(frames[0], frames[3]) and frames.max() > 2000
    surface = on_surface(instrument(), (0.0, 0.0, 0.0))
    assert np.allclose(surface[:, 2], surface_normal(instrument())) and np.linalg.det(surface) == pytest.approx(1)


def test_other_pixels_cover_the_same_detector():
    geometry, coarse = instrument(), with_frames(instrument(), (97, 81))
    assert coarse.rows * coarse.pixel_um == pytest.approx(487 * 344, rel=0.01)
    foot = (geometry.xcen_px - 0.5) * geometry.pixel_um
    assert (coarse.xcen_px - 0.5) * coarse.pixel_um == pytest.approx(foot, abs=coarse.pixel_um / 2)


def test_a_scan_survives_its_file(tmp_path):
    scan = braggscope.simulate("laue", "film", output=tmp_path / "film.h5", progress=False, seed=2, peak=500.0, **SMALL)
    again = braggscope.open(tmp_path / "film.h5")
    assert LaueGeometry.from_scan(again) == scan.geometry and again.modality == "laue" and again.shape == (6, 9)
    assert np.array_equal(next(iter(again.batches())).frames, scan.frames(np.arange(54)).astype(np.uint16))
    import xarray as xr

    with xr.open_dataset(tmp_path / "film.h5", group="entry/truth", engine="h5netcdf") as truth:
        assert (truth["grain"].values == scan.truth["grain"].values).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"texture": "rolled"}, "option texture must be random or fibre, got 'rolled'"),
        ({"texture": "fibre", "fibre": "111"}, "option fibre must be three indices like '1 1 1', got '111'"),
        ({"size": 0.0}, "option size must be between 0.001 and 10000, got 0"),
        ({"size": 0.01, "shape": (40, 40)}, "grains of 0.01 um under a scan of 3.9 x 3.9 um are too many"),
        ({"twins": 1.5}, "option twins must be between 0 and 1, got 1.5"),
        ({"step": -1.0}, "option step must be between 0.0001 and 100000, got -1"),
        ({"peak": 0.0}, "option peak must be between 1e-06 and 1e\\+12, got 0"),
        ({"hot": 0.5}, "option hot must be between 0 and 0.1, got 0.5"),
        ({"shape": (2, 3, 4)}, "the shape of a laue scan must be one or two positive lengths"),
        ({"footprint": "square"}, "unknown footprint 'square'"),
    ],
)
def test_bad_options_are_named(options, sentence):
    with pytest.raises(InputError, match=sentence):
        film(instrument(), **{**SMALL, **options})


def test_a_geometry_without_detector_or_material_is_named():
    with pytest.raises(InputError, match="must state rows and columns"):
        film(instrument().replace(rows=None))
    with pytest.raises(InputError, match="material: 'unobtainium' is neither a CIF file nor a crystal known here"):
        film(instrument().replace(material="unobtainium"), shape=(2, 2))
    with pytest.raises(InputError, match="needs thickness_um"):
        film(instrument().replace(thickness_um=None), shape=(2, 2))
