"""Kernel average misorientation and deviation from a reference: by hand, against orix, symmetries, error bars, bad input."""

import math

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.spatial.transform import Rotation

from braggscope.core.errors import InputError
from braggscope.core.maps import check_map, flag_counts
from braggscope.modalities.dfxm.analysis.grod import grod
from braggscope.modalities.dfxm.analysis.kam import _pure_noise, kam
from braggscope.modalities.dfxm.geometry import DfxmGeometry

THETA = math.radians(9.0)
Q = np.array([-math.sin(THETA), 0, math.cos(THETA)])


def rotation_map(vector, covariance=None, one_reflection=False):
    """An orientation map of rotation vectors (deg), shape (row, column, 3); covariance in deg^2, shape (3, 3)."""
    image = vector.shape[:2]
    found = {}
    for i, c in enumerate("xyz"):
        found[f"rotation_{c}"] = (("row", "column"), vector[..., i], {"units": "deg", "long_name": c})
        if covariance is not None:
            found[f"rotation_{c}_std"] = (
                ("row", "column"),
                np.full(image, covariance[i, i] ** 0.5),
                {"units": "deg", "long_name": c},
            )
    for i, j in ((0, 1), (0, 2), (1, 2)):
        if covariance is not None:
            name = f"rotation_{'xyz'[i]}_rotation_{'xyz'[j]}_covariance"
            found[name] = (("row", "column"), np.full(image, covariance[i, j]), {"units": "deg^2", "long_name": name})
    attributes = {"flag_masks": np.array([1], np.int32), "flag_meanings": "no_signal", "long_name": "f"}
    found["flag"] = (("row", "column"), np.isnan(vector).any(-1).astype(np.int32), attributes)
    attrs = {"unseen_axis": " ".join(f"{x:.17g}" for x in Q)} if one_reflection else {}
    return xr.Dataset(found, attrs=attrs)


def rocked(*angles):
    """A row of pixels rocked about y by these angles (deg)."""
    vector = np.zeros((1, len(angles), 3))
    vector[0, :, 1] = angles
    return vector


def field(shape=(6, 9), size=2.0, seed=0):
    """A smooth field of rotations about all axes."""
    y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    phases = np.random.default_rng(seed).uniform(0, 6, (3, 2))
    return size * np.stack([np.sin(3 * x + a) * np.cos(4 * y + b) for a, b in phases], -1)


def by_pairs(vector, size, angle_of, kernel="square"):
    """KAM by a loop over pixels and neighbours."""
    rows, columns = vector.shape[:2]
    half, result = size // 2, np.full((rows, columns), np.nan)
    for i in range(rows):
        for j in range(columns):
            found = []
            for k in range(max(0, i - half), min(rows, i + half + 1)):
                for n in range(max(0, j - half), min(columns, j + half + 1)):
                    if (k, n) != (i, j) and (kernel == "square" or abs(k - i) + abs(n - j) <= half):
                        found.append(angle_of(vector[i, j], vector[k, n]))
            found = [a for a in found if np.isfinite(a)]
            if found and np.isfinite(vector[i, j, 0]):
                result[i, j] = np.mean(found)
    return result


def by_orix(a, b):
    """Misorientation angle of two rotation vectors (deg) by orix."""
    from orix.quaternion import Misorientation, Orientation

    if np.isnan([a, b]).any():
        return math.nan
    one, other = (Orientation(Rotation.from_rotvec(v, degrees=True).as_quat(scalar_first=True)[None]) for v in (a, b))
    return float(np.degrees(Misorientation((other * ~one).data).angle[0]))


def between_directions(a, b):
    one, other = (Rotation.from_rotvec(v, degrees=True).apply(Q) for v in (a, b))
    return math.degrees(math.atan2(np.linalg.norm(np.cross(one, other)), one @ other))


# --- kernel average misorientation


def test_kam_by_hand():
    # 0, 0.1, 0.3, missing, 0.35 deg about y: neighbours in the row only
    k = kam(rotation_map(rocked(0.0, 0.1, 0.3, np.nan, 0.35)))
    np.testing.assert_allclose(k["kam"].values, [[0.1, 0.15, 0.2, np.nan, np.nan]], atol=1e-12)
    np.testing.assert_allclose(k["kam_neighbours"].values, [[1, 2, 1, 0, 0]])
    assert flag_counts(k)["no_neighbours"] == 1 and flag_counts(k)["no_signal"] == 1
    check_map(k)


@pytest.mark.parametrize("size, kernel", [(3, "square"), (5, "square"), (5, "diamond")])
def test_kam_of_a_known_rotation_field_is_exact(size, kernel):
    vector = field((5, 7))
    vector[2, 3] = np.nan
    found = kam(rotation_map(vector), size=size, kernel=kernel)["kam"].values
    np.testing.assert_allclose(found, by_pairs(vector, size, by_orix, kernel), atol=2e-6)  # orix: arccos of a float64

    def by_scipy(a, b):
        return np.degrees((Rotation.from_rotvec(b, degrees=True) * Rotation.from_rotvec(a, degrees=True).inv()).magnitude())

    clean = field()
    np.testing.assert_allclose(
        kam(rotation_map(clean), size=size, kernel=kernel)["kam"], by_pairs(clean, size, by_scipy, kernel), atol=1e-11
    )


def test_kam_of_one_reflection_is_the_angle_between_diffraction_vectors():
    vector = field()
    found = kam(rotation_map(vector, one_reflection=True))["kam"].values
    np.testing.assert_allclose(found, by_pairs(vector, 3, between_directions), atol=1e-12)
    assert (found <= kam(rotation_map(vector))["kam"].values + 1e-12).all()  # what is not seen can only add


def test_kam_does_not_change_when_the_whole_sample_turns():
    vector = field()
    turn = Rotation.from_rotvec([40.0, -70.0, 25.0], degrees=True)
    turned = (turn * Rotation.from_rotvec(vector.reshape(-1, 3), degrees=True)).as_rotvec(degrees=True).reshape(vector.shape)
    np.testing.assert_allclose(kam(rotation_map(turned))["kam"], kam(rotation_map(vector))["kam"], atol=1e-11)


def test_kam_in_bands_is_that_of_the_whole(monkeypatch):
    whole = kam(rotation_map(field((23, 9)), np.eye(3) * 1e-4), size=5)
    monkeypatch.setattr("braggscope.modalities.dfxm.analysis.kam.BAND", 27)
    xr.testing.assert_identical(kam(rotation_map(field((23, 9)), np.eye(3) * 1e-4), size=5), whole)


def test_a_kernel_larger_than_the_image_is_the_whole_image():
    vector = field((2, 3))
    np.testing.assert_allclose(kam(rotation_map(vector), size=9)["kam"], kam(rotation_map(vector), size=5)["kam"])
    assert (kam(rotation_map(vector), size=9)["kam_neighbours"] == 5).all()


def test_neighbours_beyond_the_largest_angle_are_left_out():
    k = kam(rotation_map(rocked(0.0, 0.1, 2.0, 2.3)), max_angle=1.0)
    np.testing.assert_allclose(k["kam"].values, [[0.1, 0.1, 0.3, 0.3]], atol=1e-12)


def test_kam_and_its_error_agree_with_repeated_measurements():
    """Correlated, unequal errors of 1 to 5 % of the misorientations; 400 draws of a field of 3 x 3, one below the other."""
    random = np.random.default_rng(3)
    root = random.normal(size=(3, 3)) * 0.02
    vector = 15 * field((3, 3))
    truth = kam(rotation_map(vector))["kam"].values
    copies = 400
    draws = np.full((4 * copies, 3, 3), np.nan)  # an empty row between two copies
    for n in range(copies):
        draws[4 * n : 4 * n + 3] = vector + random.normal(size=(3, 3, 3)) @ root.T
    k = kam(rotation_map(draws, root @ root.T))
    z = ((k["kam"] - np.concatenate([truth, np.full((1, 3), np.nan)] * copies)) / k["kam_std"]).values
    z = z[np.isfinite(z)]
    assert len(z) == 9 * copies
    assert abs(z.mean()) < 0.06 and z.std() == pytest.approx(1, abs=0.05)  # known to 0.02 and 0.012 were the nine independent


def tangent(*stds):
    """Root of a covariance with these standard deviations along y and along the axis across y and q."""
    axes = np.array([[0.0, 1.0, 0.0], np.cross([0.0, 1.0, 0.0], Q)])
    return axes[: len(stds)].T * np.array(stds)


KINDS = {  # root of the covariance (deg), and whether one reflection was seen
    "one motor": (tangent(0.02), True),
    "two motors": (tangent(0.02, 0.02), True),
    "unequal motors": (tangent(0.02, 0.005), True),
    "rotations": (0.02 * np.eye(3), False),
    "unequal rotations": (np.diag([0.03, 0.01, 0.005]), False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_noise_alone_is_flagged_and_a_step_is_not(kind):
    root, one_reflection = KINDS[kind]
    noise = np.random.default_rng(4).normal(size=(60, 60, root.shape[1])) @ root.T
    k = kam(rotation_map(noise, root @ root.T, one_reflection))
    # two standard deviations above the mean: 95 % of a Gaussian lie below 1.64, the long tail of lengths takes the rest
    assert 0.9 < flag_counts(k)["misorientation_hidden_by_noise"] / 3600 < 0.99
    step = np.where(np.arange(60)[:, None] < 30, 0, 0.3) * np.array([0.0, 1.0, 0.0])
    s = kam(rotation_map(noise + step, root @ root.T, one_reflection))
    assert (s["flag"].values[:, 29:31] == 0).all()
    assert 0.9 < flag_counts(s)["misorientation_hidden_by_noise"] / (3600 - 120) < 0.99


@pytest.mark.parametrize(
    "directions, factor", [(1, math.sqrt(2 / math.pi)), (2, math.sqrt(math.pi / 2)), (3, math.sqrt(8 / math.pi))]
)
def test_mean_length_of_noise_is_that_of_its_directions(directions, factor):
    covariance = torch.diag(torch.tensor([1.0] * directions + [0.0] * (3 - directions), dtype=torch.float64))
    mean, std, share = _pure_noise(covariance, 3 * covariance)  # sigma is 2
    assert float(mean) == pytest.approx(2 * factor, rel=1e-12)
    assert float(std) == pytest.approx(2 * math.sqrt(directions - factor**2), rel=1e-12) and float(share) == 0.25
    assert [float(v) for v in _pure_noise(0 * covariance, 0 * covariance)] == [0, 0, 0]


@pytest.mark.parametrize("variances", [(1, 0.1, 0), (1, 0.3, 0.1), (1, 0.01, 0.01), (1, 1, 0.2)])
def test_mean_length_of_unequal_noise_is_known_to_two_percent(variances):
    draws = np.random.default_rng(0).normal(size=(400_000, 3)) * np.sqrt(2 * np.array(variances))
    covariance = torch.diag(torch.tensor(variances, dtype=torch.float64))
    mean, std, _ = _pure_noise(covariance, covariance)
    length = np.linalg.norm(draws, axis=1)
    assert 0.975 < float(mean) / length.mean() < 1.005 and float(std) == pytest.approx(length.std(), rel=0.07)


def test_the_spread_of_the_kam_of_noise_is_what_is_taken():
    """Without the correlation by the pixel itself it would be smaller by 1.6: then 0.86 would be flagged, not 0.95."""
    draws = np.random.default_rng(5).normal(0, 0.02, (80, 80, 3))
    found = kam(rotation_map(draws, 0.02**2 * np.eye(3)))["kam"].values[1:-1, 1:-1]
    mean, std, share = (float(v) for v in _pure_noise(*2 * [0.02**2 * torch.eye(3, dtype=torch.float64)]))
    assert found.mean() == pytest.approx(mean, rel=0.02)
    assert found.std() == pytest.approx(std * math.sqrt((1 - share**2) / 8 + share**2), rel=0.06)


# --- deviation from a reference


def test_grod_by_hand_and_its_mean_is_no_rotation():
    g = grod(rotation_map(rocked(-0.3, 0.0, 0.1, 0.2)))
    np.testing.assert_allclose(g["grod"].values, [[0.3, 0.0, 0.1, 0.2]], atol=1e-12)
    check_map(g)
    given = grod(rotation_map(rocked(-0.3, 0.0, 0.1, 0.2)), reference_pixel=(0, 3))
    np.testing.assert_allclose(given["grod"].values, [[0.5, 0.2, 0.1, 0.0]], atol=1e-12)


def test_grod_is_that_to_scipys_mean_rotation():
    vector = field(size=5.0).reshape(1, -1, 3)
    turns = Rotation.from_rotvec(vector[0], degrees=True)
    mean = turns.mean()
    expected = np.degrees((turns * mean.inv()).magnitude())
    # the mean by quaternions and the Karcher mean differ by a part in the square of the spread
    np.testing.assert_allclose(grod(rotation_map(vector))["grod"].values[0], expected, atol=0.02)


def test_grod_within_domains_and_outside_them():
    label = xr.Dataset({"label": (("row", "column"), np.array([[1, 1, 2, 2, 0]]))})
    g = grod(rotation_map(rocked(0.0, 0.2, 5.0, 5.4, 9.0), np.eye(3) * 1e-4), label)
    np.testing.assert_allclose(g["grod"].values, [[0.1, 0.1, 0.2, 0.2, np.nan]], atol=1e-12)
    np.testing.assert_allclose(g["grod_std"].values[0, :4], 0.01 * math.sqrt(1.5), rtol=1e-6)
    assert flag_counts(g)["in_no_domain"] == 1


# --- bad input


@pytest.mark.parametrize(
    "options, message",
    [
        ({"size": 4}, "size must be an odd number of pixels from 3, got 4"),
        ({"kernel": "round"}, "kernel must be square or diamond, got 'round'"),
        ({"max_angle": -1.0}, "max_angle must be positive, got -1"),
        ({"neighbours": 9}, "neighbours must be between 1 and the 8 of the kernel, got 9"),
    ],
)
def test_bad_options_of_kam_are_named(options, message):
    with pytest.raises(InputError, match=message):
        kam(rotation_map(field()), **options)


def test_bad_inputs_of_grod_are_named():
    m = rotation_map(rocked(0.0, 0.1))
    with pytest.raises(InputError, match="reference_pixel must be a pixel with an orientation, got row 1"):
        grod(m, reference_pixel=(1, 0))
    with pytest.raises(InputError, match="over the same 1 x 2 pixels"):
        grod(m, rotation_map(rocked(0.0, 0.1)))


def test_a_map_without_orientation_says_what_it_lacks():
    m = rotation_map(rocked(0.0, 0.1)).drop_vars("rotation_z")
    with pytest.raises(InputError, match="this map lacks rotation_z"):
        kam(m, geometry=DfxmGeometry(two_theta_deg=18))
