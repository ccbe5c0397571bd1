"""Boundaries in a weak-beam volume: planes, lines, Burgers vectors and junctions that are known; what cannot be; bad input."""

import math
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
import xarray as xr

import braggscope
from braggscope.core.errors import InputError
from braggscope.core.maps import check_map, load, save
from braggscope.core.simulation import Simulation
from braggscope.modalities.dfxm.analysis.boundaries import boundaries
from braggscope.modalities.dfxm.analysis.boundaries_of_volume import boundaries_of_volume
from braggscope.modalities.dfxm.analysis.export_boundaries import export_boundaries
from braggscope.modalities.dfxm.boundaries import scene
from braggscope.modalities.dfxm.boundaries.across import turns_across
from braggscope.modalities.dfxm.boundaries.burgers import candidates, crystal_orientation, probabilities
from braggscope.modalities.dfxm.boundaries.errors import grouped_covariance
from braggscope.modalities.dfxm.boundaries.lines import CERTAIN, EVEN, find_lines
from braggscope.modalities.dfxm.boundaries.planes import Plane, find_planes, in_plane_axes
from braggscope.modalities.dfxm.boundaries.points import background, bright_points
from braggscope.modalities.dfxm.geometry import id03
from braggscope.modalities.dfxm.phantoms.boundaries import boundaries as phantom
from braggscope.modalities.dfxm.views.boundaries import boundaries as picture
from braggscope.physics.dislocation_arrangements import tilt_wall_field

AL = 4.0495
LAYERS = 26
SIGMA = np.array([0.3, 0.3, 0.4])
CENTRE = np.array([25.0, 30.0, 20.0])
BOX = np.array([50.0, 60.0, 40.0])


@pytest.fixture(scope="module")
def source():
    """The phantom with its frames drawn once."""
    made = phantom(id03(), shape=(LAYERS,), seed=3)
    frames = made.frames(np.arange(LAYERS))
    made.__dict__["frames"] = lambda index: frames[index]
    return made


@pytest.fixture(scope="module")
def found(source):
    orientation = tuple(source.truth["orientation"].values.ravel())
    return boundaries(source, orientation=orientation, lattice=AL, geometry=id03())


def vector(dataset, name, at, end=""):
    return np.array([float(dataset[f"{name}_{axis}{end}"][at]) for axis in "xyz"])


def angle(a, b):
    return math.degrees(math.atan2(np.linalg.norm(np.cross(a, b)), abs(a @ b)))


def true_wall(source, found, at):
    return int(np.argmax(np.abs(source.truth["normal"].values @ vector(found, "normal", at))))


def stack(images, name="z", unit="um", step=1.0):
    """A scan of these images over one axis."""
    import torch

    grid = xr.Dataset(coords={name: ((name,), step * np.arange(len(images)), {"units": unit})})
    expected = torch.from_numpy(np.asarray(images, np.float32))
    return Simulation(id03(), grid, images.shape[1:], lambda index: expected[index], xr.Dataset(), None)


def loaded_by(page):
    """What the elements of a page ask a browser to load."""
    asked = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: asked.extend(v for n, v in attrs if n in ("src", "href"))
    parser.feed(page)
    return asked


def plane_of(normal, centre=CENTRE):
    return Plane(in_plane_axes(np.array(normal, float)), centre, 0.3, np.zeros((3, 3)))


def points_on(plane, angle, spacing, random, layers=True, blur=0.25, jitter=0.0, places=None):
    """Points of parallel lines in a plane inside BOX, in layers 1 um apart."""
    t, across = (np.array(v) for v in ((math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))))
    places = spacing * (np.arange(-30, 31) + 0.3) if places is None else places
    places = places + random.normal(0, jitter, len(places)) if jitter else places
    s = np.arange(-60, 60, 0.07)
    inside = (places[:, None, None] * across + s[:, None] * t).reshape(-1, 2) + random.normal(0, blur, (len(places) * len(s), 2))
    at = inside @ plane.axes[:2] + plane.centre + random.normal(0, blur, (len(inside), 1)) * plane.normal
    if layers:
        at = at[np.abs(at[:, 2] - np.rint(at[:, 2])) < 0.2]
        at = at - (at[:, 2] - np.rint(at[:, 2]))[:, None] * np.array([0, 0, 1.0])
    return at[((at > 0) & (at < BOX)).all(axis=1)]


def test_planes_lines_and_spacings_are_found_within_their_errors(source, found):
    assert found.sizes["boundary"] == 3 and (found["flag"] == 0).all()
    for at in range(3):
        t = true_wall(source, found, at)
        for name, limit in (("normal", 0.5), ("line", 1.0)):
            true = source.truth[name].values[t]
            assert angle(vector(found, name, at), true) < min(limit, 5 * float(found[f"{name}_error"][at]))
        assert abs(found["spacing"][at] - source.truth["spacing"][t]) < 5 * found["spacing_std"][at]
        assert found["spacing_std"][at] < 0.06 and found["normal_error"][at] < 0.3


def test_burgers_vectors_and_misorientations_follow_by_franks_rule(source, found):
    for at in range(3):
        b = vector(found, "burgers", at)
        assert np.allclose(b, source.truth["burgers"].values[true_wall(source, found, at)])
        assert found["burgers_probability"][at] > 0.99
        theta = math.degrees(AL * 1e-4 * np.linalg.norm(b) / float(found["spacing"][at]))
        assert float(found["misorientation"][at]) == pytest.approx(theta)
        normal, crystal = vector(found, "normal", at), vector(found, "normal_crystal", at)
        assert np.allclose(source.truth["orientation"].values @ crystal, normal)
        assert float(found["burgers_angle"][at]) == pytest.approx(angle(crystal, b))
    assert np.allclose(found["candidate_probability"].sum("candidate"), 1)


def test_the_walls_meet_in_one_triple_junction_at_the_angles_that_were_made(source, found):
    assert found.sizes["junction"] == 3
    assert set(found["boundaries_meeting"].values) == {3} and set(found["junction_line"].values) == {1}
    assert not found["goes_through"].any()
    for j in range(3):
        a, b = (true_wall(source, found, int(found[f"boundary_{n}"][j]) - 1) for n in "ab")
        away = abs(float(found["junction_angle"][j]) - float(source.truth["opening"][a, b]))
        assert away < 1 and away < 5 * found["junction_angle_std"][j]
        assert angle(vector(found, "junction", j), source.truth["junction"].values) < 0.5
        offset = vector(found, "junction_place", j) - source.truth["place"].values
        assert np.linalg.norm(np.cross(offset, source.truth["junction"].values)) < 0.3
    assert found["junction_angle"].values.min() == pytest.approx(48, abs=1)


def test_labels_are_of_the_voxels_that_lie_on_the_walls(source, found):
    z, row, column = np.nonzero(found["label"].values > 0)
    at = (
        np.column_stack([row * found.attrs["pixel_row_um"], column * found.attrs["pixel_column_um"], z])
        - source.truth["place"].values
    )
    walls = np.array([true_wall(source, found, k) for k in range(3)])[found["label"].values[z, row, column] - 1]
    away = np.abs(np.einsum("pi,pi->p", at, source.truth["normal"].values[walls]))
    assert (away < 1.2).mean() > 0.97
    assert 0.005 < found.attrs["in_no_boundary"] < 0.15  # 5 % outliers were put in


def test_the_result_is_a_map_that_comes_back_from_a_file(found, tmp_path):
    check_map(found)
    save(found, tmp_path / "b.h5")
    back = load(tmp_path / "b.h5")
    assert list(back["burgers"].values) == list(found["burgers"].values) and str(back["candidate"].values[0]).startswith("1/2 [")
    assert np.array_equal(back["label"].values, found["label"].values)


def test_the_truth_is_in_the_file_of_a_simulation(tmp_path):
    made = braggscope.simulate("dfxm", "boundaries", shape=(4,), frame_shape=(20, 40), output=tmp_path / "v.h5", progress=False)
    scan = braggscope.open(tmp_path / "v.h5")
    assert [axis.name for axis in scan.axes] == ["z"] and scan.axes[0].unit == "um"
    assert np.allclose(scan.truth["normal"], made.truth["normal"]) and scan.truth.attrs["structure"] == "fcc"
    assert np.array_equal(scan.frame(2), made.frames(np.array([2]))[0])
    assert scan.cut(0, 10, 0, 20).truth is not None  # it is of the laboratory, not of pixels


def test_without_orientation_vectors_are_in_the_laboratory_only(source, found):
    upright = found
    found = boundaries(source, geometry=id03(), misorientation=(0.004, 0.005), lifts=True)
    for at in range(3):  # a motor that lifts the sample turns the volume over
        assert angle(vector(found, "normal", at) * [1, 1, -1], vector(upright, "normal", at)) < 0.05
    assert (found["flag"] == 4).all() and "orientation" in found.attrs["caution"]
    assert np.isnan(found["burgers_probability"]).all() and np.isnan(found["misorientation"][2])
    assert "misorientation has 2 values for 3 boundaries, taken in order" in found.attrs["caution"]
    assert np.isfinite(found["normal_x"]).all() and "normal_crystal_x" not in found
    assert float(found["burgers_length"][1]) == pytest.approx(math.radians(0.005) * float(found["spacing"][1]) * 1e3)


def test_a_volume_of_maps_gives_what_the_images_give(source, found):
    dims = ("layer", "row", "column")
    images = source.frames(np.arange(LAYERS)).astype(float)
    flag = {"flag_masks": np.array([1], np.int32), "flag_meanings": "bad", "long_name": "f"}
    volume = xr.Dataset(
        {"weak": (dims, images, {"units": "deg", "long_name": "w"}), "flag": (dims, np.zeros(images.shape, np.int32), flag)},
        coords={"layer": ("layer", np.arange(float(LAYERS)), {"units": "um"})},
        attrs={"pixel_row_um": found.attrs["pixel_row_um"], "pixel_column_um": found.attrs["pixel_column_um"]},
    )
    again = boundaries_of_volume(volume, orientation=tuple(source.truth["orientation"].values.ravel()), lattice=AL)
    assert np.allclose(again["normal_x"], found["normal_x"]) and np.array_equal(again["label"].values, found["label"].values)
    with pytest.raises(InputError, match="needs weak_plus over layer, row, column"):
        boundaries_of_volume(volume, quantity="weak_plus")
    with pytest.raises(InputError, match="how far its layers are apart; give spacing_um"):
        boundaries_of_volume(volume.drop_vars("layer"))


@pytest.mark.parametrize(
    "normals",
    [[(1, 0.2, 0.1)], [(1, 0.2, 0.1), (0.3, 1, -0.2)], [(1, 0.2, 0.1), (1, 0.4, 0.1), (0.2, 0.3, 1)], []],
    ids=["one", "crossing", "11 deg apart, and one nearly in the layer", "none"],
)
def test_as_many_planes_are_found_as_there_are(normals):
    random = np.random.default_rng(1)
    made = [points_on(plane_of(n), 1.2 + 0.3 * k, 3.5, random)[::9] for k, n in enumerate(normals)]
    place = np.vstack([*made, random.uniform(0, BOX, (400, 3))])
    planes = find_planes(place, np.ones(len(place)), SIGMA, BOX, 0.25, 0)
    assert len(planes) == len(normals)
    for n in normals:
        assert min(angle(p.normal, np.array(n)) for p in planes) < 0.4


def test_parallel_walls_are_two():
    random = np.random.default_rng(2)
    shifted = CENTRE + np.array([6.0, 0, 0])
    place = np.vstack([points_on(plane_of((1, 0.2, 0.1), c), 1.2, 3.5, random)[::9] for c in (CENTRE, shifted)])
    planes = find_planes(place, np.ones(len(place)), SIGMA, BOX, 0.25, 0)
    assert len(planes) == 2
    assert abs(planes[0].distance(planes[1].centre)) == pytest.approx(6 / math.sqrt(1.05), abs=0.1)


@pytest.mark.parametrize(("turn", "spacing"), [(1.2, 3.5), (0.2, 4.0), (2.6, 2.6), (0.02, 6.0)])
def test_direction_and_spacing_of_lines_and_no_harmonic_of_them(turn, spacing):
    plane, random = plane_of((1, 0.2, 0.1)), np.random.default_rng(3)
    place = points_on(plane, turn, spacing, random, jitter=0.05)
    lines = find_lines(plane, place, np.ones(len(place)), 0.25, 1.0)
    assert lines.probability > CERTAIN and lines.even > EVEN
    assert abs(lines.angle - turn) < max(5 * lines.angle_std, math.radians(0.05))
    assert abs(lines.spacing - spacing) < max(5 * lines.spacing_std, 0.005)


def test_points_at_random_have_no_lines_and_lines_at_random_no_spacing():
    plane, random = plane_of((1, 0.2, 0.1)), np.random.default_rng(4)
    inside = random.uniform(-20, 20, (400, 2)).repeat(6, axis=0) + random.normal(0, 0.2, (2400, 2))
    scattered = inside @ plane.axes[:2] + plane.centre
    assert find_lines(plane, scattered, np.ones(len(scattered)), 0.25, 1.0).probability < CERTAIN
    uneven = 0
    for seed in range(8):
        random = np.random.default_rng(seed)
        place = points_on(plane, 1.2, 3, random, places=np.sort(random.uniform(-30, 30, 12)))
        lines = find_lines(plane, place, np.ones(len(place)), 0.25, 1.0)
        assert lines.probability > CERTAIN and abs(lines.angle - 1.2) < math.radians(0.5)
        uneven += lines.even < EVEN
    assert uneven >= 6  # a tenth passes by chance


def test_a_wall_without_lines_is_flagged_and_has_no_spacing():
    random = np.random.default_rng(5)
    plane = plane_of((1, 0.2, 0.1))
    at = random.uniform(-40, 40, (1500, 2)) @ plane.axes[:2] + plane.centre
    images = np.zeros((20, 100, 200))
    for x, y, z in at[((at > 0.5) & (at < [49, 59, 19])).all(axis=1)]:
        images[int(z), int(x / 0.5) : int(x / 0.5) + 2, int(y / 0.3) : int(y / 0.3) + 2] += 50
    scan = stack(100 + images + random.normal(0, 1, images.shape))
    found = boundaries(scan, euler_deg=(0, 0, 0), geometry=id03().replace(pixel_um=10.8, two_theta_deg=36.87))
    assert found.sizes["boundary"] == 1 and int(found["flag"][0]) & 1
    assert np.isnan(found["spacing"][0]) and np.isnan(found["line_x"][0]) and np.isfinite(found["normal_error"][0])
    assert picture(found) is not None


def test_errors_of_grouped_points_are_those_that_repetitions_have():
    random = np.random.default_rng(6)
    group = np.repeat(np.arange(15), 40)
    x = np.column_stack([random.normal(size=600) + 0.3 * group, np.ones(600)])
    stated, seen = [], []
    for _ in range(300):
        y = random.normal(size=15)[group] + 0.3 * random.normal(size=600)
        p = np.linalg.lstsq(x, y, rcond=None)[0]
        stated.append(np.diag(grouped_covariance(x, y - x @ p, np.ones(600), group)))
        seen.append(p)
    ratio = np.mean(np.square(seen) / stated, axis=0)  # of mean squares
    assert np.all((ratio > 0.6) & (ratio < 1.25))
    assert np.isnan(grouped_covariance(x, y, np.ones(600), group % 3)).all()


def test_probabilities_of_burgers_vectors():
    fcc = candidates("fcc")
    assert sorted(one.name for one in fcc) == sorted(
        f"1/2 {b}" for b in ("[110]", "[101]", "[011]", "[1-10]", "[10-1]", "[01-1]")
    )
    none = np.full(3, np.nan)
    normal = np.array([1, -1, 0.0]) / math.sqrt(2)
    p, away = probabilities(normal, 0.001, none, 0.0, fcc, tolerance=0.1)
    assert fcc[int(p.argmax())].name == "1/2 [1-10]" and p.max() > 0.999 and away.min() < 1e-7
    between = np.array([1, -0.5, -0.5]) / math.sqrt(1.5)
    p, _ = probabilities(between, 0.001, none, 0.0, fcc, tolerance=0.1)
    assert np.sort(p)[-2:] == pytest.approx([0.5, 0.5])
    p, _ = probabilities(between, 0.001, np.cross([1, -1, 0], [1, 1, -1]) / math.sqrt(6), 0.001, fcc, tolerance=0.1)
    assert fcc[int(p.argmax())].name == "1/2 [1-10]" and p.max() > 0.9  # the lines decide
    hcp = candidates("hcp", 1.587)
    between = np.array([1.0, 0.0, 0.8]) / math.hypot(1, 0.8)
    for length, has_c in ((1.0, False), (1.876, True)):
        p, _ = probabilities(between, 0.001, none, 0.0, hcp, tolerance=0.3, length=length, length_std=0.01)
        assert (abs(hcp[int(p.argmax())].burgers[2]) > 1) == has_c
    with pytest.raises(InputError, match="c_over_a"):
        candidates("hcp")


def test_orientations_as_angles_and_matrices():
    u = crystal_orientation((30.0, 40.0, 50.0))
    assert np.allclose(crystal_orientation(tuple(2.5 * u.ravel())), u)  # U B of a cubic crystal
    assert u[2, 2] == pytest.approx(math.cos(math.radians(40)))
    assert u[:, 2] == pytest.approx([math.sin(math.radians(30)) * math.sin(math.radians(40)),
                                     -math.cos(math.radians(30)) * math.sin(math.radians(40)), u[2, 2]])  # fmt: skip
    for bad in ((1.0, 2.0), tuple(np.ones(9)), tuple(-np.eye(3).ravel()), (math.nan, 0.0, 0.0)):
        with pytest.raises(InputError, match="orientation must be"):
            crystal_orientation(bad)


def test_background_follows_diffuse_light_and_single_pixels_are_no_points():
    random = np.random.default_rng(7)
    y, x = np.mgrid[:150, :200]
    image = 100 + 0.3 * x + 0.2 * y + random.normal(0, 3, x.shape)
    image[70:73, 50:53] += 60
    image[20, 20] += 500
    level, noise = background(image)
    assert np.abs(level - 100 - 0.3 * x - 0.2 * y)[30:-30, 30:-30].max() < 6 and 2 < np.median(noise) < 8
    cloud = bright_points(enumerate([image] * 3), np.arange(3.0), (0.5, 0.2), image.shape, 5.0)
    assert cloud.spot.max() + 1 == 3 and np.allclose(cloud.place[:, :2].mean(0), [71 * 0.5, 51 * 0.2], atol=0.1)


def test_pictures_and_files_of_boundaries(found, tmp_path):
    figure = picture(found)
    assert len(figure.subfigs) == 2 and picture(xr.Dataset()) is None
    said = export_boundaries(found, output=tmp_path / "b.vtp")
    mesh = pytest.importorskip("pyvista").read(tmp_path / "b.vtp")
    assert mesh.n_cells > said["points"] and set(np.unique(mesh.cell_data["boundary"])) == {0, 1, 2, 3}
    assert np.array_equal(np.unique(mesh.cell_data["kind"]), [0, 1, 2])
    export_boundaries(found, output=tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes()[:4] == b"\x89PNG"
    export_boundaries(found, output=tmp_path / "b.html")
    page = (tmp_path / "b.html").read_text()
    assert str(found["burgers"].values[0]).split()[1] in page and not loaded_by(page)
    with pytest.raises(InputError, match=r"must end in \.png, \.html, \.vtp, got 'b.obj'"):
        export_boundaries(found, output=tmp_path / "b.obj")
    with pytest.raises(InputError, match="this map has no boundaries"):
        export_boundaries(xr.Dataset(), output=tmp_path / "b.png")


def test_a_package_that_is_missing_is_named():
    with pytest.raises(InputError, match=r"a page needs nosuchpackage: install it with `pip install 'braggscope\[volumes\]'`"):
        scene.library("nosuchpackage", "a page")


def test_a_few_spots_make_no_boundary(tmp_path):
    random = np.random.default_rng(8)
    images = random.normal(100, 1, (10, 60, 60))
    for z, row, column in random.integers([0, 5, 5], [10, 55, 55], (15, 3)):
        images[z, row : row + 2, column : column + 2] += 50
    found = boundaries(stack(images), geometry=id03())
    assert found.sizes["boundary"] == 0 and "no plane" in found.attrs["caution"]
    check_map(found)
    save(found, tmp_path / "b.h5")
    assert picture(load(tmp_path / "b.h5")) is not None
    with pytest.raises(InputError, match="no boundary to write"):
        export_boundaries(found, output=tmp_path / "b.vtp")


def test_bad_input_gives_one_sentence(source):
    quiet = np.random.default_rng(9).poisson(100, (5, 60, 60)).astype(float)
    cases = [
        (stack(quiet), {}, "the weak-beam volume is empty: in none of its 5 layers"),
        (stack(quiet[:1]), {}, "need at least 3 layers, the scan has 1"),
        (stack(quiet, "mu", "deg"), {}, r"needs a scan over the height z in um, the scan '' is over mu \(deg\)"),
        (stack(quiet, "z", "deg"), {}, r"is over z \(deg\)"),
        (stack(quiet, step=0.0), {}, "must have heights of their own"),
        (stack(quiet), {"spacing_um": -1.0}, "spacing_um must be positive, got -1"),
        (stack(quiet), {"threshold": 0.0}, "threshold must be positive, got 0"),
        (stack(quiet), {"orientation": tuple(np.eye(3).ravel()), "euler_deg": (0, 0, 0)}, "say the same; give one of them"),
        (stack(quiet), {"structure": "hcp"}, "hcp needs a positive c_over_a"),
        (stack(quiet), {"lattice": -4.0}, "lattice must be positive"),
        (stack(quiet), {"misorientation": (-0.1,)}, "misorientation must be angles between 0 and 90 deg, got -0.1"),
    ]
    for scan, options, sentence in cases:
        with pytest.raises(InputError, match=sentence):
            boundaries(scan, **{"geometry": id03(), **options})
    with pytest.raises(InputError, match=r"in the sample needs pixel_um.*a file with pixel_um by --geometry FILE"):
        boundaries(source)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"shape": (4, 4)}, "is a scan over z alone, got shape 4 x 4"),
        ({"spacing_um": (0.1,)}, "spacing_um must be one to three numbers above 0.2"),
        ({"outliers": 1.0}, "outliers must be from 0 to 0.9"),
        ({"sheet_um": 0.0}, "sheet_um must be positive"),
        ({"triple_deg": 150.0}, "triple_deg must be between 10 and 110"),
        ({"frame_shape": (4, 80)}, "at least 8 x 8"),
    ],
)
def test_a_phantom_that_cannot_be_is_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        phantom(id03(), **options)


def test_one_wall_without_noise_or_outliers():
    made = phantom(id03(), shape=(30,), spacing_um=(3.0,), noise=None, outliers=0.0, seed=5)
    found = boundaries(made, spacing_um=1.0, geometry=id03())
    assert found.sizes["boundary"] == 1 and found.sizes["junction"] == 0
    assert angle(vector(found, "normal", 0), made.truth["normal"].values[0]) < 0.5
    assert found.attrs["in_no_boundary"] < 0.02


@pytest.mark.parametrize("unseen", [None, (-0.156, 0.0, 0.988)])
def test_misorientations_come_from_the_orientation_map_of_a_layer(unseen):
    """The lattice turns by theta about the lines; of one reflection all is seen but the turn about its diffraction vector."""
    made = phantom(id03(), shape=(21,), spacing_um=(3.0,), seed=5)
    frames = made.frames(np.arange(21))
    made.__dict__["frames"] = lambda index: frames[index]
    random, size = np.random.default_rng(10), id03().sample_pixel_um()
    rows, columns = np.indices(made.frame_shape)
    at = np.stack([rows * size[0], columns * size[1], np.full(made.frame_shape, 10.0)], -1) - made.truth["place"].values
    line = made.truth["line"].values[0]
    rotation = 0.015 * np.sign(at @ made.truth["normal"].values[0])[..., None] * line + 0.002 * np.sin(at / 5)
    if unseen is not None:
        axis = np.array(unseen) / np.linalg.norm(unseen)
        rotation -= (rotation @ axis)[..., None] * axis
    rotation += random.normal(0, 1e-3, rotation.shape)
    dims = ("row", "column")
    values = {f"rotation_{a}": (dims, rotation[..., i], {"units": "deg", "long_name": a}) for i, a in enumerate("xyz")}
    attributes = {} if unseen is None else {"unseen_axis": " ".join(map(str, axis))}
    lattice = xr.Dataset({**values, "flag": (dims, np.zeros(made.frame_shape, np.int32))}, attrs=attributes)
    found = boundaries(made, lattice_map=lattice, geometry=id03())
    away = abs(float(found["misorientation"][0]) - 0.03)
    assert away < 0.004 and away < 5 * found["misorientation_std"][0]
    length = math.radians(float(found["misorientation"][0])) * float(found["spacing"][0]) * 1e3
    assert float(found["burgers_length"][0]) == pytest.approx(length)
    if unseen is None:
        assert found["axis_angle"][0] < 15
    for options, sentence in (
        ({"map_layer": 21}, "map_layer must be between 0 and 20, got 21"),
        ({"misorientation": (0.03,)}, "say the same; give one of them"),
        ({"lattice_map": lattice.isel(row=slice(1, None))}, "must have the pixels of the layers, 120 x 400, got 119 x 400"),
        ({"lattice_map": lattice.drop_vars("rotation_x")}, "this map lacks rotation_x"),
    ):
        with pytest.raises(InputError, match=sentence):
            boundaries(made, geometry=id03(), **{"lattice_map": lattice, **options})


def test_the_field_of_single_dislocations_is_left_out_beside_a_wall_that_slants():
    """A wall whose lines lie in the layer, 15 deg off it: its field dies with the distance from the wall, not along the layer."""
    spacing, theta, slant = 2.0, 1e-3, math.radians(15)
    normal = np.array([math.sin(slant), 0.0, math.cos(slant)])
    plane, size = (
        Plane(in_plane_axes(normal), np.array([40.0, 10.0, 0.0]), 0.1, np.full((3, 3), np.nan)),
        np.array([0.4, 0.5, 1.0]),
    )
    rows, columns = np.indices((200, 40))
    at = np.stack([rows * size[0], columns * size[1], np.zeros(rows.shape)], -1)
    across = torch.from_numpy((at - plane.centre) @ np.array([math.cos(slant), 0.0, -math.sin(slant)]))
    h = tilt_wall_field(torch.from_numpy(plane.distance(at)), across + 0.5, theta * spacing, spacing, 0.33)
    turn = np.degrees((h[..., 1, 0] - h[..., 0, 1]).numpy() / 2)
    rotation = {f"rotation_{a}": (("row", "column"), turn * v) for a, v in zip("xyz", (0.0, 1.0, 0.0), strict=True)}
    label = (np.abs(plane.distance(at)) < 0.1).astype(int)
    found = turns_across([plane], [np.array([0.0, 1.0, 0.0])], [spacing], label, 0.0, size, xr.Dataset(rotation))[0]
    assert found.angle == pytest.approx(theta, rel=1e-3)
