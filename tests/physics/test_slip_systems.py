"""Slip systems: their numbers, lengths and planes, and the twelve characters of the published dislocation images."""

import itertools
import math

import numpy as np
import pytest

from braggscope.physics import slip_systems as slip

PUBLISHED = [
    "[110](-111)[1-12]", "[110](1-11)[1-1-2]", "[1-10](-1-1-1)[11-2]", "[1-10](11-1)[112]", "[10-1](111)[1-21]",
    "[10-1](1-11)[-1-2-1]", "[101](11-1)[-121]", "[101](-111)[-1-21]", "[011](11-1)[-21-1]", "[011](-11-1)[-2-11]",
    "[01-1](111)[2-1-1]", "[01-1](-111)[211]",
]  # fmt: skip


@pytest.mark.parametrize(("structure", "count"), [("fcc", 12), ("bcc", 48), ("hcp", 30)])
def test_every_system_is_there_once_and_holds_its_burgers_vector(structure, count):
    found = slip.slip_systems(structure, c_over_a=1.587)
    assert len(found) == count == len({s.name for s in found})
    for one, other in itertools.combinations(found, 2):
        same = [abs(np.dot(_unit(getattr(one, n)), _unit(getattr(other, n)))) > 1 - 1e-9 for n in ("burgers", "normal")]
        assert not all(same), (one.name, other.name)
    for s in found:
        assert math.isclose(np.linalg.norm(s.normal), 1) and abs(np.dot(s.burgers, s.normal)) < 1e-14


def test_lengths_of_burgers_vectors():
    def lengths(structure):
        return sorted({round(float(np.linalg.norm(s.burgers)), 9) for s in slip.slip_systems(structure, c_over_a=1.6)})

    assert lengths("fcc") == [pytest.approx(math.sqrt(0.5))] and lengths("bcc") == [pytest.approx(math.sqrt(0.75))]
    assert lengths("hcp") == [1.0, pytest.approx(math.hypot(1, 1.6))]  # <a> and <c+a>


def test_hexagonal_planes_have_their_angles_to_the_basal_plane():
    families = {s.name.split("(")[1][:-1]: s.normal for s in slip.slip_systems("hcp", c_over_a=1.6)}
    for name, tangent in (("10-10", math.inf), ("10-11", 2 * 1.6 / math.sqrt(3)), ("11-22", 1.6)):
        z = abs(families[name][2])
        assert math.degrees(math.acos(z)) == pytest.approx(math.degrees(math.atan(tangent)))
    a1 = next(s for s in slip.slip_systems("hcp", c_over_a=1.6) if s.name == "[-2110](0001)")
    assert a1.burgers == pytest.approx((-1, 0, 0))  # a_1 along x


@pytest.mark.parametrize("text", PUBLISHED)
def test_the_edge_line_is_that_of_the_published_characters(text):
    system, line = text[: text.rindex("[")], np.array(slip.miller_indices(text[text.rindex("[") + 1 : -1]))
    found = slip.slip_system(system)
    assert slip.edge_line(found) == pytest.approx(line / np.linalg.norm(line))
    assert found.name == system and np.linalg.norm(found.burgers) == pytest.approx(math.sqrt(0.5))


def test_a_line_makes_its_angle_with_the_burgers_vector_in_the_plane():
    system = slip.slip_system("[110](1-11)")
    lines = slip.line_directions(system, ["screw", "edge", "60", "-60"])
    for kind, angle in (("screw", 0), ("edge", 90), ("60", 60), ("-60", 60)):
        assert np.dot(lines[kind], _unit(system.burgers)) == pytest.approx(math.cos(math.radians(angle)))
        assert abs(np.dot(lines[kind], system.normal)) < 1e-15
    assert sorted(np.abs(lines["-60"])) == pytest.approx([0, 0.5**0.5, 0.5**0.5])  # both mixed lines of fcc are along <110>


def test_what_is_read_is_what_is_written():
    for s in slip.slip_systems("fcc"):
        assert slip.slip_system(s.name) == s and slip.slip_system(f"a/2 {s.name}") == s
    assert slip.slip_system("a/6[11-2](111)").burgers == pytest.approx((1 / 6, 1 / 6, -1 / 3))
    assert slip.miller_indices("1 -1 12") == (1, -1, 12) and slip.miller_text((1, -1, 12)) == "1 -1 12"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: slip.slip_systems("diamond"), "structure must be one of fcc, bcc, hcp, got 'diamond'"),
        (lambda: slip.slip_systems("hcp"), "hcp needs a positive c_over_a"),
        (lambda: slip.slip_systems("hcp", c_over_a=-1.6), "hcp needs a positive c_over_a"),
        (lambda: slip.slip_system("110 1-11"), "must be written like"),
        (lambda: slip.slip_system("[110](111)"), r"\[110\] does not lie in the plane \(111\)"),
        (lambda: slip.slip_system("[11](1-1)"), "Miller indices must be"),
        (lambda: slip.miller_indices("10-13x"), "Miller indices must be"),
        (lambda: slip.miller_indices("1011"), "Miller indices must be"),
        (lambda: slip.miller_indices("000"), "Miller indices must be"),
        (lambda: slip.line_directions(slip.slip_system("[110](1-11)"), ["glide"]), "must be screw, edge or an angle"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def _unit(vector):
    return np.array(vector) / np.linalg.norm(vector)
