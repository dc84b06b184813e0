"""Where runs are on disk, and whether the process that writes one is alive."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

from tensorscope.errors import RunError, did_you_mean
from tensorscope.run import schema
from tensorscope.run.database import Database

SILENCE_SECONDS = 15.0  # a writer on another machine that has been silent this long counts as dead
CLOCK_SECONDS = 10.0  # how far the clock may have been set while the run was written
SUSPENDED_SECONDS = 600.0  # likewise one here whose process still exists: it may be suspended


def find_runs(folder: str | os.PathLike[str]) -> list[Path]:
    """Folders that hold a run, at `folder` or anywhere below it, the newest first."""
    files = Path(folder).rglob(schema.file_name(0))
    return sorted({file.parent for file in files}, key=_modified, reverse=True)


def is_live(path: str | os.PathLike[str]) -> bool:
    """Whether a training is writing the run at `path` now; false for anything that cannot be read."""
    try:
        database = Database(rank_files(Path(path))[0])
        meta = {key: json.loads(value) for key, value in database.rows("SELECT key, value FROM meta")}
        last_seen = float(database.rows("SELECT wall FROM beat")[0][0])
        database.close()
    except RunError:
        return False
    return meta.get("status") == "running" and is_alive(meta, last_seen)


def _modified(folder: Path) -> float:
    return max((file.stat().st_mtime for file in folder.glob("rank*.sqlite*")), default=0.0)


def rank_of(file: Path) -> int:
    """The rank that wrote a file."""
    return int(re.sub(r"\D", "", file.stem) or 0)


def rank_files(path: Path) -> list[Path]:
    """The files of a run, one per rank, lowest first.

    Raises:
        RunError: there is none.
    """
    if path.is_file():
        return [path]
    if not path.exists():
        near = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
        raise RunError(f"the run `{path}` does not exist", hint=did_you_mean(path.name, near))
    files = sorted(path.glob("rank*.sqlite"), key=rank_of)
    if files:
        return files
    below = find_runs(path)
    raise RunError(
        f"the folder `{path}` holds no run",
        facts={"below it": f"{len(below)} runs, such as `{below[0]}`"} if below else {"found": _content(path)},
        hint=f"`tensorscope watch {path}` lists them"
        if below
        else "a run is written by `tensorscope.trace(model, path)`",
    )


def _content(path: Path) -> str:
    names = sorted(entry.name for entry in path.iterdir())
    return f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''}" if names else "nothing"


def is_alive(meta: dict[str, Any], last_seen: float) -> bool:
    """Whether a run's writer is alive, as far as can be told from here.

    Args:
        meta: what the run says about itself.
        last_seen: when it last said that it lives, in seconds since 1970.
    """
    silence = time.time() - last_seen
    if meta.get("host") != socket.gethostname():
        return silence < SILENCE_SECONDS
    return silence < SUSPENDED_SECONDS and _runs(int(meta.get("pid", 0)), float(meta.get("created", last_seen)))


def _runs(pid: int, created: float) -> bool:
    """Whether a process of this machine exists, has not ended, and is not a later one with the same number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = re.search(r"btime (\d+)", Path("/proc/stat").read_text())
    except OSError:
        return True  # not Linux: nothing more to be had
    began = int(fields[18]) / os.sysconf("SC_CLK_TCK") + (int(boot[1]) if boot else 0)
    return state not in "ZX" and began < created + CLOCK_SECONDS
