"""Spots of one crystal: places and energies in closed form, brightness against plain sums, drawing."""

import numpy as np
import pytest
from scipy.special import ndtr

from braggscope.modalities.laue.brightness import layer
from braggscope.modalities.laue.geometry import LaueGeometry, film
from braggscope.modalities.laue.patterns import Mixture, deformed, spot_image, spot_lists, spots_of
from braggscope.modalities.laue.spectrum import absorption_coefficient
from braggscope.physics.crystals import crystal_of
from braggscope.physics.structure_factors import structure_factors

HC = 12.398419843


@pytest.fixture(scope="module")
def gold():
    return layer(film(), crystal_of("Au"), thickness_um=0.3)


def turned(axis, degrees):
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(np.deg2rad(degrees) * np.array(axis) / np.linalg.norm(axis)).as_matrix()


def the(spots, gold, hkl):
    """Position in the list of the spot of these coprime indices."""
    return next(i for i, d in enumerate(spots.direction) if tuple(gold.reflections.hkl[d]) == hkl)


def test_a_plane_at_45_degrees_reflects_straight_up_at_the_energy_of_bragg(gold):
    """(h 0 -h) of a cube along the axes: q along (-1, 0, 1), 2 theta = 90 degrees, ray along z, foot of the detector's normal."""
    spots = spots_of(gold, np.eye(3))
    i = the(spots, gold, (-1, 0, 1))
    assert spots.energy[i] == pytest.approx(HC / (2 * 4.0782 / np.sqrt(2) * np.sin(np.pi / 4)), rel=1e-12)
    assert (spots.row[i], spots.column[i]) == pytest.approx((243.0, 203.0))
    # the mirror y -> -y of cube and instrument
    mirrored = dict(zip(map(tuple, gold.reflections.hkl[spots.direction]), spots.column - 203.0, strict=True))
    assert all(mirrored[(h, -k, m)] == pytest.approx(-c, abs=1e-9) for (h, k, m), c in mirrored.items() if (h, -k, m) in mirrored)
    assert len(spots.row) > 15


def test_intensity_is_the_sum_over_the_harmonics_in_the_band(gold):
    crystal, geometry = crystal_of("Au"), film()
    spots = spots_of(gold, np.eye(3))
    i = the(spots, gold, (-1, 0, 1))
    orders = np.array([2, 4, 6])  # 101 and 303 are forbidden; 202 is seen at 6.1 keV, 404 at 12.2, 606 at 18.2
    energy = orders * spots.energy[i]
    hkl = orders[:, None] * np.array([-1, 0, 1])
    square = np.abs(structure_factors(crystal, hkl, energy)) ** 2
    d = 4.0782 / np.sqrt(2) / orders
    path = 1 / np.sin(np.deg2rad(40)) + 1 / np.cos(np.deg2rad(40))  # in at 40 degrees, out along z
    mu = absorption_coefficient(crystal, energy)
    from braggscope.modalities.laue.spectrum import spectrum

    each = square * d**2 * spectrum(geometry)(energy) * (1 - np.exp(-mu * path * 0.3)) / (mu * path) / 4.0782**6
    assert spots.intensity[i] == pytest.approx(each.sum(), rel=1e-4)  # tables are linear over 4 eV
    assert each[1] > 0.01 * each[0] > 0 and each[2] > 1e-3 * each[0]


def test_the_gold_edges_are_seen(gold):
    """f' of gold dips by some 10 electrons at L3: |F|^2 of one family just there against 200 eV beside."""
    energy = gold.energy[0] + gold.energy[1] * np.arange(gold.table.shape[1])
    one = gold.table[gold.family[0][gold.family[0] >= 0][0]]
    at = [int(np.argmin(np.abs(energy - e))) for e in (11.72, 11.919, 12.12)]
    dip = one[at[0] : at[2]].min()
    assert dip < 0.85 * min(one[at[0]], one[at[2]]) and abs(energy[at[0] + one[at[0] : at[2]].argmin()] - 11.919) < 0.01


def test_polarisation_dims_spots_to_the_side():
    """Equal reflections seen upwards and sidewards at the same two theta, by a detector turned about the beam, thin crystal."""
    up = film().replace(rows=800, columns=800, xcen_px=400.5, ycen_px=400.5, critical_energy_kev=None, distance_mm=100.0)
    thin = layer(up, crystal_of("Al"), thickness_um=1e-3)
    u = turned([1, 2, 3], 20)
    both = []
    for chi in (0.0, 25.0):
        spots = spots_of(thin, turned([1, 0, 0], -chi) @ u)
        both.append(
            dict(
                zip(
                    spots.direction.tolist(),
                    zip(spots.energy, spots.intensity, spots.row, spots.column, strict=True),
                    strict=True,
                )
            )
        )
    m = np.linalg.inv(thin.detector)
    shared = set(both[0]) & set(both[1])
    assert len(shared) >= 5
    for key in shared:
        (e0, i0, r0, c0), (e1, i1, r1, c1) = both[0][key], both[1][key]
        rays = [m @ [c, r, 1] for r, c in ((r0, c0), (r1, c1))]
        p0, p1 = (1 - (v[1] / np.linalg.norm(v)) ** 2 for v in rays)
        assert e0 == pytest.approx(e1) and i0 / p0 == pytest.approx(i1 / p1, rel=2e-3)  # 1 nm of aluminium absorbs nothing


def test_a_thick_crystal_shows_what_it_does_not_absorb(gold):
    """Layers of 0.3 um, 1 mm and without end: thin below thick, the last two alike; a cover takes its part."""
    au = crystal_of("Au")
    thin, thick, endless = (spots_of(layer(film(), au, thickness_um=t), np.eye(3)).intensity for t in (0.3, 1000.0, None))
    assert (thin < thick).all() and np.allclose(thick, endless, rtol=1e-12)
    covered = spots_of(layer(film(), au, above=(crystal_of("Si"), 10.0)), np.eye(3)).intensity
    assert (covered < endless).all() and (covered > 0.3 * endless).all()


def test_strain_moves_spots_as_the_lattice_would_and_pressure_does_not(gold):
    strain = np.array([[8e-4, 3e-4, 0], [3e-4, -5e-4, -2e-4], [0, -2e-4, -3e-4]])
    u = turned([3, -1, 2], 17)
    spots = spots_of(gold, u, strain, margin_px=1e3)
    rest = spots_of(gold, u, margin_px=1e3)
    # q.a is kept for the lattice vectors: with real-space axes stretched by (1 + strain), q = U (1 + strain)^-T B h
    axes = (np.eye(3) + strain) * 4.0782
    q = np.linalg.solve(axes.T, gold.reflections.hkl[spots.direction].T).T @ u.T
    energy = -HC * (q**2).sum(1) / (2 * q[:, 0])
    assert np.allclose(spots.energy, energy, rtol=1e-12)
    _, i, j = np.intersect1d(spots.direction, rest.direction, return_indices=True)
    assert len(i) > 90 and np.abs(spots.row[i] - rest.row[j]).max() > 0.05
    swollen = spots_of(gold, u, 1e-3 * np.eye(3), margin_px=1e3)
    _, i, j = np.intersect1d(swollen.direction, rest.direction, return_indices=True)
    assert np.allclose(swollen.row[i], rest.row[j], atol=1e-9) and np.allclose(swollen.energy[i] * 1.001, rest.energy[j])


def test_a_drawn_spot_is_the_gaussian_integrated_over_pixels():
    geometry = film().replace(rows=20, columns=31, spot_px=0.9)
    spots = type("S", (), {"row": np.array([7.3]), "column": np.array([12.8]), "intensity": np.array([100.0])})()
    image = spot_image(geometry, spots)
    i, j = np.arange(20), np.arange(31)
    along = ndtr((i + 0.5 - 7.3) / 0.9) - ndtr((i - 0.5 - 7.3) / 0.9)
    across = ndtr((j + 0.5 - 12.8) / 0.9) - ndtr((j - 0.5 - 12.8) / 0.9)
    assert np.abs(image - 100 * along[:, None] * across).max() < 1e-4  # what is left out beyond five sigma
    assert image.sum() == pytest.approx(100, rel=2e-6)
    for at in ((-40.0, 5.0), (5.0, 400.0), (-0.4, 30.4)):  # off the frame, and over its corner
        spots.row, spots.column = np.array([at[0]]), np.array([at[1]])
        assert np.isfinite(spot_image(geometry, spots)).all()


def test_mixing_is_linear(gold):
    geometry = film()
    patterns = [spots_of(gold, turned([1, 0, 2], a), margin_px=5.0) for a in (5, 31, 77)]
    start, lists = spot_lists(patterns, 1e6)
    same = np.full(geometry.frame_shape, 3.0, np.float32)
    mixed = Mixture(start, lists, np.array([0, 2, 3, 3]), np.array([0, 2, 1]), np.array([0.25, 0.5, 2.0]), same, geometry.spot_px)
    frames = mixed.frames(np.array([2, 0, 1]))
    alone = [spot_image(geometry, p, 1e6) for p in patterns]
    assert np.allclose(frames[0], 3.0)
    assert np.allclose(frames[1], 3 + 0.25 * alone[0] + 0.5 * alone[2], rtol=1e-5)
    assert np.allclose(frames[2], 3 + 2 * alone[1], rtol=1e-5)


def test_a_hexagonal_crystal_and_one_without_centre_show_spots():
    for name in ("GaN", "GaAs"):
        spots = spots_of(layer(film(), crystal_of(name), thickness_um=1.0), turned([1, 1, 0], 33))
        assert len(spots.row) > 10 and (spots.intensity > 0).all()


def test_the_energies_are_those_of_the_band():
    geometry: LaueGeometry = film().replace(energy_low_kev=8.0, energy_high_kev=9.0)
    spots = spots_of(layer(geometry, crystal_of("Au"), thickness_um=1.0), turned([1, 4, 2], 50), margin_px=2e3)
    orders = np.arange(1, 30)
    shown = (spots.energy[:, None] * orders >= 8) & (spots.energy[:, None] * orders <= 9)
    assert shown.any(1).all() and len(spots.row) >= 2
    assert np.allclose(deformed(np.eye(3)), np.eye(3))
