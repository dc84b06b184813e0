"""Opens a run file for reading and asks it questions; whatever is wrong with the file comes out as a `RunError`."""

from __future__ import annotations

import os
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

from tensorscope.errors import RunError
from tensorscope.run import schema

if TYPE_CHECKING:
    from pathlib import Path


SMALLEST = 512  # bytes of the smallest page that SQLite knows


class Database:
    """Read-only connection to one rank's file, safe to use from several threads.

    Args:
        path: the file.

    Raises:
        RunError: it is missing, empty, not ours, newer than this version, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
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
                if self._db is None:
                    self._db = self._connect()
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise self._damaged(error) from error

    def changed(self) -> int:
        """A number that moves when the file has changed."""
        return int(self.rows("PRAGMA data_version")[0][0])

    def close(self) -> None:
        """Close the connection; the next question opens it again."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _connect(self) -> sqlite3.Connection:
        uri = self.path.resolve().as_uri()
        db = sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=5, check_same_thread=False)
        try:
            db.execute("PRAGMA schema_version").fetchall()
        except sqlite3.OperationalError:
            db.close()
            if os.access(self.path.parent, os.W_OK):
                raise
            # A write-ahead log cannot be shared in a folder that allows no writing: read the file as it stands.
            db = sqlite3.connect(f"{uri}?immutable=1", uri=True, check_same_thread=False)
        return db

    def _check_format(self) -> None:
        application, version = (self.rows(f"PRAGMA {name}")[0][0] for name in ("application_id", "user_version"))
        if self.path.stat().st_size < SMALLEST:
            raise self._damaged(sqlite3.DatabaseError("malformed: the file ends within its first page"))
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

    def _damaged(self, error: sqlite3.Error) -> RunError:
        text = str(error)
        if "not a database" in text:
            return RunError(
                f"`{self.path}` is not a tensorscope run",
                facts={"found": "a file that is not SQLite"},
                hint="runs are written by `tensorscope.trace(model, path)`",
            )
        if isinstance(error, sqlite3.DatabaseError) and "malformed" in text:
            return RunError(
                f"the run file `{self.path}` is damaged",
                facts={"reason": text, "size": f"{self.path.stat().st_size} bytes"},
                hint="copy the whole folder again from where it was written",
            )
        return RunError(f"the run file `{self.path}` cannot be read", facts={"reason": text})
