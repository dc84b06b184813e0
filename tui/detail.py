"""What is asked about one place of the model: a tensor, its gradient, and of a parameter what the optimizer adds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tensorscope.events import Finding, Histogram, Kind, Shape, Site, Stats
from tui.charts.plot import Series
from tui.snapshot import POINTS, band, worst_first
from tui.verdict import findings_of

if TYPE_CHECKING:
    from tensorscope.events import ModuleInfo
    from tensorscope.run.reader import Run

RANGE = "mean, min–max"  # the one statistic that is shown as a line with a band
STATISTICS = (RANGE, "std", "rms", "l2", "zero_fraction", "dead_fraction", "nonfinite")
RATIO = "update / weight, rms"


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """One tensor over the run.

    Attributes:
        site: which.
        curve: the statistic that was asked for; None if this tensor was not recorded.
        stats: its newest numbers, None if there are none.
        shapes: the shapes it had, each with its first step.
        histograms: with their steps.
    """

    site: Site
    curve: Series | None = None
    stats: Stats | None = None
    shapes: tuple[Shape, ...] = ()
    histograms: tuple[tuple[int, Histogram], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Detail:
    """A site side by side with its gradient and, of a parameter that an optimizer moves, its update.

    Attributes:
        tensor: the site.
        gradient: its gradient.
        module: the module it belongs to.
        findings: what was found there.
        update: what each step of the optimizer added.
        ratio: how large that was beside the parameter, rms over rms.
    """

    tensor: Sight
    gradient: Sight
    module: ModuleInfo | None
    findings: tuple[Finding, ...] = field(default=())
    update: Sight | None = None
    ratio: Series | None = None

    @property
    def sights(self) -> tuple[Sight, ...]:
        """All that stands side by side."""
        return tuple(sight for sight in (self.tensor, self.gradient, self.update) if sight is not None)


@dataclass(frozen=True, slots=True)
class AskDetail:
    """Asks for all that is known of a site (not a gradient) and of its gradient."""

    pace: ClassVar[float] = 0.5
    site: Site
    statistic: str
    until: int | None = None

    def answer(self, run: Run) -> Detail:
        """Read it."""
        recorded = set(run.sites)
        stats = run.stats_at(self.until)
        update = Site(self.site.path, Kind.UPDATE)
        moved = self.site.kind is Kind.PARAMETER and update in recorded
        sights = [self._sight(run, site, stats.get(site)) if site in recorded else Sight(site)
                  for site in (self.site, self.site.grad, *([update] if moved else []))]  # fmt: skip
        module = next((info for info in run.modules if info.path == self.site.module), None)
        findings = tuple(f for f in worst_first(findings_of(run)) if f.site in {self.site.path, str(self.site)})
        if not moved:
            return Detail(sights[0], sights[1], module, findings)
        return Detail(sights[0], sights[1], module, findings, sights[2], _ratio(run, self.site, self.until))

    def _sight(self, run: Run, site: Site, stats: Stats | None) -> Sight:
        curve = (
            _range(run, site, self.until) if self.statistic == RANGE else _curve(run, site, self.statistic, self.until)
        )
        until = run.last_step if self.until is None else self.until
        histograms = tuple((step, found) for step, found in run.histograms(site) if step <= until)
        return Sight(site, curve.up_to(self.until), stats, tuple(run.shapes(site)), histograms)


def _ratio(run: Run, parameter: Site, until: int | None) -> Series:
    """How large each update was beside its parameter; left out where that was 0, as a new bias is."""
    update, weight = (_curve(run, site, "rms", until) for site in (Site(parameter.path, Kind.UPDATE), parameter))
    known = np.isfinite(weight.values)  # between two buckets of a long run a weight moves little
    size = np.interp(update.steps, weight.steps[known], weight.values[known]) if known.any() else weight.values
    some = size != 0
    parts = (update.values, update.low, update.high)
    line, *edges = (None if part is None else part[some] / size[some] for part in parts)
    assert line is not None
    return Series(RATIO, update.steps[some], line, *edges).up_to(until)


def _curve(run: Run, site: Site, statistic: str, until: int | None) -> Series:
    if run.last_step < POINTS:
        return Series(statistic, *run.history(site, statistic))
    return band(statistic, run.envelope(site, statistic, POINTS, last=until))


def _range(run: Run, site: Site, until: int | None) -> Series:
    """The mean, in a band from the smallest element to the largest."""
    if run.last_step < POINTS:
        steps, mean = run.history(site, "mean")
        return Series("mean", steps, mean, run.history(site, "min")[1], run.history(site, "max")[1])
    middle, low, high = (run.envelope(site, stat, POINTS, last=until) for stat in ("mean", "min", "max"))
    common = min(len(middle.steps), len(low.steps), len(high.steps))  # a step may have been written in between
    line = band("mean", middle)
    return Series("mean", line.steps[:common], line.values[:common], low.low[:common], high.high[:common])
