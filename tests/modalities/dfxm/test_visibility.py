"""Visibility against the field itself, known sets of reflections, and bad input."""

import numpy as np
import pytest

import braggscope
from braggscope.core import maps
from braggscope.core.errors import InputError
from braggscope.core.modality import modality
from braggscope.modalities.dfxm.analysis.visibility import visibility

FCC = ("111", "-111", "1-11", "11-1", "002", "022")


def test_products_of_an_edge_and_a_screw_in_aluminium():
    found = visibility(reflections=("111", "-1-11", "002"), systems=("[110](1-11)",))
    maps.check_map(found)
    assert found["gb"].dims == ("reflection", "dislocation") and found["dislocation"].values.tolist() == [
        "[110] screw",
        "[110](1-11) edge",
    ]
    assert found["gb"].values.tolist() == [[1, 1], [-1, -1], [0, 0]]
    # b x t = (b.b) n-ish: t = b x n / |b|, b x t = -|b| n = -(1 -1 1)/sqrt 6; its product with 002 is -2/sqrt 6
    assert found["gbt"].values[:, 1] == pytest.approx(np.array([-1, -1, -2]) / np.sqrt(6))
    assert found["flag"].values.tolist() == [[0, 0], [0, 0], [2, 1]]
    assert found["invisible_in"].values.tolist() == ["002", "none"]


def test_the_flag_is_what_the_isotropic_field_shows_and_deviation_is_of_one_over_r():
    kinds = ("screw", "edge", "60", "-60")
    near = visibility(reflections=FCC, characters=kinds, lattice_nm=0.405, distance_nm=50.0)
    far = visibility(reflections=FCC, characters=kinds, lattice_nm=0.405, distance_nm=200.0)
    assert np.allclose(near["deviation"], 4 * far["deviation"])
    unseen = near["deviation"].values < 1e-12
    assert np.array_equal(unseen, near["flag"].values == 2) and unseen.any()
    weak = near["deviation"].values[near["flag"].values == 1]
    assert 0 < weak.max() < near["deviation"].values[near["flag"].values == 0].max()
    # a screw: H = b s x grad phi / 2 pi, |H^T g| / |g| = b |cos(g, b)| / (2 pi r)
    b, angle = 0.405 / np.sqrt(2), np.sqrt(2 / 3)
    expected = np.degrees(b * angle / (2 * np.pi * 50.0))
    assert near["deviation"].sel(reflection="111", dislocation="[110] screw").item() == pytest.approx(expected)


def test_anisotropy_shows_what_invisibility_hides_unless_a_mirror_stands_across_the_line():
    found = visibility(
        reflections=("111", "002"), systems=("[110](1-11)",), characters=("screw", "60"), lattice_nm=0.36, crystal="Cu"
    )
    assert found["deviation"].sel(reflection="002", dislocation="[110] screw") < 1e-12  # (110) is a mirror plane
    plain = visibility(reflections=("111", "002"), systems=("[110](1-11)",), characters=("screw", "60"), lattice_nm=0.36)
    assert not np.allclose(found["deviation"], plain["deviation"], rtol=0.05)
    # <111> screw of bcc: no mirror across it, and iron is far from isotropic
    bcc = visibility(
        reflections=("1-10",), structure="bcc", systems=("[111](1-10)",), characters=("screw",), lattice_nm=0.287, crystal="Fe"
    )
    assert bcc["flag"].item() == 2 and bcc["deviation"].item() > 1e-3


def test_fewest_reflections():
    fcc = visibility(reflections=FCC).attrs
    assert fcc["burgers_vectors"] == fcc["groups_by_g_b_0"] == 6 and fcc["fewest_reflections"].count(",") == 2
    both = visibility(reflections=("111", "002"))
    assert both.attrs["groups_by_g_b_0"] == 4 and "[101] [011]" in both.attrs["not_told_apart"].replace(
        "[011] [101]", "[101] [011]"
    )
    bcc = visibility(reflections=("110", "1-10", "101", "002"), structure="bcc").attrs
    assert bcc["burgers_vectors"] == bcc["groups_by_g_b_0"] == 4 and bcc["fewest_reflections"] == "110, 101"
    blind = visibility(reflections=("002",), systems=("[110](1-11)",))
    assert "fewest_reflections" not in blind.attrs and blind.attrs["groups_by_g_b_0"] == 1


def test_a_mixed_line_shows_its_edge_part_where_only_g_b_and_g_b_x_t_are_0():
    found = visibility(reflections=("2-2-4",), systems=("[110](1-11)",), characters=("60", "edge", "screw"), lattice_nm=0.405)
    mixed, edge, screw = (found.isel(reflection=0, dislocation=k) for k in range(3))
    assert mixed["gb"] == mixed["gbt"] == 0 and abs(mixed["gbe"]) > 1 and mixed["flag"] == 1 and mixed["deviation"] > 1e-3
    assert edge["flag"] == screw["flag"] == 2 and max(edge["deviation"], screw["deviation"]) < 1e-9


def test_hcp_in_three_or_four_indices():
    found = visibility(reflections=("0002", "10-10", "110"), structure="hcp", c_over_a=1.6, characters=("edge",))
    assert found["reflection"].values.tolist() == ["0002", "10-10", "11-20"]
    gb = found["gb"].sel(dislocation=["[11-20](0001) edge", "[11-23](-1011) edge"]).values
    assert gb == pytest.approx(np.array([[0, 2], [1, 1], [2, 2]]))
    assert found.sizes["dislocation"] == 30


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"reflections": ()}, "must name at least one"),
        ({"reflections": ("1x1",)}, "Miller indices must be"),
        ({"reflections": ("100",)}, "fcc has no reflection 100; the indices must be all even or all odd"),
        ({"reflections": ("111",), "structure": "bcc"}, "must add up to an even number"),
        ({"reflections": ("0001",), "structure": "hcp", "c_over_a": 1.6}, "l must be even"),
        ({"reflections": ("10-10",)}, "fcc has three Miller indices"),
        ({"reflections": ("0002",), "structure": "hcp"}, "c_over_a is needed for hcp"),
        ({"reflections": ("0002",), "structure": "hcp", "c_over_a": 1.6, "systems": ("[110](1-11)",)}, "has no slip system"),
        ({"reflections": ("111",), "systems": ("[110](111)",)}, "does not lie in the plane"),
        ({"reflections": ("111",), "characters": ("glide",)}, "must be screw, edge or an angle"),
        ({"reflections": ("111",), "characters": ()}, "characters must name at least one"),
        ({"reflections": ("111",), "lattice_nm": -1.0}, "lattice_nm must be positive"),
        ({"reflections": ("111",), "lattice_nm": 0.4, "poisson": 0.7}, "poisson must be between"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        visibility(**options)


def test_the_analysis_writes_a_table_that_the_view_draws(tmp_path):
    out, options = tmp_path / "table.h5", {"reflections": ("111", "-1-11", "002"), "lattice_nm": 0.405, "crystal": "Al"}
    braggscope.analyse("dfxm", "visibility", output=out, **options)
    kind, table = modality("dfxm"), braggscope.load(out)
    view = kind.load(kind.views["visibility"])
    drawn = view(table)
    assert len(drawn.axes) == 2 and "6 Burgers vectors" in drawn.get_suptitle()
    assert len(view(table.drop_vars("deviation")).axes) == 1
    assert view(table.drop_vars("gbt")) is None
