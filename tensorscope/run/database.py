"""Opens a run file for reading and asks it questions; whatever is wrong with the file comes out as a `RunError`."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
import threading
import weakref
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorscope.errors import RunError
from tensorscope.run import schema
from tensorscope.run.filesystem import file_system, is_odd
from tensorscope.run.salvage import UNREADABLE, salvage

if TYPE_CHECKING:
    from collections.abc import Callable

SMALLEST = 512  # bytes of the smallest page that SQLite knows
MAGIC = b"SQLite format 3\0"
SIDES = ("-wal", "-journal")  # what SQLite keeps beside a file until it is in the file, or undone
COPIES = 3  # attempts at a copy during which nothing changes
# What the settled part of a file and its log must agree on to belong together.
IDENTITY = "SELECT key, value FROM meta WHERE key IN ('run_id', 'created', 'pid', 'host')"
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Database:
    """Read-only connection to one rank's file, safe to use from several threads.

    A damaged file is read up to the damage and around it. A file that cannot be shared with its writer where it lies
    is read from a copy in the temporary folder, which `changed` renews.

    Args:
        path: the file.

    Raises:
        RunError: it is missing, empty, not ours, newer than this version, or so damaged that nothing can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._copy: Path | None = None
        self._remove_copy: Callable[[], object] | None = None
        self._is_still = False  # whether the connection stays at the file as it was when opened
        self._damage: str | None = None
        self._is_salvaged = False
        self._log_is_foreign = False
        self._opened = 0
        self._stamp: tuple[Any, ...] = ()
        self._identity: list[Any] = []
        if not path.exists():
            raise RunError(f"the run file `{path}` does not exist")
        if not path.stat().st_size:
            raise RunError(
                f"the run file `{path}` is empty", hint="if a training has just begun, try again in a moment"
            )
        self._check_format()

    def rows(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Everything that a query gives; no transaction stays open."""
        with self._lock:
            try:
                return self._ask(sql, values)
            except (*UNREADABLE, OSError) as error:
                raise self._refusal(error) from error

    def changed(self) -> int:
        """A number that moves when the file has changed."""
        with self._lock:
            if self._is_still and self._stamp != self._stamp_now():
                self._release()
        version = int(self.rows("PRAGMA data_version")[0][0])  # may open the file, so it comes first
        return self._opened << 32 | version

    @property
    def damage(self) -> str | None:
        """What of the file is lost, in a sentence; None where nothing is known to be."""
        with suppress(RunError, OSError):
            status = self.rows("SELECT value FROM meta WHERE key = 'status'")
            is_open = status == [(json.dumps("running"),)] and _has_log(self.path)
            if self._damage is None and is_open and not self._side("-wal"):
                return f"its log `{self.path.name}-wal` is missing or empty, and the newest steps with it"
        return self._damage

    def close(self) -> None:
        """Close the connection; the next question opens it again."""
        with self._lock:
            self._release()

    def _ask(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        try:
            self._follow()
            if self._db is None:
                self._db = self._connect()
            return self._db.execute(sql, values).fetchall()
        except UNREADABLE as error:
            if _primary(error) not in _DAMAGED or self._is_salvaged or not self._is_ours():
                raise
        self._salvage()
        assert self._db is not None
        return self._db.execute(sql, values).fetchall()

    def _connect(self) -> sqlite3.Connection:
        self._opened += 1
        self._is_still = False
        self._stamp = self._stamp_now()
        db = self._connect_in_place()
        if self._side("-wal") and self._is_foreign(db):
            db.close()
            self._log_is_foreign = True
            self._damage = f"its log `{self.path.name}-wal` belongs to another run and is left out"
            db = self._open(self.path, "immutable=1")
        with suppress(*UNREADABLE):
            self._identity = db.execute(IDENTITY).fetchall()
        return db

    def _connect_in_place(self) -> sqlite3.Connection:
        sides = any(self._side(side) for side in SIDES)
        if sides and is_odd(file_system(self.path.parent)):
            return self._connect_to_copy()  # the log's index would have to be shared with another machine
        try:
            return self._open(self.path, "mode=ro")
        except sqlite3.OperationalError as error:
            if _primary(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
        # A log needs a file beside it that all may write, and an unfinished transaction somebody who undoes it.
        if sides:
            return self._connect_to_copy()
        self._is_still = True
        return self._open(self.path, "immutable=1")

    def _connect_to_copy(self) -> sqlite3.Connection:
        folder = tempfile.mkdtemp(prefix="tensorscope-")
        self._remove_copy = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        copy = self._copy = Path(folder) / self.path.name
        for _ in range(COPIES):
            before = self._settled()
            for side in ("", *SIDES):
                with suppress(FileNotFoundError):
                    shutil.copyfile(f"{self.path}{side}", f"{copy}{side}")
            if before == self._settled():
                break
        self._is_still = True
        return self._open(copy, "mode=rw")

    def _settled(self) -> tuple[Any, ...]:
        """What changes when pages move between the file and what is beside it; mere growth of the log does not."""
        log = Path(f"{self.path}-wal")
        head = b""
        if self._side("-wal"):
            with log.open("rb") as file:
                head = file.read(32)
        return self.path.stat().st_mtime_ns, self._side("-journal"), head

    def _open(self, path: Path, mode: str) -> sqlite3.Connection:
        db = sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True, timeout=5, check_same_thread=False)
        try:
            db.execute("PRAGMA cell_size_check = ON").fetchall()  # a damaged page is refused, and not read wrongly
            db.execute("PRAGMA schema_version").fetchall()
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _salvage(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
        self._is_salvaged = True
        found = salvage(self._copy or self.path, with_log=not self._log_is_foreign)
        self._opened += 1
        self._db, self._is_still = found.db, True
        self._damage = f"{self._damage}; {found.damage}" if self._damage else found.damage

    def _release(self) -> None:
        if self._db is not None:
            self._db.close()
        if self._remove_copy is not None:
            self._remove_copy()
        self._db = self._copy = self._remove_copy = self._damage = None
        self._is_still = self._is_salvaged = self._log_is_foreign = False

    def _side(self, side: str) -> int:
        """Bytes of a file beside ours, or of ours if `side` is empty; 0 where there is none."""
        try:
            return Path(f"{self.path}{side}").stat().st_size
        except OSError:
            return 0

    def _stamp_now(self) -> tuple[Any, ...]:
        """What tells one state of the file from the next; first, which file it is."""
        stamp: list[Any] = []
        for side in ("", *SIDES):
            with suppress(OSError):
                facts = Path(f"{self.path}{side}").stat()
                stamp += [(facts.st_dev, facts.st_ino), (facts.st_size, facts.st_mtime_ns)]
        return tuple(stamp)

    def _follow(self) -> None:
        """Let go of a file that is no longer at the path: SQLite would mix in the log of the one that is there now.

        Raises:
            RunError: there is none, or one of another run.
        """
        if not self._stamp or self._stamp_now()[:1] == self._stamp[:1]:
            return
        self._release()
        if not self.path.exists():
            raise RunError(f"the run file `{self.path}` does not exist any more")
        with suppress(*UNREADABLE), closing(self._open(self.path, "mode=ro")) as other:
            if other.execute(IDENTITY).fetchall() != self._identity:
                raise RunError(f"another run has taken the place of `{self.path}`", hint="open it anew")

    def _is_foreign(self, db: sqlite3.Connection) -> bool:
        """Whether the log beside the file was written by another run: SQLite itself would mix the two."""
        try:
            with closing(self._open(self.path, "immutable=1")) as alone:
                own = dict(alone.execute(IDENTITY).fetchall())
            if not own.items() <= dict(db.execute(IDENTITY).fetchall()).items():
                return True
            columns = [name for _, name, *_ in db.execute("PRAGMA table_info(beat)").fetchall()]
            if "run_id" in columns and "run_id" in own:
                ((beating,),) = db.execute("SELECT run_id FROM beat").fetchall()
                return bool(json.dumps(beating) != own["run_id"])
        except (*UNREADABLE, ValueError):
            return False  # damaged: that is found out elsewhere
        return False

    def _is_ours(self) -> bool:
        """Whether the file begins as SQLite's do, so that something can be saved of it."""
        try:
            with self.path.open("rb") as file:
                head = file.read(SMALLEST)
        except OSError:
            return False
        return len(head) == SMALLEST and head.startswith(MAGIC)

    def _check_format(self) -> None:
        application, version = (self.rows(f"PRAGMA {name}")[0][0] for name in ("application_id", "user_version"))
        if self._side("") < SMALLEST:
            raise self._refusal(sqlite3.DatabaseError("the file ends within its first page"))
        if application != schema.APPLICATION_ID:
            raise RunError(
                f"`{self.path}` is not a tensorscope run",
                facts={"found": "an SQLite file of another program"},
                hint="runs are written by `tensorscope.trace(model, path)`",
            )
        if version > schema.VERSION:
            raise RunError(
                f"`{self.path}` was written by a newer tensorscope",
                facts={"format": version, "readable": f"up to {schema.VERSION}"},
                hint="upgrade tensorscope to read it",
            )

    def _refusal(self, error: Exception) -> RunError:
        if isinstance(error, RunError):
            return error
        code = _primary(error)
        if code == sqlite3.SQLITE_NOTADB and not self._is_ours():
            return RunError(
                f"`{self.path}` is not a tensorscope run",
                facts={"found": "a file that is not SQLite"},
                hint="runs are written by `tensorscope.trace(model, path)`",
            )
        if code in _DAMAGED or 0 < self._side("") < SMALLEST:
            return RunError(
                f"the run file `{self.path}` is damaged",
                facts={"reason": str(error), "size": f"{self._side('')} bytes"},
                hint="copy the whole folder again from where it was written",
            )
        return RunError(f"the run file `{self.path}` cannot be read", facts={"reason": str(error)})


def _primary(error: Exception) -> int | None:
    """SQLite's primary result code of an error; None where it has none."""
    if isinstance(error, UnicodeDecodeError):
        return sqlite3.SQLITE_CORRUPT  # it could not even be said what is wrong with the schema
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF


def _has_log(path: Path) -> bool:
    """Whether a file is in the mode in which its newest pages are in a log beside it."""
    with path.open("rb") as file:
        return file.read(20)[18:] == b"\2\2"
