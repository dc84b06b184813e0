"""Reads a run, also while it is being written; joins the ranks of a training. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorscope.errors import RunError, did_you_mean
from tensorscope.events import DERIVED, STORED, Histogram, Kind, ModuleInfo, Shape, Site, Stats
from tensorscope.run import schema
from tensorscope.run.columns import EVER
from tensorscope.run.damage import damage_is_said
from tensorscope.run.differences import RankDifference, RankState, differences
from tensorscope.run.documents import Documents
from tensorscope.run.envelope import Envelope, Steps, Values, bucketed
from tensorscope.run.merge import merge_histories
from tensorscope.run.ranks import Ranks, is_replica

if TYPE_CHECKING:
    import os

    from tensorscope.run.columns import Span

PLACES = {name: place for place, name in enumerate(STORED)} | {"rms": schema.RMS, "l2": schema.L2}
RECENT = 100  # measured steps that a module's median times are of
SAID_OF_RANKS = {
    "damaged": "rank {} cannot be read",
    "died": "rank {} died",
    "missing": "rank {} left no file",
    "silent": "rank {} has not written for a while",
}


@damage_is_said
class Run(Documents):
    """One recorded training, with all its ranks.

    Every property asks the files anew, so a live run is always seen as it stands. What several ranks measured at a step
    is shown as of one tensor; a rank that died, or whose file cannot be read, leaves the others readable.

    Args:
        path: the run's folder, or one file in it.
        only: a rank, whose files alone are read.

    Raises:
        RunError: here and in every property, if the files are missing, not ours, of another version, or damaged.
    """

    def __init__(self, path: str | os.PathLike[str], *, only: int | None = None) -> None:
        self.path = Path(path)
        self._only = only
        self._ranks = Ranks(self.path, only)

    def __repr__(self) -> str:
        return f"<Run {str(self.path)!r} {self.status}, {self.last_step + 1} steps>"

    def close(self) -> None:
        """Release the files."""
        self._ranks.close()

    def rank(self, number: int) -> Run:
        """The run as one rank wrote it.

        Raises:
            RunError: it wrote nothing, or nothing that can be read.
        """
        return Run(self.path, only=number)

    # --- what is true of the whole run -------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """A number that moves when something was written."""
        return sum(rank.version for rank in self._ranks.all().values())

    @property
    def meta(self) -> dict[str, Any]:
        """Facts about the run: model, settings, environment, how it ended."""
        return self._ranks.first(lambda rank: rank.meta)

    @property
    def status(self) -> str:
        """`running`, `finished`, `interrupted` (Ctrl-C) or `died` (an error, a kill): the lowest rank's."""
        return self._ranks.first(lambda rank: rank.last_part.status)

    @property
    def last_seen(self) -> float:
        """When a writer last said that it lives, in seconds since 1970."""
        return max(self._ranks.each(lambda rank: rank.last_part.last_seen).values())

    @property
    def last_step(self) -> int:
        """The newest step; −1 before the first."""
        return max(self._ranks.each(lambda rank: rank.last_step).values())

    @property
    def dropped(self) -> int:
        """Frames that were left out because the disk did not keep up."""
        return sum(self._ranks.each(lambda rank: sum(part.dropped for part in rank.parts)).values())

    @property
    def nonfinite(self) -> dict[str, int] | None:
        """`first` and `last` step that went bad, measured or not, and how many `steps` did; None if none did."""
        return next((f for f in self._ranks.each(lambda rank: rank.nonfinite).values() if f is not None), None)

    @property
    def measured(self) -> int:
        """How many steps were measured, also those that were thinned since."""
        return max(self._ranks.each(lambda rank: rank.measured).values())

    @property
    def parts(self) -> list[tuple[int, str]]:
        """First step and status of each part: a training that was resumed has several."""
        return self._ranks.first(lambda rank: [(part.first_step, part.status) for part in rank.parts])

    @property
    def modules(self) -> list[ModuleInfo]:
        """The model's modules, parents before children."""
        return self._ranks.first(lambda rank: rank.last_part.modules or rank.parts[0].modules)

    @property
    def sites(self) -> list[Site]:
        """Every place where a tensor was seen, in the order of first sight."""
        return list(
            dict.fromkeys(site for sites in self._ranks.each(lambda rank: rank.sites).values() for site in sites)
        )

    @property
    def steps(self) -> list[int]:
        """Steps at which anything was recorded, ascending."""
        return self._steps_of(*schema.WIDTHS)

    @property
    def measured_steps(self) -> list[int]:
        """Steps at which the sites were measured, ascending; of old ones those that were kept."""
        return self._steps_of(schema.STATS)

    @property
    def notes(self) -> list[tuple[int, str]]:
        """What happened while recording, such as a failure to measure, and what of it is lost: (step, text)."""
        found = self._ranks.each(lambda rank: rank.notes)
        notes = [(step, f"rank {n}: {text}" if n != min(found) else text) for n in found for step, text in found[n]]
        states = self.rank_states
        if len(states) > 1:
            said = ((state.last_step, SAID_OF_RANKS.get(state.status, "").format(n)) for n, state in states.items())
            notes += [note for note in said if note[1]]
        return notes

    # --- ranks -------------------------------------------------------------------------------------------------------

    @property
    def ranks(self) -> list[int]:
        """Ranks that wrote a file."""
        return sorted({*self._ranks.all(), *self._ranks.lost})

    @property
    def rank_states(self) -> dict[int, RankState]:
        """How each rank fares that wrote a file, or should have."""
        states = dict.fromkeys(self._ranks.lost, RankState("damaged", -1))
        states |= {number: RankState(*state) for number, state in self._ranks.each(lambda rank: rank.state).items()}
        states |= {number: RankState("damaged", -1) for number in self.ranks if number not in states}
        size = self.meta.get("world_size")
        if self._only is None and self.path.is_dir() and isinstance(size, int):
            states |= {number: RankState("missing", -1) for number in range(min(size, 1 << 16)) if number not in states}
        return dict(sorted(states.items()))

    def rank_scalars(self, name: str) -> dict[int, tuple[Steps, Values]]:
        """What each rank logged under a name: rank → steps and values."""
        found = self._ranks.each(lambda rank: _single(rank.column(schema.SCALARS, name, (0,))))
        return {number: scalars for number, scalars in found.items() if len(scalars[0])}

    def rank_differences(self) -> list[RankDifference]:
        """Parameters that should be the same on every rank, and are not."""
        able = self._ranks.each(lambda rank: rank.last_step)
        return differences({number: rank for number, rank in self._ranks.all().items() if number in able})

    # --- scalars -----------------------------------------------------------------------------------------------------

    @property
    def scalar_names(self) -> list[str]:
        """Names that were logged, in the order of first sight."""
        return self._names(schema.SCALARS)

    @property
    def gauge_names(self) -> list[str]:
        """Names of what the trace read off by itself, such as the learning rate, in the order of first sight."""
        return self._names(schema.GAUGES)

    def scalars(self, name: str) -> tuple[Steps, Values]:
        """The steps at which a scalar was logged, and its values; of several ranks the lowest that logged it.

        Raises:
            RunError: nothing of that name was logged.
        """
        return self._named(schema.SCALARS, name)

    def gauge(self, name: str) -> tuple[Steps, Values]:
        """The steps at which the trace read a number off by itself, and its values.

        Raises:
            RunError: there is none of that name.
        """
        return self._named(schema.GAUGES, name)

    def scalar_envelope(
        self, name: str, points: int = 200, first: int | None = None, last: int | None = None
    ) -> Envelope:
        """A scalar or gauge in few points; arguments as of `envelope`.

        Raises:
            RunError: there is none of that name.
        """
        kind = schema.SCALARS if name in self.scalar_names else schema.GAUGES
        self._known(kind, name)
        found = self._ranks.each(lambda rank: rank.items(kind, [name], 0, _span(first, last))[name])
        return bucketed(
            next((items for items in found.values() if len(items.steps)), next(iter(found.values()))), points
        )

    def last_scalars(self) -> dict[str, tuple[int, float]]:
        """The newest step and value of every scalar."""
        found = self._ranks.each(lambda rank: rank.newest(schema.SCALARS)).values()
        return {name: (at, float(row[0])) for rows in reversed(list(found)) for name, (at, row) in rows.items()}

    # --- statistics --------------------------------------------------------------------------------------------------

    def history(self, site: str, stat: str) -> tuple[Steps, Values]:
        """The steps at which a site was measured, and one statistic of it (a name of `STORED` or `DERIVED`).

        Raises:
            RunError: there is no such site or statistic.
        """
        place = self._site(site)
        return self._ranks.values([place], _place(stat))[place][:2]

    def envelope(
        self, site: str, stat: str, points: int = 200, first: int | None = None, last: int | None = None
    ) -> Envelope:
        """One statistic of a site in few points, however long the run is: no peak is lost, and nothing non-finite.

        Args:
            site: which site.
            stat: a name of `STORED` or `DERIVED`.
            points: at most so many buckets, of equal width in steps; each step has its own if there are few enough.
            first: the first step of interest; default: that of the run.
            last: the last step of interest; default: that of the run.

        Raises:
            RunError: there is no such site or statistic.
        """
        place = self._site(site)
        return bucketed(self._ranks.items([place], _place(stat), _span(first, last))[place], points)

    def update_ratio(self, parameter: str) -> tuple[Steps, Values]:
        """How large each update of a parameter was beside it, rms(update) / rms(weight), where both were measured.

        Raises:
            RunError: the parameter, or its update, was not recorded.
        """
        steps, update = self.history(Site(parameter, Kind.UPDATE), "rms")
        others, weight = self.history(Site(parameter, Kind.PARAMETER), "rms")
        common, left, right = np.intersect1d(steps, others, return_indices=True)
        return common, update[left] / weight[right]

    def stats_at(self, step: int | None = None) -> dict[Site, Stats]:
        """The statistics of every site at its newest measured step up to `step` (default: the newest of all)."""
        found = self._ranks.each(lambda rank: rank.newest(schema.STATS, EVER[1] if step is None else step))
        newest: dict[Site, Stats] = {}
        for site in dict.fromkeys(site for rows in found.values() for site in rows):
            histories = [rows[site] for rows in found.values() if site in rows]
            last = max(at for at, _ in histories)
            stacked = [(np.array([at]), row[None]) for at, row in histories if at == last]
            newest[site] = Stats.from_stored(merge_histories(stacked, replicas=is_replica(site))[1][0].tolist())
        return newest

    def table(
        self,
        sites: list[Site],
        stat: str,
        columns: int | None = None,
        *,
        first: int | None = None,
        last: int | None = None,
    ) -> tuple[Steps, Values]:
        """One statistic of many sites over the run.

        Args:
            sites: the rows.
            stat: a name of `STORED` or `DERIVED`.
            columns: at most so many columns, each the value of largest size of its steps; default: one a step.
            first: the first step of interest; default: that of the run.
            last: the last step of interest; default: that of the run.

        Returns:
            The steps, (columns,), and the values, (sites, columns): NaN where a site was not measured, and +Inf where
            it held non-finite elements, unless `stat` is `count` or `nonfinite`.
        """
        return self._ranks.table(sites, _place(stat), columns, _span(first, last))

    def histograms(self, site: str) -> list[tuple[int, Histogram]]:
        """The histograms of a site, each with its step; of several ranks the lowest that has any."""
        place = self._site(site)
        found = self._ranks.each(lambda rank: rank.histograms(place)).values()
        return next((histograms for histograms in found if histograms), [])

    def times(self, path: str) -> tuple[Steps, Values, Values]:
        """Steps at which a module was timed, and the seconds of its forward and its backward; NaN: it did not run."""
        found = self._ranks.first(lambda rank: rank.column(schema.TIMES, path, (0, 1)))
        return found[0], found[1][:, 0], found[1][:, 1]

    def median_times(self) -> dict[str, tuple[float, float]]:
        """Median seconds of every module's forward and backward over the newest measured steps."""
        return self._ranks.first(lambda rank: rank.recent_times(RECENT))

    def shapes(self, site: str) -> list[Shape]:
        """The shapes that a site has had, each with its first step; of many the first ones and the newest."""
        place = self._site(site)
        found = self._ranks.each(lambda rank: [shape for other, shape in rank.shapes() if other == place]).values()
        return next((shapes for shapes in found if shapes), [])

    def last_shapes(self) -> dict[Site, Shape]:
        """The newest shape of every site."""
        found = self._ranks.each(lambda rank: dict(rank.shapes()))
        return {site: shape for shapes in reversed(list(found.values())) for site, shape in shapes.items()}

    def _document(self, key: str) -> str | None:
        found = self._ranks.each(lambda rank: rank.document(key)).values()
        return next((text for text in found if text is not None), None)

    def _of_parts(self, key: str) -> list[tuple[Span, str]]:
        found = self._ranks.each(lambda rank: rank.documents(key)).values()
        return next((texts for texts in found if texts), [])

    # --- how it is found ---------------------------------------------------------------------------------------------

    def _steps_of(self, *kinds: str) -> list[int]:
        found = self._ranks.each(lambda rank: np.concatenate([rank.steps(kind) for kind in kinds]))
        return [int(step) for step in np.unique(np.concatenate(list(found.values())))]

    def _names(self, kind: str) -> list[str]:
        found = self._ranks.each(lambda rank: rank.names(kind)).values()
        return list(dict.fromkeys(name for names in found for name in names))

    def _known(self, kind: str, name: str) -> None:
        names = self._names(kind)
        if name not in names:
            raise _unknown("scalar" if kind == schema.SCALARS else "gauge", name, names)

    def _named(self, kind: str, name: str) -> tuple[Steps, Values]:
        self._known(kind, name)
        found = self._ranks.each(lambda rank: _single(rank.column(kind, name, (0,)))).values()
        return next((column for column in found if len(column[0])), next(iter(found)))

    def _site(self, site: str) -> Site:
        known = {place: place for place in self.sites}
        if site not in known:
            raise _unknown("site", site, list(known))
        return known[site]  # type: ignore[index]


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open a recorded training for reading, also while it is being written.

    Args:
        path: the run's folder, or one file in it.

    Raises:
        RunError: there is no run at `path`, or it is damaged, or of another version.
    """
    return Run(path)


def _unknown(what: str, name: str, known: list[Any] | tuple[Any, ...]) -> RunError:
    shown = ", ".join(f"`{k}`" for k in known[:8]) + (" …" if len(known) > 8 else "")
    return RunError(
        f"the run has no {what} `{name}`", facts={"has": shown or "none yet"}, hint=did_you_mean(name, known)
    )


def _place(stat: str) -> int:
    if stat not in PLACES:
        raise _unknown("statistic", stat, STORED + DERIVED)
    return PLACES[stat]


def _span(first: int | None, last: int | None) -> Span:
    return EVER[0] if first is None else first, EVER[1] if last is None else last


def _single(column: tuple[Steps, Values]) -> tuple[Steps, Values]:
    return column[0], column[1][:, 0]
