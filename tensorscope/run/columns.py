"""How one file holds its numbers: the frames that are not sealed yet, and the chunks of the blocks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tensorscope.run import schema
from tensorscope.run.blocks import column, faults, measured, norm, stacked, together, unpack, unpack_steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tensorscope.run.database import Database
    from tensorscope.run.envelope import Steps, Values

Span = tuple[int, int]
EVER: Span = (-(1 << 62), 1 << 62)  # first and last step of whatever there is


class Tail(NamedTuple):
    """Frames of a layout that are not sealed yet, in the order in which they were written."""

    seqs: Steps
    steps: Steps
    rows: np.ndarray[Any, Any]  # (frames, series)


class Piece(NamedTuple):
    """Some measurements of one series: steps, sequence numbers and (steps, places) values."""

    steps: Steps
    seqs: Steps
    values: Values


class Summary(NamedTuple):
    """One number of one series in a block: finite extremes, faults, the steps covered, and how often it was thinned."""

    low: float | None
    high: float | None
    bad: int
    first: int
    last: int
    level: int


class Columns:
    """The numbers of one file, layout by layout.

    Args:
        database: the file.
    """

    def __init__(self, database: Database) -> None:
        self._rows = database.rows
        self._layouts: dict[int, tuple[str, list[Any]]] = {}
        self._tails: dict[int, Tail] = {}
        self._blocks: dict[int, tuple[Steps, Steps]] = {}

    def layouts(self, kind: str) -> dict[int, list[Any]]:
        """Layouts are only ever added, so only new ones are read."""
        query = "SELECT id, kind, series FROM layout WHERE id >= ? ORDER BY id"
        for number, its_kind, series in self._rows(query, (len(self._layouts),)):
            self._layouts[number] = (its_kind, json.loads(series) or [])
        return {number: series for number, (its_kind, series) in self._layouts.items() if its_kind == kind}

    def tail(self, layout: int, kind: str) -> Tail:
        """The frames of a layout; what was read before is not read again."""
        known = self._tails.get(layout)
        oldest = self._rows("SELECT min(seq) FROM frame WHERE layout = ?", (layout,))[0][0]
        if known is not None and (oldest is None or not len(known.seqs) or known.seqs[0] != oldest):
            known = None
        query = "SELECT seq, step, data FROM frame WHERE layout = ? AND seq > ? ORDER BY seq"
        fresh = self._rows(query, (layout, -1 if known is None else int(known.seqs[-1])))
        if known is None or fresh:
            seqs, steps = (np.array([frame[part] for frame in fresh], np.int64) for part in (0, 1))
            data = [frame[2] for frame in fresh]
            rows = stacked(kind, data) if data else np.zeros((0, 0), schema.ROWS[kind])
            if known is not None:
                seqs, steps = np.concatenate([known.seqs, seqs]), np.concatenate([known.steps, steps])
                rows = together(kind, known.rows, rows)
            known = self._tails[layout] = Tail(seqs, steps, rows)
        # Read after the frames, so that what was sealed in between is missing from neither.
        sealed = self._rows("SELECT max(sealed) FROM block WHERE layout = ?", (layout,))[0][0] or 0
        left = known.seqs > sealed
        return known if left.all() else Tail(known.seqs[left], known.steps[left], known.rows[left])

    def sealed(
        self, owner: tuple[int, str], series: Sequence[int], places: tuple[int, ...], span: Span
    ) -> dict[int, list[Piece]]:
        """What the blocks of a layout hold of each series."""
        layout, kind = owner
        query = (
            "SELECT b.id, b.length, b.steps, b.seqs, c.series, c.place, c.data FROM chunk c"
            f" CROSS JOIN block b ON b.id = c.block WHERE c.layout = ? AND {_in('place', places)}"
            f" AND {_in('series', series)} AND b.last >= ? AND b.first <= ?"
        )
        chunks: dict[tuple[int, int], dict[int, tuple[Values, npt.NDArray[np.bool_] | None]]] = {}
        for block, length, steps, seqs, number, place, data in self._rows(query, (layout, *span)):
            self.steps_of(block, length, steps, seqs)
            chunks.setdefault((number, block), {})[place] = unpack(data, length, schema.CHUNKS[kind][place])
        found: dict[int, list[Piece]] = {number: [] for number in series}
        for (number, block), columns in chunks.items():
            its_steps, its_seqs = self._blocks[block]
            mask = columns[places[0]][1]
            values = np.empty((len(columns[places[0]][0]), len(places)))
            for at, place in enumerate(places):
                values[:, at] = columns[place][0]
            whole = (its_steps, its_seqs) if mask is None else (its_steps[mask], its_seqs[mask])
            found[number].append(Piece(*whole, values))
        return found

    def unsealed(self, owner: tuple[int, str], series: Sequence[int], places: tuple[int, ...]) -> dict[int, Piece]:
        """What the frames of a layout that are not sealed yet hold of each series."""
        layout, kind = owner
        tail = self.tail(layout, kind)
        known = [number for number in series if number < tail.rows.shape[1]]
        if not known:
            return {}
        rows = tail.rows[:, known]
        there = measured(kind, rows)
        values = np.empty((*rows.shape, len(places)))
        for at, place in enumerate(places):
            values[:, :, at] = column(kind, rows, place)
        masks = ((number, at, there[:, at]) for at, number in enumerate(known))
        return {number: Piece(tail.steps[mask], tail.seqs[mask], values[mask, at]) for number, at, mask in masks}

    def steps_of(self, block: int, length: int, steps: bytes, seqs: bytes) -> tuple[Steps, Steps]:
        """Steps and sequence numbers of a block; blocks never change, so they are unpacked once."""
        if block not in self._blocks:
            self._blocks[block] = unpack_steps(steps, length), unpack_steps(seqs, length)
        return self._blocks[block]

    def summaries(
        self, owner: tuple[int, str], series: Sequence[int], place: int, span: Span
    ) -> dict[int, list[Summary]]:
        """What is known of each block that holds a series, without looking into it."""
        layout, kind = owner
        places = sources(kind, place) if place == schema.L2 else (place,)
        query = (
            "SELECT c.series, c.block, c.place, c.low, c.high, c.bad, b.first, b.last, b.level FROM chunk c"
            f" CROSS JOIN block b ON b.id = c.block WHERE c.layout = ? AND {_in('place', places)}"
            f" AND {_in('series', series)} AND b.last >= ? AND b.first <= ?"
        )
        blocks: dict[tuple[int, int], dict[int, Summary]] = {}
        for number, block, at, *facts in self._rows(query, (layout, *span)):
            blocks.setdefault((number, block), {})[at] = Summary(*facts)
        found: dict[int, list[Summary]] = {number: [] for number in series}
        for (number, _), one in blocks.items():
            found[number].append(_norm_summary(*(one[at] for at in places)) if place == schema.L2 else one[place])
        return found


def _in(name: str, numbers: Sequence[int]) -> str:
    return f"c.{name} IN ({', '.join(map(str, numbers))})"


def in_order(pieces: Sequence[Piece], places: int, span: Span) -> tuple[Steps, Values]:
    """The ascending steps of one series within a span, and its values, (steps, places); the last of a step counts."""
    nothing = Piece(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, places)))
    parts = [nothing, *pieces] if len(pieces) != 1 else list(pieces)
    steps, seqs, values = (np.concatenate([part[at] for part in parts]) for at in range(3))
    if not (steps[1:] > steps[:-1]).all():
        order = np.lexsort((seqs, steps))
        steps, values = steps[order], values[order]
    counts = (steps >= span[0]) & (steps <= span[1])
    counts[:-1] &= steps[1:] != steps[:-1]
    return (steps, values) if counts.all() else (steps[counts], values[counts])


def sources(kind: str, place: int) -> tuple[int, ...]:
    """The stored numbers that a number, and whether it is a fault, follow from; of statistics the faults second."""
    if kind != schema.STATS:
        return (place,)
    return (schema.RMS, schema.NONFINITE, schema.COUNT) if place == schema.L2 else (place, schema.NONFINITE)


def shown(kind: str, place: int, values: Values) -> tuple[Values, npt.NDArray[np.bool_]]:
    """A number from its sources, (steps, sources), and which of its values are faults."""
    found = norm(values[:, 2], values[:, 1], values[:, 0]) if place == schema.L2 else values[:, 0]
    return found, faults(kind, place, found, values[:, 1] if kind == schema.STATS else None)


def _norm_summary(rms: Summary, nonfinite: Summary, count: Summary) -> Summary:
    """Bounds of the Euclidean norm in a block: exact where the number of elements stays the same."""
    if rms.low is None or rms.high is None or count.low is None or count.high is None:
        return rms._replace(low=None, high=None)
    elements = np.array([count.low - (nonfinite.high or 0), count.high - (nonfinite.low or 0)])
    low, high = norm(elements, np.zeros(2), np.array([rms.low, rms.high])).tolist()
    return rms._replace(low=low, high=high)
