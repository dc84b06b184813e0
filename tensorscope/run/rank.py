"""One rank's side of a run: the parts that it wrote, one after the other, as one history."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorscope.errors import RunError
from tensorscope.run.columns import EVER
from tensorscope.run.envelope import Items, joined
from tensorscope.run.folders import SILENCE_SECONDS
from tensorscope.run.measurements import FINE
from tensorscope.run.part import Part

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tensorscope.events import Histogram, Shape, Site
    from tensorscope.run.columns import Span
    from tensorscope.run.envelope import Steps, Values
    from tensorscope.run.measurements import Column

OUTLIVING = ("graph", "silent")  # documents that are true of the model, whichever part they were recorded in


class Rank:
    """The files of one rank, joined: from its first step on, a part supersedes those before it.

    Args:
        files: the parts, the oldest first.

    Attributes:
        parts: those that can be read.
        lost: why the others cannot.

    Raises:
        RunError: none of them can be read.
    """

    def __init__(self, files: list[Path]) -> None:
        self.parts: list[Part] = []
        self.lost: list[RunError] = []
        for file in files:
            try:
                self.parts.append(Part(file))
            except RunError as error:
                self.lost.append(error)
        if not self.parts:
            raise self.lost[-1]
        end = EVER[1]
        for number, part in reversed(list(enumerate(self.parts))):
            start = part.first_step if number else EVER[0]
            part.window = (start, end)
            end = min(end, start - 1)

    @property
    def last_part(self) -> Part:
        """The part that was written last."""
        return self.parts[-1]

    @property
    def version(self) -> int:
        """A number that moves when something was written."""
        return sum(part.database.changed() for part in self.parts)

    @property
    def last_step(self) -> int:
        """The newest step; −1 before the first."""
        return max(part.last_step for part in self.parts)

    @property
    def sites(self) -> list[Site]:
        """Every site, in the order of first sight."""
        return list(dict.fromkeys(site for part in self.parts for site in part.sites))

    @property
    def notes(self) -> list[tuple[int, str]]:
        """What happened while recording, and what of it is lost."""
        notes = [note for part in self.parts for note in part.notes]
        notes += [(part.last_step, part.database.damage) for part in self.parts if part.database.damage]
        return notes + [(self.last_step, error.title) for error in self.lost]

    def close(self) -> None:
        """Release the files."""
        for part in self.parts:
            part.database.close()

    def names(self, kind: str) -> list[str]:
        """Names of scalars or gauges, in the order of first sight."""
        return list(dict.fromkeys(name for part in self.parts for name in part.names(kind)))

    def document(self, key: str) -> str | None:
        """The text that was recorded under a key; what describes the model outlives a resumption."""
        if key not in OUTLIVING:
            return self.last_part.document(key)
        texts = (part.document(key) for part in reversed(self.parts))
        return next((text for text in texts if text is not None), None)

    def documents(self, key: str) -> list[tuple[Span, str]]:
        """The text under a key of each part that has one, with the steps for which the part counts."""
        texts = ((part.window, part.document(key)) for part in self.parts)
        return [(window, text) for window, text in texts if text is not None]

    @property
    def nonfinite(self) -> dict[str, int] | None:
        """First and last step that went bad, and how many did, some of which may be superseded; None if none did."""
        said = ((part.window, part.meta.get("nonfinite")) for part in self.parts)
        found = [(window, seen) for window, seen in said if seen and window[0] <= seen["first"] <= window[1]]
        if not found:
            return None
        last = max(min(seen["last"], window[1]) for window, seen in found)
        return {"first": found[0][1]["first"], "last": last, "steps": sum(seen["steps"] for _, seen in found)}

    def shapes(self) -> list[tuple[Site, Shape]]:
        """Every shape, the older first."""
        return [shape for part in self.parts for shape in part.shapes()]

    def steps(self, kind: str) -> Steps:
        """Steps at which anything of a kind was recorded, ascending."""
        return np.concatenate([part.steps(kind) for part in self.parts])

    def columns(self, kind: str, keys: Sequence[Any], places: tuple[int, ...], span: Span = EVER) -> dict[Any, Column]:
        """Numbers of some series: the ascending steps of each, and its values, (steps, places)."""
        found = [part.columns(kind, keys, places, span) for part in self._within(span)]
        return {key: _one_after_the_other([columns[key] for columns in found], len(places)) for key in keys}

    def column(self, kind: str, key: Any, places: tuple[int, ...], span: Span = EVER) -> Column:
        """Numbers of one series."""
        return self.columns(kind, [key], places, span)[key]

    def items(
        self, kind: str, keys: Sequence[Any], place: int, span: Span = EVER, fine: int = FINE
    ) -> dict[Any, Items]:
        """What envelopes of one number of some series are made of."""
        found = [part.items(kind, keys, place, span, fine) for part in self._within(span)]
        return {key: joined([items[key] for items in found]) for key in keys}

    def newest(self, kind: str, bound: int = EVER[1]) -> dict[Any, tuple[int, Values]]:
        """The newest measurement of every series of a kind up to a step: its step, and its numbers."""
        found: dict[Any, tuple[int, Values]] = {}
        for part in self.parts:
            found |= {key: (step, row) for key, (step, _, row) in part.newest(kind, bound).items()}
        return found

    def histograms(self, site: Site) -> list[tuple[int, Histogram]]:
        """The histograms of a site, each with its step."""
        return [found for part in self.parts for found in part.histograms(site)]

    def recent_times(self, frames: int) -> dict[str, tuple[float, float]]:
        """Median seconds of each module's forward and backward over the newest measured steps of the newest part."""
        return next((found for part in reversed(self.parts) if (found := part.recent_times(frames))), {})

    @property
    def measured(self) -> int:
        """How many steps were measured, also those that were thinned since."""
        return sum(part.measured for part in self.parts)

    @property
    def depth(self) -> tuple[int, int]:
        """How many blocks of statistics there are, and the highest level among them."""
        depths = [part.depth for part in self.parts]
        return sum(blocks for blocks, _ in depths), max(level for _, level in depths)

    def _within(self, span: Span) -> list[Part]:
        return [part for part in self.parts if part.window[0] <= span[1] and part.window[1] >= span[0]]

    @property
    def state(self) -> tuple[str, int]:
        """Status and last step; `silent` where a process that lives has not written for a while."""
        status = self.last_part.status
        silent = status == "running" and time.time() - self.last_part.last_seen > SILENCE_SECONDS
        return "silent" if silent else status, self.last_step

    @property
    def meta(self) -> dict[str, Any]:
        """What the newest part says about itself."""
        return self.last_part.meta


def _one_after_the_other(columns: list[Column], places: int) -> Column:
    if len(columns) == 1:
        return columns[0]
    steps = np.concatenate([np.zeros(0, np.int64), *(steps for steps, _ in columns)])
    return steps, np.concatenate([np.zeros((0, places)), *(values for _, values in columns)])
