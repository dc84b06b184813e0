"""The screen of one site: a tensor and its gradient, side by side, over the whole run."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Grid
from textual.content import Content
from textual.widgets import Footer

from tui import palette
from tui.charts.numbers import amount, grouped, percent, short
from tui.screens.live import LiveScreen
from tui.snapshot import STATISTICS, AskDetail, Detail, Sight
from tui.widgets.curve import Curve
from tui.widgets.histogram import Bars, Course
from tui.widgets.notice import Words

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.events import Resize

    from tensorscope.events import Shape, Site, Stats
    from tui.messages import Arrived, Failed, StepPointed
    from tui.source import Source

SIDE_BY_SIDE = 70  # the least width at which a tensor and its gradient stand beside each other


class SiteScreen(LiveScreen):
    """Facts, then curve, newest histogram and all histograms of the tensor and of its gradient.

    Args:
        source: where snapshots come from.
        site: the tensor, or its gradient.
        until: the step as of which to show it; None follows the run.
    """

    BINDING_GROUP_TITLE = "Site"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "statistic(1)", "Statistic", id="site.statistic"),
        Binding("S", "statistic(-1)", "Statistic before", show=False, id="site.statistic_before"),
        Binding("l", "log", "Log scale", id="site.log"),
        Binding("g", "gradient", "Tensor or gradient", id="site.gradient"),
        Binding("tab", "app.focus_next", "Next chart", show=False, id="site.next"),
        Binding("escape", "app.pop_screen", "Back", id="site.back"),
    ]
    DEFAULT_CSS = """
    SiteScreen {
        #facts { height: auto; max-height: 8; padding: 0 1; background: $panel; }
        #charts { grid-size: 2 3; grid-rows: 4fr 3fr 3fr; height: 1fr; }
        &.-narrow #charts { grid-size: 1 3; }
        &.-narrow .gradient { display: none; }
        &.-narrow.-other .gradient { display: block; }
        &.-narrow.-other .tensor { display: none; }
    }
    """

    def __init__(self, source: Source, site: Site, until: int | None) -> None:
        super().__init__(source)
        self.site = type(site)(site.path, site.kind, place=site.place, call=site.call)
        self.until = until
        self.statistic = STATISTICS[0]
        self._facts = Words(id="facts")
        self._sights = tuple((Curve(), Bars(), Course()) for _ in range(2))

    def compose(self) -> ComposeResult:
        """Put the parts together."""
        yield self._facts
        with Grid(id="charts"):
            for pair in zip(*self._sights, strict=True):
                for widget, kind in zip(pair, ("tensor", "gradient"), strict=True):
                    yield widget.add_class(kind)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Read at once, and then again and again."""
        self._facts.say(Content.styled(str(self.site), "bold"))
        self._sights[0][0].focus(scroll_visible=False)
        super().on_mount()

    def on_resize(self, event: Resize) -> None:
        """Fit the new size."""
        self.set_class(event.size.width < SIDE_BY_SIDE, "-narrow")
        self.refresh_bindings()

    def question(self) -> AskDetail:
        """All about the site."""
        return AskDetail(self.site, self.statistic, self.until)

    def on_arrived(self, message: Arrived) -> None:
        """Show a snapshot."""
        message.stop()
        detail = message.snapshot.answer
        if detail is None:
            return
        if not isinstance(detail, Detail) or message.snapshot.question != self.question():
            self.poll()
            return
        with self.app.batch_update():
            self._facts.say(facts(detail))
            for sight, widgets in zip((detail.tensor, detail.gradient), self._sights, strict=True):
                self._fill(sight, widgets)

    def _fill(self, sight: Sight, widgets: tuple[Curve, Bars, Course]) -> None:
        curve, bars, course = widgets
        curve.quantity = f"{sight.site}  {self.statistic.replace('_', ' ')}"
        curve.series = (sight.curve,) if sight.curve is not None else ()
        bars.border_title, course.border_title = Content("distribution"), Content("distribution over time")
        bars.histograms = course.histograms = sight.histograms

    def on_failed(self, message: Failed) -> None:
        """Say what is wrong, and go on trying."""
        message.stop()
        self._facts.say(Content.assemble((str(self.site), "bold"), "\n", (message.title, "$text-error")))

    def on_step_pointed(self, message: StepPointed) -> None:
        """Point at the same step everywhere."""
        message.stop()
        for widgets in self._sights:
            for widget in widgets:
                widget.pointed = message.step

    def action_statistic(self, by: int) -> None:
        """Show the next statistic."""
        self.statistic = STATISTICS[(STATISTICS.index(self.statistic) + by) % len(STATISTICS)]
        self.poll()

    def action_log(self) -> None:
        """Draw the curves on a logarithmic scale, or back."""
        for curve, _, _ in self._sights:
            curve.logarithmic = not curve.logarithmic

    def action_gradient(self) -> None:
        """On a narrow screen: show the gradient instead of the tensor, or back."""
        self.toggle_class("-other")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer the switch only where both do not fit side by side."""
        return self.has_class("-narrow") if action == "gradient" else super().check_action(action, parameters)


def facts(detail: Detail) -> Content:
    """Name, kind and shapes, what was found, and the newest numbers of the tensor and its gradient."""
    site, module = detail.tensor.site, detail.module
    kind = module.type if module and site.kind != "parameter" else str(site.kind)
    shapes = detail.tensor.shapes or detail.gradient.shapes
    shape = f"  {shapes[-1]} {shapes[-1].dtype} {shapes[-1].device}" if shapes else ""
    lines = [Content.assemble((str(site), "bold"), (f"  {kind}", "$text-muted"), shape)]
    if len(shapes) > 1:
        earlier = " · ".join(f"{_sizes(one)} at step {grouped(one.step)}" for one in shapes[-2:-6:-1])
        lines.append(Content.styled(f"before    {earlier}", "$text-muted"))
    for finding in detail.findings:
        mark, color = palette.severity_mark(finding.severity)
        lines.append(Content.assemble((f"{mark} {finding.summary}", f"bold {color}")))
    return Content("\n").join([*lines, _line("tensor  ", detail.tensor), _line("gradient", detail.gradient)])


def _sizes(shape: Shape) -> str:
    return f"({', '.join(map(str, shape.dims))})"


def _line(name: str, sight: Sight) -> Content:
    if sight.stats is None:
        return Content.assemble((f"{name}  ", "$text-muted"), "not recorded")
    bad = sight.stats.nonfinite
    said = f"  ✗ {amount(bad)} of {amount(sight.stats.count)} NaN or Inf" if bad else ""
    broken = (said, f"bold {palette.NOT_A_NUMBER}")
    return Content.assemble((f"{name}  ", "$text-muted"), (_numbers(sight.stats), "bold"), broken)


def _numbers(stats: Stats) -> str:
    zero = f"  zero {percent(stats.zero_fraction)}" if stats.zero_fraction > 0 else ""
    dead = f"  dead {percent(stats.dead_fraction)}" if stats.dead_fraction > 0 else ""
    return f"mean {short(stats.mean)}  std {short(stats.std)}  {short(stats.min)} … {short(stats.max)}{zero}{dead}"
