"""Files of reflections: the published one, and every way to write a wrong one."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from braggscope.core.errors import InputError
from braggscope.modalities.dfxm.geometry import DfxmGeometry
from braggscope.modalities.dfxm.oblique import reflections, sample_plane
from braggscope.modalities.dfxm.oblique import vectors as oblique

SEEN = oblique.Observed(("chi", "phi"), "obpitch")


def read(tmp_path, text):
    path = tmp_path / "reflections.toml"
    path.write_text(text)
    return reflections.read_reflections(path)


def test_published_settings_are_those_of_an_upright_cube():
    # darkmod's table says: condition number 3.0, theta 15.416837 deg; the crystal's axes are those of the sample
    found = reflections.published()
    assert math.isclose(found.condition(), 3.0, rel_tol=1e-6)
    assert np.allclose(found.orientation, np.eye(3), atol=1e-8)
    assert all(math.isclose(r.two_theta_deg, 2 * 15.416837, abs_tol=1e-6) for r in found.reflections)


def test_a_file_with_another_cell_and_instrument_is_read(tmp_path):
    text = reflections.PUBLISHED.replace("[4.0493]", "[4.0493, 4.0493, 4.0493, 90, 90, 90]")
    found = read(tmp_path, text.replace('flip = "none"', ""))
    assert np.allclose(found.reference_vectors(), reflections.published().reference_vectors())
    table = text[text.index("[crystal]") :]
    (tmp_path / "bare.toml").write_text(table)
    instrument = DfxmGeometry(energy_kev=19.1, goniometer="mu:-y omega:z chi:x phi:y")
    assert np.allclose(reflections.read_reflections(tmp_path / "bare.toml", instrument).orientation, np.eye(3), atol=1e-8)
    with pytest.raises(InputError, match=r"the instrument is missing: a table \[dfxm\]"):
        reflections.read_reflections(tmp_path / "bare.toml")


BAD = [
    ("hkl = [1, 1, 3]", "hkl = [1, 1, 2]", r"no orientation of the lattice shows all reflections at their settings \(reflection"),
    ("hkl = [1, 1, 3]", "hkl = [1, 1]", r"reflection 3: hkl must be three whole numbers, not all 0.*got \[1, 1\]"),
    ("hkl = [1, 1, 3]", "hkl = [1.5, 1, 3]", "reflection 3: hkl must be three whole numbers"),
    ("hkl = [1, 1, 3]", "hkl = [9, 9, 9]", "reflection 3: hkl 9 9 9 cannot diffract at 19.1 keV"),
    ("eta_deg = 20.232593\nat = {omega = 186.431585}", "at = {omega = 186.431585}", "reflection 3 lacks eta_deg"),
    ("eta_deg = 20.232593\nat = {omega = 186.4", "eta_deg = -20.232593\nat = {omega = 186.4", "no orientation of the lattice"),
    (
        "eta_deg = 20.232593\nat = {omega = 186.4",
        "eta_deg = 400\nat = {omega = 186.4",
        "eta_deg must be between -180 and 180 deg",
    ),
    (
        "at = {omega = 186.431585}",
        "at = {omga = 186.4}",
        "at names the motor 'omga', which the goniometer lacks; it has: mu, omega",
    ),
    ("at = {omega = 186.431585}", "at = 186.4", "at must be motors with their positions in degrees"),
    ("at = {omega = 186.431585}", "at = {omega = 186.431585}\nflip = 'left'", "flip must be one of none, rows, columns, both"),
    (
        "at = {omega = 186.431585}",
        "at = {omega = 186.431585}\ntwo_theta_deg = 0.538",
        "two_theta_deg is 0.538, but lattice and energy",
    ),
    ("at = {omega = 186.431585}", "at = {omega = 186.431585}\netta = 1", "reflection 3: unknown key 'etta'"),
    (
        "at = {omega = 186.431585}",
        "at = {omega = 186.431585, mu = 5.0}",
        "no orientation of the lattice|light planes of the sample",
    ),
    ("energy_kev = 19.1\n", "", r"\[dfxm\] lacks energy_kev"),
    ("energy_kev = 19.1", "energy_kev = 19100", "energy_kev must be between 1 and 200 keV, got 19100"),
    ("lattice = [4.0493]", "lattice = [0.40493]", "lattice must have lengths of 0.5 to 500 angstrom"),
    ("lattice = [4.0493]", "lattice = [4, 4, 4, 90, 90]", r"lattice must be \[a\] or \[a, b, c, alpha, beta, gamma\]"),
    ("lattice = [4.0493]", "lattice = [4, 4, 4, 20, 20, 120]", "no cell has the angles"),
    ("[crystal]\nlattice = [4.0493]", "", r"\[crystal\] lacks lattice"),
    ("[dfxm]", "[dfxm", "is not TOML"),
    ("[dfxm]", "[dfx]", "unknown key 'dfx'; known are: dfxm, crystal, reflection"),
]


@pytest.mark.parametrize(("old", "new", "message"), BAD)
def test_what_is_wrong_is_named(tmp_path, old, new, message):
    assert old in reflections.PUBLISHED
    with pytest.raises(InputError, match=message):
        read(tmp_path, reflections.PUBLISHED.replace(old, new))


def test_coplanar_and_too_few_reflections_are_refused(tmp_path):
    blocks = reflections.PUBLISHED.split("[[reflection]]")
    with pytest.raises(InputError, match=r"three or more tables \[\[reflection\]\], got 2"):
        read(tmp_path, "[[reflection]]".join(blocks[:3]))
    # 1 1 3, -1 -1 3 and 0 0 2 share the zone [1 -1 0]
    middle = "\nhkl = [0, 0, 2]\neta_deg = 0\nat = {mu = 0}\n"
    with pytest.raises(InputError, match=r"-1 -1 3, 1 1 3, 0 0 2 lie in \(or nearly in\) one plane"):
        read(tmp_path, "[[reflection]]".join([blocks[0], blocks[1], blocks[3], middle]))
    with pytest.raises(InputError, match=r"reflections file .* does not exist"):
        reflections.read_reflections(tmp_path / "none.toml")


@pytest.mark.parametrize("strain", ["obpitch", "ccmth", "energy"])
def test_derivatives_of_the_diffraction_vector_and_the_way_back(strain):
    found, seen = reflections.published(), oblique.Observed(("mu", "chi"), strain)
    for one, q0 in zip(found.reflections, found.reference_vectors(), strict=True):
        at = oblique.nominal(one, found.instrument, seen)
        assert np.allclose(oblique.vectors(one, found.instrument, seen, at)[0], q0, atol=2e-8)  # the file has nine digits
        values = at + 2e-3 * torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        q, jacobian = oblique.vectors(one, found.instrument, seen, values)
        for c, step in enumerate(1e-6 * torch.eye(3, dtype=torch.float64)):
            up, down = (oblique.vectors(one, found.instrument, seen, values + s)[0] for s in (step, -step))
            assert torch.allclose((up - down) / 2e-6, jacobian[..., c], atol=1e-8)
        assert torch.allclose(oblique.settings(one, found.instrument, seen, q), values, atol=1e-12)


def test_motors_that_cannot_reach_a_vector_are_named():
    found = reflections.published()
    with pytest.raises(InputError, match="cannot bring reflection -1 -1 3 onto the detector"):
        # longer than twice the wave vector, which is 19.4 / angstrom
        oblique.settings(found.reflections[0], found.instrument, SEEN, torch.tensor([[0.0, 0.0, 25.0]]).double())


def test_upright_geometry_sees_the_plane_as_the_geometry_says():
    instrument = DfxmGeometry(pixel_um=6.5, magnification=20.0, two_theta_deg=30.0, energy_kev=17.0)
    one = reflections.Reflection((1, 1, 1), 0.0, 30.0, {"mu": 15.0})
    flat = dataclasses.replace(one, at={})
    view = sample_plane.view(flat, instrument, sample_plane.plane_axes(np.array([0.0, 0.0, 1.0])), (11, 21))
    along, across = instrument.sample_pixel_um()
    # downstream (+x) is lower in the image, +y further right
    assert np.allclose(view.project, np.diag([1 / along, 1 / across]), atol=1e-12)
    assert np.allclose(view.pixels(*view.places(np.array([3.0]), np.array([8.0]))), [[3.0], [8.0]])
    # turned by a right angle about the diffracted beam (cos 30, 0, sin 30), columns rise where rows fell: upwards
    turned = sample_plane.camera_axes(dataclasses.replace(flat, roll_deg=90.0))
    assert np.allclose(turned, [[0, 1, 0], [-math.sin(math.radians(30)), 0, math.cos(math.radians(30))]])
    mirrored = sample_plane.camera_axes(dataclasses.replace(flat, flip="rows", roll_deg=90.0))
    assert np.allclose(mirrored, turned * [[-1], [1]])


def test_cubic_interpolation_is_exact_for_a_quadratic_and_refuses_unusable_pixels():
    view = sample_plane.View(np.array([[0.9, 0.1], [-0.2, 1.1]]), np.array([5.0, 6.0]), (11, 13))
    row, column = np.meshgrid(np.arange(11.0), np.arange(13.0), indexing="ij")
    image = 1 + 0.3 * row - 0.2 * column + 0.05 * row**2 - 0.07 * row * column
    x, y = np.array([0.0, 1.3, -2.2, 40.0]), np.array([0.0, 0.4, 1.7, 0.0])
    usable = np.ones((11, 13), bool)
    weights, good = sample_plane.interpolation(view, x, y, usable)
    r, c = view.pixels(x, y)
    assert good.tolist() == [True, True, True, False]
    assert np.allclose((weights @ image.ravel())[:3], (1 + 0.3 * r - 0.2 * c + 0.05 * r**2 - 0.07 * r * c)[:3])
    usable[6, 7] = False  # beside the second place; the first needs its own pixel alone
    assert sample_plane.interpolation(view, x, y, usable)[1].tolist() == [True, False, True, False]


def test_the_example_file_holds_the_published_reflections():
    example = reflections.read_reflections(Path(__file__).parents[3] / "examples" / "dfxm_al113.toml")
    assert example.reflections == reflections.published().reflections
    assert np.array_equal(example.reference_vectors(), reflections.published().reference_vectors())
