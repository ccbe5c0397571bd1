"""Lattice rotations from motor positions: closed forms, an independent program, symmetries, error bars, bad input."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.transform import Rotation

import braggscope
from braggscope.core.errors import InputError
from braggscope.core.maps import check_map, flag_counts
from braggscope.modalities.dfxm.analysis.orientation import orientation
from braggscope.modalities.dfxm.carried import error_covariance
from braggscope.modalities.dfxm.geometry import DfxmGeometry

EXAMPLES = Path(__file__).parents[3] / "examples" / "data"
GEOMETRY = DfxmGeometry(two_theta_deg=18.0, goniometer="mu:-y omega:z chi:x phi:-y")
THETA = math.radians(9.0)
Q = np.array([-math.sin(THETA), 0, math.cos(THETA)])


def motor_map(positions, std=None, flag=None, units="deg", **attrs):
    """A map with positions of motors, as a method makes one; std: one error for all, or by motor."""
    shape = np.shape(next(iter(positions.values())))
    variables = {}
    for name, values in positions.items():
        variables[name] = (("row", "column"), np.asarray(values, float), {"units": units, "long_name": name})
        if std is not None:
            error = std[name] if isinstance(std, dict) else std
            variables[f"{name}_std"] = (("row", "column"), np.full(shape, float(error)), {"units": units, "long_name": "std"})
    meanings = {"flag_masks": np.array([1, 4], np.int32), "flag_meanings": "no_signal wide"}
    variables["flag"] = (("row", "column"), np.zeros(shape, np.int32) if flag is None else flag, {**meanings, "long_name": "f"})
    return xr.Dataset(variables, attrs=attrs)


def gamma(mu=0.0, omega=0.0, chi=0.0, phi=0.0):
    """The goniometer by scipy: intrinsic rotations, outermost first."""
    turns = (("Y", -np.asarray(mu)), ("Z", omega), ("X", chi), ("Y", -np.asarray(phi)))
    total = Rotation.identity()
    for axis, angle in turns:
        total = total * Rotation.from_euler(axis, np.reshape(angle, (-1, 1)), degrees=True)
    return total


def vectors(dataset):
    """Diffraction vectors of an orientation map, by scipy."""
    w = np.stack([dataset[f"rotation_{c}"].values for c in "xyz"], -1)
    return Rotation.from_rotvec(w.reshape(-1, 3), degrees=True).apply(Q)


def angle(a, b):
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), np.sum(a * b, axis=-1)))


def random_positions(seed=0, shape=(5, 7), **centres):
    random = np.random.default_rng(seed)
    return {name: centre + random.normal(0, 1.5, shape) for name, centre in centres.items()}


# --- closed forms


def test_rocking_by_an_angle_turns_the_lattice_back_by_it():
    # a volume that peaks at a higher mu (about -y) is turned by that much about +y, whatever the scattering angle
    m = motor_map({"mu": [[0.0, 0.3, -0.2]]})
    o = orientation(m, geometry=GEOMETRY, reference_pixel=(0, 0))
    np.testing.assert_allclose(o["rotation_y"].values, [[0, 0.3, -0.2]], atol=1e-13)
    np.testing.assert_allclose(o["rotation_x"].values, 0, atol=1e-13)
    np.testing.assert_allclose(o["tilt"].values, [[0, 0.3, 0.2]], atol=1e-13)
    check_map(o)


def test_a_motor_difference_is_not_a_misorientation():
    # chi by d about an axis at the angle a to q turns the vector by 2 asin(sin a sin(d / 2)); omega = 40 deg carries chi's axis
    d, omega = 2.0, 40.0
    m = motor_map({"chi": [[0.0, d]]}, still_motors=json.dumps({"omega": omega}))
    o = orientation(m, geometry=GEOMETRY, reference_pixel=(0, 0))
    along = -math.sin(THETA) * math.cos(math.radians(omega))
    expected = 2 * math.degrees(math.asin(math.sqrt(1 - along**2) * math.sin(math.radians(d / 2))))
    assert o["tilt"].values[0, 1] == pytest.approx(expected, abs=1e-12)
    assert expected < d - 0.01
    assert o.attrs["still_omega"] == omega and o.attrs["taken_as_zero"] == "mu phi"


def test_a_still_motor_turns_the_axes_of_those_inside_it():
    # with omega = 90 deg the axis of chi lies along y: chi then rocks as mu does, with the other sign
    m = motor_map({"chi": [[0.0, 0.7]]})
    o = orientation(m, geometry=GEOMETRY, still=("omega=90",), reference_pixel=(0, 0))
    np.testing.assert_allclose([o[f"rotation_{c}"].values[0, 1] for c in "xyz"], [0, -0.7, 0], atol=1e-12)


def test_nothing_turns_about_the_diffraction_vector():
    o = orientation(motor_map(random_positions(mu=3.0, chi=-8.0)), geometry=GEOMETRY)
    unseen = np.array([float(word) for word in o.attrs["unseen_axis"].split()])
    np.testing.assert_allclose(unseen, Q, atol=1e-15)
    np.testing.assert_allclose(sum(o[f"rotation_{c}"].values * q for c, q in zip("xyz", unseen, strict=True)), 0, atol=1e-12)


# --- an independent program


def test_diffraction_vectors_are_those_of_scipy():
    positions = random_positions(mu=12.0, chi=-35.0, phi=4.0)
    m = motor_map(positions, still_motors=json.dumps({"omega": 25.0}))
    o = orientation(m, geometry=GEOMETRY, reference_pixel=(2, 3))
    at = {name: values[2, 3] for name, values in positions.items()}
    expected = (gamma(omega=25.0, **at) * gamma(omega=25.0, **positions).inv()).apply(Q)
    np.testing.assert_allclose(vectors(o), expected, atol=1e-14)


def test_a_rotation_field_comes_back():
    """Where a lattice turned by w peaks is found by a search; the map of these positions gives w back."""
    from scipy.optimize import fsolve

    random = np.random.default_rng(1)
    across = np.array([[math.cos(THETA), 0, math.sin(THETA)], [0, 1, 0]])
    w = random.normal(0, 0.8, (6, 2)) @ across
    at = {"mu": 5.0, "chi": 20.0}
    inside = gamma(**at).inv().apply(Rotation.from_rotvec(w, degrees=True).apply(Q))

    def off(position, vector):
        return np.cross(gamma(mu=position[0], chi=position[1]).apply(vector)[0], Q) @ across.T

    found = np.array([fsolve(off, list(at.values()), args=(vector,), xtol=1e-11) for vector in inside])
    m = motor_map({"mu": [[5.0, *found[:, 0]]], "chi": [[20.0, *found[:, 1]]]})
    o = orientation(m, geometry=GEOMETRY, reference_pixel=(0, 0))
    np.testing.assert_allclose(np.stack([o[f"rotation_{c}"].values[0, 1:] for c in "xyz"], -1), w, atol=1e-9)


# --- symmetries


def test_angles_between_pixels_do_not_depend_on_the_reference():
    m = motor_map(random_positions(mu=1.0, chi=3.0))
    one, other = (vectors(orientation(m, geometry=GEOMETRY, reference_pixel=p)) for p in ((0, 0), (4, 6)))
    np.testing.assert_allclose(angle(one[1:], one[:-1]), angle(other[1:], other[:-1]), atol=1e-11)


def test_radians_and_degrees_give_the_same_map():
    positions = random_positions(mu=1.0, chi=3.0)
    a = orientation(motor_map(positions), geometry=GEOMETRY)
    b = orientation(motor_map({n: np.radians(v) for n, v in positions.items()}, units="rad"), geometry=GEOMETRY)
    np.testing.assert_allclose(a["tilt"].values, b["tilt"].values, atol=1e-12)


# --- error bars


def test_errors_are_those_of_repeated_positions_and_share_what_the_motors_share():
    """Two correlated motors, gain x covariance / total = 0.6 s_mu s_chi, drawn 4000 times; 3 % is 2.7 of their own errors."""
    shape, s = (40, 100), {"mu": 0.02, "chi": 0.05}
    covariance = 0.6 * s["mu"] * s["chi"]
    draws = np.random.default_rng(2).multivariate_normal(
        [4.0, 30.0], [[s["mu"] ** 2, covariance], [covariance, s["chi"] ** 2]], shape
    )
    m = motor_map({"mu": draws[..., 0], "chi": draws[..., 1]}, std=s, gain=2.0)
    m["total"] = (("row", "column"), np.full(shape, 1000.0), {"units": "count", "long_name": "t"})
    m["chi_mu_covariance"] = (("row", "column"), np.full(shape, covariance * 1000 / 2), {"units": "deg^2", "long_name": "c"})
    geometry = GEOMETRY.replace(goniometer="omega:z mu:-y chi:x")
    o = orientation(m, geometry=geometry, still=("omega=30",))
    w = np.stack([o[f"rotation_{c}"].values.ravel() for c in "xyz"])
    measured = np.cov(w)
    for i, a in enumerate("xyz"):
        assert o[f"rotation_{a}_std"].values.mean() == pytest.approx(math.sqrt(measured[i, i]), rel=0.03)
    names = {(0, 1): "rotation_x_rotation_y", (0, 2): "rotation_x_rotation_z", (1, 2): "rotation_y_rotation_z"}
    for (i, j), name in names.items():
        scale = math.sqrt(measured[i, i] * measured[j, j])
        assert o[f"{name}_covariance"].values.mean() == pytest.approx(measured[i, j], abs=0.05 * scale)


def counted(scale=1.0, units="deg"):
    """A map of two motors with the same lattice and errors in any unit of angle (`scale` deg each)."""
    place = np.array([[0.1, 0.2]]) / scale
    m = motor_map({"mu": place, "chi": 2 * place}, {"mu": 0.02 / scale, "chi": 0.05 / scale}, units=units, gain=2.0)
    m["total"] = (("row", "column"), [[1000.0, 0.0]], {"units": "count", "long_name": "t"})
    m["mu_chi_covariance"] = (("row", "column"), np.full((1, 2), 0.3 / scale**2), {"units": f"{units}^2", "long_name": "c"})
    return m


def test_covariance_by_counting_is_that_of_the_moments_within_what_the_errors_allow():
    found = error_covariance(counted(), "chi", "mu")
    np.testing.assert_allclose(found, [[2.0 * 0.3 / 1000, 0.9999 * 0.02 * 0.05]])  # no counts: as large as can be
    assert (error_covariance(counted().drop_attrs(), "chi", "mu") == 0).all()
    assert (error_covariance(counted().drop_vars("mu_chi_covariance"), "chi", "mu") == 0).all()


def test_errors_are_the_same_in_every_unit_of_angle():
    a, b = (orientation(m, geometry=GEOMETRY) for m in (counted(), counted(0.18 / math.pi, "mrad")))
    for name in ("rotation_x_std", "rotation_y_std", "rotation_x_rotation_y_covariance"):
        np.testing.assert_allclose(b[name].values, a[name].values, rtol=1e-9)


def test_the_error_of_the_tilt_is_that_along_it():
    o = orientation(
        motor_map({"mu": [[0.0, 0.4]], "chi": [[0.0, 0.0]]}, {"mu": 0.01, "chi": 0.3}), geometry=GEOMETRY, reference_pixel=(0, 0)
    )
    assert o["tilt_std"].values[0, 1] == pytest.approx(0.01, rel=1e-6)


# --- flags, provenance, bad input


def test_missing_points_are_flagged_and_doubtful_ones_keep_value_and_flag():
    flag = np.array([[1, 4, 0]], np.int32)
    o = orientation(motor_map({"mu": [[np.nan, 0.1, 0.2]]}, flag=flag), geometry=GEOMETRY)
    assert np.isnan(o["tilt"].values[0, 0]) and np.isfinite(o["tilt"].values[0, 1])
    assert flag_counts(o) == {"good": 1, "no_signal": 1, "wide": 1, "no_orientation": 1}
    assert o.attrs["reference_mu"] == pytest.approx(0.2)  # the median of the good points


def test_a_map_states_the_motors_that_stood_still():
    m = braggscope.map(braggscope.open(EXAMPLES / "id03_rocking_mu.h5"), progress=False)
    stood = json.loads(m.attrs["still_motors"])
    assert stood["chi"] == pytest.approx(-1.62008645520433) and "mu" not in stood
    o = orientation(m)
    assert o.attrs["still_chi"] == stood["chi"] and o.attrs["two_theta_deg"] == pytest.approx(18.0036)
    assert "diffry" in o.attrs["taken_as_zero"].split()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"geometry": DfxmGeometry()}, "needs two_theta_deg"),
        ({"geometry": DfxmGeometry(two_theta_deg=18, goniometer="alpha:y")}, "turns the sample .alpha.; the map has none"),
        ({"reference_pixel": (3, 0)}, "reference_pixel must be a pixel with a value, got row 3"),
        ({"still": ("omega",)}, "like chi=-1.62, got 'omega'"),
    ],
)
def test_what_is_missing_is_named(change, message):
    with pytest.raises(InputError, match=message):
        orientation(motor_map({"mu": [[0.0, 0.1]]}), **{"geometry": GEOMETRY, **change})


def test_a_rotation_that_was_not_scanned_is_said_to_be_unknown():
    found = orientation(motor_map({"mu": np.linspace(-1, 1, 6).reshape(2, 3)}, std=0.01), geometry=GEOMETRY)
    axis = np.array([float(x) for x in found.attrs["unscanned_axis"].split()])
    assert abs(axis @ Q) < 1e-12 and abs(axis[1]) < 1e-12 and "only mu was scanned" in found.attrs["caution"]
    both = orientation(motor_map({"mu": np.zeros((2, 3)), "chi": np.zeros((2, 3))}, std=0.01), geometry=GEOMETRY)
    assert "caution" not in both.attrs


def test_a_length_is_not_an_angle():
    with pytest.raises(InputError, match="mu must be an angle in deg, mrad or rad, but the map has it in 'mm'"):
        orientation(motor_map({"mu": [[0.0, 0.1]]}, units="mm"), geometry=GEOMETRY)
