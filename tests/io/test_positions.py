"""Commands of scans, and the place of each frame in its grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braggscope.core.errors import InputError
from braggscope.core.scan import Axis
from braggscope.io.positions import Plan, from_measured, on_given_grid, parse_command, place


@pytest.mark.parametrize(
    ("command", "axes"),
    [
        ("fscan mu 0.29 0.001 150 0.5 0.58", [("mu", 0.29, 0.439, 150)]),
        ("fscan2d chi -0.5 0.08 26 diffry 7 0.06 37 0.5 0.5", [("chi", -0.5, 1.5, 26), ("diffry", 7, 9.16, 37)]),
        ("ascan  diffry -23.176 -23.146  30 5", [("diffry", -23.176, -23.146, 31)]),
        ("ascan(phi, 1, -1, 4, 0.1)", [("phi", 1, -1, 5)]),
        ("dscan chi -1 1 10 0.5", [("chi", -1, 1, 11)]),
        ("a2scan chi 0 1 phi 5 6 10 0.5", [("chi", 0, 1, 11)]),
        ("d2scan chi 0 1 phi 5 6 10 0.5", [("chi", 0, 1, 11)]),
        ("amesh samx 0 1 4 samy 10 12 2 0.1", [("samy", 10, 12, 3), ("samx", 0, 1, 5)]),  # the first motor is the fast one
        ("dmesh samx 0 1 4 samy 10 12 2 0.1", [("samy", 10, 12, 3), ("samx", 0, 1, 5)]),
        ("loopscan 7 0.1", [("point", 0, 6, 7)]),
    ],
)
def test_commands_give_the_planned_axes(command, axes):
    plan = parse_command(command)
    assert [(a.name, pytest.approx(a.values[0]), pytest.approx(a.values[-1]), len(a)) for a in plan.axes] == axes


def test_relative_commands_are_marked():
    assert parse_command("dscan chi -1 1 10 0.5").relative
    assert parse_command("dmesh a 0 1 4 b 0 2 2 0.1").relative
    assert not parse_command("ascan chi -1 1 10 0.5").relative


def test_motors_that_move_together_follow_the_axis():
    assert parse_command("a2scan chi 0 1 phi 5 6 10 0.5").follows == {"phi": 0}


@given(st.text(max_size=60))
def test_any_title_is_a_plan_or_none(title):
    assert parse_command(title) is None or parse_command(title).axes


@pytest.mark.parametrize(
    "title", ["", "ct 1", "ascan", "ascan mu 0 1", "fscan2d chi x y z", "ascan mu 0 1 five 1", "loopscan 0 1"]
)
def test_unknown_or_broken_titles_give_no_plan(title):
    assert parse_command(title) is None


def grid_plan(slow=3, fast=4, **how):
    return Plan((Axis("chi", np.linspace(0, 1, slow)), Axis("mu", np.linspace(5, 6, fast))), **how)


def test_a_rewind_scan_is_in_order():
    assert place(grid_plan(), 12, {}).order.tolist() == list(range(12))


def test_a_zigzag_scan_runs_back_on_odd_lines():
    order = place(grid_plan(zigzag=True), 12, {}).order
    assert order.tolist() == [0, 1, 2, 3, 7, 6, 5, 4, 8, 9, 10, 11]


def test_measured_positions_overrule_the_stated_mode():
    mu = np.tile(np.linspace(5, 6, 4), 3)
    assert place(grid_plan(zigzag=True), 12, {"mu": mu}).order.tolist() == list(range(12))
    mu[4:8] = mu[4:8][::-1]
    assert place(grid_plan(zigzag=False), 12, {"mu": mu}).order.tolist() == [0, 1, 2, 3, 7, 6, 5, 4, 8, 9, 10, 11]


@pytest.mark.parametrize("count", [5, 6])
def test_an_aborted_zigzag_scan_ends_at_the_far_end_of_its_line(count):
    """Four frames there, the fifth is the first of the way back: it belongs to the last column."""
    mu = np.array([5, 5.34, 5.67, 6, 6, 5.67])[:count]  # the fifth is at the far end
    for measured in ({}, {"mu": mu}):
        placed = place(grid_plan(zigzag=True), count, measured)
        assert placed.order.tolist() == [0, 1, 2, 3, 7, 6][:count]
        assert any(f"{12 - count} of 12 frames" in phrase for phrase in placed.missing)


def test_an_aborted_scan_says_why_it_ended():
    assert place(grid_plan(), 7, {}, why="USER_ABORT").missing[0] == "5 of 12 frames (the scan ended after 7: USER_ABORT)"


def test_axes_are_the_mean_measured_positions_and_the_plan_beyond():
    chi = np.repeat([0.01, 0.52], 4)  # third line not reached; planned 0, 0.5, 1
    placed = place(grid_plan(), 8, {"chi": chi, "mu": np.tile(np.linspace(5.05, 6.05, 4), 2)})
    assert placed.axes[0].values == pytest.approx([0.01, 0.52, 1.015])  # the plan shifted by the median of 0.01 and 0.02
    assert placed.axes[1].values == pytest.approx(np.linspace(5.05, 6.05, 4))
    assert np.isnan(placed.positions["chi"][8:]).all()
    assert placed.positions["chi"][:8].tolist() == chi.tolist()


def test_relative_scans_start_where_the_motor_stood():
    plan = parse_command("dscan chi -1 1 2 0.5")
    assert place(plan, 3, {}, started={"chi": 10.0}).axes[0].values.tolist() == [9, 10, 11]
    assert place(plan, 3, {"chi": np.array([19.0, 20, 21])}).axes[0].values.tolist() == [19, 20, 21]


def test_nan_positions_are_replaced_by_the_plan_and_said():
    mu = np.array([0.0, np.nan, 2, 3])
    placed = place(parse_command("ascan mu 0 3 3 1"), 4, {"mu": mu})
    assert placed.axes[0].values.tolist() == [0, 1, 2, 3]
    assert placed.missing == ("measured position of mu at 1 frames (planned is used)",)


def test_a_mesh_whose_motors_are_the_other_way_round_is_seen_in_the_measured_positions():
    slow, fast = np.repeat([0.0, 1, 2], 2), np.tile([5.0, 6], 3)
    plan = parse_command("amesh a 0 2 2 b 5 6 1 0.1")  # says a is fast
    placed = place(plan, 6, {"a": slow, "b": fast})
    assert [axis.name for axis in placed.axes] == ["a", "b"]


def test_axes_of_one_point_are_left_out():
    placed = place(parse_command("fscan2d chi -1 0.08 62 diffrz -1.5 3.5 1 1 1"), 62, {})
    assert [axis.name for axis in placed.axes] == ["chi"]


def test_more_frames_than_planned_are_refused():
    with pytest.raises(InputError, match="13 frames do not fit into the 3 x 4 = 12 planned positions"):
        place(grid_plan(), 13, {})


@given(st.integers(2, 6), st.integers(2, 6), st.booleans(), st.integers(0, 5), st.booleans())
def test_grids_are_found_from_positions_alone(slow, fast, zigzag, cut, falling):
    rng = np.random.default_rng(slow * fast)
    lines = np.tile(np.arange(fast) * 0.3, (slow, 1))
    if zigzag:
        lines[1::2] = lines[1::2, ::-1]
    count = slow * fast - min(cut, fast - 1)
    y, x = np.repeat(np.arange(slow), fast)[:count] * (-2.0 if falling else 2.0), lines.ravel()[:count]
    placed = from_measured({"x": x + rng.normal(0, 1e-4, count), "y": y}, {"x": "um"}, count=count)
    assert [(a.name, len(a), a.unit) for a in placed.axes] == [("y", slow, ""), ("x", fast, "um")]
    at = placed.axes[0].values[placed.order // fast], placed.axes[1].values[placed.order % fast]
    assert at[0] == pytest.approx(y)
    assert at[1] == pytest.approx(x, abs=1e-3)
    assert bool(placed.missing) == (count < slow * fast)


def test_positions_without_a_grid_are_a_line():
    rng = np.random.default_rng(0)
    placed = from_measured({"x": rng.random(20), "y": rng.random(20)}, {}, count=20)
    assert len(placed.axes) == 1 and len(placed.axes[0]) == 20


def test_nan_positions_without_a_plan_are_refused():
    with pytest.raises(InputError, match="positions of 'mu' must be finite numbers, got 2 that are not among 5"):
        from_measured({"mu": np.array([0, np.nan, 1, np.inf, 2])}, {}, count=5)


def test_a_given_grid_takes_its_axes_from_two_motors_that_move():
    y, x = np.repeat([10.0, 11], 3), np.array([0.0, 1, 2, 2, 1, 0])
    placed = on_given_grid((2, 3), 6, {"x": x, "y": y}, {"y": "um"})
    assert [(a.name, a.values.tolist(), a.unit) for a in placed.axes] == [("y", [10, 11], "um"), ("x", [0, 1, 2], "")]
    assert placed.order.tolist() == [0, 1, 2, 5, 4, 3]


@pytest.mark.parametrize(
    ("grid", "message"),
    [((2, 2), "grid 2 x 2 has 4 positions, but there are 6 frames"), ((0, 9), "grid must be positive whole numbers")],
)
def test_a_given_grid_that_does_not_fit_is_refused(grid, message):
    with pytest.raises(InputError, match=message):
        on_given_grid(grid, 6, {}, {})
