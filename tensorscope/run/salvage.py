"""Reads what is left of a damaged run file.

SQLite ends a query at the first page that it cannot read. Here each table is read from both ends up to the damage,
then the gap between is halved again and again, the widest first, to find the rows in it that can be read. They go into
a temporary database with the same tables, which answers from then on. No table of ours is known by name here.
"""

from __future__ import annotations

import heapq
import os
import shutil
import sqlite3
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorscope.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

HEADER = 100  # bytes at the start of an SQLite file that say how it is laid out
LAST = 2**63 - 1  # the largest rowid
FRUITLESS = 1000  # gaps looked into without finding a row, the widest first, before the rest is given up
CACHE_KB = 65_536  # memory that the temporary database may take before it goes to the disk

# SQLite's own errors, and Python's when it cannot read the text of one that quotes a damaged schema.
UNREADABLE = (sqlite3.Error, UnicodeDecodeError)

Row = tuple[Any, ...]
_TYPES: dict[str, tuple[type, ...]] = {"INTEGER": (int,), "REAL": (float, int), "TEXT": (str,), "BLOB": (bytes,)}


@dataclass(frozen=True, slots=True)
class Salvage:
    """What could be read.

    Attributes:
        db: a temporary database with the file's tables; gone when it is closed.
        damage: what was lost, in a sentence.
    """

    db: sqlite3.Connection
    damage: str


def salvage(path: Path, *, with_log: bool = True) -> Salvage:
    """Read every row of a damaged file that can still be read.

    Takes about 3 s of a processor for 1 GB, 64 MiB of memory at most, and as much room in the temporary folder as could
    be read; once more the file's size if it ends within a page.

    Args:
        path: the file.
        with_log: whether to read its write-ahead log too, where there is one.

    Raises:
        RunError: nothing can be read.
    """
    with path.open("rb") as file:
        header = file.read(HEADER)
    best: _Attempt | None = None
    with _whole_pages(path, _page_size(header)) as whole:
        # A log that was cut may undo what has long been in the file: then the file alone says more.
        has_log = with_log and Path(f"{whole}-wal").exists()
        for mode in ("mode=ro", "immutable=1") if has_log else ("immutable=1",):
            if best is None or best.incomplete:
                attempt = _read(whole, mode, header)
                best, worse = (attempt, best) if best is None or attempt.value > best.value else (best, attempt)
                if worse is not None:
                    worse.db.close()
    state = _state(path, header)
    if best is None or not best.rows:
        raise RunError(
            f"the run file `{path}` is damaged: nothing in it can be read",
            facts={"reason": state, "size": f"{path.stat().st_size} bytes"},
            hint="copy the whole folder again from where it was written",
        )
    lost = f"; rows are missing from {', '.join(f'`{n}`' for n in best.incomplete)}" if best.incomplete else ""
    return Salvage(best.db, f"{state}{lost}")


@dataclass(frozen=True, slots=True)
class _Attempt:
    db: sqlite3.Connection
    rows: int
    incomplete: list[str]

    @property
    def value(self) -> tuple[bool, int]:
        return bool(self.rows) and not self.incomplete, self.rows


def _read(path: Path, mode: str, header: bytes) -> _Attempt:
    """Read all there is in a file, with or without its log, into a temporary database."""
    db = sqlite3.connect("", check_same_thread=False, isolation_level=None)
    try:
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KB}"):
            db.execute(f"PRAGMA {setting}").fetchall()
        # What our file says that it is, at the places where SQLite keeps it.
        db.execute(f"PRAGMA application_id = {int.from_bytes(header[68:72], 'big', signed=True)}")
        db.execute(f"PRAGMA user_version = {int.from_bytes(header[60:64], 'big', signed=True)}")
        incomplete = _copy(path, mode, db)
        rows = sum(db.execute(f"SELECT count(*) FROM {_quoted(name)}").fetchone()[0] for name in _tables(db))
    except (*UNREADABLE, OSError):
        db.close()
        raise
    return _Attempt(db, rows, incomplete)


def _page_size(header: bytes) -> int:
    size = int.from_bytes(header[16:18], "big")
    return 65_536 if size == 1 else max(size, 512)


def _state(path: Path, header: bytes) -> str:
    said = int.from_bytes(header[28:32], "big") * _page_size(header)
    size = path.stat().st_size
    early = size < said
    return f"the file ends early: {size // 1024} of {said // 1024} KB are there" if early else "the file is damaged"


@contextmanager
def _whole_pages(path: Path, page: int) -> Iterator[Path]:
    """The file without a page that is there only in part: SQLite would take what is missing of it for zeros."""
    beyond = path.stat().st_size % page
    if not beyond:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="tensorscope-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / path.name
        for side in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{side}", f"{copy}{side}")
        os.truncate(copy, copy.stat().st_size - beyond)
        yield copy


def _copy(path: Path, mode: str, target: sqlite3.Connection) -> list[str]:
    """Copy all rows that can be read; the names of the tables that some could not be read from."""
    try:
        source = sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True, timeout=5)
    except UNREADABLE:
        return []
    try:
        source.text_factory = _text
        # A schema that may be written is also read where parts of it, or of the file, are missing.
        for setting in ("writable_schema = ON", "cell_size_check = ON", "trusted_schema = OFF"):
            source.execute(f"PRAGMA {setting}").fetchall()
        for *_, sql in _Table(source, "sqlite_master").by_rowid():
            if isinstance(sql, str) and sql.startswith(("CREATE TABLE", "CREATE INDEX", "CREATE UNIQUE INDEX")):
                _try(target, sql)
        return [name for name in _tables(target) if not _copy_table(_Table(source, name), target)]
    except UNREADABLE:
        return []
    finally:
        source.close()


def _copy_table(table: _Table, target: sqlite3.Connection) -> bool:
    """Copy the rows of one table that can be read and are what its columns say; whether that is all of them."""
    columns = target.execute(f"PRAGMA table_info({_quoted(table.name)})").fetchall()
    names = [_quoted(name) for _, name, *_ in columns]
    types = [_TYPES.get(kind.upper(), (int, float, str, bytes)) for _, _, kind, *_ in columns]
    keys = [names[at] for at, (*_, place) in sorted(enumerate(columns), key=lambda c: c[1][-1]) if place]
    if _has_rowid(target, table.name):
        rows = table.by_rowid()
        is_key = len(keys) == 1 and columns[names.index(keys[0])][2].upper() == "INTEGER"
        skipped = int(is_key)  # the rowid is one of the columns
        names, types = ["rowid", *names][skipped:], [(int,), *types][skipped:]
    else:
        rows, skipped = table.by_key(keys), 0
    sql = f"INSERT OR IGNORE INTO {_quoted(table.name)} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    good = (row[skipped:] for row in rows)
    whole = True

    def checked() -> Iterator[Row]:
        nonlocal whole
        for row in good:
            if all(value is None or isinstance(value, kinds) for value, kinds in zip(row, types, strict=True)):
                yield row
            else:
                whole = False

    target.execute("BEGIN")
    target.executemany(sql, checked())
    target.execute("COMMIT")
    return whole and not table.is_incomplete


def _has_rowid(db: sqlite3.Connection, name: str) -> bool:
    try:
        db.execute(f"SELECT rowid FROM {_quoted(name)} LIMIT 0")
    except sqlite3.OperationalError:
        return False
    return True


class _Table:
    """A table that may be damaged.

    Attributes:
        name: its name.
        is_incomplete: whether something could not be read so far.
    """

    def __init__(self, db: sqlite3.Connection, name: str) -> None:
        self.name = name
        self.is_incomplete = False
        self._db = db

    def by_rowid(self) -> Iterator[Row]:
        """Every row that can be read, its rowid first; in no order, and some of them twice."""
        low, whole = yield from self._climb(0, LAST)
        if whole:
            return
        high, whole = yield from self._descend(low, LAST)
        gaps = [(low - high, low, high)]
        if high == LAST:  # the end is lost too: islands are looked for further and further from here
            gaps = []
            at = low
            while at < LAST and not whole:
                after, whole = yield from self._climb(at, LAST)
                if after > at:
                    gaps.append((low - at, low, at - 1))
                    low = after
                at = max(after, at) + max(1, (at - low) // 4)
        yield from self._fill(gaps)

    def _fill(self, gaps: list[tuple[int, int, int]]) -> Iterator[Row]:
        """Rows within gaps, the widest first; each is (minus its width, low, high)."""
        heapq.heapify(gaps)
        fruitless = 0
        while gaps and fruitless < FRUITLESS:
            _, low, high = heapq.heappop(gaps)
            first, whole = yield from self._climb(low, high)
            last = high
            if not whole:
                last, whole = yield from self._descend(first, high)
            fruitless = fruitless + 1 if (first, last) == (low, high) else 0
            if not whole and first < last:
                middle = (first + last) // 2
                heapq.heappush(gaps, (first - middle, first, middle))
                heapq.heappush(gaps, (middle + 1 - last, middle + 1, last))

    def _climb(self, low: int, high: int) -> Generator[Row, None, tuple[int, bool]]:
        """Rows from the low end of a range up to the first bad one: how far, and whether that was all of it."""
        last, whole = yield from self._scan("ASC", low, high)
        return (low if last is None else max(low, last + 1)), whole

    def _descend(self, low: int, high: int) -> Generator[Row, None, tuple[int, bool]]:
        last, whole = yield from self._scan("DESC", low, high)
        return (high if last is None else min(high, last - 1)), whole

    def _scan(self, order: str, low: int, high: int) -> Generator[Row, None, tuple[int | None, bool]]:
        sql = f"SELECT rowid, * FROM {_quoted(self.name)} WHERE rowid BETWEEN ? AND ? ORDER BY rowid {order}"
        last = None
        for limit in ("", " LIMIT 1"):  # the row just before a bad one is lost to Python: ask for it alone
            try:
                for row in self._db.execute(sql + limit, (low, high)):
                    last = row[0]
                    yield row
                return last, not limit
            except UNREADABLE:
                self.is_incomplete = True
            if last is not None:
                low, high = (last + 1, high) if order == "ASC" else (low, last - 1)
        return last, False

    def by_key(self, keys: list[str]) -> Iterator[Row]:
        """Every row of a table without rowid that can be read; some of them twice."""
        for order in ("ASC", "DESC"):
            ordered = f"FROM {_quoted(self.name)} ORDER BY {', '.join(f'{key} {order}' for key in keys)}"
            good, whole = yield from self._until_bad(f"SELECT * {ordered}", ())
            if whole:
                return
            # Keys lie in the tree itself, long values elsewhere: a row that cannot be read does not hide the next key.
            keys_only = self._until_bad(f"SELECT {keys[0]} {ordered}", ())
            beyond = sum(1 for _ in keys_only) - good
            for place in range(good, good + min(beyond, FRUITLESS)):
                yield from self._until_bad(f"SELECT * {ordered} LIMIT 1 OFFSET ?", (place,))

    def _until_bad(self, sql: str, values: Row) -> Generator[Row, None, tuple[int, bool]]:
        """Rows of a query up to the first bad one: how many, and whether that was all of them."""
        count = 0
        try:
            for row in self._db.execute(sql, values):
                count += 1
                yield row
        except UNREADABLE:
            self.is_incomplete = True
            return count, False
        return count, True


def _try(db: sqlite3.Connection, sql: str) -> None:
    try:
        db.execute(sql)
    except (*UNREADABLE, sqlite3.Warning):
        return  # damaged SQL, or a table that an earlier source had


def _tables(db: sqlite3.Connection) -> list[str]:
    names = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~'")
    return [str(name) for (name,) in names.fetchall()]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(data: bytes) -> str | None:
    try:
        return None if 0 in data else data.decode()  # zeros are what a lost page is read as
    except UnicodeDecodeError:
        return None
