"""Makes run files: whole or not at all, and never over what another training writes."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import sqlite3
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorscope.errors import RunError
from tensorscope.run import schema
from tensorscope.run.folders import is_live, process_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

_LAUNCH = ".rank.launch"  # file in a run's folder that says which launch's processes write there


def claim(folder: Path, meta: dict[str, Any], rank: int, resume: int | None) -> Path:
    """Create a rank's file in a run's folder; a further part of it if the training is resumed at a step.

    Raises:
        RunError: the file cannot be created, or another training writes this run.
    """
    part = 0
    if resume is not None:
        meta = meta | {"first_step": resume}
        while (folder / schema.file_name(rank, part)).exists():
            part += 1
    path = folder / schema.file_name(rank, part)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if part and is_live(folder / schema.file_name(rank, part - 1)):
            raise _taken(folder)
        _create(path, meta)
    except FileExistsError as error:
        if path.exists():
            raise _taken(folder) from error
        raise _not_written(folder, error) from error
    except (OSError, sqlite3.Error) as error:
        if isinstance(error, RunError):
            raise
        raise _not_written(folder, error) from error
    return path


def place_run(path: Path | None, model: str, launch: str | None, *, resumes: bool) -> Path:
    """The folder for a new run, the same one for all processes of a launch.

    Args:
        path: where the user wants it; None for `runs/<model>-<date>-<time>`.
        model: the model's class name.
        launch: what the processes of one launch have in common; None if there is only this one.
        resumes: whether the run at `path` goes on.

    Raises:
        RunError: a training is writing a run there now, or something that is not a run is in the way.
    """
    if path is not None and resumes:
        return path
    if launch is None:
        return _unused(Path("runs"), model) if path is None else fresh_folder(path)
    parent = Path("runs") if path is None else path.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with _alone(parent):  # the first process of a launch makes the folder, the others join it
            folders = parent.iterdir() if path is None else [path]
            joined = next((folder for folder in folders if _launch_of(folder) == launch), None)
            if joined is not None:
                return joined
            folder = _unused(parent, model) if path is None else _make_room(path)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _LAUNCH).write_text(launch)
            return folder
    except OSError as error:
        raise error if isinstance(error, RunError) else _not_written(path or parent, error) from error


def _launch_of(folder: Path) -> str | None:
    try:
        return (folder / _LAUNCH).read_text()
    except OSError:
        return None


def _unused(parent: Path, model: str) -> Path:
    stem = parent / f"{model}-{time.strftime('%Y%m%d-%H%M%S')}"
    others = (stem.with_name(f"{stem.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([stem], others) if not path.exists())


def fresh_folder(folder: Path) -> Path:
    """Make room for a new run at `folder`: a finished run that is there moves to `<folder>.1`, then `.2`, and so on.

    Raises:
        RunError: a training is writing a run there now, or something that is not a run is in the way.
    """
    if not folder.exists():
        return folder
    with _alone(folder.parent):  # else two trainings might move away each other's new run
        return _make_room(folder)


def _make_room(folder: Path) -> Path:
    if not folder.exists() or (folder.is_dir() and not any(_visible(folder))):
        return folder
    if not folder.is_dir() or not any(folder.glob("rank*.sqlite")):
        raise RunError(
            f"`{folder}` exists and is not a run",
            facts={"found": "a file" if not folder.is_dir() else "a folder with other things in it"},
            hint="give the run a name of its own, such as `runs/mine`",
        )
    if any(is_live(file) for file in folder.glob("rank*.sqlite")):
        raise _taken(folder)
    number = next(n for n in itertools.count(1) if not folder.with_name(f"{folder.name}.{n}").exists())
    folder.rename(folder.with_name(f"{folder.name}.{number}"))
    return folder


def _visible(folder: Path) -> Iterator[Path]:
    """What is in a folder, but for files that somebody is still making."""
    return (path for path in folder.iterdir() if not path.name.startswith(".rank"))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other trainings from changing the names in a folder, where the system has locks."""
    try:
        import fcntl

        lock = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        with suppress(OSError):  # some network file systems have none
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_UN)  # a forked child may hold it, too
    finally:
        os.close(lock)


def _taken(folder: Path) -> RunError:
    return RunError(
        f"another training is writing `{folder}` now", hint="give this run a name of its own, or end the other one"
    )


def _not_written(folder: Path, reason: Exception) -> RunError:
    return RunError(
        f"the run `{folder}` cannot be written",
        facts={"reason": reason},
        hint="choose a folder that exists and is yours to write: `trace(model, run=...)`",
    )


def _create(path: Path, meta: dict[str, Any]) -> None:
    """Create a run file with its tables, whole or not at all.

    Raises:
        FileExistsError: there is one of that name; it is left alone.
        OSError: it cannot be created.
        sqlite3.Error: likewise.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    run_id = secrets.token_hex(8)  # in every beat, too: a log that belongs to another run is known by it
    try:
        db = sqlite3.connect(draft)
        try:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # must come before the first table
            layouts = ", ".join(f"({number}, '{kind}', 'null')" for number, kind in enumerate(schema.NUMBERED))
            db.executescript(
                f"BEGIN; {schema.TABLES} PRAGMA application_id = {schema.APPLICATION_ID};"
                f"PRAGMA user_version = {schema.VERSION}; INSERT INTO layout VALUES {layouts};"
                f"INSERT INTO beat VALUES (0, {time.time()}, {time.monotonic()}, -1, 0, '{run_id}'); COMMIT;"
            )
            with db:
                db.executemany(
                    "INSERT INTO meta VALUES (?, ?)",
                    meta_rows({"run_id": run_id} | process_facts() | meta),
                )
        finally:
            db.close()
        _place(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _place(draft: Path, path: Path) -> None:
    """Give a file its name if nobody else has it."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        os.replace(draft, path)


def meta_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Facts as rows of the meta table; what JSON does not know is told as text."""
    return [(key, json.dumps(value, default=str)) for key, value in facts.items()]
