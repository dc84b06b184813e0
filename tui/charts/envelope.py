"""Thins a series to the columns of a chart without losing a peak, a NaN or an Inf."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Steps = npt.NDArray[np.int64]
    Values = npt.NDArray[np.float64]
    Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Envelope:
    """A series, column by column.

    Attributes:
        low: (columns,) smallest finite value; NaN in a column without one.
        high: (columns,) largest finite value.
        middle: (columns,) mean of the finite values.
        nan: (columns,) how many values were NaN.
        above: (columns,) how many were +Inf.
        below: (columns,) how many were −Inf.
    """

    low: Values
    high: Values
    middle: Values
    nan: Counts
    above: Counts
    below: Counts


def columns_of(steps: Steps, first: int, last: int, columns: int) -> Counts:
    """The column of each step: `first` lies in column 0 and `last` in the last one."""
    if last <= first or columns < 2:
        return np.zeros(len(steps), np.int64)
    places = (steps - first) * ((columns - 1) / (last - first))
    found: Counts = np.clip(np.rint(places).astype(np.int64), 0, columns - 1)
    return found


def envelope(column: Counts, values: Values, columns: int) -> Envelope:
    """Summarise the values that fall into each column.

    Args:
        column: (values,) each value's column, ascending.
        values: (values,) finite or not.
        columns: how many columns there are.
    """
    low, high, middle = (np.full(columns, np.nan) for _ in range(3))
    finite = np.isfinite(values)
    where, inner = column[finite], values[finite]
    if len(inner):
        starts = np.flatnonzero(np.diff(where, prepend=where[0] - 1))
        filled = where[starts]
        low[filled] = np.minimum.reduceat(inner, starts)
        high[filled] = np.maximum.reduceat(inner, starts)
        shares = inner / np.bincount(where, minlength=columns)[where]  # divided first: a sum of large values overflows
        # Rounding may carry a mean just past the values that it is made of, and past the largest number there is.
        with np.errstate(over="ignore"):
            middle[filled] = np.clip(np.add.reduceat(shares, starts), low[filled], high[filled])
    marks = (np.isnan(values), values == np.inf, values == -np.inf)
    nan, above, below = (np.bincount(column[mark], minlength=columns) for mark in marks)
    return Envelope(low, high, middle, nan, above, below)
