"""The disk's side of a writer: commits to a run file, and seals what has gathered in it."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tensorscope.run import schema
from tensorscope.run.filesystem import journal_mode_for
from tensorscope.run.sealing import Limits, seal, thin_histograms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

LOCK_SECONDS = 5.0  # how long to wait for somebody else's lock on the file
LOG_BYTES = 16 << 20  # what a write-ahead log keeps of the disk once it has been folded into the file
SLICE_SECONDS = 0.2  # of sealing between two commits: a kill loses no more
AT_ONCE = 2.0  # times the frames of a block that may wait to be sealed
SEAL_AGAIN_SECONDS = 60.0  # after sealing has failed

FORK_SECONDS = 2.0  # how long a fork waits for what is being written

Statement = tuple[str, "Sequence[Any]"]
FRAME = "INSERT INTO frame VALUES (?, ?, ?, ?)"  # seq, layout, step, data
_BEAT = "UPDATE beat SET wall = ?, monotonic = ?, step = ?, dropped = ?"
# What is wrong with one statement, and not with the disk.
_REFUSED = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    ValueError,
)


# Held while SQLite is at work. A child that is forked meanwhile would find SQLite's own locks taken for ever.
_AT_WORK = threading.Lock()
if hasattr(os, "register_at_fork"):
    _held: list[bool] = []
    os.register_at_fork(
        before=lambda: _held.append(_AT_WORK.acquire(timeout=FORK_SECONDS)),
        after_in_parent=lambda: _AT_WORK.release() if _held.pop() else None,
        after_in_child=lambda: _AT_WORK.release() if _held.pop() else None,
    )


class Disk:
    """A run file as the writer's thread sees it.

    Args:
        path: the file, which exists.
        limits: how much of it is kept, and in which form.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path, self._limits = path, limits
        self._db: sqlite3.Connection | None = None
        self._kinds = dict(enumerate(schema.NUMBERED))
        self._open_frames: dict[int, int] = {}
        self._open_bytes: dict[int, int] = {}
        self._seal_after = 0.0
        self._job: tuple[int, Iterator[None]] | None = None  # the layout that is being sealed, and how far it is

    def store(self, statements: Sequence[Statement], step: int, dropped: int) -> int:
        """Commit statements and a sign of life; how many of them were refused.

        Raises:
            sqlite3.Error: the disk failed, and nothing was committed; a later try starts afresh.
            OSError: likewise.
        """
        refused = 0
        try:
            with _AT_WORK, self._connection() as db:
                db.execute(_BEAT, (time.time(), time.monotonic(), step, dropped))
                for sql, row in statements:
                    try:
                        db.execute(sql, row)
                    except _REFUSED:
                        refused += 1
        except (sqlite3.Error, OSError):
            self._drop_connection()
            raise
        for sql, row in statements:
            if sql is FRAME:
                self._open_frames[row[1]] = self._open_frames.get(row[1], 0) + 1
                self._open_bytes[row[1]] = self._open_bytes.get(row[1], 0) + len(row[3])
        return refused

    def knows(self, layout: int, kind: str) -> None:
        """Learn of a layout."""
        self._kinds[layout] = kind

    def tend(self) -> None:
        """Seal a little of what has gathered; if that fails, the frames stay as they are until a later try."""
        if time.monotonic() < self._seal_after:
            return
        if self._job is None:
            due = (layout for layout in self._open_frames if self._fullness(layout) >= 1)
            layout = next(due, None)
            if layout is None:
                return
            self._job = layout, self._sealing(layout)
        # What grows faster than it is sealed by the way is sealed at once.
        with _AT_WORK:
            self._work(SLICE_SECONDS if self._fullness(self._job[0]) < AT_ONCE else float("inf"))

    def finish(self) -> None:
        """Seal the rest where that is worth it, give free space back, and leave one file."""
        with _AT_WORK:
            self._finish()

    def _finish(self) -> None:
        self._seal_after = 0.0
        self._job = None
        for layout, frames in list(self._open_frames.items()):
            if frames >= self._limits.least and self._kinds[layout] in schema.ROWS:
                self._job = layout, self._sealing(layout)
                self._work(float("inf"))
        with suppress(sqlite3.Error):
            db = self._connection()
            db.executescript("PRAGMA incremental_vacuum")  # `execute` would stop after one page
            # Fold the log into the file, which can then be read where nothing may be written; not while others read.
            db.execute("PRAGMA busy_timeout = 200")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            db.execute("PRAGMA journal_mode = DELETE").fetchall()
        self._drop_connection()

    def _fullness(self, layout: int) -> float:
        """How much of what may stay unsealed there is."""
        limits, frames = self._limits, self._open_frames[layout]
        if self._kinds[layout] == schema.HISTOGRAMS:
            return frames / (limits.histograms + 1)
        return max(frames / limits.frames, self._open_bytes[layout] / limits.frame_bytes)

    def _sealing(self, layout: int) -> Iterator[None]:
        kind, db = self._kinds[layout], self._connection()
        if kind == schema.HISTOGRAMS:
            thin_histograms(db, layout, self._limits)
        else:
            yield from seal(db, layout, kind, self._limits)
        query = "SELECT count(*), coalesce(sum(length(data)), 0) FROM frame WHERE layout = ?"
        self._open_frames[layout], self._open_bytes[layout] = db.execute(query, (layout,)).fetchone()

    def _work(self, seconds: float) -> None:
        """Go on with the sealing under way for a while."""
        assert self._job is not None
        until = time.monotonic() + seconds
        try:
            for _ in self._job[1]:
                if time.monotonic() > until:
                    return
            self._job = None
        except (sqlite3.Error, OSError, ValueError, LookupError, MemoryError, zlib.error):
            self._job, self._seal_after = None, time.monotonic() + SEAL_AGAIN_SECONDS

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            db = sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=rw", uri=True, timeout=LOCK_SECONDS)
            try:
                # A write-ahead log lets readers read while we write.
                db.execute(f"PRAGMA journal_mode = {journal_mode_for(self._path.parent)}").fetchall()
                db.execute("PRAGMA synchronous = NORMAL")
                db.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}").fetchall()
            except sqlite3.Error:
                db.close()
                raise
            self._db = db
        return self._db

    def _drop_connection(self) -> None:
        self._job = None
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None
