"""Showing on a graph what a run measured: a colour per module, what is not finite, what was found."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from tensorscope.errors import GraphError
from tensorscope.events import ROOT, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tensorscope.events import Site

# Light to dark in one hue that all eyes see, light enough for black text.
SCALE = ("#f4f8fc", "#dcebf7", "#bcdcf0", "#94c6e4", "#6db0d6", "#4a98c9")
UNKNOWN = "#ffffff"
BROKEN, BROKEN_FILL = "#b0006d", "#fbe3f1"  # not finite
SEVERITIES = {"info": "#57606a", "warning": "#a15c00", "error": "#b42318"}
_WORST = tuple(SEVERITIES)


class Recorded(Protocol):
    """What is needed of a run."""

    @property
    def sites(self) -> Sequence[Site]:
        """Where tensors were seen."""

    def history(self, site: Site, stat: str) -> tuple[Any, Any]:
        """Steps and values."""


@dataclass(frozen=True, slots=True)
class Paint:
    """How a module looks with the run on it.

    Attributes:
        fill: colour of its value.
        line: colour of its outline; None if nothing is wrong with it.
        value: the number, or the range of several.
        marks: what is wrong with it.
    """

    fill: str
    line: str | None
    value: str
    marks: tuple[str, ...]

    def __str__(self) -> str:
        return "  ".join(part for part in (self.value, *self.marks) if part)


@dataclass(frozen=True)
class Overlay:
    """Numbers and findings of one step, by module path.

    Attributes:
        title: such as `rms of gradients, step 1200`.
        values: path → the statistic; NaN where there was no finite element.
        broken: paths with elements that are NaN or infinite.
        found: path → (severity, rule) of what was diagnosed there.
    """

    title: str
    values: Mapping[str, float]
    broken: frozenset[str] = frozenset()
    found: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)

    def settled(self, drawn: Iterable[str]) -> Overlay:
        """The same with every finding on the innermost drawn module around where it was made; "" is the whole model."""
        known = set(drawn)
        found: dict[str, tuple[tuple[str, str], ...]] = defaultdict(tuple)
        for path, problems in self.found.items():
            place = path
            while place and place not in known:
                place = place.rpartition(".")[0]
            found[place] += problems
        return replace(self, found=dict(found))

    def paint(self, members: Sequence[str]) -> Paint:
        """How something that stands for modules looks."""
        finite = [self.values[path] for path in members if math.isfinite(self.values.get(path, math.nan))]
        fill, value = UNKNOWN, ""
        if finite:
            fill = SCALE[self._shade(sorted(finite)[len(finite) // 2])]
            low, high = number(min(finite)), number(max(finite))
            value = low if low == high else f"{low} … {high}"
        problems = [problem for path in members for problem in self.found.get(path, ())]
        line = SEVERITIES[max((severity for severity, _ in problems), key=_WORST.index)] if problems else None
        marks = [f"▲ {rule or severity}" for severity, rule in dict.fromkeys(problems)]
        broken = [path for path in members if path in self.broken]
        if broken:
            fill, line = BROKEN_FILL, BROKEN
            marks.append("✖ not finite" + (f" in {len(broken)} of {len(members)}" if len(members) > 1 else ""))
        return Paint(fill, line, value, tuple(marks))

    def legend(self) -> list[tuple[str, str]]:
        """Fill colour and the least value it stands for, light to dark."""
        edges = self._edges()
        return [(colour, number(edge)) for colour, edge in zip(SCALE, edges, strict=False)]

    def _shade(self, value: float) -> int:
        return sum(value >= edge for edge in self._edges()[1:])

    def _edges(self) -> list[float]:
        """Where each colour begins: even steps, of the logarithm if the values span more than a factor of ten."""
        finite = sorted(value for value in self.values.values() if math.isfinite(value))
        if not finite or finite[0] == finite[-1]:
            return finite[:1]
        low, high, count = finite[0], finite[-1], len(SCALE)
        if low > 0 and high / low > 10:
            return [low * (high / low) ** (index / count) for index in range(count)]
        return [low + (high - low) * index / count for index in range(count)]


def measured(run: Recorded, stat: str, *, gradient: bool = False) -> Overlay:
    """What a run last measured of every module's output, or of that output's gradient.

    Raises:
        GraphError: the run has no such site.
    """
    values: dict[str, float] = {}
    broken: set[str] = set()
    last = -1
    for site in run.sites:
        if site.kind is not Kind.OUTPUT or site.place or site.gradient is not gradient:
            continue
        steps, history = run.history(site, stat)
        if not len(steps):
            continue
        last = max(last, int(steps[-1]))
        values[site.path] = max(values.get(site.path, -math.inf), float(history[-1]))
        if not math.isfinite(history[-1]) or run.history(site, "nonfinite")[1][-1] > 0:
            broken.add(site.path)
    what = "gradients" if gradient else "outputs"
    if not values:
        raise GraphError(f"the run has no measured {what} of modules", hint="let the trace measure at least one step")
    return Overlay(f"{stat} of {what}, step {last}", values, frozenset(broken), _found(run))


def number(value: float) -> str:
    """Two significant digits."""
    return f"{value:.2g}"


def _found(run: Recorded) -> dict[str, tuple[tuple[str, str], ...]]:
    """Path or parameter → severity and rule; what concerns the program as a whole is at the model itself."""
    found: dict[str, tuple[tuple[str, str], ...]] = defaultdict(tuple)
    for finding in getattr(run, "findings", ()):
        site = finding.site or ""
        path = "" if site in (ROOT, "input", "loss", "optimizer") else site.partition(":")[0].partition("#")[0]
        found[path] += ((str(finding.severity), str(getattr(finding, "rule", ""))),)
    return dict(found)
