"""Histograms: counts moved to other edges, and bars drawn in eighths of a character."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Values = npt.NDArray[np.float64]

EIGHTHS = " ▁▂▃▄▅▆▇█"


def rebinned(edges: Values, counts: Values, onto: Values) -> Values:
    """Counts between other edges, as if values lay evenly within each old bin; none are lost if `onto` holds all bins.

    A bin without width (a constant tensor) falls whole into the new bin that holds it.
    """
    if edges[-1] <= edges[0]:
        found = np.zeros(len(onto) - 1)
        place = int(np.clip(np.searchsorted(onto, edges[0], side="right") - 1, 0, len(found) - 1))
        if onto[0] <= edges[0] <= onto[-1]:
            found[place] = counts.sum()
        return found
    total = np.concatenate([[0.0], np.cumsum(counts)])
    return np.diff(np.interp(onto, edges, total))


def span_of(lows: Values, highs: Values) -> tuple[float, float]:
    """The span of several histograms, widened if it is a single value."""
    low, high = float(lows.min()), float(highs.max())
    if high > low:
        return low, high
    room = abs(low) * 0.5 or 0.5
    return low - room, high + room


def bars(heights: Values, rows: int) -> list[str]:
    """Bars of heights 0 … 1 as `rows` lines of text, the top one first; what is not 0 shows at least an eighth."""
    eighths = np.rint(np.clip(heights, 0, 1) * rows * 8).astype(np.int64)
    eighths[(heights > 0) & (eighths == 0)] = 1
    lines = []
    for row in range(rows):
        above = (rows - 1 - row) * 8  # eighths below this line
        lines.append("".join(EIGHTHS[n] for n in np.clip(eighths - above, 0, 8).tolist()))
    return lines


def across(share: float, width: int) -> str:
    """A bar of a share of `width` characters, from the left; what is not 0 shows at least an eighth."""
    eighths = round(min(1.0, max(0.0, share)) * width * 8) or int(share > 0)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
