"""One file of a run: what was written by one rank between a start, or a resumption, and its end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tensorscope.errors import RunError
from tensorscope.events import Kind, ModuleInfo, Shape, Site
from tensorscope.run import schema
from tensorscope.run.database import Database
from tensorscope.run.folders import is_alive, last_beat
from tensorscope.run.measurements import Measurements

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Part(Measurements):
    """Answers questions about one file.

    Args:
        path: the file.

    Raises:
        RunError: here and in every question, if the file is missing, not ours, of another version, or damaged.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(Database(path))
        self._sites: dict[Site, int] = {}
        self._modules: dict[str, int] = {}
        version = self._rows("PRAGMA user_version")[0][0]
        if version < schema.VERSION:
            raise RunError(
                f"`{path}` was written by an older tensorscope",
                facts={"format": version, "readable": schema.VERSION},
                hint="read it with the version that wrote it, or record the run anew",
            )

    @property
    def meta(self) -> dict[str, Any]:
        """What the run says about itself."""
        return {key: json.loads(value) for key, value in self._rows("SELECT key, value FROM meta")}

    @property
    def first_step(self) -> int:
        """The step from which on this part counts."""
        rows = self._rows("SELECT value FROM meta WHERE key = 'first_step'")
        return int(json.loads(rows[0][0])) if rows else 0

    @property
    def status(self) -> str:
        """`running`, `finished`, `interrupted` or `died`."""
        meta = self.meta
        status = str(meta.get("status", "running"))
        return "died" if status == "running" and not is_alive(meta, last_beat(self.database)) else status

    @property
    def last_seen(self) -> float:
        """When the writer last said that it lives, in seconds since 1970."""
        return last_beat(self.database).wall

    @property
    def last_step(self) -> int:
        """The newest step that counts; −1 before the first."""
        newest = "SELECT coalesce((SELECT step FROM beat), (SELECT max(step) FROM frame), -1)"
        return min(int(self._rows(newest)[0][0]), self.window[1])

    @property
    def dropped(self) -> int:
        """Frames that were left out."""
        return sum(int(number) for (number,) in self._rows("SELECT dropped FROM beat"))

    @property
    def modules(self) -> list[ModuleInfo]:
        """The model's modules, parents before children."""
        infos = (json.loads(text) for (text,) in self._rows("SELECT info FROM module ORDER BY id"))
        return [ModuleInfo(**{**info, "aliases": tuple(info["aliases"])}) for info in infos]

    @property
    def sites(self) -> dict[Site, int]:
        """Id of every site, in the order of first sight; they are only ever added, so only new ones are read."""
        query = "SELECT id, path, kind, nth, call, gradient FROM site WHERE id >= ? ORDER BY id"
        for number, path, kind, nth, call, gradient in self._rows(query, (len(self._sites),)):
            self._sites[Site(path, Kind(kind), place=nth, call=call, gradient=bool(gradient))] = number
        return self._sites

    def numbers(self, kind: str) -> Mapping[Any, int]:
        """Key → number of the series of a kind that its one layout holds."""
        if kind != schema.TIMES:
            return self.sites
        known = self._modules  # modules are only ever added, so only new ones are read
        for number, text in self._rows("SELECT id, info FROM module WHERE id > ? ORDER BY id", (len(known),)):
            known[json.loads(text)["path"]] = number - 1
        return known

    @property
    def notes(self) -> list[tuple[int, str]]:
        """What happened while recording: (step, text)."""
        return [(step, text) for step, text in self._rows("SELECT step, text FROM note ORDER BY id")]

    def document(self, key: str) -> str | None:
        """The text that was recorded under a key."""
        rows = self._rows("SELECT text FROM document WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def shapes(self) -> list[tuple[Site, Shape]]:
        """Every shape that counts, the older first."""
        sites = {number: site for site, number in self.sites.items()}
        query = "SELECT site, info FROM shape WHERE step BETWEEN ? AND ? ORDER BY step, site, nth"
        infos = ((sites[number], json.loads(text)) for number, text in self._rows(query, self.window))
        return [
            (site, Shape(**{**info, "dims": tuple(info["dims"]), "names": tuple(info["names"])}))
            for site, info in infos
        ]
