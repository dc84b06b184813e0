"""Reads a run, also while it is being written. Needs no torch."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tensorscope.errors import RunError, did_you_mean
from tensorscope.events import DERIVED, STORED, Finding, Histogram, Kind, ModuleInfo, Severity, Shape, Site, Stats
from tensorscope.reports import ShapeReport
from tensorscope.run import schema
from tensorscope.run.database import Database
from tensorscope.run.folders import is_alive, rank_files, rank_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from tensorscope.graphs.graph import Graph

Steps = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


def _damage_is_said(run: type[Run]) -> type[Run]:
    """Let what a damaged file makes of our reading come out as a `RunError`."""

    def safe(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def read(self: Run, *args: Any, **kwargs: Any) -> Any:
            try:
                with np.errstate(all="ignore"):
                    return method(self, *args, **kwargs)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                if error.__traceback__ is None or error.__traceback__.tb_next is None:
                    raise  # a wrong call, not a damaged file
                facts = {"reason": f"{type(error).__name__}: {error}", "asked for": method.__name__}
                raise RunError(f"the run `{self.path}` is damaged", facts=facts) from error

        return read

    for name, member in list(vars(run).items()):
        if isinstance(member, property) and member.fget is not None:
            setattr(run, name, property(safe(member.fget)))
        elif callable(member) and not name.startswith("_"):
            setattr(run, name, safe(member))
    return run


@_damage_is_said
class Run:
    """One recorded training.

    Every property asks the file anew, so a live run is always seen as it stands.

    Args:
        path: the run's folder, or one rank's file.

    Raises:
        RunError: here and in every property, if the file is missing, not ours, newer than this version, or damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._files = rank_files(self.path)
        self._db = Database(self._files[0])
        self._sites: dict[Site, int] = {}
        self._series: dict[int, tuple[str, list[Any]]] = {}

    def __repr__(self) -> str:
        return f"<Run {str(self.path)!r} {self.status}, {self.last_step + 1} steps>"

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    @property
    def version(self) -> int:
        """A number that moves when something was written."""
        return self._db.changed()

    @property
    def meta(self) -> dict[str, Any]:
        """Facts about the run: model, settings, environment, how it ended."""
        return {key: json.loads(value) for key, value in self._db.rows("SELECT key, value FROM meta")}

    @property
    def status(self) -> str:
        """`running`, `finished`, `interrupted` (Ctrl-C) or `died` (an error, a kill)."""
        meta = self.meta
        status = str(meta.get("status", "running"))
        return "died" if status == "running" and not is_alive(meta, self.last_seen) else status

    @property
    def last_seen(self) -> float:
        """When the writer last said that it lives, in seconds since 1970."""
        return float(self._db.rows("SELECT wall FROM beat")[0][0])

    @property
    def last_step(self) -> int:
        """The newest step; −1 before the first."""
        return int(self._db.rows("SELECT coalesce(max(step), -1) FROM frame")[0][0])

    @property
    def dropped(self) -> int:
        """Frames that were left out because the disk did not keep up."""
        return int(self._db.rows("SELECT dropped FROM beat")[0][0])

    @property
    def ranks(self) -> list[int]:
        """Ranks that wrote a file."""
        return [rank_of(file) for file in self._files]

    @property
    def modules(self) -> list[ModuleInfo]:
        """The model's modules, parents before children."""
        infos = (json.loads(text) for (text,) in self._db.rows("SELECT info FROM module ORDER BY id"))
        return [ModuleInfo(**{**info, "aliases": tuple(info["aliases"])}) for info in infos]

    @property
    def sites(self) -> list[Site]:
        """Every place where a tensor was seen, in the order of first sight."""
        return list(self._site_ids())

    @property
    def steps(self) -> list[int]:
        """Steps at which anything was recorded, ascending."""
        return [step for (step,) in self._db.rows("SELECT DISTINCT step FROM frame ORDER BY step")]

    @property
    def measured_steps(self) -> list[int]:
        """Steps at which the sites were measured, ascending."""
        found: set[int] = set()
        for layout in self._layouts(schema.STATS):
            found |= {s for (s,) in self._db.rows("SELECT DISTINCT step FROM frame WHERE layout = ?", (layout,))}
        return sorted(found)

    @property
    def scalar_names(self) -> list[str]:
        """Names that were logged, in the order of first sight."""
        return list(dict.fromkeys(name for series in self._layouts(schema.SCALARS).values() for name in series))

    def scalars(self, name: str) -> tuple[Steps, Values]:
        """The steps at which a scalar was logged, and its values.

        Raises:
            RunError: nothing of that name was logged.
        """
        steps, values = self._column(schema.SCALARS, name, 0)
        if not len(steps):
            raise _unknown("scalar", name, self.scalar_names)
        last = np.append(steps[1:] != steps[:-1], True)  # logged twice in a step: the later one counts
        return steps[last], values[last]

    def history(self, site: str, stat: str) -> tuple[Steps, Values]:
        """The steps at which a site was measured, and one statistic of it (a name of `STORED` or `DERIVED`).

        Raises:
            RunError: there is no such site or statistic.
        """
        if stat not in STORED + DERIVED:
            raise _unknown("statistic", stat, STORED + DERIVED)
        number = self._number_of(site)
        if stat in STORED:
            return self._column(schema.STATS, number, STORED.index(stat))
        rows = self._rows_of(schema.STATS, number)
        finite = np.array([row for _, row in rows]).reshape(-1, len(STORED))
        finite[:, STORED.index("count")] -= finite[:, STORED.index("nonfinite")]
        finite[:, STORED.index("nonfinite")] = 0
        return np.array([step for step, _ in rows], np.int64), _statistic(finite, stat)

    def histograms(self, site: str) -> list[tuple[int, Histogram]]:
        """The histograms of a site, each with its step."""
        number = self._number_of(site)
        found = []
        for step, row in self._rows_of(schema.HISTOGRAMS, number):
            if row[0] <= row[1]:  # NaN where the tensor had no finite element
                edges = np.linspace(row[0], row[1], schema.BINS + 1).tolist()
                found.append((step, Histogram(tuple(edges), tuple(int(n) for n in row[2:]))))
        return found

    def shapes(self, site: str) -> list[Shape]:
        """The shapes that a site has had, each with its first step."""
        number = self._number_of(site)
        rows = self._db.rows("SELECT info FROM shape WHERE site = ? ORDER BY step, id", (number,))
        infos = (json.loads(text) for (text,) in rows)
        return [Shape(**{**info, "dims": tuple(info["dims"]), "names": tuple(info["names"])}) for info in infos]

    def last_shapes(self) -> dict[Site, Shape]:
        """The newest shape of every site."""
        sites = {number: site for site, number in self._site_ids().items()}
        found = {}
        for number, text in self._db.rows("SELECT site, info FROM shape ORDER BY step, id"):
            info = json.loads(text)
            found[sites[number]] = Shape(**{**info, "dims": tuple(info["dims"]), "names": tuple(info["names"])})
        return found

    def stats_at(self, step: int | None = None) -> dict[Site, Stats]:
        """The statistics of every site at its newest measured step up to `step` (default: the newest of all)."""
        bound = self.last_step if step is None else step
        sites = {number: site for site, number in self._site_ids().items()}
        query = "SELECT step, data FROM frame WHERE layout = ? AND step <= ? ORDER BY step DESC LIMIT 1"
        newest = [
            (step, series, data)
            for layout, series in self._layouts(schema.STATS).items()
            for step, data in self._db.rows(query, (layout, bound))
        ]
        found: dict[Site, Stats] = {}
        for _, series, data in sorted(newest, key=lambda row: row[0]):
            rows = _decode(schema.STATS, data)
            found |= {sites[n]: Stats.from_stored(row) for n, row in zip(series, rows, strict=True)}
        return found

    def table(self, sites: list[Site], stat: str, columns: int | None = None) -> tuple[Steps, Values]:
        """One statistic of many sites over the run.

        Args:
            sites: the rows.
            stat: a name of `STORED` or `DERIVED`.
            columns: thin the run to at most so many measured steps; default: all of them.

        Returns:
            The steps, (columns,), and the values, (sites, columns): NaN where a site was not measured, and +Inf where
            it held non-finite elements, unless `stat` is `count` or `nonfinite`.
        """
        every_step = np.array(self.measured_steps, np.int64)
        chosen = _thin(every_step, columns)
        ids = self._site_ids()
        values = np.full((len(sites), len(chosen)), np.nan)
        column = {step: number for number, step in enumerate(chosen.tolist())}
        for layout, series in self._layouts(schema.STATS).items():
            place = {number: at for at, number in enumerate(series)}
            wanted = [row for row, site in enumerate(sites) if ids.get(site) in place]
            places = [place[ids[sites[row]]] for row in wanted]
            for step, data in self._frames(layout, chosen if len(chosen) < len(every_step) else None):
                if step in column:  # frames may have been written since the steps were read
                    values[wanted, column[step]] = _statistic(_decode(schema.STATS, data)[places], stat)
        return chosen, values

    @property
    def notes(self) -> list[tuple[int, str]]:
        """What happened while recording, such as a failure to measure: (step, text)."""
        return [(step, text) for step, text in self._db.rows("SELECT step, text FROM note ORDER BY id")]

    @property
    def graph(self) -> Graph | None:
        """The computation, if it was captured."""
        from tensorscope.graphs.graph import Graph

        text = self._document("graph")
        return None if text is None else Graph.from_json(text)

    @property
    def findings(self) -> list[Finding]:
        """What the rules found while the run was recorded, the cause first."""
        text = self._document("findings")
        return [] if text is None else [_finding(info) for info in json.loads(text)]

    @property
    def silent(self) -> list[Finding]:
        """Shape mistakes that raised nothing, found while the first step was recorded."""
        text = self._document("silent")
        return [] if text is None else [_finding(info) for info in json.loads(text)]

    @property
    def reports(self) -> list[ShapeReport]:
        """The shape errors that the run met, explained."""
        text = self._document("reports")
        return [] if text is None else [ShapeReport.from_json(report) for report in json.loads(text)]

    @property
    def handed_nonfinite(self) -> list[dict[str, Any]]:
        """Modules whose arguments held non-finite values when their output first did: `path` and `step` of each."""
        text = self._document("handed_nonfinite")
        return [] if text is None else list(json.loads(text))

    def _document(self, key: str) -> str | None:
        rows = self._db.rows("SELECT text FROM document WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def _site_ids(self) -> dict[Site, int]:
        """Sites are only ever added, so only new ones are read."""
        known = self._sites
        query = "SELECT id, path, kind, nth, call, gradient FROM site WHERE id >= ? ORDER BY id"
        for number, path, kind, nth, call, gradient in self._db.rows(query, (len(known),)):
            known[Site(path, Kind(kind), place=nth, call=call, gradient=bool(gradient))] = number
        return known

    def _number_of(self, site: str) -> int:
        number = self._site_ids().get(site)  # type: ignore[call-overload]  # a Site equals its text
        if number is None:
            raise _unknown("site", site, self.sites)
        return int(number)

    def _layouts(self, kind: str) -> dict[int, list[Any]]:
        """Layouts are only ever added, so only new ones are read."""
        known = self._series
        for number, its_kind, series in self._db.rows(
            "SELECT id, kind, series FROM layout WHERE id >= ?", (len(known),)
        ):
            known[number] = (its_kind, json.loads(series))
        return {number: series for number, (its_kind, series) in known.items() if its_kind == kind}

    def _frames(self, layout: int, steps: Steps | None) -> list[tuple[int, bytes]]:
        """Frames of a layout: all of them, or those of a few steps."""
        if steps is None:
            return self._db.rows("SELECT step, data FROM frame WHERE layout = ? ORDER BY step, seq", (layout,))
        query = "SELECT step, data FROM frame WHERE layout = ? AND step = ?"
        return [row for step in steps.tolist() for row in self._db.rows(query, (layout, step))]

    def _rows_of(self, kind: str, series: Any) -> list[tuple[int, Values]]:
        """Every stored row of one series, in the order of steps."""
        width, dtype = schema.ROWS[kind]
        size = width * dtype.itemsize
        found: list[tuple[int, Values]] = []
        for layout, members in self._layouts(kind).items():
            if series not in members:
                continue
            query = "SELECT step, substr(data, ?, ?) FROM frame WHERE layout = ? ORDER BY step, seq"
            rows = self._db.rows(query, (1 + members.index(series) * size, size, layout))
            found += [(step, np.frombuffer(data, dtype).astype(np.float64)) for step, data in rows]
        return sorted(found, key=lambda row: row[0])

    def _column(self, kind: str, series: Any, place: int) -> tuple[Steps, Values]:
        rows = self._rows_of(kind, series)
        return np.array([step for step, _ in rows], np.int64), np.array([row[place] for _, row in rows], np.float64)


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open a recorded training for reading, also while it is being written.

    Args:
        path: the run's folder, or one rank's file in it.

    Raises:
        RunError: there is no run at `path`, or it is damaged, or newer than this version.
    """
    return Run(path)


def _unknown(what: str, name: str, known: list[Any] | tuple[Any, ...]) -> RunError:
    shown = ", ".join(f"`{k}`" for k in known[:8]) + (" …" if len(known) > 8 else "")
    return RunError(
        f"the run has no {what} `{name}`", facts={"has": shown or "none yet"}, hint=did_you_mean(name, known)
    )


def _decode(kind: str, data: bytes) -> Values:
    width, dtype = schema.ROWS[kind]
    return np.frombuffer(data, dtype).reshape(-1, width).astype(np.float64)


def _thin(steps: Steps, columns: int | None) -> Steps:
    if columns is None or len(steps) <= columns:
        return steps
    return steps[np.linspace(0, len(steps) - 1, columns).round().astype(np.int64)]


def _statistic(rows: Values, stat: str) -> Values:
    """One statistic of (sites, STORED) rows; +Inf where a site held non-finite elements."""
    count, mean, std, bad = (rows[:, STORED.index(name)] for name in ("count", "mean", "std", "nonfinite"))
    if stat in STORED:
        values = rows[:, STORED.index(stat)]
    else:
        rms = np.hypot(mean, std)
        values = rms if stat == "rms" else np.sqrt(count - bad) * rms
    return values if stat in ("count", "nonfinite") else np.where(bad > 0, np.inf, values)


def _finding(info: dict[str, Any]) -> Finding:
    cause = info.pop("caused_by", None)
    severity = Severity(info.pop("severity"))
    return Finding(**info, severity=severity, caused_by=_finding(cause) if cause else None)
