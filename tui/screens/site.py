"""The screen of one site: a tensor, its gradient and its update, side by side, over the whole run."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.widgets import Footer

from tui import palette
from tui.charts.numbers import amount, grouped, percent, short
from tui.detail import STATISTICS, AskDetail, Detail, Sight
from tui.screens.live import LiveScreen
from tui.widgets.curve import Curve
from tui.widgets.histogram import Bars, Course
from tui.widgets.notice import Words

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.events import Resize

    from tensorscope.events import Shape, Site, Stats
    from tui.messages import Arrived, Failed, StepPointed
    from tui.source import Source

LEAST_WIDTH = 35  # of what stands beside something else
NAMES = ("tensor  ", "gradient", "update  ")


class SiteScreen(LiveScreen):
    """Facts, then curve, newest histogram and all histograms of the tensor and of its gradient.

    Of a parameter that an optimizer moves, also its update's curve and how large that is beside the parameter. What
    does not fit side by side takes turns.

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
        Binding("g", "turn", "Next tensor", tooltip="Tensor, gradient or update", id="site.gradient"),
        Binding("tab", "app.focus_next", "Next chart", show=False, id="site.next"),
        Binding("escape", "app.pop_screen", "Back", id="site.back"),
    ]
    DEFAULT_CSS = """
    SiteScreen {
        #facts { height: auto; max-height: 8; padding: 0 1; background: $panel; }
        #charts { layout: horizontal; height: 1fr; }
        .sight { width: 1fr; height: 100%; }
        Curve { height: 4fr; }
        .ratio { height: 6fr; }
        Distribution { height: 3fr; }
    }
    """

    def __init__(self, source: Source, site: Site, until: int | None) -> None:
        super().__init__(source)
        self.site = type(site)(site.path, site.kind, place=site.place, call=site.call)
        self.until = until
        self.statistic = STATISTICS[0]
        self._facts = Words(id="facts")
        self._sights = tuple(Sights() for _ in NAMES[:2])
        self._update = UpdateSights()
        self._known = 2  # how many tensors there are to be seen
        self._first = 0  # which of them stands on the left

    def compose(self) -> ComposeResult:
        """Put the parts together."""
        yield self._facts
        with Container(id="charts"):
            yield from self._all
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Read at once, and then again and again."""
        self._facts.say(Content.styled(str(self.site), "bold"))
        self._sights[0].curve.focus(scroll_visible=False)
        super().on_mount()

    def on_resize(self, event: Resize) -> None:
        """Fit the new size."""
        self._arrange()

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
            if len(detail.sights) != self._known:
                self._known = len(detail.sights)
                self._arrange()
            for shown, sight in zip(self._all, detail.sights, strict=False):
                shown.show(sight, self.statistic)
            self._update.ratio.series = (detail.ratio,) if detail.ratio is not None else ()

    @property
    def _all(self) -> tuple[Sights | UpdateSights, ...]:
        return (*self._sights, self._update)

    @property
    def _room(self) -> int:
        """How many tensors fit side by side."""
        return max(1, min(self._known, self.size.width // LEAST_WIDTH))

    def _arrange(self) -> None:
        """Show as many tensors as fit; the first one stays as long as another can make room."""
        if self._room == self._known:
            self._first = 0
        places = {(self._first + n) % self._known for n in range(self._room)}
        if 1 < self._room < self._known:
            places = {0, 1 + self._first % (self._known - 1)}
        for number, shown in enumerate(self._all):
            shown.display = number in places
        self.refresh_bindings()

    def on_failed(self, message: Failed) -> None:
        """Say what is wrong, and go on trying."""
        message.stop()
        self._facts.say(Content.assemble((str(self.site), "bold"), "\n", (message.title, "$text-error")))

    def on_step_pointed(self, message: StepPointed) -> None:
        """Point at the same step everywhere."""
        message.stop()
        for shown in self._all:
            for widget in shown.pictures:
                widget.pointed = message.step

    def action_statistic(self, by: int) -> None:
        """Show the next statistic."""
        self.statistic = STATISTICS[(STATISTICS.index(self.statistic) + by) % len(STATISTICS)]
        self.poll()

    def action_log(self) -> None:
        """Draw the curves on a logarithmic scale, or back."""
        for shown in self._all:
            shown.curve.logarithmic = not shown.curve.logarithmic

    def action_turn(self) -> None:
        """Where not all fit: show the next of tensor, gradient and update."""
        self._first = (self._first + 1) % self._known
        self._arrange()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer the switch only where not all fit side by side."""
        return self._room < self._known if action == "turn" else super().check_action(action, parameters)


class Sights(Container):
    """A tensor's curve, its newest histogram, and all its histograms."""

    def __init__(self) -> None:
        super().__init__(classes="sight")
        self.curve, self.bars, self.course = Curve(), Bars(), Course()
        self.pictures: tuple[Curve | Bars | Course, ...] = (self.curve, self.bars, self.course)

    def compose(self) -> ComposeResult:
        """Put the parts together."""
        yield from self.pictures

    def show(self, sight: Sight, statistic: str) -> None:
        """Draw other numbers."""
        self.curve.quantity = f"{sight.site}  {statistic.replace('_', ' ')}"
        self.curve.series = (sight.curve,) if sight.curve is not None else ()
        self.bars.border_title, self.course.border_title = Content("distribution"), Content("distribution over time")
        self.bars.histograms = self.course.histograms = sight.histograms


class UpdateSights(Container):
    """The curve of a parameter's updates, and of how large they are beside it; no histograms are kept of them."""

    def __init__(self) -> None:
        super().__init__(classes="sight")
        self.curve, self.ratio = Curve(), Curve().add_class("ratio")
        self.ratio.logarithmic = True
        self.pictures = (self.curve, self.ratio)

    def compose(self) -> ComposeResult:
        """Put the parts together."""
        yield from self.pictures

    def show(self, sight: Sight, statistic: str) -> None:
        """Draw other numbers."""
        self.curve.quantity = f"{sight.site}  {statistic.replace('_', ' ')}"
        self.curve.series = (sight.curve,) if sight.curve is not None else ()


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
    last = detail.ratio.nearest(1 << 62) if detail.ratio is not None else None
    sights = [_line(name, sight) for name, sight in zip(NAMES, detail.sights, strict=False)]
    if last is not None:
        sights[-1] = Content.assemble(sights[-1], f"  ratio {short(last[1])}")
    return Content("\n").join([*lines, *sights])


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
