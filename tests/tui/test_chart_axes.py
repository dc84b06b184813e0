"""Axes hold every finite value and label it with round numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tui.charts.axes import Axis, axis_of

finite = hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(-1e300, 1e300))


def labels(axis: Axis, most: int = 6) -> list[str]:
    return [tick.label for tick in axis.ticks(most)]


def test_ticks_are_round_numbers_with_the_same_decimals() -> None:
    assert labels(Axis(0.21, 2.35)) == ["0.5", "1.0", "1.5", "2.0"]
    assert labels(Axis(0, 5900), 7) == ["0", "1000", "2000", "3000", "4000", "5000"]
    assert labels(Axis(-0.02, 0.031), 6) == ["-0.02", "-0.01", "0", "0.01", "0.02", "0.03"]
    assert labels(Axis(1e-5, 3e-5), 3) == ["1e-5", "2e-5", "3e-5"]


def test_a_logarithmic_axis_is_labelled_with_powers_of_ten_or_what_lies_between_them() -> None:
    assert labels(Axis(-5.2, 1.3, log=True), 7) == ["1e-5", "1e-4", "0.001", "0.01", "0.1", "1", "10"]
    assert labels(Axis(-0.8, 0.6, log=True)) == ["0.2", "0.5", "1", "2"]
    assert labels(Axis(0.301, 0.4, log=True), 3) == ["2", "2.2", "2.4"]


@given(finite, st.booleans())
def test_every_finite_value_lies_on_the_axis(values: np.ndarray, log: bool) -> None:
    axis = axis_of([values], log=log)
    if axis is None:
        assert log
        assert not (values > 0).any()
        return
    places = axis.places(axis.scaled(values[values > 0] if log else values))
    assert ((places >= 0) & (places <= 1)).all()


@given(finite, st.booleans(), st.integers(1, 30))
def test_ticks_are_few_ascending_distinct_and_on_the_axis(values: np.ndarray, log: bool, most: int) -> None:
    axis = axis_of([values], log=log)
    ticks = axis.ticks(most) if axis else []
    assert len(ticks) <= max(most, 3)
    assert len({tick.label for tick in ticks}) == len(ticks)
    places = [tick.place for tick in ticks]
    assert places == sorted(places)
    assert all(-1e-6 <= place <= 1 + 1e-6 for place in places)


@given(st.floats(-1e300, 1e300))
def test_a_constant_series_runs_through_the_middle(value: float) -> None:
    axis = axis_of([np.full(3, value)])
    assert axis is not None
    assert axis.low < axis.high
    assert axis.places(np.array([value]))[0] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("values", [[], [np.nan], [np.inf, -np.inf]])
def test_without_a_finite_value_there_is_no_axis(values: list[float]) -> None:
    assert axis_of([np.array(values)]) is None
    assert axis_of([]) is None
