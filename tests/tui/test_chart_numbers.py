"""How numbers are written in little room."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.charts.numbers import ago, amount, grouped, percent, short, shortened


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.5, "0.500"),
        (-0.0943, "-0.0943"),
        (12.345, "12.3"),
        (4096.0, "4096"),
        (99_999.0, "99999"),
        (123_456.0, "1.23e5"),
        (0.000_062_1, "6.21e-5"),
        (0.09, "0.0900"),
        (math.nan, "NaN"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
    ],
)
def test_numbers_show_three_digits(value: float, text: str) -> None:
    assert short(value) == text


@given(st.floats(-1e300, 1e300))
def test_a_short_number_is_short_and_close_to_what_it_stands_for(value: float) -> None:
    text = short(value)
    assert len(text) <= 10
    assert float(text) == pytest.approx(value, rel=0.006)


def test_amounts_and_shares_and_times_use_their_largest_unit() -> None:
    assert [amount(n) for n in (7, 999, 1000, 61_700, 999_600, 1_200_000)] == [
        "7",
        "999",
        "1.0k",
        "61.7k",
        "1.0M",
        "1.2M",
    ]
    assert [percent(p) for p in (0.0, 0.001, 0.6, 0.999, 1.0, math.nan)] == ["0%", "<1%", "60%", ">99%", "100%", ""]
    assert [ago(s) for s in (0, 42, 300, 7200, 200_000)] == ["just now", "42 s ago", "5 min ago", "2 h ago", "2 d ago"]
    assert grouped(1_234_567) == "1 234 567"


@given(st.text(max_size=40), st.integers(0, 50))
def test_a_shortened_text_fits_and_keeps_both_its_ends(text: str, width: int) -> None:
    cut = shortened(text, width)
    assert len(cut) <= width
    if len(text) > width > 3:
        head, tail = cut.split("…")[0], cut.rsplit("…", 1)[-1]
        assert text.startswith(head)
        assert text.endswith(tail)
