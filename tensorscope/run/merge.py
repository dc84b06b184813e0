"""Joins rows of `events.STORED` that belong to one site: several passes of a step, later several ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float64]


def merge_rows(series: tuple[int, ...], rows: Rows) -> tuple[tuple[int, ...], Rows]:
    """One row per site, in the order of first sight.

    Args:
        series: the site of each row.
        rows: (len(series), len(STORED)) array.
    """
    order = tuple(dict.fromkeys(series))
    if len(order) == len(series):
        return series, rows
    members: dict[int, list[int]] = {}
    for place, site in enumerate(series):
        members.setdefault(site, []).append(place)
    return order, np.stack([merge(rows[members[site]]) for site in order])


def merge(rows: Rows) -> npt.NDArray[np.float64]:
    """The row of all the elements that several rows summarise.

    Mean and variance follow Chan, Golub and LeVeque (1979), *Updating formulae and a pairwise algorithm for computing
    sample variances*.
    """
    if len(rows) == 1:
        return np.asarray(rows[0], np.float64)
    count, mean, std, low, high, zero, bad, dead = rows.T
    finite = count - bad
    known = finite > 0
    total, good = count.sum(), finite.sum()
    merged = np.full(rows.shape[1], np.nan)
    merged[[0, 6]] = total, bad.sum()
    if total:
        seen = count > 0
        merged[5] = (zero[seen] * count[seen]).sum() / total
    if good:
        share = finite[known] / good
        centre = (share * mean[known]).sum()
        variance = (share * (std[known] ** 2 + (mean[known] - centre) ** 2)).sum()
        merged[1:5] = centre, np.sqrt(variance), low[known].min(), high[known].max()
    merged[7] = _last_known(dead)
    return merged


def _last_known(values: npt.NDArray[Any]) -> float:
    known = values[~np.isnan(values)]
    return float(known[-1]) if known.size else float("nan")
