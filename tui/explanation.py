"""A shape report laid out in lines: what is wrong, where, what to change, and the evidence below."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from tui import palette
from tui.charts.numbers import shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.style import Style

    from tensorscope.reports import Operand, OriginStep, ShapeReport
    from tui.widgets.rows import Piece

LABEL = 11  # characters before the facts
LEAST_ROOM = 12  # characters of a fact, however narrow the screen
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
WRONG, RIGHT, UNTRIED = "#ff5f5f", "#5fd787", "#ffaf5f"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the layout.

    Attributes:
        pieces: what stands in it.
        place: module or parameter that it is about; None where that is the module that failed.
    """

    pieces: tuple[Piece, ...]
    place: str | None = None


def laid_out(report: ShapeReport, width: int, height: int) -> list[Line]:
    """The report in lines of a width, with blank lines between its parts if all of it then fits the height."""
    room = max(LEAST_ROOM, width - LABEL)
    parts = [
        _title(report, width),
        _where(report, room),
        _fixes(report, room),
        _operation(report, room),
        _formula(report, room),
        _path(report, room),
        _labelled("would fit", _words(report.fits, room)),
        _rest(report, room),
    ]
    parts = [part for part in parts if part]
    total = sum(map(len, parts))
    airy = total + len(parts) - 1 <= height
    gaps = range(len(parts) - 1) if airy else range(1) if total < height else ()
    lines: list[Line] = []
    for number, part in enumerate(parts):
        lines += [*part, Line(())] if number in gaps else part
    return [
        Line(tuple((_UNPRINTABLE.sub(" ", text), style) for text, style in line.pieces), line.place) for line in lines
    ]


def wrong_size(report: ShapeReport) -> int | None:
    """The dimension that the formula is about, or that the report says was got; None if it says no number."""
    terms = [term for term, _ in report.terms]
    said = re.match(r"\d+(?=\s|$)", next(filter(None, (report.formula, *terms[:1], report.got)), ""))
    return int(said[0]) if said else None


def ways(origin: Sequence[OriginStep]) -> dict[str, list[OriginStep]]:
    """The ways that lead to the operands of a call, each from its beginning."""
    found: dict[str, list[OriginStep]] = {}
    for step in origin:
        found.setdefault(step.operand, []).insert(0, step)
    return found


def marked_shape(
    dims: Sequence[int], names: Sequence[str], marked: Iterable[int], style: Style, marks: tuple[str, str] = ("", "")
) -> list[Piece]:
    """A shape in pieces, some axes in a style of their own and between marks, which need no colour to be seen."""
    plain, chosen = palette.style(), set(marked)
    pieces: list[Piece] = [("(", plain)]
    for axis, size in enumerate(dims):
        name = f"{names[axis]}=" if len(names) == len(dims) and names[axis] else ""
        text, shade = (f"{marks[0]}{size}{marks[1]}", style) if axis in chosen else (str(size), plain)
        pieces += [(f"{', ' if axis else ''}{name}", plain), (text, shade)]
    return [*pieces, (")", plain)]


def _title(report: ShapeReport, width: int) -> list[Line]:
    shade = palette.style(WRONG, bold=True)
    first, *rest = textwrap.wrap(report.title, max(LEAST_ROOM, width - 2)) or [""]
    return [Line((("✗ ", shade), (first, shade))), *(Line((("  ", shade), (text, shade))) for text in rest)]


def _where(report: ShapeReport, room: int) -> list[Line]:
    lines: list[list[Piece]] = []
    if report.where is not None:
        function = f"  in {report.where.function}" if report.where.function else ""
        place = shortened(str(report.where), max(LEAST_ROOM, room - len(function)))
        lines.append([(place, palette.style(bold=True)), (function, palette.style())])
        if report.where.code:
            bar = ("│ ", palette.style(WRONG, bold=True))
            lines += [[bar, piece] for line in _words(report.where.code, room - 2) for piece in line]
    lines = _labelled_lines("at", lines)
    kind = f" ({report.module_type})" if report.module_type else ""
    module = [[(report.module, palette.style(bold=True)), (kind, palette.style())]] if report.module else []
    return _to_lines(lines + _labelled_lines("module", module or _words(report.module_type, room)))


def _fixes(report: ShapeReport, room: int) -> list[Line]:
    lines: list[list[Piece]] = []
    for fix in report.fixes:
        color = RIGHT if fix.verified else UNTRIED
        mark = ("✓ " if fix.verified else "? ", palette.style(color, bold=True))
        for number, text in enumerate(textwrap.wrap(str(fix), max(LEAST_ROOM, room - 2))):
            lines.append([mark if not number else ("  ", palette.style()), (text, palette.style(bold=not number))])
    return _labelled("fix", lines)


def _operation(report: ShapeReport, room: int) -> list[Line]:
    lines: list[list[Piece]] = [[(report.op, palette.style(bold=True))]] if report.op else []
    size = wrong_size(report)
    name = min(max((len(operand.name) for operand in report.operands), default=0), max(8, room // 3))
    shapes = [_shape(operand, size) for operand in report.operands]
    width = max(map(_length, shapes), default=0)
    for operand, shape in zip(report.operands, shapes, strict=True):
        rest = f"  {operand.dtype}  {operand.device}".rstrip()
        gap = " " * (width - _length(shape))
        muted = palette.style(palette.FADED)
        label = f"{shortened(operand.name, name):<{name}}  "
        lines.append([(label, palette.style()), *shape, (gap, muted), (rest, muted)])
    return _labelled("op", lines)


def _formula(report: ShapeReport, room: int) -> list[Line]:
    lines: list[list[Piece]] = [[(report.formula, palette.style(bold=True))]] if report.formula else []
    width = max((len(term) for term, _ in report.terms), default=0) + 2
    for term, said in report.terms:
        for number, text in enumerate(textwrap.wrap(said, max(LEAST_ROOM, room - width)) or [""]):
            lines.append([(("" if number else term).ljust(width), palette.style(bold=True)), (text, palette.style())])
    return _labelled("got", lines + _words(report.got, room))


def _path(report: ShapeReport, room: int) -> list[Line]:
    """The ways to the operands of the call that failed, each from its beginning, and that call."""
    if not report.origin:
        return []
    name = min(max(len(label) for label in [report.module, *(step.label for step in report.origin)]), room // 3)
    name = max(LEAST_ROOM // 2, name)
    several = len(ways(report.origin)) > 1
    wrong, faded = palette.style(WRONG, bold=True), palette.style(palette.FADED)
    lines: list[tuple[list[Piece], str | None]] = []
    for operand, way in ways(report.origin).items():
        lines += _way(way, wrong_size(report), name, room)
        if several:
            lines.append(([("= ", palette.style(palette.AXIS)), (operand, faded)], None))
    lines.append(([("✗ ", wrong), (shortened(report.module or report.op, room - 2), wrong)], None))
    return [Line((_label("path", at), *pieces), place) for at, (pieces, place) in enumerate(lines)]


def _way(way: list[OriginStep], size: int | None, name: int, room: int) -> Iterator[tuple[list[Piece], str | None]]:
    """Steps below each other; the offending size is marked as far back as it goes."""
    carried = list(takewhile(lambda step: step.dims.count(size) == 1, reversed(way))) if size is not None else []
    marked = len(way) - len(carried)
    shapes = [_shape(step, size if at >= marked else None) for at, step in enumerate(way)]
    width = max(map(_length, shapes))
    made = max((len(step.op) for step in way if step.op != step.label), default=0)
    for at, (step, shape) in enumerate(zip(way, shapes, strict=True)):
        arrow = ("→ " if at else "  ", palette.style(palette.AXIS))
        label = (f"{shortened(step.label, name):<{name}}  ", palette.style(bold=True))
        rest = " " * (width - _length(shape)) + f"  {_beside(step, made, room - name - width - 6)}"
        yield [arrow, label, *shape, (rest, palette.style(palette.FADED))], step.module or None


def _beside(step: OriginStep, width: int, room: int) -> str:
    """What made a step, in so many characters, and where, as far as there is room."""
    op = step.op if step.op != step.label else ""
    place = str(step.where) if step.where is not None else ""
    return f"{op:<{width}}  {shortened(place, room - width - 2)}" if room >= width + LEAST_ROOM else op[: max(0, room)]


def _rest(report: ShapeReport, room: int) -> list[Line]:
    error = _labelled_lines("error", _words(report.error.partition("\n")[0], room))
    notes = _labelled_lines("note", [line for note in report.notes for line in _words(note, room)])
    return _to_lines(error + notes)


def _shape(tensor: Operand | OriginStep, size: int | None) -> list[Piece]:
    marked = [tensor.dims.index(size)] if size is not None and tensor.dims.count(size) == 1 else []
    return marked_shape(tensor.dims, tensor.names, marked, palette.style(WRONG, bold=True), ("‹", "›"))


def _words(text: str, room: int) -> list[list[Piece]]:
    wrapped = [line for part in text.splitlines() for line in textwrap.wrap(part, max(LEAST_ROOM, room))]
    return [[(line, palette.style())] for line in wrapped]


def _label(text: str, number: int) -> Piece:
    return (("" if number else text).ljust(LABEL), palette.style(palette.FADED))


def _labelled_lines(label: str, lines: list[list[Piece]]) -> list[list[Piece]]:
    return [[_label(label, number), *line] for number, line in enumerate(lines)]


def _labelled(label: str, lines: list[list[Piece]]) -> list[Line]:
    return _to_lines(_labelled_lines(label, lines))


def _to_lines(lines: list[list[Piece]]) -> list[Line]:
    return [Line(tuple(line)) for line in lines]


def _length(pieces: Iterable[Piece]) -> int:
    return sum(len(text) for text, _ in pieces)
