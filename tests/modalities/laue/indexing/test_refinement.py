"""Refinement of orientation and strain: derivatives, recovery within the stated errors, outliers, symmetry."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from braggscope.modalities.laue.indexing import refining_kernels as kernels
from braggscope.modalities.laue.indexing.pattern import pattern_of
from braggscope.modalities.laue.indexing.refinement import COMPONENTS, OF_FREE, refined
from braggscope.modalities.laue.reflections import material

from .patterns import GEOMETRY, catalogue, deviatoric, places, turn

GE = catalogue()
INDEX = {"xx": (0, 0), "yy": (1, 1), "zz": (2, 2), "yz": (1, 2), "xz": (0, 2), "xy": (0, 1)}


def vector(strain):
    return np.array([strain[INDEX[name]] for name in COMPONENTS])


def pattern(at, stds=None):
    light = -np.arange(len(at), dtype=float)
    errors = {} if stds is None else {"row_std": stds[:, 0], "column_std": stds[:, 1]}
    return pattern_of(at[:, 0], at[:, 1], light, GEOMETRY, **errors)


def refine(at, u, stds=None, **options):
    found = pattern(at, stds)
    return refined(u, found, GE, use=np.ones(len(found), bool), within=1.0, **options)


def test_derivatives_are_those_of_finite_differences():
    u, strain = turn(3), deviatoric(3)
    free = np.array([strain[0, 0], strain[1, 1], strain[1, 2], strain[0, 2], strain[0, 1]])
    inverse = pattern(places(u)).inverse
    lattice, stretch, jacobian, q = np.empty((3, 3)), np.empty((3, 3)), np.empty((2, 8)), np.empty(3)

    def spot(change, h):
        turned = Rotation.from_rotvec(change[:3]).as_matrix() @ u
        kernels.strained(turned, free + change[3:], lattice, stretch)
        return np.array(kernels.spot(h, lattice, inverse, q)[:2])

    shown = [h for h in GE.reflections.q[:200] if kernels.spot.py_func(h, u, inverse, q)[2] > 0][:20]
    for h in shown:
        kernels.strained(u, free, lattice, stretch)
        kernels.derivatives(h, lattice, stretch, inverse, jacobian)
        step = 1e-6
        numeric = np.stack([(spot(step * one, h) - spot(-step * one, h)) / (2 * step) for one in np.eye(8)], 1)
        assert np.allclose(jacobian, numeric, rtol=1e-5, atol=1e-3 * np.abs(numeric).max())


def test_without_noise_orientation_and_strain_are_exact():
    u, strain = turn(1), deviatoric(1)
    grain = refine(places(u, strain), Rotation.from_rotvec([5e-4, -4e-4, 3e-4]).as_matrix() @ u)
    assert grain.matched == 60 and grain.residuals.max() < 1e-6
    assert np.allclose(grain.turn, u, atol=1e-9) and np.allclose(grain.strain, vector(strain), atol=1e-9)
    assert abs(grain.strain[:3].sum()) < 1e-15
    assert grain.rms_deg < 1e-7 and 60 <= grain.predicted <= 300


@pytest.mark.parametrize("weighted", [False, True])
def test_errors_are_those_that_are_stated(weighted):
    z = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        u, strain = turn(seed), deviatoric(seed)
        at = places(u, strain)
        stds = np.repeat(random.uniform(0.05, 0.3, len(at))[:, None], 2, 1) if weighted else np.full((len(at), 2), 0.15)
        grain = refine(at + random.normal(0, stds), u, stds if weighted else None)
        small = Rotation.from_matrix(grain.turn @ u.T).as_rotvec()
        off = np.concatenate([small, grain.strain - vector(strain)])
        z.append(off / np.sqrt(np.diag(grain.covariance)))
    z = np.array(z)
    assert 0.9 < z.std() < 1.15  # 40 x 9 numbers, of which 8 of 9 are independent
    assert abs(z.mean(0)).max() < 3.5 / np.sqrt(40)


def test_what_all_peaks_err_by_is_found_beyond_their_own_errors():
    random = np.random.default_rng(0)
    u = turn(0)
    at = places(u)
    grain = refine(at + random.normal(0, 0.2, at.shape), u, np.full(at.shape, 0.02))
    honest = refine(at + random.normal(0, 0.2, at.shape), u, np.full(at.shape, 0.2))
    assert np.allclose(np.sqrt(np.diag(grain.covariance)), np.sqrt(np.diag(honest.covariance)), rtol=0.35)


def test_outliers_and_strangers_do_not_pull():
    random = np.random.default_rng(5)
    u, strain = turn(5), deviatoric(5)
    at = places(u, strain) + random.normal(0, 0.05, (60, 2))
    at[::6] += 8.0 * np.array([0.6, -0.8])
    at = np.vstack([at, random.uniform(0, 2047, (100, 2))])
    grain = refine(at, u)
    assert 48 <= grain.matched <= 54 and len(set(grain.peaks.tolist())) == grain.matched
    assert np.abs(grain.strain - vector(strain)).max() < 3e-4


def test_equivalent_orientations_match_the_same_peaks():
    u, strain = turn(7), deviatoric(7)
    found = [refine(places(u, strain), u @ s) for s in material("Ge").rotations]
    assert {frozenset(one.peaks.tolist()) for one in found} == {frozenset(range(60))}
    for one, s in zip(found, material("Ge").rotations, strict=True):
        assert np.allclose(one.turn, u @ s, atol=1e-7)  # the strain is in the frame that turns with the choice
        assert np.allclose(one.residuals, 0, atol=1e-5)


def test_few_peaks_leave_the_strain_unknown():
    u = turn(2)
    grain = refine(places(u, count=5), u)
    assert grain.matched == 5 and np.isnan(grain.strain).all()
    assert np.isfinite(grain.covariance[:3, :3]).all() and np.isnan(grain.covariance[3:, 3:]).all()
    assert refine(places(u, count=2), u) is None


def test_harmonics_are_the_lowest_in_the_band():
    u = turn(4)
    grain = refine(places(u), u)
    assert (grain.energy >= 5).all() and (grain.energy <= 22).all()
    assert not material("Ge").absent(grain.hkl).any()
    order = np.gcd.reduce(grain.hkl, axis=1)
    below = order > 1
    lower = (grain.energy / order * (order - 1))[below]
    lower_hkl = (grain.hkl // order[:, None] * (order - 1)[:, None])[below]
    assert ((lower < 5) | (GE.crystal.absent(lower_hkl)) | (order[below] > 2)).all()


def test_the_six_components_have_no_trace():
    assert np.allclose(OF_FREE[:3].sum(0), 0)
