"""Dots become the right characters, and lines have no holes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tui.charts import braille

rows = hnp.arrays(np.float64, st.integers(1, 40), elements=st.one_of(st.integers(0, 23).map(float), st.just(np.nan)))


def test_every_dot_has_its_bit() -> None:
    dots = np.zeros((4, 2), bool)
    assert chr(braille.characters(dots)[0, 0]) == "⠀"
    dots[0, 0] = dots[3, 1] = True
    assert chr(braille.characters(dots)[0, 0]) == "⢁"
    assert chr(braille.characters(np.ones((4, 2), bool))[0, 0]) == "⣿"


def test_a_band_reaches_from_its_top_to_its_bottom_row() -> None:
    dots = braille.band(np.array([1.0, np.nan]), np.array([2.0, np.nan]), 4)
    assert dots.T.tolist() == [[False, True, True, False], [False] * 4]


@given(rows)
def test_a_line_passes_through_every_value_and_has_no_holes(rows: np.ndarray) -> None:
    top, bottom = braille.line(rows, np.zeros(len(rows), bool))
    known = ~np.isnan(rows)
    assert (top[known] <= rows[known]).all()
    assert (bottom[known] >= rows[known]).all()
    drawn = np.flatnonzero(~np.isnan(top))
    assert np.array_equal(drawn, np.arange(drawn[0], drawn[-1] + 1) if len(drawn) else drawn)
    for left, right in pairwise(drawn):  # neighbours touch, at least by a corner
        assert top[right] <= bottom[left] + 1
        assert top[left] <= bottom[right] + 1


@given(rows)
def test_a_line_stays_within_the_values_it_joins(rows: np.ndarray) -> None:
    top, bottom = braille.line(rows, np.zeros(len(rows), bool))
    if not np.isnan(rows).all():
        assert np.nanmin(top) >= np.nanmin(rows)
        assert np.nanmax(bottom) <= np.nanmax(rows)


def test_a_line_is_interrupted_by_what_is_no_number() -> None:
    rows = np.array([0.0, np.nan, np.nan, np.nan, 4.0])
    whole, _ = braille.line(rows, np.zeros(5, bool))
    broken, _ = braille.line(rows, np.array([False, False, True, False, False]))
    assert not np.isnan(whole).any()
    assert np.isnan(broken).tolist() == [False, True, True, True, False]
