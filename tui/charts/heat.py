"""Tables of numbers as fields of colour: which cells of a table a place on the screen shows, and how strongly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]
    Values = npt.NDArray[np.float64]

# Levels of what is not a positive number; all others are 0 or above.
MISSING, NONFINITE, ZERO = -1, -2, -3


def bounds(size: int, places: int) -> Ints:
    """Where each of `places` equal parts of `size` entries begins; parts share an entry when there are more parts."""
    return np.arange(places) * size // places


def pool(values: Values, rows: int, columns: int) -> Values:
    """Fit a table to (rows, columns): the largest number wins, Inf above all, and NaN (not measured) below all."""
    return _pool_rows(_pool_rows(values, rows).T, columns).T


def _pool_rows(values: Values, rows: int) -> Values:
    if not values.size:
        return np.full((rows, values.shape[1]), np.nan)
    starts = bounds(len(values), rows)
    if len(values) <= rows:
        return values[starts]
    return np.fmax.reduceat(values, starts, axis=0)


@dataclass(frozen=True, slots=True)
class Scale:
    """A span of exponents of ten, as levels 0 … `levels` − 1."""

    low: float
    high: float
    levels: int

    def of(self, values: Values) -> Ints:
        """The level of each value, or one of `MISSING`, `NONFINITE` and `ZERO`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            place = (np.log10(np.abs(values)) - self.low) / (self.high - self.low)
        inner = np.isfinite(place)
        found = np.zeros(values.shape, np.int64)
        found[inner] = np.clip(place[inner] * self.levels, 0, self.levels - 1).astype(np.int64)
        found[values == 0] = ZERO
        found[np.isinf(values)] = NONFINITE
        found[np.isnan(values)] = MISSING
        return found


def scale_of(values: Values, levels: int) -> Scale:
    """The scale that holds every finite value other than 0, over at least one decade."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    if not len(sizes):
        return Scale(-1.0, 0.0, levels)
    low, high = math.log10(float(sizes.min())), math.log10(float(sizes.max()))
    room = max(0.0, (1 - (high - low)) / 2)
    return Scale(low - room, high + room, levels)


def shares(table: Values) -> Values:
    """Each column of a table of counts as shares of its largest count; 0 in a column that is empty."""
    largest = table.max(axis=0, initial=0)
    return table / np.where(largest > 0, largest, 1)
