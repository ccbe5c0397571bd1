"""Layers registered and stacked, and what is exported: known shifts, files read back, bad input."""

import struct
import xml.etree.ElementTree as ET

import h5py
import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from braggscope.core.errors import InputError
from braggscope.core.maps import check_map, load, save
from braggscope.modalities.dfxm.analysis.export_orientation import export_orientation
from braggscope.modalities.dfxm.analysis.export_volume import export_volume
from braggscope.modalities.dfxm.analysis.volume import volume
from braggscope.modalities.dfxm.oblique.reflections import Reflection
from braggscope.modalities.dfxm.oblique.sample_plane import camera_axes

Q = np.array([-np.sin(0.15), 0, np.cos(0.15)])


def scene(seed, shape=(90, 120)):
    return 1000 * np.abs(gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.5))


def layer(image, noise=0.0, seed=0, words="no_signal doubtful", missing=None):
    """A map with total and a rotation field, each pixel of a value that tells where it is from."""
    random = np.random.default_rng(seed)
    total = image + random.normal(0, noise, image.shape)
    flag = np.zeros(image.shape, np.int32)
    if missing is not None:
        total[missing], flag[missing] = np.nan, 1
    found = {"total": (("row", "column"), total, {"units": "count", "long_name": "t"})}
    for i, c in enumerate("xyz"):
        found[f"rotation_{c}"] = (("row", "column"), 0.001 * total + i, {"units": "deg", "long_name": c})
    attributes = {"flag_masks": np.array([1, 2], np.int32), "flag_meanings": words, "long_name": "f"}
    found["flag"] = (("row", "column"), flag, attributes)
    return xr.Dataset(found, attrs={"pixel_row_um": 0.5, "pixel_column_um": 0.2})


def shifted(shifts, rows=60, columns=70):
    """Windows of one scene: content lies further down and right by these shifts."""
    whole = scene(0)
    return [whole[20 - i : 20 - i + rows, 20 - j : 20 - j + columns] for i, j in shifts]


# --- registration


def test_layers_lie_on_each_other_again():
    shifts = [(0, 0), (5, -8), (2, -3)]
    layers = [layer(image, noise=20.0, seed=i) for i, image in enumerate(shifted(shifts))]
    v = volume(layers, spacing_um=1.5)
    check_map(v)
    np.testing.assert_allclose(v["shift_row"], [0, 5, 2], atol=0.3)
    np.testing.assert_allclose(v["shift_column"], [0, -8, -3], atol=0.3)
    assert v["total"].shape == (3, 65, 78) and v["layer"].values.tolist() == [0, 1.5, 3.0]
    pixel = v["total"].sel(row=30, column=40).values
    np.testing.assert_allclose(pixel, shifted([(0, 0)])[0][30, 40], atol=80)  # four times the noise
    assert v["total"].sel(row=-5).isnull().values[[0, 2]].all() and v["total"].sel(row=-5, column=20).notnull()[1]
    outside = v["flag"].attrs["flag_meanings"].split().index("outside_this_layer")
    assert ((v["flag"].values >> outside & 1) == v["total"].isnull().values).all()
    assert v.attrs["lowest_correlation"] > 0.9


def test_missing_pixels_do_not_pull_the_shift():
    a, b = shifted([(0, 0), (4, 6)])
    hole = np.zeros(a.shape, bool)
    hole[25:40, 10:60] = True  # at the same place on the detector in both
    v = volume([layer(a, missing=hole), layer(b, missing=hole)])
    np.testing.assert_allclose([v["shift_row"][1], v["shift_column"][1]], [4, 6], atol=0.3)


def test_large_frames_are_found_in_binned_images_first(monkeypatch):
    monkeypatch.setattr("braggscope.modalities.dfxm.analysis.volume.COARSE", 24)
    v = volume([layer(image) for image in shifted([(0, 0), (7, -11)])])
    np.testing.assert_allclose([v["shift_row"][1], v["shift_column"][1]], [7, -11], atol=0.3)


def test_flags_of_layers_with_other_words_keep_their_meaning():
    a, b = shifted([(0, 0), (0, 0)])
    missing = np.zeros(a.shape, bool)
    missing[3, 4] = True
    v = volume([layer(a), layer(b, words="lost faint", missing=missing)])
    bit = v["flag"].attrs["flag_meanings"].split().index("lost")
    assert v["flag"].values[1, 3, 4] == 1 << bit and v["flag"].values[0, 3, 4] == 0


def test_layers_that_do_not_register_are_refused_with_the_correlation_found():
    with pytest.raises(InputError, match=r"layers 1 and 2 do not register by total: their correlation is -?0\.\d\d at best"):
        volume([layer(scene(1)), layer(scene(2))])
    assert volume([layer(scene(1)), layer(scene(2))], on="none")["total"].shape == (2, 90, 120)


@pytest.mark.parametrize(
    "layers, options, message",
    [
        ([layer(scene(1))], {}, "two or more layers, got 1"),
        ([layer(scene(1)), layer(scene(1, (40, 50)))], {}, "layer 2 has 40 x 50 pixels and layer 1 90 x 120"),
        (2 * [layer(scene(1))], {"on": "strain"}, "layer 1 has no strain to register by"),
        (2 * [layer(scene(1))], {"spacing_um": 0.0}, "spacing_um must be positive, got 0"),
        (2 * [layer(scene(1))], {"overlap": 2.0}, "overlap must be between 0 and 1, got 2"),
    ],
)
def test_bad_layers_are_named(layers, options, message):
    with pytest.raises(InputError, match=message):
        volume(layers, **options)


# --- volumes for ParaView


@pytest.fixture
def small_volume(tmp_path):
    v = volume([layer(scene(i, (4, 5))) for i in (1, 2, 3)], on="none", spacing_um=2.0)
    save(v, tmp_path / "volume.h5")
    return load(tmp_path / "volume.h5")


def test_a_vtk_image_holds_every_number_in_its_place(small_volume, tmp_path):
    said = export_volume(small_volume, output=tmp_path / "v.vti", only=("total", "flag"))
    assert said["cells (column, row, layer)"] == "5 x 4 x 3" and said["size of a cell (um)"] == "0.2 x 0.5 x 2"
    data = (tmp_path / "v.vti").read_bytes()
    head, _, tail = data.partition(b'<AppendedData encoding="raw">\n_')
    root = ET.fromstring(head + b"</VTKFile>")
    image, arrays = root.find("ImageData"), root.findall(".//DataArray")
    assert image.attrib["WholeExtent"] == "0 5 0 4 0 3"
    assert [float(w) for w in image.attrib["Spacing"].split()] == [0.2, 0.5, 2.0]
    for array, kind in zip(arrays, ("<f4", "<i4"), strict=True):
        start = int(array.attrib["offset"])
        (size,) = struct.unpack("<Q", tail[start : start + 8])
        values = np.frombuffer(tail[start + 8 : start + 8 + size], kind).reshape(3, 4, 5)  # x, the columns, runs fastest
        np.testing.assert_allclose(values, small_volume[array.attrib["Name"]].values, rtol=1e-6)


def test_xdmf_points_to_numbers_beside_it(small_volume, tmp_path):
    export_volume(small_volume, output=tmp_path / "volume.xdmf")
    root = ET.parse(tmp_path / "volume.xdmf").getroot()
    assert root.find(".//Topology").attrib["Dimensions"] == "4 5 6"
    for item in root.findall(".//Attribute/DataItem"):
        file, where = item.text.split(":/")
        with h5py.File(tmp_path / file) as numbers:
            np.testing.assert_allclose(numbers[where][()], small_volume[where].values, rtol=1e-6)
            assert item.attrib["Dimensions"] == " ".join(map(str, numbers[where].shape))
    xr.testing.assert_equal(load(tmp_path / "volume.h5"), small_volume)  # the map of the same name is still there


def test_a_map_is_exported_as_one_layer(tmp_path):
    assert export_volume(layer(scene(1, (4, 5))), output=tmp_path / "m.vti")["cells (column, row, layer)"] == "5 x 4 x 1"


def test_bad_exports_of_volumes_are_named(small_volume, tmp_path):
    with pytest.raises(InputError, match=r"output must end in \.vti or \.xdmf, got 'v\.vtk'"):
        export_volume(small_volume, output=tmp_path / "v.vtk")
    with pytest.raises(InputError, match="the volume has no strain; it has: total"):
        export_volume(small_volume, output=tmp_path / "v.vti", only=("strain",))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["volume.h5"]


# --- orientation maps for orix and MTEX


def orientation_map(shape=(5, 7), seed=0):
    random = np.random.default_rng(seed)
    across = np.array([[np.cos(0.15), 0, np.sin(0.15)], [0, 1, 0]])
    vector = random.normal(0, 1, (*shape, 2)) @ across
    m = layer(scene(1, shape)).assign_attrs(unseen_axis=" ".join(f"{x:.17g}" for x in Q))
    for i, c in enumerate("xyz"):
        m[f"rotation_{c}"].values[...] = vector[..., i]
    return m, vector


def read_back(path):
    from orix.io import load as orix_load

    return orix_load(str(path))


@pytest.mark.parametrize(
    "hkl, lattice, group", [((1, 1, 1), (4.05, 4.05, 4.05, 90, 90, 90), 225), ((1, 0, 2), (2.95, 2.95, 4.68, 90, 90, 120), 194)]
)
def test_orix_reads_the_plane_normal_where_the_diffraction_vector_points(tmp_path, hkl, lattice, group):
    from orix.vector import Miller

    m, vector = orientation_map()
    export_orientation(m, output=tmp_path / "a.ang", hkl=hkl, lattice=lattice, space_group=group, phase="metal")
    crystal_map = read_back(tmp_path / "a.ang")
    assert crystal_map.shape == (5, 7) and crystal_map.dx == pytest.approx(0.2) and crystal_map.dy == pytest.approx(0.5)
    pointing = Rotation.from_rotvec(vector.reshape(-1, 3), degrees=True).apply(Q)
    inside = np.einsum("nij,nj->ni", crystal_map.rotations.to_matrix(), pointing)  # orix: laboratory to crystal
    phase = next(p for i, p in crystal_map.phases if i > 0)
    normal = Miller(hkl=[hkl], phase=phase).data[0]
    np.testing.assert_allclose(inside, np.tile(normal / np.linalg.norm(normal), (35, 1)), atol=2e-5)  # five decimals in the file


def test_misorientations_in_orix_are_those_of_the_map(tmp_path):
    m, vector = orientation_map()
    export_orientation(m, output=tmp_path / "a.ang", along_y=(1, -1, 0))
    rotations = read_back(tmp_path / "a.ang").rotations
    turns = Rotation.from_rotvec(vector.reshape(-1, 3), degrees=True)
    expected = (turns[1:] * turns[:-1].inv()).magnitude()
    np.testing.assert_allclose((rotations[1:] * ~rotations[:-1]).angle, expected, atol=3e-5)


def test_the_direction_given_lies_along_y(tmp_path):
    m, _ = orientation_map()
    m = m.assign({f"rotation_{c}": m[f"rotation_{c}"] * 0 for c in "xyz"})
    said = export_orientation(m, output=tmp_path / "a.ang", along_y=(1, -1, 0))
    assert said["along y"] == "[1 -1 0]"
    inside = read_back(tmp_path / "a.ang").rotations.to_matrix()[0] @ [0, 1, 0]
    np.testing.assert_allclose(inside, np.array([1, -1, 0]) / np.sqrt(2), atol=2e-5)
    assert "not known from one reflection" in str(export_orientation(m, output=tmp_path / "b.ang")["along y"])


def test_the_frame_of_the_file_is_half_a_turn_from_the_laboratory(tmp_path):
    m, _ = orientation_map()
    said = str(export_orientation(m, output=tmp_path / "a.ang")["frame"])
    assert "x (columns) and y (rows) are +y and +x" in said and "180 deg about [1 1 0]" in said
    crystal_map = read_back(tmp_path / "a.ang")
    assert crystal_map.x[1] > crystal_map.x[0] and crystal_map.y[1] == crystal_map.y[0]  # x along columns
    row, column = camera_axes(Reflection(hkl=(1, 1, 1), eta_deg=0.0, two_theta_deg=18.0))
    np.testing.assert_allclose(column, [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(row[:2], [np.sin(np.radians(18.0)), 0], atol=1e-12)
    turn = Rotation.from_rotvec(np.pi * np.array([1.0, 1.0, 0.0]) / np.sqrt(2))
    np.testing.assert_allclose(turn.apply(np.eye(3)), [[0, 1, 0], [1, 0, 0], [0, 0, -1]], atol=1e-12)


def test_missing_pixels_are_not_indexed(tmp_path):
    m, _ = orientation_map()
    m["rotation_y"].values[2, 3] = np.nan
    assert export_orientation(m, output=tmp_path / "a.ang")["points"] == 34
    assert read_back(tmp_path / "a.ang").is_indexed.reshape(5, 7)[2, 3] == 0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"output": "a.txt"}, r"output must end in \.ang"),
        ({"hkl": (0, 0, 0)}, "hkl must not be 0 0 0"),
        ({"along_y": (1, 1, 1)}, "must not be along the plane normal"),
        ({"space_group": 231}, "space_group must be between 1 and 230, got 231"),
        ({"lattice": (4.0, 4.0, -4.0, 90.0, 90.0, 90.0)}, "lattice must be three positive lengths"),
    ],
)
def test_bad_exports_of_orientations_are_named(tmp_path, options, message):
    m, _ = orientation_map()
    options = {"output": "a.ang", **options}
    with pytest.raises(InputError, match=message):
        export_orientation(m, **{**options, "output": tmp_path / options["output"]})
    assert not list(tmp_path.iterdir())
