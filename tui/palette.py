"""Colours that a terminal with 256 of them shows as they are, and that colour-blind readers tell apart."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from rich.color import Color
from rich.color_triplet import ColorTriplet
from rich.style import Style

if TYPE_CHECKING:
    from tensorscope.events import Severity

# Blue, orange, green, pink, yellow, grey; the terminal's own 256 colours, bright for lines and dim for bands.
SERIES = ("#5fafff", "#ffaf5f", "#5fd787", "#d787af", "#d7d75f", "#bcbcbc")
BANDS = ("#005f87", "#875f00", "#005f5f", "#5f5f87", "#5f5f00", "#585858")
AXIS, GRID, CROSSHAIR = "#808080", "#444444", "#ffffff"
NOT_A_NUMBER, INFINITE = "#ff5fff", "#ff87ff"  # no ramp and no series comes near them
FADED = "#808080"

# Ever lighter, so that it reads in greys as well: from nearly black over blue and green to pale yellow.
RAMP = ("#00005f", "#000087", "#0000af", "#005f87", "#0087af", "#00afaf", "#5fd787", "#afd75f", "#d7ff5f", "#ffffaf")
SHADES = " ░▒▓█"  # in place of colours where there are none

STATUS = {
    "running": ("●", "#5fd787"),
    "finished": ("✓", "#5fafff"),
    "interrupted": ("■", "#ffaf5f"),
    "died": ("✗", "#ff5f5f"),
    "unreadable": ("?", "#ff5f5f"),
    "waiting": ("○", "#808080"),
}
SEVERITY = {"error": ("✗", "#ff5f5f"), "warning": ("▲", "#ffaf5f"), "info": ("•", "#5fafff")}


def severity_mark(severity: Severity | str) -> tuple[str, str]:
    """The sign and the colour of a severity."""
    return SEVERITY[str(severity)]


@lru_cache(maxsize=4096)
def style(color: str = "", background: str = "", *, bold: bool = False, dim: bool = False) -> Style:
    """A style, made once; without any colour it is empty but never None."""
    return Style(
        color=_color(color) if color else None,
        bgcolor=_color(background) if background else None,
        bold=bold or None,
        dim=dim or None,
    )


@lru_cache(maxsize=8)
def ramp(levels: int) -> tuple[str, ...]:
    """The ramp in `levels` colours: its own ones, or others between them."""
    if levels <= len(RAMP):
        return tuple(RAMP[round(n * (len(RAMP) - 1) / max(1, levels - 1))] for n in range(levels))
    anchors = [Color.parse(name).get_truecolor() for name in RAMP]
    colors = []
    for n in range(levels):
        place = n * (len(anchors) - 1) / (levels - 1)
        first = min(int(place), len(anchors) - 2)
        colors.append(_between(anchors[first], anchors[first + 1], place - first).hex)
    return tuple(colors)


def _between(first: ColorTriplet, second: ColorTriplet, share: float) -> ColorTriplet:
    parts = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return ColorTriplet(*parts)


def _color(name: str) -> Color:
    return Color.parse(name)
