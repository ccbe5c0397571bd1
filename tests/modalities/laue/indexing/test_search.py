"""Search of orientations: many grains, spurious peaks, chance, other materials, real patterns."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.stats import poisson

from braggscope.modalities.laue.files import read_geometry, read_table
from braggscope.modalities.laue.files.table import placed
from braggscope.modalities.laue.indexing import kernels
from braggscope.modalities.laue.indexing.indexed import catalogues_of, index_pattern
from braggscope.modalities.laue.indexing.known import merged, misorientations, nothing_known
from braggscope.modalities.laue.indexing.pattern import pattern_of, pattern_of_table
from braggscope.modalities.laue.indexing.search import chance_of, grains_in, log_tail
from braggscope.modalities.laue.reflections import material

from .patterns import GEOMETRY, catalogue, deviatoric, places, turn

DATA = Path(__file__).parents[3] / "reference" / "laue"
GE, GAN = catalogue(), catalogue("GaN")


def pattern(*lists, geometry=GEOMETRY):
    at = np.vstack([one for one in lists if len(one)]) if any(map(len, lists)) else np.empty((0, 2))
    light = np.concatenate([1 / (1 + np.arange(len(one))) for one in lists]) if len(at) else np.empty(0)
    return pattern_of(at[:, 0], at[:, 1], light, geometry)


def search(found, crystal=GE, **options):
    return list(grains_in(found, crystal, **{"most": 20, "within": 1.0, **options}))


def spread(count, seed=0):
    return np.random.default_rng(seed).uniform(0, 2047, (count, 2))


def test_three_grains_among_spurious_peaks():
    random = np.random.default_rng(1)
    lists = [places(turn(s), deviatoric(s), count=n) + random.normal(0, 0.1, (n, 2)) for s, n in ((1, 60), (2, 40), (3, 25))]
    grains = search(pattern(*lists, spread(80)))
    assert len(grains) == 3
    for seed, count in ((1, 60), (2, 40), (3, 25)):
        near = [g for g in grains if misorientations(g.turn, turn(seed)[None], GE.crystal)[0] < 0.05]
        assert len(near) == 1 and count - 3 <= near[0].matched <= count + 5
    every = np.concatenate([g.peaks for g in grains])
    assert len(set(every.tolist())) == len(every)  # a peak belongs to one grain


def test_the_number_of_grains_is_a_limit():
    assert len(search(pattern(places(turn(1)), places(turn(2))), most=1)) == 1


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_fewer_than_five_peaks_are_of_no_grain(count):
    assert search(pattern(places(turn(1), count=count))) == []


def test_peaks_at_random_are_of_no_grain():
    assert search(pattern(spread(400))) == [] and search(pattern(spread(300, 1)), GAN) == []


def test_gallium_nitride_is_not_germanium_nor_the_reverse():
    assert search(pattern(places(turn(6), count=90)), GAN) == []
    assert search(pattern(places(turn(6), name="GaN", count=90))) == []
    assert len(search(pattern(places(turn(6), name="GaN", count=90)), GAN)) == 1


def test_the_film_is_found_behind_the_substrate():
    found = pattern(places(turn(8), name="Ge", count=80), places(turn(9), name="GaN", count=40))
    grains = index_pattern(found, [GE, GAN])
    assert [g.material for g in grains] == ["Ge", "GaN"]


def test_chance_is_what_orientations_at_random_match():
    found = pattern(spread(500, 4))
    squares = np.empty(500)
    counts = [
        kernels.matched(r, found.directions, found.sines, GE.tolerance, *GE.lookup, squares)
        for r in Rotation.random(2000, random_state=3).as_matrix()
    ]
    mean = chance_of(found, GE, np.ones(500, bool))
    assert mean == pytest.approx(np.mean(counts), rel=0.08)  # 2000 trials: 2.5 % by themselves


@pytest.mark.parametrize(("count", "mean"), [(8, 0.5), (3, 0.9), (50, 0.9), (20, 6.0)])
def test_the_tail_is_a_near_upper_bound(count, mean):
    exact = poisson.logsf(count - 1, mean)
    assert exact <= log_tail(count, mean) <= exact + 0.3


def test_no_tail_below_the_mean():
    assert log_tail(1, 2.0) == 0.0 and log_tail(0, 0.0) == 0.0


def test_the_silicon_substrate_lies_as_published():
    table = read_table(DATA / "rerun_lt3219_GaN_Si_nw1_0000_Si.cor")
    geometry = read_geometry(DATA / "GaN_Si_calib.det")
    catalogues = catalogues_of([material("Si"), material("GaN")], geometry)
    found = pattern_of_table(table, geometry)
    (grain,) = index_pattern(found, catalogues)
    published = np.array(
        [[0.6504412, 0.5025610, 0.5695250], [-0.0269536, 0.7646121, -0.6439269], [-0.7590783, 0.4034858, 0.5108810]]
    )
    assert grain.material == "Si" and grain.matched == 55 and grain.residuals.mean() == pytest.approx(0.317, abs=0.002)
    assert misorientations(grain.turn, published[None], material("Si"))[0] < 0.01
    assert index_pattern(found, catalogues[1:]) == []  # not gallium nitride


def test_the_silicon_film_of_the_advanced_photon_source():
    geometry = read_geometry(DATA / "aps34ide" / "geometry.xml").replace(energy_high_kev=26.0)
    found = pattern_of_table(placed(read_table(DATA / "aps34ide" / "Si_Peaks.txt"), geometry), geometry)
    (grain,) = index_pattern(found, catalogues_of([material("Si")], geometry), within=2.0)
    assert len(found) == 44 and grain.matched == 41 and grain.rms_deg <= 0.0055  # the beamline's own: 0.00545


def test_known_orientations_are_told_at_once():
    found = pattern(places(turn(2)), spread(50))
    known = nothing_known().with_more([turn(s) for s in range(5)], GE, found)
    use = np.ones(len(found), bool)
    assert len(known) == 5 and known.best(found, use, 1.0) == 2
    assert known.best(pattern(spread(200)), np.ones(200, bool), 1.0) is None
    assert nothing_known().best(found, use, 1.0) is None


def test_equal_orientations_are_merged_whatever_their_setting():
    small = Rotation.from_rotvec(np.deg2rad([[0.1, 0, 0], [0, 0.5, 0]])).as_matrix()
    turns = np.array([turn(1), small[0] @ turn(1) @ GE.crystal.rotations[5], small[1] @ turn(1), turn(2)])
    assert merged(turns, np.array([3.0, 1, 1, 9]), GE.crystal, 0.3).tolist() == [1, 1, 2, 0]
    assert misorientations(turns[0], turns, GE.crystal)[:3] == pytest.approx([0, 0.1, 0.5], abs=1e-6)


def test_uncertain_orientations_are_one_grain_within_twice_their_error():
    from scipy.spatial.transform import Rotation

    from braggscope.modalities.laue.indexing.known import merged
    from braggscope.physics.crystals import crystal_of

    turns = Rotation.from_rotvec(np.deg2rad([[0, 0, 0], [0, 0, 0.5], [0, 0, 3.0]])).as_matrix()
    weight, gold = np.array([9.0, 8.0, 7.0]), crystal_of("Au")
    assert merged(turns, weight, gold, 0.3).tolist() == [0, 1, 2]
    assert merged(turns, weight, gold, 0.3, np.array([0.1, 0.3, 9.0])).tolist() == [0, 0, 1]  # at most four times the angle
