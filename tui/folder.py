"""Lists the runs below a folder; what has not changed since the last look is not read again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tensorscope.errors import RunError
from tensorscope.run.folders import find_runs
from tensorscope.run.reader import Run

if TYPE_CHECKING:
    from pathlib import Path

Signature = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One run of a list.

    Attributes:
        path: its folder.
        name: the path below the listed folder.
        model: class name of the traced model.
        status: `running`, `finished`, `interrupted`, `died`, or `unreadable`.
        steps: how many steps it has.
        loss: the newest logged loss, None if there is none.
        created: when it began, in seconds since 1970; None if unknown.
        problem: why it cannot be read.
    """

    path: Path
    name: str
    model: str = ""
    status: str = "unreadable"
    steps: int = 0
    loss: float | None = None
    created: float | None = None
    problem: str = ""


class Folder:
    """The runs below a folder; only ever used by one worker at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[Path, tuple[Signature, Entry]] = {}

    def entries(self) -> tuple[Entry, ...]:
        """Every run, the newest first; one that cannot be read says why."""
        found = [(path, _signature(path)) for path in find_runs(self.path)] if self.path.is_dir() else []
        fresh: dict[Path, tuple[Signature, Entry]] = {}
        for path, signature in found:
            known = self._known.get(path)
            # A run that is still going may die without touching its files.
            settled = known is not None and known[0] == signature and known[1].status != "running"
            fresh[path] = known if known is not None and settled else (signature, self._read(path))
        self._known = fresh
        return tuple(entry for _, entry in fresh.values())

    def _read(self, path: Path) -> Entry:
        name = str(path.relative_to(self.path)) if path != self.path else path.resolve().name
        try:
            run = Run(path)
        except RunError as error:
            return Entry(path, name, problem=_plain(error.title))
        try:
            return _entry(run, path, name)
        except RunError as error:
            return Entry(path, name, problem=_plain(error.title))
        except (LookupError, TypeError, ValueError) as error:  # tables that hold something else than they should
            return Entry(path, name, problem=f"its tables are damaged: {error!r}")
        finally:
            run.close()


def _entry(run: Run, path: Path, name: str) -> Entry:
    meta = run.meta
    created = meta.get("created")
    return Entry(
        path,
        name,
        model=str(meta.get("model", "")),
        status=run.status,
        steps=run.last_step + 1,
        loss=_last_loss(run),
        created=float(created) if isinstance(created, (int, float)) else None,
    )


def _plain(title: str) -> str:
    """An error's title without the path, which the list shows anyway."""
    return " ".join(re.sub(r"`[^`]*`", "", title).split())


def _last_loss(run: Run) -> float | None:
    newest = run.last_scalars()
    names = sorted((name for name in newest if "loss" in name.lower()), key=len)
    return newest[names[0]][1] if names else None


def _signature(folder: Path) -> Signature:
    facts = ((file, file.stat()) for file in sorted(folder.glob("rank*.sqlite*")))
    return tuple((file.name, fact.st_mtime_ns, fact.st_size) for file, fact in facts)
