"""Files of APS 34-ID: the beamline's own numbers, round trips, and detectors aside."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from braggscope.core.errors import InputError
from braggscope.modalities.laue import frames
from braggscope.modalities.laue.detector import HC, detector_matrix, rays, scattering_directions
from braggscope.modalities.laue.files import aps, aps_geometry, read_geometry, read_table
from braggscope.modalities.laue.files.table import placed, stated_geometry
from braggscope.modalities.laue.geometry import LaueGeometry
from braggscope.physics.crystals import crystal_of

DATA = Path(__file__).parents[2] / "reference" / "laue" / "aps34ide"
SILICON = crystal_of("Si").with_lattice(5.4310206, 5.4310206, 5.4310206, 90, 90, 90)


def angle_deg(a, b):
    return np.rad2deg(2 * np.arcsin(np.linalg.norm(a - b, axis=-1) / 2))


def directions(table):
    return np.stack([table[f"q_{axis}"].values for axis in "xyz"], -1)


def test_pixels_become_the_directions_that_the_beamline_found():
    geometry, pixels = LaueGeometry.from_file(DATA / "geometry.xml"), read_table(DATA / "Si_wire_mar01_500_PixelPeakList.txt")
    q = scattering_directions(detector_matrix(geometry), pixels["row"].values, pixels["column"].values)
    q = q @ frames.about_beam(-geometry.roll_deg).T
    nearest = angle_deg(q[:, None], directions(read_table(DATA / "Si_Peaks.txt"))[None]).min(1)
    assert (nearest < 5e-4).sum() == 37 and len(nearest) == 39  # the two lists are of two peak searches


def test_directions_are_placed_on_the_detector():
    geometry = read_geometry(DATA / "geometry.xml")
    flat = geometry.replace(roll_deg=0.0)
    pixels, table = read_table(DATA / "Si_wire_mar01_500_PixelPeakList.txt"), read_table(DATA / "Si_Peaks.txt")
    turned = directions(table) @ frames.about_beam(geometry.roll_deg).T
    found = placed(table.assign({f"q_{a}": ("peak", turned[:, i]) for i, a in enumerate("xyz")}), flat)
    assert stated_geometry(found) == flat
    apart = np.hypot(
        found["row"].values[:, None] - pixels["row"].values, found["column"].values[:, None] - pixels["column"].values
    ).min(0)
    assert (np.sort(apart)[:37] < 0.05).all()  # 5e-4 deg of the list's seven decimals


def test_xml_with_its_odd_comments_and_text_describe_the_same_detectors():
    xml, text = (aps_geometry.read_detectors(DATA / f"geometry.{kind}") for kind in ("xml", "txt"))
    assert (
        [one.identity for one in xml]
        == ["PE1621 723-3335", "PE0820 763-1807", "PE0820 763-1850"]
        == [one.identity for one in text]
    )
    for a, b in zip(xml, text, strict=True):
        assert (a.pixels, a.size_mm, a.p_mm) == (b.pixels, b.size_mm, b.p_mm)
        np.testing.assert_allclose(a.r, b.r, atol=1e-8)


def test_each_detector_becomes_five_parameters_and_a_roll():
    for one, roll in zip(aps_geometry.read_detectors(DATA / "geometry.xml"), (0.053, 45.137, -45.0), strict=True):
        geometry = one.geometry(material="Si")
        assert geometry.roll_deg == pytest.approx(roll, abs=5e-4) and geometry.material == "Si"
        row, column = np.array([3.0, 700.0]), np.array([1000.0, 12.0])
        pitch = one.size_mm[0] / one.pixels[0]  # the beamline's formula, once more and by itself
        local = np.stack([(c - (n - 1) / 2) * pitch for c, n in zip((column, row), one.pixels, strict=True)] + [0 * row], -1)
        theirs = Rotation.from_rotvec(one.r).apply(local + one.p_mm)
        ours = np.stack(rays(frames.unturned_matrix(geometry), row, column), -1)
        np.testing.assert_allclose(ours, theirs[:, [2, 0, 1]], atol=1e-10)


def test_detectors_are_written_as_they_are_read(tmp_path):
    detectors = [
        aps_geometry.detector_of(one.geometry(), one.identity) for one in aps_geometry.read_detectors(DATA / "geometry.xml")
    ]
    aps_geometry.write_detectors(tmp_path / "g.xml", detectors)
    for a, b in zip(
        aps_geometry.read_detectors(tmp_path / "g.xml"), aps_geometry.read_detectors(DATA / "geometry.xml"), strict=True
    ):
        assert (a.pixels, a.identity) == (b.pixels, b.identity)
        np.testing.assert_allclose(a.matrix(), b.matrix(), atol=1e-10)


@pytest.mark.parametrize(("name", "rms", "indexed"), [("Si_Index.txt", 0.00545, 41), ("generic_Index.txt", None, 36)])
def test_an_index_file_has_the_reciprocal_lattice_that_gives_its_energies_and_errors(name, rms, indexed):
    (grain,) = aps.read_index(DATA / name)
    assert len(grain) == indexed and grain.material == "Si"
    q = grain.hkl @ grain.ub.T
    np.testing.assert_allclose(np.linalg.norm(grain.ub, axis=0), 1 / 5.4310206, rtol=2e-6)
    np.testing.assert_allclose(-HC * (q**2).sum(1) / (2 * q[:, 0]), grain.peaks["energy"], rtol=3e-5 if rms else 3e-4)
    u = frames.rotation_of(grain.ub, SILICON)
    euler = np.array(grain.facts["euler_deg"])
    np.testing.assert_allclose((aps.euler_of(frames.FROM_APS.T @ u) - euler + 180) % 360, 180, atol=5e-6)
    if rms is not None:  # its peaks file lies beside it, so that the errors are of measured directions
        error = angle_deg(q / np.linalg.norm(q, axis=1, keepdims=True), np.stack([grain.peaks[f"q_{a}"] for a in "xyz"], -1))
        np.testing.assert_allclose(error, grain.peaks["deviation_deg"], atol=6e-6)
        assert np.sqrt((error**2).mean()) == pytest.approx(rms, abs=5e-6) == pytest.approx(grain.rms_deg, abs=1e-5)


def test_an_index_file_comes_back(tmp_path):
    (grain,) = aps.read_index(DATA / "Si_Index.txt")
    roll = 45.0  # as found with a detector aside
    aside = aps.IndexedGrain(
        frames.about_beam(roll) @ grain.ub,
        grain.peaks
        | dict(zip(("q_x", "q_y", "q_z"), frames.about_beam(roll) @ [grain.peaks[f"q_{a}"] for a in "xyz"], strict=True)),
    )
    aps.write_index(tmp_path / "i.txt", [aside], [SILICON], roll_deg=roll)
    (again,) = aps.read_index(tmp_path / "i.txt")
    np.testing.assert_allclose(again.ub, grain.ub, atol=1e-9)
    np.testing.assert_allclose((np.array(again.facts["euler_deg"]) - grain.facts["euler_deg"] + 180) % 360, 180, atol=5e-6)
    for name in ("h", "k", "l", "source", "deviation_deg"):
        np.testing.assert_allclose(again.peaks[name], grain.peaks[name], atol=1e-5)
    assert again.rms_deg == pytest.approx(0.00545, abs=1e-5)


def test_euler_angles_at_the_pole():
    for turn in (30.0, -140.0):
        r = Rotation.from_euler("z", turn, degrees=True).as_matrix()
        np.testing.assert_allclose(Rotation.from_euler("ZYZ", aps.euler_of(r), degrees=True).as_matrix().T, r, atol=1e-12)


def test_directions_come_back(tmp_path):
    table = read_table(DATA / "Si_Peaks.txt")
    aps.write_directions(tmp_path / "p.txt", 3.0 * directions(table), table["intensity"].values)
    again = read_table(tmp_path / "p.txt")
    np.testing.assert_allclose(directions(again), directions(table), atol=1e-7)
    np.testing.assert_allclose(again["intensity"], table["intensity"])


def test_a_binned_region_of_interest_is_put_back_on_the_whole_detector(tmp_path):
    head = "$filetype\tPixelPeakList\n$startx 100\n$groupx 2\n$starty 40\n$groupy 4\n$Npeaks 1\n$peakList 4 1\n 10.5 0 7 3\n"
    (tmp_path / "p.txt").write_text(head)
    table = read_table(tmp_path / "p.txt")  # binned pixel 0 of 4 rows from 40 is centred at 41.5
    assert (float(table["column"][0]), float(table["row"][0])) == (121.5, 41.5)
    assert (float(table["amplitude"][0]), float(table["intensity"][0])) == (7.0, 3.0)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", "$filetype PixelPeakList\n$Npeaks 3\n$peakList 4 3\n1 2 3 4\n", "must list 3 peaks as it says, got 1"),
        ("a.txt", "$filetype PeaksFile\n", "must have a line .N_Ghat.Intens"),
        ("a.txt", "$filetype IndexFile\n$pattern0\n", "pattern 0 lacks .recip_lattice0"),
        ("a.txt", "$filetype IndexFile\n$pattern0\n$recip_lattice0 {{1,2,3}{4,5}}\n", "must be 9 numbers, got 5"),
        ("a.xml", "<geoN></geoN>", "must describe detectors of APS 34-ID"),
        ("a.xml", "<geoN><Detector></geoN>", "is not the XML of a geometry file"),
        (
            "a.xml",
            "<geoN><Detector N='1'><Npixels>9 9</Npixels></Detector></geoN>",
            "size of detector 1 must be 2 numbers, got 0",
        ),
    ],
)
def test_a_broken_file_says_what_is_wrong(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        (read_geometry if name == "a.xml" else read_table)(tmp_path / name)
