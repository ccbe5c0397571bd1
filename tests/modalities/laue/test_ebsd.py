"""Maps of EBSD: files written and read by orix, registration, comparison."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from sklearn.metrics import adjusted_rand_score

from braggscope.core.errors import InputError
from braggscope.modalities.laue.analysis.compare_ebsd import compare_ebsd, frame_turn, rand_index
from braggscope.modalities.laue.analysis.export_ebsd import export_ebsd, sample_frame
from braggscope.modalities.laue.files import matches, read_table
from braggscope.modalities.laue.grain_maps import crystal_of_map, grain_map, labels_of, matrices_of, normal_of
from braggscope.modalities.laue.misorientation import angles
from braggscope.modalities.laue.registration import Labelled, Placement, registered
from braggscope.physics.crystals import crystal_of

AU, TI = crystal_of("Au"), crystal_of("Ti")
ROUNDING = {"ang": 1e-3, "ctf": 2e-4}  # deg


def small(crystal, shape=(4, 7)):
    u = Rotation.random(np.prod(shape), rng=np.random.default_rng(5)).as_matrix().reshape(*shape, 3, 3)
    u[1, 2] = np.nan
    return grain_map(u, crystal, 0.5 * np.arange(shape[0]), 0.2 * np.arange(shape[1]))


@pytest.mark.parametrize("ending", ["ang", "ctf"])
@pytest.mark.parametrize("crystal", [AU, TI], ids=["cubic", "hexagonal"])
def test_a_file_brings_the_map_back(tmp_path, capsys, ending, crystal):
    made, path = small(crystal), tmp_path / f"map.{ending}"
    said = export_ebsd(made, output=path)
    assert said["points"] == 27 and matches(path) and [one.name for one in tmp_path.iterdir()] == [path.name]
    read = read_table(path)
    np.testing.assert_allclose(read["x"], made["x"], atol=1e-6)
    np.testing.assert_allclose(read["y"], made["y"], atol=1e-6)
    off = np.nanmax(np.linalg.norm(matrices_of(read) - matrices_of(made), axis=(-2, -1)))
    assert np.rad2deg(off) < 3 * ROUNDING[ending]
    assert (
        np.isnan(read["orientation_x"].values[1, 2]) and read["flag"].values[1, 2] == 1 and (read["flag"].values == 0).sum() == 27
    )
    same = crystal_of_map(read)
    assert len(same.rotations) == len(crystal.rotations) and same.lattice == pytest.approx(crystal.lattice, abs=1e-3)
    assert read.attrs["orientation_frame"] == "sample" and capsys.readouterr().out == ""


@pytest.mark.parametrize("ending", ["ang", "ctf"])
def test_orix_sees_directions_in_the_frame_of_the_sample(tmp_path, film_map, ending):
    from orix.io import load

    made, path = film_map(0, (5, 9)), tmp_path / f"map.{ending}"
    export_ebsd(made, output=path)
    crystal_map = load(str(path))
    assert crystal_map.shape == (5, 9) and crystal_map.dx == pytest.approx(0.1)
    # the surface normal in the crystal: [0 0 1] of the sample for orix, the tilted normal of the laboratory here
    theirs = crystal_map.rotations.to_matrix()[:, :, 2]
    ours = np.einsum("nji,j->ni", matrices_of(made).reshape(-1, 3, 3), normal_of(made))
    np.testing.assert_allclose(theirs, ours, atol=3e-5)
    assert sample_frame(made)[2] == pytest.approx(normal_of(made))


def test_hexagonal_grids_and_other_phases_are_read(tmp_path):
    lines = ["Channel Text File", "Prj\tx", "Author\t", "JobMode\tGrid", "XCells\t3", "YCells\t2", "XStep\t1", "YStep\t1",
             "AcqE1\t0", "AcqE2\t0", "AcqE3\t0", "Euler angles refer to Sample Coordinate system (CS0)!", "Phases\t2",
             "4.05;4.05;4.05\t90;90;90\tAluminium\t11\t225", "2.95;2.95;4.68\t90;90;120\tTitanium\t9\t194",
             "Phase\tX\tY\tBands\tError\tEuler1\tEuler2\tEuler3\tMAD\tBC\tBS"]  # fmt: skip
    for y, shift in ((0.0, 0.0), (0.87, 0.5)):
        lines += [f"{1 if x < 2 else 2}\t{x + shift}\t{y}\t8\t0\t{10 * x}\t20\t30\t0.5\t100\t200" for x in range(3)]
    path = tmp_path / "hexagonal.ctf"
    path.write_text("\n".join(lines) + "\n")
    read = read_table(path)
    assert (
        dict(read.sizes)["y"] == 2 and read["flag"].values[0].tolist() == [0, 0, 3] and crystal_of_map(read).name == "Aluminium"
    )


def test_broken_files_and_other_endings_are_named(tmp_path):
    broken = tmp_path / "a.ang"
    broken.write_text("# nothing\n1 2\n")
    with pytest.raises(InputError, match=r"a\.ang cannot be read as a map of EBSD"):
        read_table(broken)
    with pytest.raises(InputError, match=r"output must end in \.ang or \.ctf, got 'a\.txt'"):
        export_ebsd(small(AU), output=tmp_path / "a.txt")
    with pytest.raises(InputError, match="must have orientations; it lacks orientation_x"):
        export_ebsd(small(AU).drop_vars("orientation_x"), output=tmp_path / "b.ang")


@pytest.mark.parametrize(("turn", "mirror"), [(3.0, False), (93.0, False), (184.0, True)])
def test_a_turned_shifted_mirrored_map_is_laid_over(film_map, turn, mirror):
    one = labels_of(film_map(3, (36, 40)))
    placed = Placement((0.2, -0.1), turn, 1.0, mirror)
    # what the other map has at q: the place p in this one with q = t + R M p, so p = M R^-1 (q - t)
    other = film_map(3, (72, 80), step=0.05)  # about the same middle, unturned; then sampled where the placement says
    fine = Labelled(labels_of(film_map(3, (180, 180), step=0.025)), (0.025, 0.025))
    y, x = Labelled(labels_of(other), (0.05, 0.05)).places
    y, x = np.broadcast_arrays(y - 0.2, x + 0.1)
    c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    there = (c * y - s * x, (c * x + s * y) * (-1 if mirror else 1))
    index = np.rint(fine.indices(*there)).astype(int)
    label = np.where(((index >= 0) & (index < 180)).all(0), fine.label[tuple(np.clip(index, 0, 179))], 0)
    found, score, rest = registered(
        Labelled(one, (0.1, 0.1)), Labelled(label, (0.05, 0.05)), turns_deg=(0.0, 90.0, 180.0), within_deg=5.0, scale=1.0,
        scale_within=0.0, mirror=mirror,
    )  # fmt: skip
    assert abs(found.turn_deg - turn) < 0.4 and np.abs(np.subtract(found.shift_um, placed.shift_um)).max() < 0.03
    assert score > 0.7 and score > 1.8 * rest


def test_a_map_agrees_with_itself_turned_into_another_frame(film_map, tmp_path):
    tilt = np.array([0.1, 0.2, -0.3])
    one, other = film_map(3), film_map(3, (70, 76), step=0.05, tilt=tilt, turn_deg=2.0, shift=(0.1, 0.2))
    export_ebsd(other.assign_attrs(orientation_frame="sample"), output=tmp_path / "e.ang")
    found = compare_ebsd(one, read_table(tmp_path / "e.ang"), turns=(0.0,))
    said = found.attrs
    assert (
        said["rand_index"] > 0.75
        and 0.05 < said["rand_index_by_chance"] < 0.45
        and said["boundaries_found"] > 0.7 > 2 * said["boundaries_found_by_chance"]
    )
    assert said["median_misorientation_of_grains_deg"] < 0.01
    np.testing.assert_allclose(np.array(said["frame_turn_deg"].split(), float), -np.rad2deg(tilt), atol=0.02)
    assert said["scale"] == pytest.approx(1, abs=0.015) and abs(said["turn_deg"] - 2.0) < 0.3
    size, width = found["grain_size"].values, found["fwhm_x"].values
    assert size[0] == pytest.approx(size[1], rel=0.05) and width[0] == pytest.approx(width[1], rel=0.06)
    assert "caution" not in said


def test_another_film_does_not_agree_and_that_is_said(film_map):
    found = compare_ebsd(film_map(3), film_map(4, tilt=(0.1, 0, 0)), turns=(0.0, 180.0), within=2.0, scale_within=0.0)
    assert found.attrs["rand_index"] < 0.5 and "registration is in doubt" in found.attrs["caution"]


def test_maps_of_a_few_points_are_refused_and_of_a_few_grains_doubted(film_map):
    with pytest.raises(InputError, match=r"only .* points are in a grain of both maps; to lay one over the other takes 50"):
        compare_ebsd(film_map(3, (6, 6)), film_map(3, (6, 6)), turns=(0.0,), within=0.0, scale_within=0.0)
    few = film_map(3, (12, 12), step=0.05)
    found = compare_ebsd(few, few, turns=(0.0,), within=0.0, scale_within=0.0)
    assert "the registration is in doubt: it rests on the boundaries of" in found.attrs["caution"]


def test_labels_alone_do(film_map):
    one = film_map(3, (30, 30))
    found = compare_ebsd(one[["grain", "flag"]], one, turns=(0.0,), within=0.0, scale_within=0.0)
    assert found.attrs["rand_index"] == pytest.approx(1) and found.attrs["boundaries_right"] == 1
    assert "misorientation" not in found and found.attrs["correlation"] == pytest.approx(1)


def test_the_rand_index_is_that_of_scikit_learn():
    random = np.random.default_rng(0)
    a, b = random.integers(0, 5, 200), random.integers(0, 7, 200)
    b[:120] = a[:120]
    table = np.zeros((5, 7))
    np.add.at(table, (a, b), 1)
    assert rand_index(table) == pytest.approx(adjusted_rand_score(a, b))
    assert rand_index(np.stack([table, np.diag([3.0] * 5 + [0, 0])[:5]]))[1] == 1


def test_the_turn_between_frames_is_found_among_wrong_pairs():
    u = Rotation.random(30, rng=np.random.default_rng(1)).as_matrix()
    turn = Rotation.from_rotvec([0.3, -1.0, 2.0]).as_matrix()
    v = turn.T @ u @ AU.rotations[np.arange(30) % 24]
    v[20:] = Rotation.random(10, rng=np.random.default_rng(2)).as_matrix()
    found = frame_turn(u, v, AU.rotations)
    assert (
        np.rad2deg(Rotation.from_matrix(found @ turn.T).magnitude()) < 1e-4
        and angles(u[:20], found @ v[:20], AU.rotations).max() < 1e-3
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"scale": 0.0}, "scale must be positive, got 0"),
        ({"within": 60.0}, "within must be between 0 and 45, got 60"),
        ({"scale_within": -0.1}, "scale_within must be between 0 and 0.5"),
        ({"turns": ()}, "turns must be angles in degrees"),
    ],
)
def test_bad_searches_are_named(film_map, options, sentence):
    one = film_map(3, (12, 12))
    with pytest.raises(InputError, match=sentence):
        compare_ebsd(one, one, **options)


def test_a_hexagonal_crystal_has_x_along_a_star_in_ctf_and_along_a_in_ang(tmp_path):
    upright = grain_map(np.tile(np.eye(3), (3, 4, 1, 1)), TI, 0.5 * np.arange(3), 0.2 * np.arange(4))  # a* along x, c along z
    upright = upright.assign_attrs(orientation_frame="sample")
    phi2 = {}
    for ending in ("ang", "ctf"):
        export_ebsd(upright, output=tmp_path / f"map.{ending}")
        rows = [
            line.split() for line in (tmp_path / f"map.{ending}").read_text().splitlines() if line and line[0] in " 0123456789"
        ]
        angles_of_one = np.array(rows[-1][:3], float) if ending == "ang" else np.deg2rad(np.array(rows[-1][5:8], float))
        phi2[ending] = np.rad2deg(angles_of_one.sum()) % 60  # about one axis: the sum of phi1 and phi2; six-fold
    assert min(phi2["ctf"], 60 - phi2["ctf"]) < 0.01 and phi2["ang"] == pytest.approx(30, abs=0.01)
