"""Crystal structures and structure factors against closed forms and gemmi."""

import gemmi
import numpy as np
import pytest

from braggscope.physics.crystals import BUILT_IN, Crystal, Site, crystal_of
from braggscope.physics.structure_factors import structure_factors

TRICLINIC = Crystal("t", (3.0, 4.0, 5.0, 80.0, 95.0, 110.0), "P -1", (Site("Si", (0.0, 0.0, 0.0)),))


def test_b_gives_the_spacings_of_an_independent_program():
    cell = gemmi.UnitCell(*TRICLINIC.lattice)
    for hkl in ([1, 0, 0], [0, 1, 0], [1, -2, 3], [-2, 1, 1]):
        assert np.linalg.norm(TRICLINIC.b_matrix @ hkl) == pytest.approx(1 / cell.calculate_d(hkl), rel=1e-12)
    assert np.allclose(np.tril(TRICLINIC.b_matrix, -1), 0)


@pytest.mark.parametrize("name", BUILT_IN)
def test_operations_are_rotations_and_keep_structure_factors(name):
    crystal = BUILT_IN[name]
    turns = crystal.rotations
    assert np.allclose(turns @ turns.transpose(0, 2, 1), np.eye(3), atol=1e-12)
    assert np.allclose(np.linalg.det(turns), 1)
    assert len(turns) == {"F": 24, "I": 24, "P": 12}[crystal.space_group[0]]
    hkl = np.array([[1, 2, 3], [1, 1, 1], [0, 0, 2]])
    with_friedel = [np.abs(structure_factors(crystal, s * hkl, np.full(3, 17.0))) ** 2 for s in (1, -1)]
    for m in crystal.operations:
        either = [np.abs(structure_factors(crystal, s * hkl @ m.T, np.full(3, 17.0))) ** 2 for s in (1, -1)]
        assert np.allclose(sum(either), sum(with_friedel), atol=1e-9)


def test_structure_factors_by_hand():
    si = crystal_of("Si")
    f = np.abs(structure_factors(si, np.array([[1, 1, 1], [2, 2, 0], [2, 2, 2], [1, 0, 0]]), np.full(4, 17.44)))
    assert f == pytest.approx([59.3, 68.0, 0.0, 0.0], abs=0.5)  # International Tables f0, 4 sqrt 2 f and 8 f with B = 0.5
    assert si.absent(np.array([[1, 1, 1], [2, 0, 0], [2, 1, 0], [2, 2, 0]])).tolist() == [False, True, True, False]


def test_gold_loses_electrons_at_its_edges():
    at, above = structure_factors(crystal_of("Au"), np.array([[1, 1, 1]]), np.array([[11.92, 20.0]]))[0]
    assert abs(at) < 0.8 * abs(above)


def test_a_cif_file_is_read(tmp_path):
    path = tmp_path / "salt.cif"
    path.write_text(
        "data_salt\n_cell_length_a 5.64\n_cell_length_b 5.64\n_cell_length_c 5.64\n_cell_angle_alpha 90\n_cell_angle_beta 90\n"
        "_cell_angle_gamma 90\n_space_group_name_H-M_alt 'F m -3 m'\nloop_\n_atom_site_label\n_atom_site_type_symbol\n"
        "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\nNa Na 0 0 0\nCl Cl 0.5 0.5 0.5\n"
    )
    salt = crystal_of(path)
    assert salt.lattice[0] == 5.64 and [len(a[3]) for a in salt.atoms] == [4, 4]
    f = np.abs(structure_factors(salt, np.array([[2, 0, 0], [1, 1, 1]]), np.full(2, 17.0)))
    assert f[0] > 4 * f[1]


def test_bad_materials_are_named(tmp_path):
    with pytest.raises(ValueError, match="known are: Si, Ge"):
        crystal_of("Unobtainium")
    with pytest.raises(ValueError, match="does not exist"):
        crystal_of(tmp_path / "none.cif")
    (tmp_path / "bad.cif").write_text("hello")
    with pytest.raises(ValueError, match="CIF file"):
        crystal_of(tmp_path / "bad.cif")
