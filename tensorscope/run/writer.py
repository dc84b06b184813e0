"""Writes a run file from a thread of its own, so that training never waits for a disk."""

from __future__ import annotations

import json
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorscope.errors import RunError
from tensorscope.run import schema
from tensorscope.run.folders import is_live

if TYPE_CHECKING:
    from pathlib import Path

    from tensorscope.events import ModuleInfo, Shape, Site

FRAMES_WAITING = 1024  # past that, frames are dropped and counted; other commands are as few as sites
TRANSACTION_LENGTH = 512  # commands in one transaction, at most
COMMIT_SECONDS = 0.2  # how long commands are gathered into one transaction
BEAT_SECONDS = 0.5  # how often the file says that its writer lives

Command = Callable[[sqlite3.Connection], None]
Rows = np.ndarray[Any, Any]


class Writer:
    """The one who writes a run file.

    Every method returns at once and never raises after the constructor: what cannot be written is dropped and counted,
    and `failure` says why.

    Args:
        folder: the run's folder; created, and must not hold this rank's file yet.
        meta: JSON-able facts about the run.
        rank: this process's rank.

    Raises:
        RunError: the file cannot be created.
    """

    def __init__(self, folder: Path, meta: dict[str, Any], rank: int = 0) -> None:
        self.path = folder / schema.file_name(rank)
        self.failure: str | None = None
        self.dropped = 0
        self._step = 0
        self._pid = os.getpid()
        self._sites: dict[Site, int] = {}
        self._layouts: dict[tuple[str, tuple[Any, ...]], int] = {}
        self._frames_put = self._frames_taken = 0  # each counted by one thread alone
        self._commands: queue.SimpleQueue[Command | threading.Event | None] = queue.SimpleQueue()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            create(self.path, meta)
        except (OSError, sqlite3.Error) as error:
            raise RunError(
                f"the run `{folder}` cannot be written",
                facts={"reason": error},
                hint="choose a folder that exists and is yours to write: `trace(model, run=...)`",
            ) from error
        self._thread = threading.Thread(target=self._work, name="tensorscope-writer", daemon=True)
        self._thread.start()

    def meta(self, **facts: Any) -> None:
        """Add or replace facts about the run."""
        rows = [(key, json.dumps(value)) for key, value in facts.items()]
        self._put(lambda db: _many(db, "INSERT OR REPLACE INTO meta VALUES (?, ?)", rows))

    def modules(self, modules: Sequence[ModuleInfo]) -> None:
        """Record the model's modules, in order."""
        rows = [(json.dumps(asdict(module)),) for module in modules]
        self._put(lambda db: _many(db, "INSERT INTO module (info) VALUES (?)", rows))

    def site(self, site: Site) -> int:
        """Id of a site, recorded when first asked for."""
        known = self._sites.get(site)
        if known is None:
            known = self._sites[site] = len(self._sites)
            row = (known, site.path, str(site.kind), site.place, site.call, int(site.gradient))
            self._put(lambda db: _one(db, "INSERT INTO site VALUES (?, ?, ?, ?, ?, ?)", row))
        return known

    def shape(self, site: int, shape: Shape) -> None:
        """Record the shape that a site has from `shape.step` on."""
        row = (site, shape.step, json.dumps(asdict(shape)))
        self._put(lambda db: _one(db, "INSERT INTO shape (site, step, info) VALUES (?, ?, ?)", row))

    def frame(self, kind: str, step: int, series: tuple[Any, ...], rows: Callable[[], Rows]) -> None:
        """Record one row per series at a step.

        Args:
            kind: a key of `schema.ROWS`.
            step: the step that they belong to.
            series: site ids, or names of scalars.
            rows: (series, width) array; called in the writer's thread, so that it may wait for a device.
        """
        self._step = max(self._step, step)
        layout = self._layout(kind, series)
        width, dtype = schema.ROWS[kind]

        if self._frames_put - self._frames_taken >= FRAMES_WAITING:
            self.dropped += 1
            return
        self._frames_put += 1

        def write(db: sqlite3.Connection) -> None:
            self._frames_taken += 1
            try:
                values = np.ascontiguousarray(rows(), dtype).reshape(len(series), width)
            except (RuntimeError, ValueError, TypeError) as error:  # a device that failed, say: the run says so
                text = f"{kind} of step {step} could not be fetched: {type(error).__name__}: {error}"
                _one(db, "INSERT INTO note (step, wall, text) VALUES (?, ?, ?)", (step, time.time(), text))
                return
            _one(db, "INSERT INTO frame (layout, step, data) VALUES (?, ?, ?)", (layout, step, values.tobytes()))

        self._put(write)

    def note(self, step: int, text: str) -> None:
        """Record something that happened, such as a failure while measuring."""
        row = (step, time.time(), text)
        self._put(lambda db: _one(db, "INSERT INTO note (step, wall, text) VALUES (?, ?, ?)", row))

    def document(self, key: str, text: str) -> None:
        """Record a text under a key: the graph, the findings, the reports."""
        self._put(lambda db: _one(db, "INSERT OR REPLACE INTO document VALUES (?, ?)", (key, text)))

    def flush(self) -> None:
        """Wait until everything handed over so far is in the file."""
        done = threading.Event()
        if os.getpid() == self._pid and self._thread.is_alive():
            self._commands.put(done)
            while not done.wait(0.1) and self._thread.is_alive():
                pass

    def close(self, **facts: Any) -> None:
        """Write what is queued, then `facts` into the meta table, and close the file."""
        if os.getpid() != self._pid or not self._thread.is_alive():
            return
        self.meta(**facts)
        self._commands.put(None)
        self._thread.join()

    def _layout(self, kind: str, series: tuple[Any, ...]) -> int:
        key = (kind, series)
        known = self._layouts.get(key)
        if known is None:
            known = self._layouts[key] = len(self._layouts)
            row = (known, kind, json.dumps(series))
            self._put(lambda db: _one(db, "INSERT INTO layout VALUES (?, ?, ?)", row))
        return known

    def _put(self, command: Command) -> None:
        if os.getpid() != self._pid or self.failure:  # a forked child has no writer thread
            self.dropped += 1
        else:
            self._commands.put(command)

    def _work(self) -> None:
        try:
            db = _connect(self.path)
            try:
                while self._transaction(db):
                    pass
                _become_one_file(db)
            finally:
                db.close()
        except (sqlite3.Error, OSError, RuntimeError, ValueError) as error:
            self.failure = f"{type(error).__name__}: {error}"

    def _transaction(self, db: sqlite3.Connection) -> bool:
        commands, end = self._gather()
        with db:
            for command in commands:
                command(db)
            _one(db, "UPDATE beat SET wall = ?, step = ?, dropped = ?", (time.time(), self._step, self.dropped))
        if isinstance(end, threading.Event):
            end.set()
        return end is not None

    def _gather(self) -> tuple[list[Command], threading.Event | bool | None]:
        """Wait for commands until a transaction is due; also why it is: an event asked, None ended the file, True."""
        commands: list[Command] = []
        due = time.monotonic() + BEAT_SECONDS
        while (left := due - time.monotonic()) > 0 and len(commands) < TRANSACTION_LENGTH:
            try:
                command = self._commands.get(timeout=left)
            except queue.Empty:
                break
            if command is None or isinstance(command, threading.Event):
                return commands, command
            if not commands:
                due = min(due, time.monotonic() + COMMIT_SECONDS)
            commands.append(command)
        return commands, True


def create(path: Path, meta: dict[str, Any]) -> None:
    """Create a run file with its tables, whole or not at all."""
    db = _connect(path, new=True)
    try:
        db.executescript(
            f"BEGIN; {schema.TABLES} PRAGMA application_id = {schema.APPLICATION_ID};"
            f"PRAGMA user_version = {schema.VERSION};"
            f"INSERT INTO beat VALUES (0, {time.time()}, 0, 0); COMMIT;"
        )
        with db:
            _many(db, "INSERT INTO meta VALUES (?, ?)", [(key, json.dumps(value)) for key, value in meta.items()])
    finally:
        db.close()


def _connect(path: Path, *, new: bool = False) -> sqlite3.Connection:
    mode = "rwc" if new else "rw"
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=10)
    # WAL lets readers read while we write; file systems without it keep their rollback journal.
    db.execute("PRAGMA journal_mode=WAL").fetchall()
    db.execute("PRAGMA synchronous=NORMAL")
    return db


def _become_one_file(db: sqlite3.Connection) -> None:
    """Fold the log into the file, which can then be read where nothing may be written; impossible while others read."""
    db.execute("PRAGMA busy_timeout=200")
    with suppress(sqlite3.OperationalError):
        db.execute("PRAGMA journal_mode=DELETE").fetchall()


def _one(db: sqlite3.Connection, sql: str, row: Sequence[Any]) -> None:
    db.execute(sql, row)


def _many(db: sqlite3.Connection, sql: str, rows: Sequence[Sequence[Any]]) -> None:
    db.executemany(sql, rows)


def fresh_folder(folder: Path) -> Path:
    """Make room for a new run at `folder`: a finished run that is there moves to `<folder>.1`, then `.2`, and so on.

    Raises:
        RunError: a training is writing a run there now, or something that is not a run is in the way.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return folder
    if not folder.is_dir() or not (folder / schema.file_name(0)).exists():
        raise RunError(
            f"`{folder}` exists and is not a run",
            facts={"found": "a file" if not folder.is_dir() else "a folder with other things in it"},
            hint="give the run a name of its own, such as `runs/mine`",
        )
    if is_live(folder):
        raise RunError(
            f"another training is writing `{folder}` now", hint="give this run a name of its own, or end the other one"
        )
    number = next(n for n in range(1, 1_000_000) if not folder.with_name(f"{folder.name}.{n}").exists())
    folder.rename(folder.with_name(f"{folder.name}.{number}"))
    return folder
