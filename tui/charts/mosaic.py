"""Which cells of a table (sites × steps) each character of a field shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tui.charts.heat import bounds, pool

if TYPE_CHECKING:
    import numpy.typing as npt

    Values = npt.NDArray[np.float64]

TALLEST = 3  # lines that one site gets where there is room


@dataclass(frozen=True, slots=True, eq=False)
class Mosaic:
    """A table fitted to a field of `lines` × `columns` characters.

    Attributes:
        values: (pixel rows, columns) the strongest value of each pixel.
        halves: whether a line holds two pixel rows.
        tall: lines that a pixel row takes where it takes whole ones.
        rows: where in the table each pixel row begins, and the end.
        steps: where in the table each column begins, and the end.
    """

    values: Values
    halves: bool
    tall: int
    rows: npt.NDArray[np.int64]
    steps: npt.NDArray[np.int64]

    def pixels(self, line: int) -> tuple[int, int] | None:
        """The pixel rows in the upper and the lower half of a line; None below the last."""
        upper = line * 2 if self.halves else line // self.tall
        if upper >= len(self.values):
            return None
        return upper, upper + 1 if self.halves else upper

    def pixel_of(self, site: int) -> int:
        """The pixel row that shows a row of the table."""
        return int(np.clip(np.searchsorted(self.rows[:-1], site, side="right") - 1, 0, None))

    def strongest(self, table: Values, pixel: int, column: int) -> tuple[int, int]:
        """Row and column of the table's entry that a pixel shows."""
        top, left = int(self.rows[pixel]), int(self.steps[column])
        part = table[top : max(top + 1, int(self.rows[pixel + 1])), left : max(left + 1, int(self.steps[column + 1]))]
        ranked = np.where(np.isnan(part), -np.inf, part)
        row, step = np.unravel_index(int(ranked.argmax()), part.shape)
        return top + int(row), left + int(step)


def mosaic(table: Values, lines: int, columns: int, *, whole: bool) -> Mosaic:
    """Fit a table to a field.

    Args:
        table: (sites, steps), neither of them empty.
        lines: lines of the field.
        columns: characters across.
        whole: whether every site gets a line of its own, even if not all of them fit.
    """
    sites, steps = table.shape
    halves = not whole and sites > lines
    rows = min(sites, 2 * lines) if halves else sites
    tall = 1 if halves else max(1, min(TALLEST, lines // sites))
    ends = np.append(bounds(sites, rows), sites), np.append(bounds(steps, columns), steps)
    return Mosaic(pool(table, rows, columns), halves, tall, *ends)
