"""Seals frames into blocks of chunks, and keeps a run's disk space bounded by thinning the oldest blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tensorscope.run import schema
from tensorscope.run.blocks import (
    Bools,
    Ints,
    columns,
    extremes,
    measured,
    only_last,
    pack,
    pack_steps,
    stacked,
    unpack,
    unpack_steps,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

TOGETHER = 100  # chunks of one statement: between statements the training may take Python's lock for milliseconds
CHUNK_COST = 80  # bytes that a chunk takes beside its data: its row and its entry in the index
# kind → the newest measurement of each series
LATEST = {kind: np.dtype([("step", "<i8"), ("seq", "<i8"), ("row", row)]) for kind, row in schema.ROWS.items()}

_NEW_BLOCK = "INSERT INTO block VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a run is kept, and in which form.

    Attributes:
        frames: of one layout, after which they are sealed.
        frame_bytes: likewise, whatever their number.
        least: frames that are worth a block when a run ends; fewer stay as they are.
        level_bytes: of the blocks of one layout and level, beyond which the oldest are thinned.
        level_blocks: likewise, whatever their size.
        group: blocks that are thinned into one, and measured steps of which one is kept.
        histograms: steps with histograms, beyond which every second one of the older half is dropped.
    """

    frames: int = 1024
    frame_bytes: int = 32 << 20
    least: int = 128
    level_bytes: int = 256 << 20
    level_blocks: int = 4096
    group: int = 8
    histograms: int = 512


class _Chunk(NamedTuple):
    """What is stored of one number of one series."""

    series: int
    place: int
    low: float | None
    high: float | None
    bad: int
    data: bytes


class _Span(NamedTuple):
    """Which frames a block holds."""

    level: int
    first: int
    last: int
    covers: int
    steps: Ints
    seqs: Ints


def seal(db: sqlite3.Connection, layout: int, kind: str, limits: Limits) -> Iterator[None]:
    """Turn all frames of a layout into a block, and thin what is then too much, bit by bit.

    Whoever iterates may commit other things in between: nothing is written but in one transaction at the end of each
    block, which also deletes what the block replaces.

    Raises:
        sqlite3.Error: the disk failed; what was not finished is as it was.
    """
    query = "SELECT seq, step, data FROM frame WHERE layout = ? ORDER BY step, seq"
    frames = db.execute(query, (layout,)).fetchall()
    if not frames:
        return
    seqs, steps = (np.array([frame[part] for frame in frames], np.int64) for part in (0, 1))
    rows = stacked(kind, [frame[2] for frame in frames])
    present = only_last(steps, np.ascontiguousarray(measured(kind, rows).T))
    span = _Span(0, int(steps[0]), int(steps[-1]), len(steps), steps, seqs)
    chunks: list[_Chunk] = []
    for chunk in _chunks(kind, rows, present):
        chunks.append(chunk)
        yield
    with db:
        _write(db, layout, span, chunks)
        _remember_latest(db, (layout, kind), span, rows, present)
        db.execute("DELETE FROM frame WHERE layout = ? AND seq <= ?", (layout, int(seqs.max())))
    level = 0
    while _too_much(db, layout, level, limits):
        yield from _thin(db, (layout, kind), level, limits)
        level += 1


def thin_histograms(db: sqlite3.Connection, layout: int, limits: Limits) -> bool:
    """Drop every second one of the older half once there are too many: the older, the sparser.

    Raises:
        sqlite3.Error: the disk failed; nothing has changed then.
    """
    seqs = [seq for (seq,) in db.execute("SELECT seq FROM frame WHERE layout = ? ORDER BY seq", (layout,))]
    if len(seqs) <= limits.histograms:
        return False
    with db:
        db.executemany("DELETE FROM frame WHERE seq = ?", [(seq,) for seq in seqs[1 : len(seqs) // 2 : 2]])
    return True


def _chunks(kind: str, rows: np.ndarray[Any, Any], present: Bools) -> Iterator[_Chunk]:
    some: Bools = np.asarray(present.any(axis=1))
    for place, values, faulty in columns(kind, rows):
        low, high = extremes(values, present)
        bad = (faulty & present).sum(axis=1).tolist()
        for series, data in enumerate(pack(values, present)):
            if some[series]:
                yield _Chunk(series, place, low[series], high[series], bad[series], data)


def _write(db: sqlite3.Connection, layout: int, span: _Span, chunks: list[_Chunk]) -> None:
    (block,) = db.execute("SELECT coalesce(max(id), 0) + 1 FROM block").fetchone()
    (start,) = db.execute("SELECT coalesce(max(id), 0) + 1 FROM chunk").fetchone()
    for at in range(0, len(chunks), TOGETHER):
        values: list[Any] = []
        for number, chunk in enumerate(chunks[at : at + TOGETHER], start + at):
            head = (number, layout, chunk.series, chunk.place, block)
            values += (*head, chunk.low, chunk.high, chunk.bad, chunk.data)
        db.execute(
            f"INSERT INTO chunk VALUES {', '.join(['(?, ?, ?, ?, ?, ?, ?, ?, ?)'] * (len(values) // 9))}", values
        )
    size = sum(len(chunk.data) + CHUNK_COST for chunk in chunks)
    steps, seqs = pack_steps(span.steps), pack_steps(span.seqs)
    facts = (span.level, span.first, span.last, len(span.steps), span.covers, size, int(span.seqs.max()))
    db.execute(_NEW_BLOCK, (block, layout, *facts, start, start + len(chunks) - 1, steps, seqs))


def _remember_latest(
    db: sqlite3.Connection, owner: tuple[int, str], span: _Span, rows: np.ndarray[Any, Any], present: Bools
) -> None:
    """Keep the newest measurement of every series at hand, for whoever asks how things stand."""
    layout, kind = owner
    newest = np.zeros(rows.shape[1], LATEST[kind])
    newest["step"] = -1
    seen = np.flatnonzero(present.any(axis=1))
    last = (len(rows) - 1 - present[:, ::-1].argmax(axis=1))[seen]
    newest["step"][seen], newest["seq"][seen] = span.steps[last], span.seqs[last]
    newest["row"][seen] = rows[last, seen]
    before = latest(kind, db.execute("SELECT data FROM latest WHERE layout = ?", (layout,)).fetchall())
    if len(before) > len(newest):
        newest = np.concatenate([newest, before[len(newest) :]])
    older = before["step"] > newest["step"][: len(before)]
    newest[: len(before)][older] = before[older]
    db.execute("INSERT OR REPLACE INTO latest VALUES (?, ?)", (layout, newest.tobytes()))


def latest(kind: str, rows: Sequence[tuple[bytes]]) -> np.ndarray[Any, Any]:
    """(series,) of `LATEST` from what the table of that name gave; step −1 where a series was never measured."""
    return np.frombuffer(rows[0][0], LATEST[kind]) if rows else np.zeros(0, LATEST[kind])


# --- thinning --------------------------------------------------------------------------------------------------------


def _too_much(db: sqlite3.Connection, layout: int, level: int, limits: Limits) -> bool:
    query = "SELECT count(*), coalesce(sum(bytes), 0) FROM block WHERE layout = ? AND level = ?"
    blocks, size = db.execute(query, (layout, level)).fetchone()
    return bool(blocks > limits.group and (size > limits.level_bytes or blocks > limits.level_blocks))


def _thin(db: sqlite3.Connection, owner: tuple[int, str], level: int, limits: Limits) -> Iterator[None]:
    """Make one block of the oldest ones: every so many'th step, and those that held non-finite values.

    Low, high and the count of non-finite values go on to tell of every step, so that no spike is lost.
    """
    query = (
        "SELECT id, first, last, length, covers, chunk_first, chunk_last, steps, seqs FROM block"
        " WHERE layout = ? AND level = ? ORDER BY first, id LIMIT ?"
    )
    layout, kind = owner
    olds = db.execute(query, (layout, level, limits.group)).fetchall()
    steps = [unpack_steps(old[7], old[3]) for old in olds]
    seqs = [unpack_steps(old[8], old[3]) for old in olds]
    lengths = {old[0]: old[3] for old in olds}
    keep = _kept(db, kind, olds, limits)
    span = _Span(
        level + 1,
        min(old[1] for old in olds),
        max(old[2] for old in olds),
        sum(old[4] for old in olds),
        np.concatenate(steps)[keep],
        np.concatenate(seqs)[keep],
    )
    keys = dict.fromkeys(
        key for old in olds for key in db.execute("SELECT series, place FROM chunk WHERE id BETWEEN ? AND ?", old[5:7])
    )
    chunks: list[_Chunk] = []
    for key in keys:
        chunks.append(_merged(db, (layout, *key), schema.CHUNKS[kind][key[1]], lengths, keep))
        yield
    with db:
        _write(db, layout, span, chunks)
        for old in olds:
            db.execute("DELETE FROM chunk WHERE id BETWEEN ? AND ?", old[5:7])
            db.execute("DELETE FROM block WHERE id = ?", old[:1])


def _kept(db: sqlite3.Connection, kind: str, olds: Sequence[tuple[Any, ...]], limits: Limits) -> Bools:
    """Which of the blocks' frames stay; of faulty ones no more than a block's worth, the first."""
    query = "SELECT place, data FROM chunk WHERE id BETWEEN ? AND ? AND "
    query += f"place = {schema.NONFINITE} AND high > 0" if kind == schema.STATS else "bad > 0"
    faulty = []
    for old in olds:
        bad = np.zeros(old[3], np.bool_)
        for place, data in db.execute(query, old[5:7]):
            values, mask = unpack(data, old[3], schema.CHUNKS[kind][place])
            where = np.arange(old[3]) if mask is None else np.flatnonzero(mask)
            bad[where[values > 0 if kind == schema.STATS else ~np.isfinite(values)]] = True
        faulty.append(bad)
    bad = np.concatenate(faulty)
    keep = np.arange(len(bad)) % limits.group == 0
    keep[np.flatnonzero(bad & ~keep)[: limits.frames]] = True
    return np.asarray(keep)


def _merged(
    db: sqlite3.Connection, key: tuple[int, int, int], dtype: np.dtype[Any], lengths: dict[int, int], keep: Bools
) -> _Chunk:
    """The chunks of one number of one series in several blocks, as one."""
    query = (
        "SELECT block, low, high, bad, data FROM chunk WHERE layout = ? AND series = ? AND place = ?"
        f" AND block IN ({', '.join('?' * len(lengths))})"
    )
    found = {row[0]: row[1:] for row in db.execute(query, (*key, *lengths))}
    values, present = np.zeros(len(keep), dtype), np.zeros(len(keep), np.bool_)
    start = 0
    for block, length in lengths.items():
        if block in found:
            few, mask = unpack(found[block][3], length, dtype)
            where = np.arange(length) if mask is None else np.flatnonzero(mask)
            values[start + where], present[start + where] = few, True
        start += length
    lows, highs = ([row[part] for row in found.values() if row[part] is not None] for part in (0, 1))
    data = next(pack(values[None, keep], present[None, keep]))
    bad = sum(row[2] for row in found.values())
    return _Chunk(key[1], key[2], min(lows, default=None), max(highs, default=None), bad, data)
