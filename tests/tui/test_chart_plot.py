"""A picture of curves has exactly the size that was asked for, and hides nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.charts.plot import ABOVE_MARK, BELOW_MARK, LEAST_HEIGHT, LEAST_WIDTH, NAN_MARK, Picture, Series, plot

value = st.one_of(st.floats(), st.sampled_from([np.nan, np.inf, -np.inf, 1e300, -1e300, 0.0]))


def series(values: list[float], name: str = "loss", every: int = 1) -> Series:
    return Series(name, np.arange(len(values)) * every, np.array(values, np.float64))


def text(picture: Picture) -> list[str]:
    return ["".join(piece for piece, _ in line) for line in picture.lines]


@given(
    st.lists(st.lists(value, max_size=50), max_size=3),
    st.integers(LEAST_WIDTH, 90),
    st.integers(LEAST_HEIGHT, 20),
    st.booleans(),
)
def test_a_picture_never_overflows_and_marks_every_kind_of_value(
    values: list[list[float]], width: int, height: int, log: bool
) -> None:
    picture = plot([series(v, str(n)) for n, v in enumerate(values)], width, height, log=log, cursor=3)
    lines = text(picture)
    assert len(lines) == height
    assert {len(line) for line in lines} == {width}
    everything = np.array([v for one in values for v in one])
    if len(everything):
        assert (NAN_MARK in lines[-2] or "*" in lines[-2]) == bool(np.isnan(everything).any())
        assert (ABOVE_MARK in lines[0]) == bool((everything == np.inf).any())
    if log and (everything <= 0).any():
        assert BELOW_MARK in lines[-2] or "*" in lines[-2]


def test_a_spike_of_one_step_reaches_the_top() -> None:
    values = [1.0] * 2000
    values[1234] = 9.0
    lines = text(plot([series(values)], 60, 12))
    column = next(n for n, character in enumerate(lines[0]) if character not in "│┤ ┈9.08")
    assert all(line[column] not in " ┈" for line in lines[:10])


def test_a_stretch_of_nan_is_hatched_until_the_next_number() -> None:
    lines = text(plot([series([1.0] * 30 + [np.nan] * 30)], 62, 8))
    assert lines[0].count("╱") >= 28
    assert lines[-2].count(NAN_MARK) >= 28


def test_a_single_value_and_no_value_are_drawn() -> None:
    assert any("⠁" <= c <= "⣿" for c in "".join(text(plot([series([5.0])], 30, 8))))
    assert text(plot([series([])], 30, 8))[-1].startswith(" 0")
    assert len(text(plot([], 30, 8))) == 8


def test_axes_are_labelled_with_round_values_and_steps() -> None:
    lines = text(plot([series([0.0, 1.0, 2.0], every=500)], 60, 12))
    assert any(line.startswith("2.0┤") for line in lines)
    assert "500" in lines[-1]
    assert "1 000" in lines[-1]


def test_the_second_series_is_dashed() -> None:
    lines = plot([series([1.0, 1.0]), series([2.0, 2.0], "val")], 60, 10).lines
    pieces = [what for line in lines for _, what in line]
    assert pieces.count("line1") + pieces.count("band1") > pieces.count("line0")


def test_steps_and_columns_are_told_from_each_other() -> None:
    frame = plot([series([0.0] * 1000)], 80, 10).frame
    for step in (0, 1, 500, 999):
        assert frame.step(frame.column(step)) == pytest.approx(step, abs=1000 / frame.columns)


def test_a_series_can_be_cut_at_a_step_and_asked_for_the_nearest_value() -> None:
    one = Series("x", np.array([0, 10, 20]), np.array([1.0, 2.0, 3.0]), np.zeros(3), np.ones(3))
    cut = one.up_to(15)
    assert cut.values.tolist() == [1, 2]
    assert cut.high is not None
    assert len(cut.high) == 2
    assert one.nearest(14) == (10, 2.0)
    assert one.nearest(10**9) == (20, 3.0)
    assert series([]).nearest(3) is None
