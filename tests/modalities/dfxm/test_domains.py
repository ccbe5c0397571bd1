"""Domains: known cells come back, noise and bends make none, the table by hand, bad input."""

import math

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.spatial import cKDTree
from sklearn.metrics import adjusted_rand_score

from braggscope.core.errors import InputError
from braggscope.core.maps import check_map, flag_counts
from braggscope.modalities.dfxm.analysis._regions import Wall, walls_between
from braggscope.modalities.dfxm.analysis.domains import domains
from braggscope.modalities.dfxm.lattice_rotations import LatticeRotations

SHAPE = (60, 90)


def orientation_map(x, y, std=0.0, seed=0, missing=None):
    """An orientation map with rotations about x and y (deg) and noise of this standard deviation."""
    random, found = np.random.default_rng(seed), {}
    for name, values in (("x", x), ("y", y), ("z", np.zeros_like(x))):
        noisy = values + random.normal(0, std, values.shape)
        if missing is not None:
            noisy[missing] = np.nan
        found[f"rotation_{name}"] = (("row", "column"), noisy, {"units": "deg", "long_name": name})
        found[f"rotation_{name}_std"] = (
            ("row", "column"),
            np.full(values.shape, max(std, 1e-6)),
            {"units": "deg", "long_name": name},
        )
    attributes = {"flag_masks": np.array([1], np.int32), "flag_meanings": "no_signal", "long_name": "f"}
    flag = np.zeros(x.shape, np.int32) if missing is None else missing.astype(np.int32)
    found["flag"] = (("row", "column"), flag, attributes)
    return xr.Dataset(found, attrs={"pixel_row_um": 0.5, "pixel_column_um": 0.2})


def cells(count=12, seed=1):
    """Voronoi cells and their rotations about x and y, each at least 0.45 deg from the others."""
    random = np.random.default_rng(seed)
    grid = np.array([(i, j) for i in range(4) for j in range(3)], float)[:count]
    rotations = 0.5 * grid[random.permutation(count)] + random.uniform(-0.02, 0.02, (count, 2))
    points = random.uniform(0, 1, (count, 2)) * SHAPE
    y, x = np.meshgrid(*(np.arange(n) + 0.5 for n in SHAPE), indexing="ij")
    _, which = cKDTree(points).query(np.stack([y, x], -1))
    return which, rotations[which]


@pytest.mark.parametrize("std", [0.01, 0.1])
def test_cells_come_back_with_their_rotations(std):
    which, rotation = cells()
    d = domains(orientation_map(rotation[..., 0], rotation[..., 1], std), threshold=0.2)
    check_map(d)
    assert d.attrs["domains"] == 12
    assert adjusted_rand_score(which.ravel(), d["label"].values.ravel()) > (0.97 if std < 0.05 else 0.94)
    assert d["size"].values.sum() == which.size and (np.diff(d["size"].values) <= 0).all()
    np.testing.assert_allclose(d["area"].values, d["size"].values * 0.1)
    for i, name in enumerate(("mean_rotation_x", "mean_rotation_y")):
        true = [np.median(rotation[..., i][d["label"].values == n]) for n in d["domain"].values]
        # with noise a wall may be off by two pixels: then some of the neighbour, half a degree away, take part
        np.testing.assert_allclose(d[name].values, true, atol=0.01 if std < 0.05 else 0.05)


def test_noise_alone_makes_no_domains():
    flat = np.zeros(SHAPE)
    assert domains(orientation_map(flat, flat, std=0.2), threshold=0.1).attrs["domains"] == 1


def test_a_bent_crystal_is_one_domain_unless_its_ends_may_not_be_one():
    bend = np.broadcast_to(np.linspace(0, 1.5, SHAPE[1]), SHAPE)
    m = orientation_map(np.zeros(SHAPE), bend, std=0.01)
    assert domains(m, threshold=0.15).attrs["domains"] == 1
    parts = domains(m, threshold=0.15, within=0.3)
    assert parts.attrs["domains"] >= 3 and parts["wall_misorientation"].values.min() > 0.3


def test_two_halves_by_hand():
    tilt = np.where(np.arange(SHAPE[1]) < 30, 0.0, 0.8) * np.ones((SHAPE[0], 1))
    d = domains(orientation_map(np.zeros(SHAPE), tilt, std=0.02))
    assert d["size"].values.tolist() == [3600, 1800]
    np.testing.assert_allclose(d["centre_column"].values, [59.5, 14.5])
    np.testing.assert_allclose(d["centre_row"].values, 29.5)
    assert (d["wall_domain_a"].values, d["wall_domain_b"].values) == (1, 2)
    # pairs 4 pixels apart across one wall of 60 rows; both misorientations within five of their standard deviations
    assert d["wall_pairs"].values[0] == 240
    for name in ("wall_step", "wall_misorientation"):
        assert abs(d[name].values[0] - 0.8) < 5 * d[f"{name}_std"].values[0]
    assert d["wall_misorientation_std"].values[0] == pytest.approx(0.02 * math.sqrt(1 / 3540 + 1 / 1740), rel=1e-6)
    np.testing.assert_allclose(d["spread"].values, d["spread_by_noise"].values, rtol=0.03)


def test_the_errors_of_mean_rotations_are_calibrated():
    z = []
    tilt = np.where(np.arange(20) < 10, 0.0, 1.0) * np.ones((12, 1))
    for seed in range(30):
        d = domains(orientation_map(np.zeros((12, 20)), tilt, std=0.05, seed=seed), threshold=0.3)
        true = np.round(d["mean_rotation_y"].values)
        z += list((d["mean_rotation_y"].values - true) / d["mean_rotation_y_std"].values)
    assert len(z) == 60 and np.std(z) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("known", ["y", "xy", "xyz"])
def test_errors_of_walls_are_calibrated_whatever_directions_are_known(known):
    """A step about y; 200 walls of 30 pairs of pixels that are independent."""
    random, rows = np.random.default_rng(0), 30 * 200
    m = orientation_map(np.zeros((rows, 2)), np.broadcast_to([0.0, 0.5], (rows, 2)))
    for c in "xyz":
        m[f"rotation_{c}"].values += random.normal(0, 0.05 * (c in known), (rows, 2))
        m[f"rotation_{c}_std"].values[:] = 0.05 * (c in known)
    label = 2 * (np.arange(rows)[:, None] // 30) + np.array([1, 2])
    walls = walls_between(label, LatticeRotations.of(m), 1)
    across = [walls[2 * n + 1, 2 * n + 2] for n in range(200)]
    std = 0.05 * math.sqrt(2 / 30)
    np.testing.assert_allclose([w.std for w in across], std, rtol=1e-3)  # the covariance is that of a small rotation
    z = (np.array([w.angle for w in across]) - 0.5) / std
    assert abs(z.mean()) < 0.25 and z.std() == pytest.approx(1, abs=0.15)  # known to 0.07 and 0.05


def test_the_covariance_of_a_wall_is_the_sum_of_those_of_its_pixels():
    root = np.random.default_rng(2).normal(size=(3, 2, 3, 3))
    covariance = root @ root.swapaxes(-1, -2)
    state = torch.eye(3, dtype=torch.float64).expand(3, 2, 3, 3)
    field = LatticeRotations(state, torch.from_numpy(covariance * math.radians(1) ** 2), None)
    wall = walls_between(np.array([[1, 2]] * 3), field, 1)[1, 2]
    np.testing.assert_allclose(wall.covariance, covariance.sum((0, 1)), rtol=1e-12)


def test_noise_across_a_wall_does_not_raise_it():
    random = np.random.default_rng(1)
    covariance = np.diag([4.0, 1.0, 1.0])  # of the sum over two pairs
    sums = np.array([0.0, 4.0, 0.0]) + random.normal(size=(20_000, 3)) * np.sqrt(np.diag(covariance))
    angle = np.mean([Wall(one, covariance, 2.0).angle for one in sums])
    assert np.linalg.norm(sums, axis=1).mean() / 2 > 2.27  # the length is biased
    assert angle == pytest.approx(2, abs=0.05)  # to lowest order it is not
    assert Wall(np.zeros(3), covariance, 2.0).angle == 0 and Wall(np.zeros(3), covariance, 2.0).height < 0


def test_islands_and_missing_pixels_are_in_no_domain():
    missing = np.zeros(SHAPE, bool)
    missing[:, 40:45] = True
    missing[10:16, 60:66] = True
    missing[12:14, 62:64] = False  # an island of four pixels
    flat = np.zeros(SHAPE)
    d = domains(orientation_map(flat, flat, std=0.01, missing=missing))
    assert d.attrs["domains"] == 2 and (d["label"].values[missing] == 0).all()
    assert flag_counts(d)["in_no_domain"] == 4 and d["label"].values[12, 62] == 0


def test_mean_strain_of_each_domain():
    tilt = np.where(np.arange(SHAPE[1]) < 30, 0.0, 0.8) * np.ones((SHAPE[0], 1))
    m = orientation_map(np.zeros(SHAPE), tilt, std=0.02)
    strain = m[["flag"]].assign(
        strain=(("row", "column"), np.where(tilt > 0.4, 1e-4, -2e-4), {"units": "1", "long_name": "s"}),
        strain_std=(("row", "column"), np.full(SHAPE, 1e-5), {"units": "1", "long_name": "s"}),
    )
    d = domains(m, strain)
    np.testing.assert_allclose(d["mean_strain"].values, [1e-4, -2e-4], rtol=1e-9)
    np.testing.assert_allclose(d["mean_strain_std"].values, [1e-5 / 60, 1e-5 / math.sqrt(1800)])
    with pytest.raises(InputError, match="strain must be a map of `strain` over the same 60 x 90 pixels"):
        domains(m, m)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"threshold": 0.0}, "threshold must be positive, got 0"),
        ({"within": -1.0}, "within must be positive, got -1"),
        ({"reach": 0}, "reach must be at least 1 pixel, got 0"),
        ({"smooth": math.nan}, "smooth must be positive, got nan"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        domains(orientation_map(np.zeros((5, 5)), np.zeros((5, 5))), **options)


def test_a_map_without_any_orientation_is_refused():
    flat = np.zeros((5, 5))
    with pytest.raises(InputError, match="no pixel with an orientation"):
        domains(orientation_map(flat, flat, missing=np.ones((5, 5), bool)))
