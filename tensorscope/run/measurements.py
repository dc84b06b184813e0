"""What one file says was measured: histories, envelopes, newest values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorscope.events import Histogram, Site
from tensorscope.run import schema
from tensorscope.run.blocks import HISTOGRAM, measured
from tensorscope.run.columns import EVER, Columns, Piece, Span, Summary, in_order, shown, sources
from tensorscope.run.envelope import Items, items_of, joined
from tensorscope.run.sealing import latest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tensorscope.run.database import Database
    from tensorscope.run.envelope import Steps, Values

FINE = 256  # blocks of one curve whose values are looked at; of more of them only their extremes
Column = tuple["Steps", "Values"]
Newest = tuple[int, int, "Values"]  # step, sequence number, and the numbers of one measurement


class Measurements(ABC):
    """Answers questions about the numbers in one file.

    A series has a key: of statistics the site, of times the module's path, of scalars and gauges the name.

    Args:
        database: the file.

    Attributes:
        window: first and last step that count; a later part of the run may supersede the rest.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.window = EVER
        self._rows = database.rows
        self._columns = Columns(database)

    @abstractmethod
    def numbers(self, kind: str) -> Mapping[Any, int]:
        """Key → number of the series of a kind that its one layout holds."""

    def names(self, kind: str) -> list[str]:
        """Names of scalars or gauges, in the order of first sight."""
        return list(dict.fromkeys(name for series in self._columns.layouts(kind).values() for name in series))

    def steps(self, kind: str) -> Steps:
        """Steps at which anything of a kind was recorded, ascending."""
        found = [np.zeros(0, np.int64)]
        for layout in self._columns.layouts(kind):
            query = "SELECT step FROM frame WHERE layout = ?"
            found.append(np.array([step for (step,) in self._rows(query, (layout,))], np.int64))
            query = "SELECT id, length, steps, seqs FROM block WHERE layout = ?"
            found += [self._columns.steps_of(*row)[0] for row in self._rows(query, (layout,))]
        steps = np.unique(np.concatenate(found))
        return steps[(steps >= self.window[0]) & (steps <= self.window[1])]

    def columns(self, kind: str, keys: Sequence[Any], places: tuple[int, ...], span: Span = EVER) -> dict[Any, Column]:
        """Numbers of some series: the ascending steps of each, and its values, (steps, places)."""
        span = self._within(span)
        found: dict[Any, list[Piece]] = {key: [] for key in keys}
        for layout, series in self._members(kind, keys):
            # Frames before blocks, so that what is sealed in between is missing from neither.
            for number, piece in self._columns.unsealed((layout, kind), list(series), places).items():
                found[series[number]].append(piece)
            for number, pieces in self._columns.sealed((layout, kind), list(series), places, span).items():
                found[series[number]] += pieces
        return {key: in_order(pieces, len(places), span) for key, pieces in found.items()}

    def items(
        self, kind: str, keys: Sequence[Any], place: int, span: Span = EVER, fine: int = FINE
    ) -> dict[Any, Items]:
        """What envelopes of one number of some series are made of.

        Args:
            kind: which kind.
            keys: the series.
            place: which number; of statistics also `schema.RMS` and `schema.L2`.
            span: first and last step.
            fine: so many blocks of each are looked into at most; if there are more, their extremes must do.
        """
        first, last = span = self._within(span)
        whole: dict[Any, list[Summary]] = {key: [] for key in keys}
        for layout, series in self._members(kind, keys):
            for number, blocks in self._columns.summaries((layout, kind), list(series), place, span).items():
                whole[series[number]] += [block for block in blocks if block.first >= first and block.last <= last]
        found: dict[Any, list[Items]] = {key: [] for key in keys}
        gaps: dict[Span, list[Any]] = {}
        for key, blocks in whole.items():
            if len(blocks) <= fine:
                gaps.setdefault(span, []).append(key)
            else:  # what no whole block covers: the newest frames, and the blocks across the ends of the span
                ends = min(block.first for block in blocks) - 1, max(block.last for block in blocks) + 1
                for gap in ((first, ends[0]), (ends[1], last)):
                    gaps.setdefault(gap, []).append(key)
        for gap, some in gaps.items():
            for key, (steps, values) in self.columns(kind, some, sources(kind, place), gap).items():
                found[key].append(items_of(steps, *shown(kind, place, values)))
        for key, items in found.items():
            blocks = whole[key]
            if len(blocks) <= fine:  # of thinned blocks the extremes may be of steps that are gone
                blocks = [block._replace(bad=_bad_left(items[0], block)) for block in blocks if block.level]
            items.append(_as_items(blocks))
        return {key: joined(items) for key, items in found.items()}

    def newest(self, kind: str, bound: int = EVER[1]) -> dict[Any, Newest]:
        """The newest measurement of every series of a kind up to a step."""
        numbers = {number: key for key, number in self.numbers(kind).items()}
        found: dict[Any, Newest] = {}
        for layout, names in self._columns.layouts(kind).items():
            for number, newest in self._newest_of((layout, kind), self._within((EVER[0], bound))):
                key = names[number] if kind in schema.NAMED else numbers[number]
                if key not in found or newest[:2] > found[key][:2]:
                    found[key] = newest
        return found

    @property
    def measured(self) -> int:
        """How many steps were measured and count, also those that were thinned since."""
        if self.window[1] < self._rows("SELECT coalesce((SELECT step FROM beat), -1)")[0][0]:
            return len(self.steps(schema.STATS))
        layout = (schema.NUMBERED.index(schema.STATS),)
        sealed = self._rows("SELECT coalesce(sum(covers), 0) FROM block WHERE layout = ?", layout)
        return int(sealed[0][0] + self._rows("SELECT count(*) FROM frame WHERE layout = ?", layout)[0][0])

    @property
    def depth(self) -> tuple[int, int]:
        """How many blocks of statistics there are, and the highest level among them."""
        query = "SELECT count(*), coalesce(max(level), 0) FROM block WHERE layout = ?"
        blocks, level = self._rows(query, (schema.NUMBERED.index(schema.STATS),))[0]
        return int(blocks), int(level)

    def histograms(self, site: Site) -> list[tuple[int, Histogram]]:
        """The histograms of a site, each with its step."""
        number = self.numbers(schema.STATS).get(site, -1)
        query = "SELECT step, data FROM frame WHERE layout = ? AND step BETWEEN ? AND ? ORDER BY step, seq"
        found: dict[int, Histogram] = {}
        for step, data in self._rows(query, (schema.NUMBERED.index(schema.HISTOGRAMS), *self.window)):
            rows = np.frombuffer(data, HISTOGRAM)
            for row in rows[rows["site"] == number]:
                low, high = row["edges"].astype(np.float64)
                if low <= high:  # NaN where the tensor had no finite element
                    edges = np.linspace(low, high, schema.BINS + 1)
                    found[step] = Histogram(tuple(edges.tolist()), tuple(row["counts"].tolist()))
        return list(found.items())

    def recent_times(self, frames: int) -> dict[str, tuple[float, float]]:
        """Median seconds of each module's forward and backward over the newest measured steps."""
        steps = self.steps(schema.TIMES)[-frames:]
        if not len(steps):
            return {}
        paths = list(self.numbers(schema.TIMES))
        found = self.columns(schema.TIMES, paths, (0, 1), (int(steps[0]), EVER[1]))
        return {path: (_median(v[:, 0]), _median(v[:, 1])) for path, (_, v) in found.items() if len(v)}

    # --- how it is found ---------------------------------------------------------------------------------------------

    def _within(self, span: Span) -> Span:
        return max(span[0], self.window[0]), min(span[1], self.window[1])

    def _members(self, kind: str, keys: Sequence[Any]) -> Iterable[tuple[int, dict[int, Any]]]:
        """The layouts that hold any of some series, each with their numbers there."""
        known = self.numbers(kind)
        for layout, names in self._columns.layouts(kind).items():
            if kind in schema.NAMED:
                series = {names.index(key): key for key in keys if key in names}
            else:
                series = {known[key]: key for key in keys if key in known}
            if series:
                yield layout, series

    def _newest_of(self, owner: tuple[int, str], span: Span) -> Iterable[tuple[int, Newest]]:
        """The newest measurement within a span of each series of a layout."""
        layout, kind = owner
        tail = self._columns.tail(layout, kind)
        sealed = latest(kind, self._rows("SELECT data FROM latest WHERE layout = ?", (layout,)))
        missing = np.ones(max(tail.rows.shape[1], len(sealed)), np.bool_)
        for frame in np.lexsort((tail.seqs, tail.steps))[::-1].tolist():
            step = int(tail.steps[frame])
            if span[0] <= step <= span[1]:
                there = np.flatnonzero(measured(kind, tail.rows[frame]) & missing[: tail.rows.shape[1]])
                # A step that was sealed may be newer, if steps did not come in order.
                older = sealed["step"][: len(missing)] <= step
                there = there[[number >= len(older) or bool(older[number]) for number in there.tolist()]]
                missing[there] = False
                values = _numbers(tail.rows[frame][there])
                yield from zip(there.tolist(), ((step, int(tail.seqs[frame]), row) for row in values), strict=True)
                if not missing.any():
                    return
        left = np.flatnonzero(missing[: len(sealed)])
        within = left[(sealed["step"][left] >= max(span[0], 0)) & (sealed["step"][left] <= span[1])]
        facts = zip(
            sealed["step"][within].tolist(),
            sealed["seq"][within].tolist(),
            _numbers(sealed["row"][within]),
            strict=True,
        )
        yield from zip(within.tolist(), facts, strict=True)
        yield from self._earlier(owner, left[sealed["step"][left] > span[1]].tolist(), span)

    def _earlier(self, owner: tuple[int, str], series: list[int], span: Span) -> Iterable[tuple[int, Newest]]:
        """The newest measurement within a span of series that have been measured since."""
        query = "SELECT first FROM block WHERE layout = ? AND first <= ? AND last >= ? ORDER BY first DESC"
        places = tuple(range(schema.WIDTHS[owner[1]]))
        unsealed = self._columns.unsealed(owner, series, places)
        starts = [start for (start,) in self._rows(query, (owner[0], span[1], span[0]))] if series else []
        for start in [*starts, span[0]]:
            wanted, series = series, []
            sealed = self._columns.sealed(owner, wanted, places, (start, span[1])) if wanted else {}
            for number in wanted:
                pieces = [*sealed[number], *([unsealed[number]] if number in unsealed else [])]
                steps, values = in_order(pieces, len(places), (max(start, span[0]), span[1]))
                if len(steps):
                    yield number, (int(steps[-1]), -1, values[-1])
                else:
                    series.append(number)


def _numbers(rows: np.ndarray[Any, Any]) -> Values:
    return np.stack([rows[name].astype(np.float64) for name in rows.dtype.names or ()], axis=-1)


def _median(values: Values) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _as_items(blocks: Sequence[Summary]) -> Items:
    low, high = (np.array([block[part] for block in blocks], np.float64) for part in (0, 1))
    bad, steps = (np.array([block[part] for block in blocks], np.int64) for part in (2, 3))
    return Items(steps, low, high, bad)


def _bad_left(values: Items, block: Summary) -> int:
    """How many of the faults that a block counts are not among the values."""
    seen = values.bad[(values.steps >= block.first) & (values.steps <= block.last)].sum()
    return max(0, block.bad - int(seen))
