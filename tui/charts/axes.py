"""Axes: which values a chart spans, where a value lies on it, and which round numbers label it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tui.charts.numbers import exponent

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    Values = npt.NDArray[np.float64]

_ROUND = (1.0, 2.0, 5.0, 10.0)  # a tick's distance is one of these times a power of ten
_LARGEST = 1e300  # beyond it, sums of two values overflow


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled place on an axis: `place` is 0 at its low end and 1 at its high end."""

    place: float
    label: str


@dataclass(frozen=True, slots=True)
class Axis:
    """A span of values, low < high; on a logarithmic axis both are exponents of ten."""

    low: float
    high: float
    log: bool = False

    def scaled(self, values: Values) -> Values:
        """Values in the axis's own unit; on a logarithmic axis what is not positive becomes −Inf."""
        if not self.log:
            return values
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(values <= 0, -np.inf, np.log10(values))

    def places(self, scaled: Values) -> Values:
        """Where scaled values lie: 0 at the low end, 1 at the high end."""
        return (scaled / 2 - self.low / 2) / (self.high / 2 - self.low / 2)  # halves: the span itself may overflow

    def ticks(self, most: int) -> list[Tick]:
        """At most `most` ticks at round values, ascending; fewer where their labels would be the same."""
        if most < 1:
            return []
        if self.log:
            return self._log_ticks(most)
        values, distance = self._round_values(most)
        places = np.clip(self.places(np.array(values, np.float64)), 0, 1).tolist()
        return _distinct(Tick(p, _decimal(v, distance)) for p, v in zip(places, values, strict=True))

    def _round_values(self, most: int) -> tuple[list[float], float]:
        distance = _distance(self.high / most - self.low / most)
        while len(numbers := self._multiples(distance)) > most:
            distance = _distance(distance * 1.5)
        return [number * distance for number in numbers], distance

    def _multiples(self, distance: float) -> range:
        slack = 1e-9  # a round end of the axis may miss its multiple by a rounding error
        return range(math.ceil(self.low / distance - slack), math.floor(self.high / distance + slack) + 1)

    def _log_ticks(self, most: int) -> list[Tick]:
        """Powers of ten; where those are few, twice and five times them; where that is too little, any round value."""
        powers = range(math.ceil(self.low), math.floor(self.high) + 1)
        if len(powers) > 2:
            every = math.ceil(len(powers) / most)
            values = [10.0**power for power in powers if power % every == 0]
        else:
            within = range(math.floor(self.low), math.ceil(self.high))
            values = [times * 10.0**power for power in within for times in _ROUND[:-1]]
            values = [value for value in values if self.low <= math.log10(value) <= self.high]
            values = values[:: max(1, math.ceil(len(values) / most))]
        if len(values) < 2:
            values = [v for v in Axis(10.0**self.low, 10.0**self.high)._round_values(most)[0] if v > 0]
        places = np.clip(self.places(self.scaled(np.array(values, np.float64))), 0, 1).tolist()
        return _distinct(Tick(p, _plain(v)) for p, v in zip(places, values, strict=True))


def axis_of(series: Iterable[Values], *, log: bool = False) -> Axis | None:
    """The axis that holds every finite value (on a logarithmic one, every positive value); None if there is none."""
    lows, highs = [], []
    scale = Axis(0, 1, log)
    for values in series:
        scaled = scale.scaled(values)
        finite = scaled[np.isfinite(scaled)]
        if len(finite):
            lows.append(float(finite.min()))
            highs.append(float(finite.max()))
    return _widened(max(-_LARGEST, min(lows)), min(_LARGEST, max(highs)), log=log) if lows else None


def _widened(low: float, high: float, *, log: bool) -> Axis:
    """Give a constant series some room around it, so that its curve runs through the middle."""
    if high / 2 - low / 2 > abs(high) * 1e-12 and high - low > 1e-300:
        return Axis(low, high, log)
    room = 0.5 if log else max(abs(low) * 0.1, 1e-290)
    return Axis(low - room, high + room, log) if low or log else Axis(-1.0, 1.0, log)


def _distance(least: float) -> float:
    """The smallest round distance that is at least `least`."""
    power = 10.0 ** math.floor(math.log10(max(least, 1e-305)))
    return next(times * power for times in _ROUND if times * power >= least * (1 - 1e-9))


def _decimal(value: float, distance: float) -> str:
    """A tick's value with as many decimals as its neighbours need."""
    if value == 0 or abs(value) < distance / 2:
        return "0"
    if abs(value) >= 1e5 or distance < 1e-4:
        digits = max(0, math.floor(math.log10(abs(value))) - math.floor(math.log10(distance)))
        return exponent(f"{value:.{min(digits, 5)}e}")
    return f"{value:.{max(0, -math.floor(math.log10(distance) + 1e-9))}f}"


def _plain(value: float) -> str:
    """A power of ten, or a value between two of them."""
    return f"{value:.3g}" if 1e-3 <= value < 1e5 else exponent(f"{value:.1e}")


def _distinct(ticks: Iterable[Tick]) -> list[Tick]:
    by_label: dict[str, Tick] = {}
    for tick in ticks:
        by_label.setdefault(tick.label, tick)
    return list(by_label.values())
