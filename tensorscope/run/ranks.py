"""The ranks of a run together: which there are, and what they measured as if it were one tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from tensorscope.errors import RunError
from tensorscope.events import STORED, Kind
from tensorscope.run import schema
from tensorscope.run.blocks import saturated
from tensorscope.run.columns import EVER, shown, sources
from tensorscope.run.damage import BROKEN
from tensorscope.run.envelope import items_of, joined, strongest
from tensorscope.run.folders import rank_files, rank_of
from tensorscope.run.measurements import FINE
from tensorscope.run.merge import merge_histories
from tensorscope.run.rank import Rank

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tensorscope.events import Site
    from tensorscope.run.columns import Span
    from tensorscope.run.envelope import Items, Steps, Values

Answer = TypeVar("Answer")
Shown = tuple["Steps", "Values", npt.NDArray[np.bool_]]

ROW = tuple(range(len(STORED)))
# Numbers of several ranks together that do not lie between those of the ranks.
BEYOND = (schema.COUNT, schema.NONFINITE, STORED.index("std"), schema.L2)
FEW = 32  # blocks a rank of which several ranks are merged value by value
BATCH = 64  # sites whose values are at hand at once
LOOKED_INTO = 10_000  # chunks that one table may unpack; of the rest it takes the extremes


class Ranks:
    """The files of a run, rank by rank, looked for again when the folder has changed.

    Args:
        path: the run's folder, or one file in it.
        only: a rank, whose files alone are read.

    Attributes:
        lost: why a rank's files cannot be read.

    Raises:
        RunError: there is no file, or none that can be read.
    """

    def __init__(self, path: Path, only: int | None) -> None:
        self._path, self._only = path, only
        self._ranks: dict[int, tuple[list[Path], Rank]] = {}
        self._stamp = -1
        self.lost: dict[int, RunError] = {}
        self.all()

    def all(self) -> dict[int, Rank]:
        """Every rank that can be read, the lowest first."""
        try:
            stamp = self._path.stat().st_mtime_ns
        except OSError:
            stamp = self._stamp if self._ranks else -2  # deleted under our hands: what is open stays readable
        if stamp != self._stamp:
            self._look()
            self._stamp = stamp
        return {number: rank for number, (_, rank) in self._ranks.items()}

    def close(self) -> None:
        """Release the files."""
        for _, rank in self._ranks.values():
            rank.close()

    def each(self, question: Callable[[Rank], Answer]) -> dict[int, Answer]:
        """What every rank answers that can.

        Raises:
            RunError: none can.
        """
        answers: dict[int, Answer] = {}
        ranks = self.all()
        for number, rank in ranks.items():
            try:
                answers[number] = question(rank)
            except (RunError, *BROKEN):
                if len(ranks) == 1 or (number == max(ranks) and not answers):
                    raise
        return answers

    def first(self, question: Callable[[Rank], Answer]) -> Answer:
        """What the lowest rank answers that can."""
        ranks = list(self.all().values())
        for rank in ranks[:-1]:
            try:
                return question(rank)
            except (RunError, *BROKEN):
                continue
        return question(ranks[-1])

    def _look(self) -> None:
        files: dict[int, list[Path]] = {}
        for file in rank_files(self._path):
            files.setdefault(rank_of(file), []).append(file)
        if self._only is not None:
            files = {number: its for number, its in files.items() if number == self._only}
            if not files:
                raise RunError(f"rank {self._only} wrote nothing to `{self._path}`")
        ranks: dict[int, tuple[list[Path], Rank]] = {}
        self.lost = {}
        for number, its in files.items():
            known = self._ranks.get(number)
            try:
                ranks[number] = (
                    known if known is not None and known[0] == its and not known[1].lost else (its, Rank(its))
                )
            except RunError as error:
                self.lost[number] = error
        if not ranks:
            raise next(iter(self.lost.values()))
        self._ranks = ranks

    # --- numbers -----------------------------------------------------------------------------------------------------

    def values(self, sites: Sequence[Site], place: int, span: Span = EVER) -> dict[Site, Shown]:
        """One statistic of some sites, of each: steps, values, and which of them are faults; ranks merged."""
        if len(self.all()) == 1:
            few = self.first(lambda rank: rank.columns(schema.STATS, sites, sources(schema.STATS, place), span))
            return {site: (steps, *shown(schema.STATS, place, values)) for site, (steps, values) in few.items()}
        found = list(self.each(lambda rank: rank.columns(schema.STATS, sites, ROW, span)).values())
        return {site: _merged(site, [columns[site] for columns in found], place) for site in sites}

    def items(self, sites: Sequence[Site], place: int, span: Span = EVER, fine: int = FINE) -> dict[Site, Items]:
        """What envelopes of one statistic of some sites are made of.

        Of several ranks in a long run they are made of theirs: they then hold the merged curve, and are hardly wider.
        """
        depths = self.each(lambda rank: rank.depth).values()
        few = all(blocks <= FEW and not level for blocks, level in depths)
        if len(self.all()) > 1 and (place in BEYOND or few):
            return {site: items_of(*values) for site, values in self.values(sites, place, span).items()}
        found = self.each(lambda rank: rank.items(schema.STATS, sites, place, span, fine)).values()
        return {site: joined([items[site] for items in found]) for site in sites}

    def table(self, sites: Sequence[Site], place: int, columns: int | None, span: Span) -> tuple[Steps, Values]:
        """One statistic of many sites: steps, (columns,), and values, (sites, columns); see `Run.table`."""
        blocks, measured = (
            max(self.each(ask).values()) for ask in (lambda rank: rank.depth[0], lambda rank: rank.measured)
        )
        batches = [sites[at : at + BATCH] for at in range(0, len(sites), BATCH)]
        if columns is not None and measured > columns:
            blocks = max(self.each(lambda rank: rank.depth[0]).values())
            fine = FINE if blocks * len(sites) <= LOOKED_INTO else 0
            found = [items for some in batches for items in self.items(some, place, span, fine).values()]
            return strongest(found, columns)
        every = np.unique(np.concatenate([*self.each(lambda rank: rank.steps(schema.STATS)).values()]))
        steps = every[(every >= span[0]) & (every <= span[1])]
        table = np.full((len(sites), len(steps)), np.nan)
        rows = (row for some in batches for row in self.values(some, place, span).values())
        for row, (its_steps, values, bad) in enumerate(rows):
            known = np.isin(its_steps, steps)  # frames may have come since
            table[row, np.searchsorted(steps, its_steps[known])] = np.where(bad, np.inf, values)[known]
        return steps, table


def _merged(site: Site, histories: list[tuple[Steps, Values]], place: int) -> Shown:
    steps, rows = merge_histories(histories, replicas=is_replica(site))
    rms = saturated(np.hypot(rows[:, 1], rows[:, 2])).astype(np.float64)
    return steps, *shown(schema.STATS, place, np.column_stack([rows, rms])[:, sources(schema.STATS, place)])


def is_replica(site: Site) -> bool:
    """Whether every rank holds a copy of a tensor, rather than a share of it."""
    return site.kind in (Kind.PARAMETER, Kind.UPDATE) and not site.gradient
