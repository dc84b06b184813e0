"""Fields of colour: the strongest value of a place wins, and what is no number is never lost."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tui.charts.heat import MISSING, NONFINITE, ZERO, Scale, pool, scale_of, shares
from tui.charts.mosaic import mosaic

value = st.one_of(st.floats(0, 1e30), st.sampled_from([np.nan, np.inf, 0.0]))
tables = hnp.arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(1, 30)), elements=value)


@given(tables, st.integers(1, 40), st.integers(1, 40))
def test_pooling_keeps_the_largest_value_and_any_inf(table: np.ndarray, rows: int, columns: int) -> None:
    found = pool(table, rows, columns)
    assert found.shape == (rows, columns)
    assert np.isinf(found).any() == np.isinf(table).any()
    finite = table[np.isfinite(table)]
    if len(finite) and not np.isinf(table).any():
        assert np.nanmax(found) == finite.max()
    assert np.isnan(found).all() == np.isnan(table).all()


def test_an_empty_table_pools_to_nothing_measured() -> None:
    assert np.isnan(pool(np.zeros((0, 4)), 2, 3)).all()
    assert np.isnan(pool(np.zeros((3, 0)), 2, 3)).all()


def test_levels_are_exponents_with_names_for_the_rest() -> None:
    scale = Scale(-2, 0, 4)
    levels = scale.of(np.array([0.01, 0.05, 0.1, 0.9, 1.0, 100.0, 1e-9, 0.0, np.inf, np.nan]))
    assert levels.tolist() == [0, 1, 2, 3, 3, 3, 0, ZERO, NONFINITE, MISSING]


@given(tables)
def test_a_scale_holds_every_positive_value(table: np.ndarray) -> None:
    scale = scale_of(table, 10)
    assert scale.low < scale.high
    levels = scale.of(table)
    assert ((levels >= 0) == (np.isfinite(table) & (table > 0))).all()
    assert (levels < 10).all()


@given(tables, st.integers(1, 20), st.integers(1, 30), st.booleans())
def test_a_mosaic_shows_every_site_and_finds_the_value_behind_a_pixel(
    table: np.ndarray, lines: int, columns: int, whole: bool
) -> None:
    found = mosaic(table, lines, columns, whole=whole)
    pixels = [found.pixels(line) for line in range(max(lines, len(table) * found.tall))]
    shown = {row for pair in pixels if pair for row in pair if row < len(found.values)}
    assert shown == set(range(len(found.values)))
    for row in range(len(found.values)):
        for column in range(columns):
            site, step = found.strongest(table, row, column)
            assert np.array_equal(found.values[row, column], table[site, step], equal_nan=True)


def test_two_sites_share_a_line_only_where_there_are_more_sites_than_lines() -> None:
    table = np.arange(12.0).reshape(6, 2)
    assert not mosaic(table, 6, 2, whole=False).halves
    assert mosaic(table, 3, 2, whole=False).halves
    assert not mosaic(table, 3, 2, whole=True).halves
    assert mosaic(table, 30, 2, whole=False).tall == 3


def test_shares_are_of_each_columns_largest() -> None:
    assert shares(np.array([[1.0, 0.0], [4.0, 0.0]])).tolist() == [[0.25, 0], [1, 0]]
