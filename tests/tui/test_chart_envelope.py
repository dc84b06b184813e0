"""A series thinned to columns keeps every peak, every NaN and every Inf."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from tui.charts.envelope import columns_of, envelope

value = st.one_of(st.floats(), st.sampled_from([np.nan, np.inf, -np.inf, 1e300, -1e300, 0.0]))


@st.composite
def series(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    steps = sorted(draw(st.sets(st.integers(0, 10**9), max_size=60)))
    values = draw(st.lists(value, min_size=len(steps), max_size=len(steps)))
    return np.array(steps, np.int64), np.array(values, np.float64)


@example(given_series=(np.arange(3), np.full(3, np.finfo(np.float64).max)), columns=1)
@given(series(), st.integers(1, 40))
def test_each_column_contains_all_of_its_values(given_series: tuple[np.ndarray, np.ndarray], columns: int) -> None:
    steps, values = given_series
    first, last = (int(steps[0]), int(steps[-1])) if len(steps) else (0, 0)
    column = columns_of(steps, first, last, columns)
    found = envelope(column, values, columns)
    for place in range(columns):
        inside = values[column == place]
        finite = inside[np.isfinite(inside)]
        assert found.nan[place] == np.isnan(inside).sum()
        assert found.above[place] == (inside == np.inf).sum()
        assert found.below[place] == (inside == -np.inf).sum()
        if not len(finite):
            assert np.isnan([found.low[place], found.high[place], found.middle[place]]).all()
            continue
        assert found.low[place] == finite.min()
        assert found.high[place] == finite.max()
        assert found.low[place] <= found.middle[place] <= found.high[place]


@given(series(), st.integers(2, 40))
def test_the_first_step_is_in_the_first_column_and_the_last_in_the_last(
    given_series: tuple[np.ndarray, np.ndarray], columns: int
) -> None:
    steps, _ = given_series
    if len(steps) > 1:
        column = columns_of(steps, int(steps[0]), int(steps[-1]), columns)
        assert column[0] == 0
        assert column[-1] == columns - 1
        assert (np.diff(column) >= 0).all()


def test_columns_hold_exactly_the_values_of_their_steps() -> None:
    column = columns_of(np.array([0, 1, 2, 3]), 0, 3, 2)
    found = envelope(column, np.array([1.0, 3.0, np.nan, 5.0]), 2)
    assert column.tolist() == [0, 0, 1, 1]
    assert found.low.tolist() == [1, 5]
    assert found.high.tolist() == [3, 5]
    assert found.middle.tolist() == [2, 5]
    assert found.nan.tolist() == [0, 1]
