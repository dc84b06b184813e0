"""Histograms keep their counts, whatever edges they are drawn on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorscope.events import Histogram
from tui.charts.bars import bars, rebinned, span_of
from tui.charts.course import course

counts = st.lists(st.integers(0, 1000), min_size=1, max_size=32).map(lambda c: np.array(c, np.float64))


@given(counts, st.integers(1, 80), st.floats(-1e6, 1e6), st.floats(0.001, 1e6))
def test_no_count_is_lost_on_edges_that_hold_all_bins(counts: np.ndarray, bins: int, low: float, width: float) -> None:
    edges = np.linspace(low, low + width, len(counts) + 1)
    onto = np.linspace(low - width, low + 2 * width, bins + 1)
    assert rebinned(edges, counts, onto).sum() == pytest.approx(counts.sum())


def test_a_constant_tensor_falls_into_the_one_bin_that_holds_it() -> None:
    found = rebinned(np.array([2.0, 2.0]), np.array([9.0]), np.array([0.0, 1.0, 2.0, 3.0]))
    assert found.tolist() == [0, 0, 9]


def test_bars_are_drawn_in_eighths_and_never_vanish() -> None:
    assert bars(np.array([0.0, 0.5, 1.0, 0.001]), 2) == ["  █ ", " ██▁"]
    assert bars(np.array([0.25, 0.75]), 1) == ["▂▆"]


def test_a_span_of_one_value_is_widened() -> None:
    assert span_of(np.array([0.0]), np.array([0.0])) == (-0.5, 0.5)
    assert span_of(np.array([2.0]), np.array([2.0])) == (1.0, 3.0)
    assert span_of(np.array([2.0, -1.0]), np.array([3.0, 0.0])) == (-1.0, 3.0)


def test_the_course_puts_histograms_side_by_side_with_large_values_on_top() -> None:
    low = Histogram((0.0, 1.0, 2.0), (8, 0))
    high = Histogram((2.0, 3.0, 4.0), (0, 4))
    table, smallest, largest = course([low, high], 4, 2)
    assert (smallest, largest) == (0.0, 4.0)
    assert table.tolist() == [[0, 1], [0, 0], [0, 0], [1, 0]]
