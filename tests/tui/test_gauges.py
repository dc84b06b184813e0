"""What a trace reads off by itself, brought into groups, units and words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.charts.plot import Series
from tui.gauges import changes, drifts, gauges_of, group_of, median, memory, newest, seconds


def series(name: str, *values: float) -> Series:
    return Series(name, np.arange(len(values)), np.array(values, np.float64))


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("lr", "lr"), ("lr[3]", "lr"), ("optimizer2.lr", "lr"), ("optimizer12.beta1[1]", "beta1"),
        ("step_seconds", "time"), ("tracing_seconds", "time"), ("memory", "memory"), ("memory_peak:cuda:1", "memory"),
        ("clip", "clip"), ("weight_decay", "weight_decay"), ("odd name!", "odd name!"),
    ],
)  # fmt: skip
def test_numbers_of_a_kind_share_a_chart(name: str, group: str) -> None:
    assert group_of(name) == group


def test_the_learning_rate_comes_first_and_times_are_told_in_milliseconds() -> None:
    found = gauges_of([series("step_seconds", 0.5), series("clip", 1), series("lr", 0.1), series("lr[1]", 0.3)])
    assert [gauge.kind for gauge in found] == ["lr", "time", "clip"]
    assert [one.name for one in found[0].series] == ["lr", "lr[1]"]
    assert (found[1].series[0].name, found[1].series[0].values.tolist()) == ("step (ms)", [500.0])


def test_a_setting_moves_if_it_was_ever_another() -> None:
    assert not changes(series("lr", 0.1, 0.1, 0.1))
    assert changes(series("lr", 0.1, 0.1, 0.09))
    assert not changes(series("lr"))
    assert changes(series("lr", 0.1, np.nan))


def test_what_is_measured_moves_only_if_its_end_differs_clearly_from_its_beginning() -> None:
    rng = np.random.default_rng(0)
    noise = 1 + 0.3 * rng.random(100)
    assert not drifts(series("step_seconds", *noise))
    assert not drifts(series("step_seconds", *noise[:50], 100.0, *noise[50:])), "one slow step is no trend"
    assert drifts(series("memory", *(noise * np.linspace(1, 3, 100))))
    assert not drifts(series("memory", 1, 9)), "too few to say"


def test_how_often_one_measures_is_nothing_to_look_at_unasked() -> None:
    assert [gauge.moves for gauge in gauges_of([series("interval", 1, 2, 4)])] == [False]


def test_the_newest_values_are_told_with_units() -> None:
    names = {"step_seconds": 0.02, "tracing_seconds": 0.001, "memory": 1.5e9, "lr": 1e-4, "weight_decay": 0.1}
    assert newest(gauges_of(series(name, 1.0, value) for name, value in names.items())) == [
        ("step", "20.0 ms"), ("tracing", "1.00 ms, 5% of it"), ("memory", "1.50 GB"), ("lr", "1.00e-4"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123, "12.3 ms"), (1.5, "1.50 s"), (4e-6, "4.00 µs"), (0.9996, "1000 ms"), (np.nan, "")]
)
def test_short_times_are_told_in_their_unit(value: float, text: str) -> None:
    assert seconds(value) == text


@given(st.floats(1e-7, 1e4))
def test_a_time_keeps_three_digits(value: float) -> None:
    number, unit = seconds(value).split()
    assert float(number) * {"s": 1, "ms": 1e-3, "µs": 1e-6}[unit] == pytest.approx(value, rel=6e-3)
    assert len(seconds(value)) <= 10


@given(st.floats(0, 1e15))
def test_an_amount_of_memory_keeps_three_digits(value: float) -> None:
    number, unit = memory(value).split()
    size = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert float(number) * size == pytest.approx(value, rel=6e-3, abs=0.6)


def test_the_median_is_of_what_is_finite() -> None:
    assert median(np.array([1.0, np.nan, 3.0, np.inf, 2.0])) == 2
    assert np.isnan(median(np.array([np.nan])))
