"""Takes what is to be recorded, at once and without waiting, and has a thread of its own write it to the run file."""

from __future__ import annotations

import itertools
import json
import os
import queue
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorscope.run import schema
from tensorscope.run.blocks import frame_rows, pack_histograms
from tensorscope.run.creation import claim, meta_rows
from tensorscope.run.disk import FRAME, Disk, Statement
from tensorscope.run.sealing import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from tensorscope.events import ModuleInfo, Shape, Site


WAITING = 1024  # commands that may wait; past that, measurements are dropped and counted
WAITING_BYTES = 64 << 20  # likewise, of the numbers in them
# How much fuller the queue may be for what is dropped later; None is never dropped, being as few as sites.
MEASURED, LOGGED, SAID, NEEDED = 1, 2, 4, None
TRANSACTION_LENGTH = 512  # commands in one transaction, at most
COMMIT_SECONDS = 0.1  # how long commands are gathered into one transaction
BEAT_SECONDS = 0.5  # how often the file says that its writer lives
RETRY_SECONDS = 2.0  # between tries while the disk fails
STUCK_SECONDS = 60.0  # how long a closing writer may make no progress before it is left behind
SHAPES_KEPT = 16  # changes of one site's shape; of later ones the newest
NOTES_KEPT = 200
LAST_NOTE = 1 << 30  # id of the note that counts those that were left out
LAYOUTS_OF_SEVERAL = 64  # sets of names of one kind that are stored as rows; then every name by itself
NAMES_KEPT = 4096  # names of one kind that may be stored by themselves

_NOTE = "INSERT OR REPLACE INTO note VALUES (?, ?, ?, ?)"
# What fetching numbers from a device, or from whatever object a user logged, may raise.
_NOT_FETCHED = (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)

Command = Callable[[], Sequence[Statement]]
_Queued = tuple[Command, int | None]  # with the bytes that it takes, None if it is not counted
Rows = np.ndarray[Any, Any]


class Writer:
    """The one who writes a run file.

    Every method returns at once and never raises after the constructor: what cannot be written is dropped and counted;
    `trouble` says what is wrong with the disk, and `failure` why writing has ended.

    Args:
        folder: the run's folder; created.
        meta: JSON-able facts about the run.
        rank: this process's rank.
        resume: the first step of a training that goes on; what the run holds from there on is superseded.
        limits: how much is kept, and in which form.

    Raises:
        RunError: the file cannot be created, or another training writes this run.
    """

    def __init__(
        self,
        folder: Path,
        meta: dict[str, Any],
        rank: int = 0,
        *,
        resume: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.failure: str | None = None
        self.trouble: str | None = None
        self._pid = os.getpid()
        self._sites: dict[Site, int] = {}
        self._modules = 0
        self._layouts: dict[tuple[str, tuple[Any, ...]], int] = {(k, ()): n for n, k in enumerate(schema.NUMBERED)}
        self._layouts_made: Counter[tuple[str, bool]] = Counter()  # of a kind, of one name alone or not
        self._shape_changes: dict[int, int] = {}
        self._notes = itertools.count(1)
        self._notes_left_out = self._notes_told = 0
        self._refused = self._lost = 0  # dropped by those who call, and by the thread
        self._waiting = self._bytes = 0  # commands in the queue that may be dropped, and their numbers
        self._lock = threading.RLock()
        self._commands: queue.SimpleQueue[_Queued | threading.Event | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._seq = self._progress = 0
        self._step = -1  # the newest that was written
        self._unsaved: list[Statement] = []
        self._failing: tuple[str, int, int] | None = None  # why, id of the note, frames dropped before
        self.path = claim(folder, meta, rank, resume)
        self._disk = Disk(self.path, limits or Limits())
        self._thread = threading.Thread(target=self._work, name="tensorscope-writer", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Frames that were left out, because the queue was full or the disk failed."""
        return self._refused + self._lost

    @property
    def is_behind(self) -> bool:
        """Whether the queue is more than half full, so that less should be measured."""
        return 2 * self._waiting > WAITING or 2 * self._bytes > WAITING_BYTES

    def meta(self, **facts: Any) -> None:
        """Add or replace facts about the run."""
        rows = meta_rows(facts)
        self._put(lambda: [("INSERT OR REPLACE INTO meta VALUES (?, ?)", row) for row in rows])

    def modules(self, modules: Sequence[ModuleInfo]) -> None:
        """Record the model's modules, in order."""
        self._modules += len(modules)
        rows = [(json.dumps(asdict(module)),) for module in modules]
        self._put(lambda: [("INSERT INTO module (info) VALUES (?)", row) for row in rows])

    def site(self, site: Site) -> int:
        """Id of a site, recorded when first asked for."""
        known = self._sites.get(site)
        if known is None:
            known = self._sites[site] = len(self._sites)
            row = (known, site.path, str(site.kind), site.place, site.call, int(site.gradient))
            self._put(lambda: [("INSERT INTO site VALUES (?, ?, ?, ?, ?, ?)", row)])
        return known

    def shape(self, site: int, shape: Shape) -> None:
        """Record the shape that a site has from `shape.step` on."""
        nth = self._shape_changes[site] = min(self._shape_changes.get(site, -1) + 1, SHAPES_KEPT)
        sql = "INSERT OR REPLACE INTO shape VALUES (?, ?, ?, ?)"
        patience = SAID if nth else NEEDED
        self._put(lambda: [(sql, (site, nth, int(shape.step), json.dumps(asdict(shape))))], patience)

    def frame(self, kind: str, step: int, series: tuple[Any, ...], rows: Callable[[], Rows]) -> None:
        """Record one row per series at a step.

        Args:
            kind: a key of `schema.WIDTHS`.
            step: the step that they belong to.
            series: ids of sites, numbers of modules, or names of scalars; each once, in any order.
            rows: (series, width) array; called in the writer's thread, so that it may wait for a device.
        """
        width = schema.WIDTHS[kind]
        layouts = self._layouts_of(kind, series)
        known = len(self._sites) if kind == schema.STATS else self._modules

        def fetch() -> Sequence[Statement]:
            try:
                values = np.asarray(rows(), np.float64).reshape(len(series), width)
            except _NOT_FETCHED as error:  # a device that failed, say: the run says so
                self._lost += 1
                return self._noted(step, f"{kind} of step {step} could not be fetched: {type(error).__name__}: {error}")
            self._step = max(self._step, step)
            if kind == schema.HISTOGRAMS:
                return [self._frame(layouts[0], step, pack_histograms(series, values))]
            if kind in schema.NUMBERED:
                return [self._frame(layouts[0], step, frame_rows(kind, values, series, known).tobytes())]
            parts = [values] if len(layouts) == 1 else values[:, None]
            found = zip(layouts, parts, strict=True)
            return [self._frame(n, step, frame_rows(kind, part).tobytes()) for n, part in found if n >= 0]

        self._put(fetch, LOGGED if kind == schema.SCALARS else MEASURED, 8 * width * len(series))

    def note(self, step: int, text: str) -> None:
        """Record something that happened, such as a failure while measuring; the first ones, and how many followed."""
        statements = self._noted(step, text)
        if statements:
            self._put(lambda: statements, SAID)

    def document(self, key: str, text: str) -> None:
        """Record a text under a key: the graph, the findings, the reports."""
        self._put(lambda: [("INSERT OR REPLACE INTO document VALUES (?, ?)", (key, text))], SAID, len(text))

    def flush(self) -> None:
        """Wait until everything handed over so far is in the file, or the disk fails."""
        done = threading.Event()
        if os.getpid() == self._pid and self._thread.is_alive():
            self._commands.put(done)
            while not done.wait(0.1) and self._thread.is_alive() and not self.trouble:
                pass

    def close(self, **facts: Any) -> None:
        """Write what is queued, then `facts` into the meta table, and close the file.

        If the disk fails there is one last try; a disk that does not answer is left behind after a minute.
        """
        if os.getpid() != self._pid or not self._thread.is_alive():
            return
        self.meta(**facts)
        self._commands.put(None)
        self._closing.set()
        progress, since = self._progress, time.monotonic()
        while self._thread.is_alive() and time.monotonic() - since < STUCK_SECONDS:
            self._thread.join(0.5)
            if progress != self._progress:
                progress, since = self._progress, time.monotonic()

    # --- what the callers' threads do --------------------------------------------------------------------------------

    def _layouts_of(self, kind: str, series: tuple[Any, ...]) -> list[int]:
        """The layout that a frame has, or one per name where there are too many sets of names; −1: not kept."""
        if kind in schema.NUMBERED:
            return [self._layouts[kind, ()]]
        known = self._layouts.get((kind, series))
        if known is not None:
            return [known]
        alone = len(series) == 1
        if self._layouts_made[kind, alone] >= (NAMES_KEPT if alone else LAYOUTS_OF_SEVERAL):
            if not alone:
                return [number for name in series for number in self._layouts_of(kind, (name,))]
            self._refused += 1
            return [-1]
        with self._lock:
            self._layouts_made[kind, alone] += 1
            number = self._layouts[kind, series] = len(self._layouts)
        row = (number, kind, json.dumps(series))

        def add() -> Sequence[Statement]:
            self._disk.knows(number, kind)
            return [("INSERT INTO layout VALUES (?, ?, ?)", row)]

        self._put(add)
        return [number]

    def _put(self, command: Command, patience: int | None = NEEDED, size: int = 0) -> None:
        if os.getpid() != self._pid or self.failure:  # a forked child has no writer thread
            self._refused += 1
            return
        with self._lock:
            if patience is not None:
                if self._waiting >= patience * WAITING or self._bytes + size > patience * WAITING_BYTES:
                    self._refused += 1
                    return
                self._waiting, self._bytes = self._waiting + 1, self._bytes + size
            self._commands.put((command, None if patience is None else size))

    def _noted(self, step: int, text: str) -> list[Statement]:
        number = next(self._notes)
        if number > NOTES_KEPT:
            self._notes_left_out = number - NOTES_KEPT
            return []
        return [(_NOTE, (number, int(step), time.time(), text.encode(errors="replace").decode()))]

    # --- what the writer's thread does -------------------------------------------------------------------------------

    def _frame(self, layout: int, step: int, data: bytes) -> Statement:
        self._seq += 1
        return FRAME, (self._seq, layout, int(step), data)

    def _work(self) -> None:
        try:
            end: threading.Event | bool | None = True
            while end is not None:
                commands, end = self._gather()
                self._write(self._statements(commands))
                if isinstance(end, threading.Event):
                    end.set()
            self._finish()
        except (sqlite3.Error, *_NOT_FETCHED) as error:
            self.failure = f"{type(error).__name__}: {error}"

    def _gather(self) -> tuple[list[_Queued], threading.Event | bool | None]:
        """Wait for commands until a transaction is due; also why it is: an event asked, None ended the file, True."""
        commands: list[_Queued] = []
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

    def _statements(self, commands: list[_Queued]) -> list[Statement]:
        """Fetch what is to be written, before the file is locked for it."""
        statements: list[Statement] = []
        for command, size in commands:
            statements += command()
            if size is not None:
                with self._lock:
                    self._waiting, self._bytes = self._waiting - 1, self._bytes - size
        if self._notes_left_out != self._notes_told:
            self._notes_told = self._notes_left_out
            text = f"{self._notes_told} more notes were left out"
            statements.append((_NOTE, (LAST_NOTE, self._step, time.time(), text)))
        return statements

    def _write(self, statements: list[Statement]) -> None:
        """Commit; while the disk fails, keep what is at hand and try again, and let the queue drop what comes."""
        while not (self._closing.is_set() and self.trouble):
            if self._stored(statements):
                self._disk.tend()
                self._progress += 1
                return
            self._closing.wait(RETRY_SECONDS)
        # No more time: what is few and small is tried once more at the end.
        self._unsaved += [statement for statement in statements if statement[0] is not FRAME]
        self._lost += sum(statement[0] is FRAME for statement in statements)

    def _stored(self, statements: list[Statement]) -> bool:
        dropped = self.dropped
        if self._failing is not None:
            reason, number, before = self._failing
            text = (
                f"the disk failed ({reason}); {dropped - before} frames were left out until it could be written again"
            )
            statements = [*statements, (_NOTE, (number, self._step, time.time(), text))]
        try:
            self._lost += self._disk.store(statements, self._step, dropped)
        except (sqlite3.Error, OSError) as error:
            if self._failing is None:
                self._failing = str(error), next(self._notes), dropped
            left_out = dropped - self._failing[2]
            self.trouble = f"`{self.path}` cannot be written ({error}): {left_out} frames were left out so far"
            return False
        self._failing = self.trouble = None
        return True

    def _finish(self) -> None:
        if self._unsaved and not self._stored(self._unsaved):
            self.failure = self.trouble
        if self.failure is None:
            self._disk.finish()
