"""What a trace reads off by itself: which of it belongs together, in which units it is told, and whether it moves."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tui.charts.numbers import percent, short

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from tui.charts.plot import Series

    Values = npt.NDArray[np.float64]

CHANGE = 1e-3  # a setting that moves less, relative to its size, counts as constant
DRIFT = 1.5  # what is measured always moves: its end has to differ from its beginning by this factor
LEAST = 8  # values that a drift is told from

_PLACE = re.compile(r"^(?:optimizer\d+\.)?(\w+?)(?:\[\d+\])?$")  # `optimizer2.lr[1]` is an `lr`
_ORDER = ("lr", "time", "clip", "memory", "interval")
_UNITS = {"time": (" (ms)", 1e3), "memory": (" (MB)", 1e-6)}  # group → the unit it is told in, and by what factor
_NAMES = {
    "step_seconds": "step",
    "tracing_seconds": "tracing",
    "clip": "gradients clipped by",
    "interval": "steps from one measured to the next",
}


@dataclass(frozen=True, slots=True, eq=False)
class Gauge:
    """Numbers of one kind that share a chart.

    Attributes:
        kind: such as `lr`.
        series: of the single numbers, with their unit in their names.
        moves: whether it is worth being looked at unasked.
    """

    kind: str
    series: tuple[Series, ...]
    moves: bool


def gauges_of(series: Iterable[Series]) -> tuple[Gauge, ...]:
    """Put the numbers of a kind together, the ones asked for most first.

    Args:
        series: named as in the run, in its units.
    """
    groups: dict[str, list[Series]] = {}
    for one in series:
        groups.setdefault(group_of(one.name), []).append(one)
    ordered = sorted(groups, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))
    return tuple(_gauge(name, groups[name]) for name in ordered)


def group_of(name: str) -> str:
    """What kind of number a gauge's name stands for."""
    if name.startswith("memory"):
        return "memory"
    if name.endswith("_seconds"):
        return "time"
    found = _PLACE.match(name)
    return found[1] if found else name


def _gauge(group: str, series: list[Series]) -> Gauge:
    unit, scale = _UNITS.get(group, ("", 1.0))
    told = tuple(one.scaled(f"{_NAMES.get(one.name, one.name.replace('_', ' '))}{unit}", scale) for one in series)
    test = drifts if group in _UNITS else changes  # what is measured is never quite the same
    return Gauge(group, told, moves=group != "interval" and any(test(one) for one in series))


def changes(series: Series) -> bool:
    """Whether a setting was ever another than at first."""
    values = np.concatenate([part for part in (series.values, series.low, series.high) if part is not None])
    if not np.isfinite(values).all():
        return bool(len(values))
    return bool(len(values)) and float(np.ptp(values)) > CHANGE * float(np.abs(values).max())


def drifts(series: Series) -> bool:
    """Whether the last quarter of what is measured differs clearly from the first."""
    values = series.values[np.isfinite(series.values)]
    if len(values) < LEAST:
        return False
    quarter = len(values) // 4
    first, last = float(np.median(values[:quarter])), float(np.median(values[-quarter:]))
    return max(first, last) > DRIFT * min(first, last)


def median(values: Values) -> float:
    """The median of what is finite; NaN if nothing is."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else math.nan


def newest(gauges: Sequence[Gauge]) -> list[tuple[str, str]]:
    """The last value of each number that is not a mere setting, with its unit: what it is, and how much."""
    found = {kind: _last(gauges, kind) for kind in ("lr", "time", "clip", "memory")}
    rows = []
    times = {name.partition(" ")[0]: value / 1e3 for name, value in found["time"]}
    if "step" in times:
        rows.append(("step", seconds(times["step"])))
    if times.get("step") and "tracing" in times:
        rows.append(("tracing", f"{seconds(times['tracing'])}, {percent(times['tracing'] / times['step'])} of it"))
    rows += [(name.removesuffix(" (MB)"), memory(value * 1e6)) for name, value in found["memory"]]
    rows += [(name, short(value)) for name, value in found["lr"]]
    return rows + [("clipping", short(value)) for _, value in found["clip"]]


def _last(gauges: Sequence[Gauge], kind: str) -> list[tuple[str, float]]:
    series = (one for gauge in gauges if gauge.kind == kind for one in gauge.series)
    return [(one.name, found[1]) for one in series if (found := one.nearest(1 << 62)) is not None]


def seconds(value: float) -> str:
    """A short stretch of time in three digits: `12.3 ms`, `1.24 s`; empty for NaN."""
    if math.isnan(value):
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(value) >= size or unit == "µs":
            return f"{short(value / size)} {unit}"
    return ""


def memory(number: float) -> str:
    """Bytes in three digits: `631 kB`, `1.20 GB`; empty for NaN."""
    if math.isnan(number):
        return ""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(number) >= size:
            return f"{short(number / size)} {unit}"
    return f"{number:.0f} B"
