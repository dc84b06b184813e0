"""A curve in as many points as a screen can show, without losing a peak or a value that was no number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Steps = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Envelope:
    """A curve, bucket by bucket; buckets in which nothing was recorded are left out.

    Attributes:
        steps: (buckets,) first step of each, ascending.
        low: (buckets,) lowest finite value; NaN where there is none.
        high: (buckets,) highest finite value; NaN where there is none.
        nonfinite: (buckets,) values that were not finite; of a statistic, steps at which the tensor held such elements.
    """

    steps: Steps
    low: Values
    high: Values
    nonfinite: Counts


class Items(NamedTuple):
    """What an envelope is made of: single values, and summaries of many.

    Attributes:
        steps: (items,) first step of each, in any order.
        low: (items,) lowest finite value or NaN.
        high: (items,) highest finite value or NaN.
        bad: (items,) how many were not finite.
    """

    steps: Steps
    low: Values
    high: Values
    bad: Counts


def items_of(steps: Steps, values: Values, bad: npt.NDArray[np.bool_]) -> Items:
    """Single values as items."""
    finite = np.where(np.isfinite(values), values, np.nan)
    return Items(steps, finite, finite, bad.astype(np.int64))


def joined(parts: list[Items]) -> Items:
    """All items of several sets, by their steps."""
    parts = [part for part in parts if len(part.steps)]
    if not parts:
        return Items(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
    if len(parts) == 1 and (parts[0].steps[1:] >= parts[0].steps[:-1]).all():
        return parts[0]
    steps, low, high, bad = (np.concatenate([part[field] for part in parts]) for field in range(4))
    order = np.argsort(steps, kind="stable")
    return Items(steps[order], low[order], high[order], bad[order])


def bucketed(items: Items, points: int) -> Envelope:
    """At most `points` buckets of equal width in steps.

    Args:
        items: ascending in their steps.
        points: at least 1.
    """
    if not len(items.steps):
        return Envelope(*items)
    starts = np.flatnonzero(np.diff(bucket_of(items.steps, points), prepend=-1))
    return Envelope(
        items.steps[starts],
        np.fmin.reduceat(items.low, starts),
        np.fmax.reduceat(items.high, starts),
        np.add.reduceat(items.bad, starts),
    )


def bucket_of(steps: Steps, points: int) -> Counts:
    """The bucket of each of some ascending steps; a bucket of its own for each if there are few enough of them."""
    fresh = np.diff(steps, prepend=steps[0]) > 0
    ranks = np.cumsum(fresh).astype(np.int64)
    if ranks[-1] < points:
        return ranks
    first, last = int(steps[0]), int(steps[-1])
    # In float64, for the product may be beyond int64 in a damaged file.
    places = ((steps - first) * (points / (last - first + 1))).astype(np.int64)
    return np.minimum(places, points - 1)


def strongest(items: list[Items], columns: int) -> tuple[Steps, Values]:
    """The value of largest size in each of at most so many columns; +Inf where one was not finite."""
    every = np.zeros(0, np.int64)
    for one in items:
        if not np.array_equal(one.steps, every):  # most sites are measured at the same steps
            every = np.union1d(every, one.steps)
    if not len(every):
        return every, np.zeros((len(items), 0))
    bucket = bucket_of(every, columns)
    starts = np.flatnonzero(np.diff(bucket, prepend=-1))
    place = np.cumsum(np.diff(bucket, prepend=bucket[0]) > 0)
    table = np.full((len(items), len(starts)), np.nan)
    for row, one in enumerate(items):
        if not len(one.steps):
            continue
        column = place[np.searchsorted(every, one.steps)]
        own = np.flatnonzero(np.diff(column, prepend=-1))
        low, high = np.fmin.reduceat(one.low, own), np.fmax.reduceat(one.high, own)
        strongest = np.where(np.abs(low) > np.abs(high), low, high)
        table[row, column[own]] = np.where(np.add.reduceat(one.bad, own) > 0, np.inf, strongest)
    return every[starts], table
