"""Where the ranks of one training differ that should not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from tensorscope.events import STORED, Kind, Stats
from tensorscope.run import schema

if TYPE_CHECKING:
    from tensorscope.events import Site
    from tensorscope.run.envelope import Values
    from tensorscope.run.rank import Rank

SUMMED = 1e-5  # mean and std may differ so much, relative to the largest element, by the order of summation alone
EXTREMES = (STORED.index("min"), STORED.index("max"), schema.NONFINITE)  # no rounding excuses a difference in these
SUMS = (STORED.index("mean"), STORED.index("std"))


class RankState(NamedTuple):
    """How one rank of a training fares.

    Attributes:
        status: as of a run; also `silent` (alive, and nothing written for a while), `missing` (no file), `damaged`.
        last_step: the newest step that it wrote; −1 if there is none.
    """

    status: str
    last_step: int


@dataclass(frozen=True, slots=True)
class RankDifference:
    """A parameter that should be the same on every rank, and is not.

    Attributes:
        site: the parameter.
        first_step: the first measured step at which it differs.
        values: what each rank measured there.
    """

    site: Site
    first_step: int
    values: dict[int, Stats]


def differences(ranks: dict[int, Rank]) -> list[RankDifference]:
    """Parameters of equal size whose statistics differ between ranks, in the order of first sight.

    Parts of a sharded parameter have sizes or shapes of their own only if they do not divide evenly; where every
    parameter differs from the first step on, that is the likelier reading.
    """
    sites = dict.fromkeys(site for rank in ranks.values() for site in rank.sites)
    found = (_difference(site, ranks) for site in sites if site.kind is Kind.PARAMETER and not site.gradient)
    return [difference for difference in found if difference is not None]


def _difference(site: Site, ranks: dict[int, Rank]) -> RankDifference | None:
    places = tuple(range(len(STORED)))
    histories = {number: rank.column(schema.STATS, site, places) for number, rank in ranks.items()}
    histories = {number: history for number, history in histories.items() if len(history[0])}
    if len(histories) < 2:
        return None
    firsts: list[int] = []
    numbers = list(histories)
    for number in numbers[1:]:
        ours, theirs = histories[numbers[0]], histories[number]
        common, left, right = np.intersect1d(ours[0], theirs[0], return_indices=True)
        one, other = ours[1][left], theirs[1][right]
        largest = np.abs(one[:, EXTREMES[:2]]).max(axis=1, initial=0)
        differs = (_unequal(one[:, EXTREMES], other[:, EXTREMES])).any(axis=1)
        with np.errstate(invalid="ignore"):
            differs |= (np.abs(one[:, SUMS] - other[:, SUMS]) > SUMMED * largest[:, None]).any(axis=1)
        differs &= one[:, schema.COUNT] == other[:, schema.COUNT]
        firsts += common[differs][:1].tolist()
    if not firsts:
        return None
    at = {n: int(np.searchsorted(steps, min(firsts))) for n, (steps, _) in histories.items()}
    there = {n: at[n] for n, (steps, _) in histories.items() if at[n] < len(steps) and steps[at[n]] == min(firsts)}
    values = {number: Stats.from_stored(histories[number][1][place].tolist()) for number, place in there.items()}
    return RankDifference(site, min(firsts), values)


def _unequal(one: Values, other: Values) -> npt.NDArray[np.bool_]:
    return np.asarray((one != other) & ~(np.isnan(one) & np.isnan(other)))
