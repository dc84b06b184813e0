"""Where runs are on disk, and whether the process that writes one is alive."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tensorscope.errors import RunError, did_you_mean
from tensorscope.run.database import Database

SILENCE_SECONDS = 15.0  # a writer that cannot be looked at from here and has been silent this long counts as dead
CLOCK_SECONDS = 10.0  # how far the clock may have been set while the run was written
SUSPENDED_SECONDS = 600.0  # likewise one whose process still seems to exist, where its start is not known
BOOT = Path("/proc/sys/kernel/random/boot_id")


class Beat(NamedTuple):
    """When a writer last said that it lives.

    Attributes:
        wall: seconds since 1970, by its clock.
        monotonic: seconds of `time.monotonic()`, which all processes of one boot share; None where it was not kept.
    """

    wall: float
    monotonic: float | None = None

    @classmethod
    def now(cls) -> Beat:
        """This moment."""
        return cls(time.time(), time.monotonic())


def find_runs(folder: str | os.PathLike[str]) -> list[Path]:
    """Folders that hold a run, at `folder` or anywhere below it, the newest first."""
    files = Path(folder).rglob("rank*.sqlite")
    return sorted({file.parent for file in files}, key=_modified, reverse=True)


def is_live(path: str | os.PathLike[str]) -> bool:
    """Whether a training is writing the run at `path` now; false for anything that cannot be read."""
    try:
        database = Database(rank_files(Path(path))[0])
        meta = {key: json.loads(value) for key, value in database.rows("SELECT key, value FROM meta")}
        beat = last_beat(database)
        database.close()
    except (RunError, ValueError, TypeError):
        return False
    return meta.get("status") == "running" and is_alive(meta, beat)


def _modified(folder: Path) -> float:
    return max((file.stat().st_mtime for file in folder.glob("rank*.sqlite*")), default=0.0)


def rank_of(file: Path) -> int:
    """The rank that wrote a file."""
    return part_of(file)[0]


def part_of(file: Path) -> tuple[int, int]:
    """The rank that wrote a file, and how many files it wrote before: `rank2.1.sqlite` is rank 2's second."""
    found = re.match(r"rank(\d+)(?:\.(\d+))?\.sqlite", file.name)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def rank_files(path: Path) -> list[Path]:
    """The files of a run: the lowest rank's first, the parts of each rank in the order in which they were written.

    Raises:
        RunError: there is none.
    """
    if path.is_file():
        return [path]
    if not path.exists():
        near = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
        raise RunError(f"the run `{path}` does not exist", hint=did_you_mean(path.name, near))
    files = sorted(path.glob("rank*.sqlite"), key=part_of)
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


def last_beat(database: Database) -> Beat:
    """The newest beat that a file holds; one from 1970 where it holds none.

    Raises:
        RunError: the file cannot be read.
    """
    columns = [name for _, name, *_ in database.rows("PRAGMA table_info(beat)")]
    kept = [name for name in Beat._fields if name in columns]
    rows = database.rows(f"SELECT {', '.join(kept)} FROM beat") if kept else []
    return Beat(*(float(value) for value in rows[0] if value is not None)) if rows else Beat(0.0)


def process_facts() -> dict[str, Any]:
    """What tells this process from every other one, for the meta of a run: `is_alive` compares it."""
    facts: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid()}
    with suppress(OSError):
        facts["boot_id"] = BOOT.read_text().strip()
    with suppress(OSError):
        facts["pid_namespace"] = os.readlink("/proc/self/ns/pid")
    if (found := _process(os.getpid())) is not None:
        facts["process_started"] = found[1]
    return facts


def is_alive(meta: dict[str, Any], beat: Beat) -> bool:
    """Whether a run's writer is alive, as far as can be told from here.

    Where the writer's process can be looked at, that decides, and no clock does. Otherwise its silence decides: by the
    monotonic clock within one boot (a container beside this one), else by the wall clock (another machine), where a
    beat from the future is a fresh one.

    Args:
        meta: what the run says about itself; best with `process_facts()` in it.
        beat: when it last said that it lives.
    """
    here = process_facts()
    same_host = meta.get("host") == here["host"]
    boots = meta.get("boot_id"), here.get("boot_id")
    same_boot = boots[0] == boots[1] if None not in boots else same_host and not _is_later_boot(beat)
    if same_boot and meta.get("pid_namespace", here.get("pid_namespace")) == here.get("pid_namespace"):
        return _runs(meta, beat)
    return _silence(beat, same_boot=same_boot) < SILENCE_SECONDS


def _is_later_boot(beat: Beat) -> bool:
    """Whether the machine was started anew since a beat of its own: the monotonic clock then began anew too."""
    return beat.monotonic is not None and beat.monotonic > time.monotonic() + 1


def _silence(beat: Beat, *, same_boot: bool) -> float:
    """Seconds since a beat."""
    # A time namespace has a monotonic clock of its own, which may be behind.
    if same_boot and beat.monotonic is not None and not _is_later_boot(beat):
        return time.monotonic() - beat.monotonic
    return time.time() - beat.wall


def _runs(meta: dict[str, Any], beat: Beat) -> bool:
    """Whether the writer's process exists here, has not ended, and is not a later one with the same number."""
    pid = meta.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    found = _process(pid)
    if found is not None and found[0] in "ZX":
        return False
    if found is not None and "process_started" in meta:
        return bool(found[1] == meta["process_started"])
    created = meta.get("created")
    later = found is not None and isinstance(created, int | float) and _began(found[1]) > created + CLOCK_SECONDS
    return not later and _silence(beat, same_boot=True) < SUSPENDED_SECONDS


def _process(pid: int) -> tuple[str, int] | None:
    """State of a process, and its start in clock ticks since the boot; None where there is no `/proc` to say."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return state, int(fields[18])
    except (OSError, ValueError, IndexError):
        return None


def _began(ticks: int) -> float:
    """Seconds since 1970 at which a process began, as far as the wall clock can be trusted."""
    boot = re.search(r"btime (\d+)", Path("/proc/stat").read_text())
    return ticks / os.sysconf("SC_CLK_TCK") + (int(boot[1]) if boot else 0)
