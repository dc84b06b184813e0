"""What the viewer asks a run, and the immutable answers that it shows. Runs in a worker, never in the event loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from tensorscope.events import Finding, Histogram, Severity, Shape, Site, Stats
from tensorscope.plots.curves import quantity
from tui.charts.plot import Series
from tui.outline import Node, in_model_order, outline
from tui.verdict import findings_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from tensorscope.events import ModuleInfo
    from tensorscope.reports import ShapeReport
    from tensorscope.run.reader import Run

TREND_COLUMNS = 12  # cells that show a gradient's course in one line of the tree
CELLS = 2_000_000  # numbers of one table: up to here every measured step is fetched, and the strongest of them shown
RANGE = "mean, min–max"  # the one statistic that is shown as a line with a band
STATISTICS = (RANGE, "std", "rms", "l2", "zero_fraction", "dead_fraction", "nonfinite")

_WORST_FIRST = (Severity.ERROR, Severity.WARNING, Severity.INFO)


@dataclass(frozen=True, slots=True)
class Head:
    """What is true of the whole run, whatever is looked at.

    Attributes:
        name: of the run's folder.
        model: class name of the traced model; empty if unknown.
        status: `running`, `finished`, `interrupted` or `died`.
        error: what ended it; empty if nothing did.
        last_step: newest step, −1 before the first.
        rate: steps in a second, None if unknown.
        notes: how many problems there were while recording.
        dropped: frames left out because the disk did not keep up.
        worst: severity of its worst finding, None without one.
        findings: how many findings.
        reports: how many shape errors were explained.
    """

    name: str
    model: str
    status: str
    error: str
    last_step: int
    rate: float | None
    notes: int
    dropped: int
    worst: Severity | None
    findings: int
    reports: int = 0


class Answer(Protocol):
    """Marks what a question gives; each view knows its own."""


class Question(Protocol):
    """Something to be asked of a run; equal questions have equal answers as long as the run has not changed.

    Attributes:
        pace: the least seconds between two answers while the run keeps moving.
    """

    pace: ClassVar[float]

    def answer(self, run: Run) -> Answer:
        """Read what is asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A run as it stood at one moment, as far as one question goes; without an answer if only the head has changed."""

    head: Head
    question: Question
    answer: Answer | None = None
    measured: tuple[int, ...] = ()
    replaced: bool = False  # whether a new run has taken the place of the one seen before


def head_of(run: Run, rate: float | None) -> Head:
    """Read what is true of the whole run."""
    meta = run.meta
    findings = findings_of(run)
    worst = next((s for s in _WORST_FIRST if any(f.severity is s for f in findings)), None)
    return Head(
        name=run.path.resolve().name,
        model=str(meta.get("model", "")),
        status=run.status,
        error=str(meta.get("error") or ""),
        last_step=run.last_step,
        rate=rate,
        notes=len(run.notes),
        dropped=run.dropped,
        worst=worst,
        findings=len(findings),
        reports=len(run.reports),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Overview:
    """Every logged scalar, those of one quantity together, and what was found.

    Attributes:
        charts: one tuple of series per quantity.
        findings: the worst first.
        errors: titles of the shape errors that were explained.
    """

    charts: tuple[tuple[Series, ...], ...]
    findings: tuple[Finding, ...]
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AskOverview:
    """Asks for the scalars, the findings and the errors."""

    pace: ClassVar[float] = 0.5
    until: int | None = None

    def answer(self, run: Run) -> Overview:
        """Read them."""
        series = [Series(name, *run.scalars(name)).up_to(self.until) for name in run.scalar_names]
        errors = tuple(report.title for report in reversed(run.reports))
        return Overview(tuple(by_quantity(series)), tuple(worst_first(findings_of(run))), errors)


def by_quantity(series: Iterable[Series]) -> list[tuple[Series, ...]]:
    """Put series together whose names differ only in the data they were computed on; losses come first."""
    groups: dict[str, list[Series]] = {}
    for one in series:
        groups.setdefault(quantity(one.name), []).append(one)
    return [tuple(groups[name]) for name in sorted(groups, key=lambda name: "loss" not in name.lower())]


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings by severity; within one, the order of the rules (causes first) stays."""
    return sorted(findings, key=lambda finding: _WORST_FIRST.index(finding.severity))


@dataclass(frozen=True, slots=True, eq=False)
class Layers:
    """The module tree with the newest numbers of every site.

    Attributes:
        nodes: the lines, depth first.
        stats: numbers of each site.
        shapes: newest shape of each site.
        trends: root mean square of each gradient over the run, (`TREND_COLUMNS`,) or fewer.
        blamed: severity of the worst finding, or of an explained error, at a module path or parameter.
    """

    nodes: tuple[Node, ...]
    stats: dict[Site, Stats]
    shapes: dict[Site, Shape]
    trends: dict[Site, npt.NDArray[np.float64]]
    blamed: dict[str, Severity]


@dataclass(frozen=True, slots=True)
class AskLayers:
    """Asks for the tree as it was at a step, or as it is."""

    pace: ClassVar[float] = 0.5
    until: int | None = None

    def answer(self, run: Run) -> Layers:
        """Read it."""
        sites = run.sites
        gradients = [site for site in sites if site.gradient]
        steps, table = run.table(gradients, "rms", TREND_COLUMNS)
        seen = table[:, : _known(steps, self.until)]
        trends = dict(zip(gradients, seen, strict=True))
        blamed: dict[str, Severity] = {}
        for finding in worst_first(findings_of(run)):
            blamed.setdefault(finding.site or "", finding.severity)
        blamed |= {report.module: Severity.ERROR for report in run.reports}
        return Layers(outline(run.modules, sites), run.stats_at(self.until), run.last_shapes(), trends, blamed)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One statistic of many sites over the run.

    Attributes:
        sites: (sites,) in the model's order.
        steps: (columns,) ascending.
        values: (sites, columns) NaN where nothing was measured, +Inf where a tensor held NaN or Inf.
    """

    sites: tuple[Site, ...]
    steps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    family: str = ""


FAMILIES = ("gradients of outputs", "gradients of parameters", "outputs", "parameters")


@dataclass(frozen=True, slots=True)
class AskTable:
    """Asks for the root mean square of a family of sites over the run; without a name, the first one recorded."""

    pace: ClassVar[float] = 1.0
    family: str
    columns: int
    until: int | None = None

    def answer(self, run: Run) -> Table:
        """Read it."""
        recorded = set(run.sites)
        ordered = in_model_order(outline(run.modules, run.sites))
        families = {name: [s for s in _family(ordered, name) if s in recorded] for name in FAMILIES}
        family = self.family or next((name for name in FAMILIES if families[name]), FAMILIES[0])
        steps, values = run.table(families[family], "rms", max(self.columns, CELLS // max(1, len(families[family]))))
        end = _known(steps, self.until)
        return Table(tuple(families[family]), steps[:end], values[:, :end], family)


def _family(sites: Iterable[Site], family: str) -> list[Site]:
    parameters = "parameters" in family
    chosen = [site for site in sites if (site.kind == "parameter") == parameters]
    return [site.grad for site in chosen] if family.startswith("gradients") else chosen


def _known(steps: npt.NDArray[np.int64], until: int | None) -> int:
    return len(steps) if until is None else int(np.searchsorted(steps, until, side="right"))


@dataclass(frozen=True, slots=True, eq=False)
class Diagnosis:
    """What was found, and what went wrong while recording."""

    findings: tuple[Finding, ...]
    notes: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class AskDiagnosis:
    """Asks for findings and notes."""

    pace: ClassVar[float] = 0.5
    until: int | None = None

    def answer(self, run: Run) -> Diagnosis:
        """Read them."""
        return Diagnosis(tuple(worst_first(findings_of(run))), tuple(run.notes))


@dataclass(frozen=True, slots=True, eq=False)
class Reports:
    """The shape errors that were explained, the newest first."""

    reports: tuple[ShapeReport, ...]


@dataclass(frozen=True, slots=True)
class AskReports:
    """Asks for the reports."""

    pace: ClassVar[float] = 0.5

    def answer(self, run: Run) -> Reports:
        """Read them."""
        return Reports(tuple(reversed(run.reports)))


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
    """A site and its gradient side by side."""

    tensor: Sight
    gradient: Sight
    module: ModuleInfo | None
    findings: tuple[Finding, ...] = field(default=())


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
        sights = [self._sight(run, site, stats.get(site)) if site in recorded else Sight(site)
                  for site in (self.site, self.site.grad)]  # fmt: skip
        module = next((info for info in run.modules if info.path == self.site.module), None)
        findings = tuple(f for f in worst_first(findings_of(run)) if f.site in {self.site.path, str(self.site)})
        return Detail(sights[0], sights[1], module, findings)

    def _sight(self, run: Run, site: Site, stats: Stats | None) -> Sight:
        if self.statistic == RANGE:
            steps, mean = run.history(site, "mean")
            curve = Series("mean", steps, mean, run.history(site, "min")[1], run.history(site, "max")[1])
        else:
            curve = Series(self.statistic, *run.history(site, self.statistic))
        until = run.last_step if self.until is None else self.until
        histograms = tuple((step, found) for step, found in run.histograms(site) if step <= until)
        return Sight(site, curve.up_to(self.until), stats, tuple(run.shapes(site)), histograms)
