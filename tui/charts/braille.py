"""Draws with braille dots: two columns and four rows of them in every character."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Bools = npt.NDArray[np.bool_]
    Ints = npt.NDArray[np.int64]
    Values = npt.NDArray[np.float64]

ACROSS, DOWN = 2, 4  # dots in one character
BLANK = 0x2800

# Unicode numbers the dots of a character column by column, the bottom row last.
_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])


def dot_rows(places: Values, height: int) -> Values:
    """The dot row of each place on an axis (0 low, 1 high), counted from the top; NaN stays NaN."""
    rows = np.rint((1 - np.clip(places, 0, 1)) * (height - 1))
    return np.where(np.isnan(places), np.nan, rows)


def band(top: Values, bottom: Values, height: int) -> Bools:
    """Dots, (height, columns), from each column's top row down to its bottom row; none where they are NaN."""
    rows = np.arange(height)[:, None]
    with np.errstate(invalid="ignore"):
        return (rows >= top) & (rows <= bottom)


def line(rows: Values, broken: Bools) -> Bools:
    """Extents of a line through one dot row per column, as (2, columns) top and bottom rows.

    Gaps between two columns are bridged, unless a column between them is broken; neighbours are joined so that the
    line has no holes however steep it is.

    Args:
        rows: (columns,) dot row, NaN where there is no value.
        broken: (columns,) true where values that are no numbers interrupt the line.
    """
    filled = bridged(rows, broken)
    top, bottom = filled.copy(), filled.copy()
    # Each column reaches half the way to its left neighbour, which reaches the other half.
    middle = np.floor((filled[1:] + filled[:-1]) / 2)
    joined = ~np.isnan(middle)
    left, right = np.flatnonzero(joined), np.flatnonzero(joined) + 1
    rising = filled[right] < filled[left]
    half = middle[left]
    np.minimum.at(top, left[rising], half[rising] + 1)
    np.maximum.at(bottom, right[rising], half[rising])
    falling = ~rising
    np.maximum.at(bottom, left[falling], half[falling])
    np.minimum.at(top, right[falling], np.minimum(half[falling] + 1, filled[right[falling]]))
    return np.stack([top, bottom])


def bridged(rows: Values, broken: Bools) -> Values:
    """Fill the gaps between columns that hold a row with straight lines, except across a break."""
    known = np.flatnonzero(~np.isnan(rows))
    if not len(known):
        return rows.copy()
    places = np.arange(len(rows))
    filled = np.rint(np.interp(places, known, rows[known], left=np.nan, right=np.nan))
    part = np.cumsum(broken)  # a gap may be bridged where no break lies inside it
    before = known[np.clip(np.searchsorted(known, places, side="right") - 1, 0, None)]
    after = known[np.clip(np.searchsorted(known, places, side="left"), None, len(known) - 1)]
    whole = (part[before] == part[after]) | ~np.isnan(rows)
    return np.where(whole, filled, np.nan)


def characters(dots: Bools) -> Ints:
    """Code points, (rows, columns), of a dot matrix whose sides are multiples of four and two."""
    height, width = dots.shape
    cells = dots.reshape(height // DOWN, DOWN, width // ACROSS, ACROSS)
    codes: Ints = BLANK + np.einsum("ridj,ij->rd", cells, _BITS)
    return codes
