"""Joins rows of `events.STORED` that belong to one site: those of several ranks of a training."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tensorscope.events import STORED

Rows = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]


def merge(rows: Rows) -> npt.NDArray[np.float64]:
    """The row of all the elements that several rows summarise."""
    return np.asarray(merge_members(np.asarray(rows, np.float64)[:, None])[0], np.float64)


def merge_members(rows: Rows) -> Rows:
    """For each step the row of all the elements that its members' rows summarise.

    Mean and variance follow Chan, Golub and LeVeque (1979), *Updating formulae and a pairwise algorithm for computing
    sample variances*.

    Args:
        rows: (members, steps, len(STORED)); count NaN where a member has no row.

    Returns:
        (steps, len(STORED)); where only one member has a row, that one, to the bit.
    """
    count, mean, std, low, high, zero, bad, dead = np.moveaxis(rows, 2, 0)
    there = ~np.isnan(count)
    count, bad = np.where(there, count, 0), np.where(there, bad, 0)
    known = count - bad > 0
    good = np.where(known, count - bad, 0)
    merged = np.full(rows.shape[1:], np.nan)
    with np.errstate(all="ignore"):
        total = count.sum(0)
        zeros = np.where(count > 0, zero * count, 0).sum(0) / total
        share = good / good.sum(0)
        centre = np.where(known, share * mean, 0).sum(0)
        variance = np.where(known, share * (std**2 + (mean - centre) ** 2), 0).sum(0)
    some = known.any(0)
    extremes = np.where(known, low, np.inf).min(0), np.where(known, high, -np.inf).max(0)
    for place, values in enumerate((centre, np.sqrt(variance), *extremes), 1):
        merged[some, place] = values[some]
    merged[:, 0], merged[:, 6] = total, bad.sum(0)
    merged[total > 0, 5] = zeros[total > 0]
    for member in dead:  # the last one that knows
        merged[:, 7] = np.where(np.isnan(member), merged[:, 7], member)
    alone = there.sum(0) == 1
    merged[alone] = rows[there.argmax(0), np.arange(rows.shape[1])][alone]
    return merged


def merge_histories(histories: list[tuple[Steps, Rows]], *, replicas: bool) -> tuple[Steps, Rows]:
    """The rows of one site on several ranks, as those of one tensor.

    Args:
        histories: each rank's ascending steps, (steps,), and rows, (steps, len(STORED)).
        replicas: whether ranks hold copies of one tensor: rows that are equal then count once.

    Returns:
        Every step that any rank measured, with the rows of those that did merged.
    """
    histories = [history for history in histories if len(history[0])]
    if len(histories) == 1:
        return histories[0]
    steps = np.unique(np.concatenate([np.zeros(0, np.int64), *(steps for steps, _ in histories)]))
    stack = np.full((len(histories), len(steps), len(STORED)), np.nan)
    for member, (its_steps, rows) in enumerate(histories):
        stack[member, np.searchsorted(steps, its_steps)] = rows
    if not histories:
        return steps, np.zeros((0, len(STORED)))
    merged = merge_members(stack)
    if replicas:
        there = ~np.isnan(stack[:, :, 0])
        first = stack[there.argmax(0), np.arange(len(steps))]
        same = ((stack == first) | (np.isnan(stack) & np.isnan(first)) | ~there[:, :, None]).all((0, 2))
        merged[same] = first[same]
    return steps, merged
