"""How a distribution changed: one column of colour for every stretch of steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tui.charts.bars import rebinned, span_of
from tui.charts.heat import pool, shares

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from tensorscope.events import Histogram

    Values = npt.NDArray[np.float64]


def course(histograms: Sequence[Histogram], rows: int, columns: int) -> tuple[Values, float, float]:
    """Histograms side by side on common edges, large values on top.

    Args:
        histograms: in the order of steps, at least one.
        rows: bins from the smallest to the largest value.
        columns: places across; where histograms share one, their largest shares are kept.

    Returns:
        (rows, columns) shares of each column's largest bin, and the smallest and largest value.
    """
    edges = [np.array(found.edges) for found in histograms]
    low, high = span_of(np.array([e[0] for e in edges]), np.array([e[-1] for e in edges]))
    onto = np.linspace(low, high, rows + 1)
    counts = (np.array(found.counts, np.float64) for found in histograms)
    table = np.stack([rebinned(e, c, onto) for e, c in zip(edges, counts, strict=True)], axis=1)
    return pool(shares(table[::-1]), rows, columns), low, high
