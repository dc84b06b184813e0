"""What the viewer asks a run, and the immutable answers that it shows. Runs in a worker, never in the event loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from tensorscope.events import Finding, Kind, Severity, Shape, Site, Stats
from tensorscope.plots.curves import quantity
from tui.charts.plot import Series
from tui.costs import Cost, costs_of
from tui.facts import Section, sections_of
from tui.gauges import Gauge, gauges_of
from tui.head import WORST_FIRST, Head
from tui.outline import Node, in_model_order, outline
from tui.verdict import findings_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from tensorscope.reports import ShapeReport
    from tensorscope.run.envelope import Envelope
    from tensorscope.run.reader import Run

TREND_COLUMNS = 12  # cells that show a gradient's course in one line of the tree
POINTS = 2000  # of one curve: as many steps are fetched as they are; of longer runs the extremes between them
FINENESS = 4  # columns of a table that are fetched for one that is shown


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


@dataclass(frozen=True, slots=True, eq=False)
class Overview:
    """Every logged scalar, those of one quantity together, and what was found.

    Attributes:
        charts: one tuple of series per quantity.
        findings: the worst first.
        errors: titles of the shape errors that were explained.
        gauges: what the trace read off by itself.
    """

    charts: tuple[tuple[Series, ...], ...]
    findings: tuple[Finding, ...]
    errors: tuple[str, ...] = ()
    gauges: tuple[Gauge, ...] = ()


@dataclass(frozen=True, slots=True)
class AskOverview:
    """Asks for the scalars, the gauges, the findings and the errors."""

    pace: ClassVar[float] = 0.5
    until: int | None = None

    def answer(self, run: Run) -> Overview:
        """Read them."""
        series = [_scalar(run, name, self.until) for name in run.scalar_names]
        errors = tuple(report.title for report in reversed(run.reports))
        gauges = gauges_of(_gauge(run, name, self.until) for name in run.gauge_names)
        return Overview(tuple(by_quantity(series)), tuple(worst_first(findings_of(run))), errors, gauges)


def _scalar(run: Run, name: str, until: int | None) -> Series:
    if run.last_step < POINTS:
        return Series(name, *run.scalars(name)).up_to(until)
    return band(name, run.scalar_envelope(name, POINTS, last=until))


def _gauge(run: Run, name: str, until: int | None) -> Series:
    if run.last_step < POINTS:
        return Series(name, *run.gauge(name)).up_to(until)
    return band(name, run.scalar_envelope(name, POINTS, last=until))


def band(name: str, envelope: Envelope) -> Series:
    """An envelope as a line with a band; NaN where a value was not finite."""
    # Halved first: a sum of large values overflows.
    middle = np.where(envelope.nonfinite > 0, np.nan, envelope.low / 2 + envelope.high / 2)
    return Series(name, envelope.steps, middle, envelope.low, envelope.high)


def by_quantity(series: Iterable[Series]) -> list[tuple[Series, ...]]:
    """Put series together whose names differ only in the data they were computed on; losses come first."""
    groups: dict[str, list[Series]] = {}
    for one in series:
        groups.setdefault(quantity(one.name), []).append(one)
    return [tuple(groups[name]) for name in sorted(groups, key=lambda name: "loss" not in name.lower())]


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings by severity; within one, the order of the rules (causes first) stays."""
    return sorted(findings, key=lambda finding: WORST_FIRST.index(finding.severity))


@dataclass(frozen=True, slots=True, eq=False)
class Layers:
    """The module tree with the newest numbers of every site.

    Attributes:
        nodes: the lines, depth first.
        stats: numbers of each site.
        shapes: newest shape of each site.
        trends: root mean square of each gradient over the run, (`TREND_COLUMNS`,) or fewer.
        blamed: severity of the worst finding, or of an explained error, at a module path or parameter.
        costs: of each module, by its path; None if they were not asked for.
    """

    nodes: tuple[Node, ...]
    stats: dict[Site, Stats]
    shapes: dict[Site, Shape]
    trends: dict[Site, npt.NDArray[np.float64]]
    blamed: dict[str, Severity]
    costs: dict[str, Cost] | None = None


@dataclass(frozen=True, slots=True)
class AskLayers:
    """Asks for the tree as it was at a step, or as it is; with what modules cost, if that is to be shown."""

    pace: ClassVar[float] = 0.5
    until: int | None = None
    with_costs: bool = False

    def answer(self, run: Run) -> Layers:
        """Read it."""
        sites = _tensors(run)
        gradients = [site for site in sites if site.gradient]
        _, table = run.table(gradients, "rms", TREND_COLUMNS, last=self.until)
        trends = dict(zip(gradients, table, strict=True))
        blamed: dict[str, Severity] = {}
        for finding in worst_first(findings_of(run)):
            blamed.setdefault(finding.site or "", finding.severity)
        blamed |= {report.module: Severity.ERROR for report in run.reports}
        nodes = outline(run.modules, sites)
        costs = costs_of(run) if self.with_costs else None
        return Layers(nodes, run.stats_at(self.until), run.last_shapes(), trends, blamed, costs)


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
        ordered = in_model_order(outline(run.modules, _tensors(run)))
        families = {name: [s for s in _family(ordered, name) if s in recorded] for name in FAMILIES}
        family = self.family or next((name for name in FAMILIES if families[name]), FAMILIES[0])
        columns = max(POINTS, FINENESS * self.columns)
        steps, values = run.table(families[family], "rms", columns, last=self.until)
        return Table(tuple(families[family]), steps, values, family)


def _tensors(run: Run) -> list[Site]:
    """The sites that have a line of their own; updates belong to their parameters."""
    return [site for site in run.sites if site.kind is not Kind.UPDATE]


def _family(sites: Iterable[Site], family: str) -> list[Site]:
    parameters = "parameters" in family
    kinds = (Kind.PARAMETER,) if parameters else (Kind.OUTPUT, Kind.INPUT)
    chosen = [site for site in sites if site.kind in kinds]
    return [site.grad for site in chosen] if family.startswith("gradients") else chosen


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
class Facts:
    """What the run says about itself."""

    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class AskFacts:
    """Asks for what the run says about itself."""

    pace: ClassVar[float] = 1.0

    def answer(self, run: Run) -> Facts:
        """Read it."""
        return Facts(tuple(sections_of(run)))
