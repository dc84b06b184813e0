"""How a table of shapes is laid out: as text for 80 columns, as HTML, and as cells for others to draw."""

from __future__ import annotations

import html
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tensorscope.reports import WIDTH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tensorscope.tables import Row, ShapeTable, TensorShape

_INLINE = 14  # characters of a formula that stands in its shape; longer ones stand below the table
_SHAPE = 34  # characters of a shape; where it is longer its formulas stand below the table
_LABEL = 30  # characters of a module's label
_SHOWN = 3  # tensors of one output
_FEWEST = 3  # lines that repeating modules take before they are shown once
_LISTED = 4  # siblings that are told by name when they are alike
_LONGEST_PERIOD = 8  # siblings that repeat together
_MARKS = "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ"
_UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, slots=True)
class Line:
    """A row as it is shown: cells, and how deep it is."""

    label: str
    type: str
    output: str
    parameters: str
    flops: str
    depth: int = 0


def shown_lines(table: ShapeTable) -> tuple[list[Line], dict[str, str]]:
    """The rows as they are shown, repetitions once; and the formulas that stand below them, mark → text."""
    legend: dict[str, str] = {}
    lines = [_line(row, alike, legend) for row, alike in _folded(list(table.rows[1:] or table.rows))]
    return lines, {mark: text for text, mark in legend.items()}


def amount(number: float) -> str:
    """A count with three digits and its unit: `21.9 M`."""
    for size, unit in _UNITS:
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f} "


def _line(row: Row, alike: str, legend: dict[str, str]) -> Line:
    kind = row.type + (f" ×{row.calls}" if row.calls > 1 else "")
    output = " ".join(_output(shape, legend) for shape in row.outputs[:_SHOWN])
    more = len(row.outputs) - _SHOWN
    output += f" and {more} more" if more > 0 else ""
    output += " …" if row.varying else ""
    held = "tied" if row.shared and not row.parameters else f"{row.parameters:,}" if row.parameters else ""
    return Line(
        alike or row.label or row.type,
        kind,
        output,
        held,
        amount(row.flops) if row.flops else "",
        max(row.depth - 1, 0),
    )


def _output(shape: TensorShape, legend: dict[str, str]) -> str:
    """A shape in which long formulas are numbers with a mark."""
    text = str(shape)
    longest = _INLINE if len(text) <= _SHAPE else 8
    axes = [
        f"{size}{_mark(f'{size} = {formula}', legend)}" if len(formula) > longest else formula or str(size)
        for size, formula in zip(shape.dims, shape.formulas or ("",) * len(shape.dims), strict=True)
    ]
    return f"({', '.join(axes)})"


def _mark(text: str, legend: dict[str, str]) -> str:
    if text not in legend:
        number = len(legend)
        legend[text] = _MARKS[number % len(_MARKS)] * (number // len(_MARKS) + 1)
    return legend[text]


def _folded(rows: list[Row]) -> Iterator[tuple[Row, str]]:
    """Rows with their labels; siblings that repeat are told once."""
    trees = _trees(rows)
    shapes = [_signature(tree) for tree in trees]
    place = 0
    while place < len(trees):
        period, number = _repetition(shapes, place)
        for offset in range(period):
            tree = trees[place + offset]
            yield tree[0], _together([trees[place + offset + period * i][0] for i in range(number)], period)
            yield from _folded(tree[1:])
        place += period * number


def _trees(rows: list[Row]) -> list[list[Row]]:
    """Rows split into the first level's, each with what is below it."""
    trees: list[list[Row]] = []
    for row in rows:
        if not trees or row.depth <= trees[0][0].depth:
            trees.append([])
        trees[-1].append(row)
    return trees


def _signature(tree: list[Row]) -> tuple[Any, ...]:
    top = tree[0]
    return (
        (top.type, top.outputs, top.parameters, top.flops, top.calls),
        *((row.label, row.type, row.outputs, row.parameters, row.flops) for row in tree[1:]),
    )


def _repetition(shapes: list[tuple[Any, ...]], start: int) -> tuple[int, int]:
    """The period that repeats from here on, and how often; 1 and 1 if none does."""
    best = (1, 1)
    for period in range(1, _LONGEST_PERIOD + 1):
        end = start
        while end + period < len(shapes) and shapes[end] == shapes[end + period]:
            end += 1
        number = (end - start) // period + 1
        lines = sum(len(shape) for shape in shapes[start : start + period * number])
        if number > 1 and lines >= _FEWEST and period * number > best[0] * best[1]:
            best = (period, number)
    return best


def _together(rows: list[Row], period: int) -> str:
    if len(rows) == 1:
        return ""
    if len(rows) == 2:
        return f"{rows[0].label}, {rows[1].label.rpartition('.')[2]}"
    if not rows[0].label[-1:].isdigit() and len(rows) <= _LISTED:
        return ", ".join(row.label for row in rows)
    last = rows[-1].label.rpartition(".")[2]
    between = f", {rows[1].label.rpartition('.')[2]}" if period > 1 else ""
    return f"{rows[0].label}{between} … {last} ({len(rows)} alike)"


def paragraphs(table: ShapeTable) -> Iterator[str]:
    """The lines of the whole text."""
    lines, legend = shown_lines(table)
    yield table.heading()
    yield from _wrapped(table.given(), "  ")
    yield ""
    yield from _columns(lines)
    yield from (f"  {mark} {text}" for mark, text in legend.items())
    for title, texts in (("constraints", table.constraints), ("notes", table.notes)):
        if texts:
            yield f"\n{title}"
            yield from (line for text in texts for line in _wrapped(text, "  "))
    for finding in table.findings:
        yield from ("", *_wrapped(f"{finding.severity} {finding.rule} in {finding.site or 'the model'}", ""))
        yield from _wrapped(finding.summary, "  ")
        yield from _wrapped(f"hint: {finding.hint}", "  ")


def _columns(lines: list[Line]) -> Iterator[str]:
    """The table, as wide as it has to be and no wider than a page if that can be."""
    cells = [("module", "output", "params", "FLOPs")]
    cells += [(_label(line), line.output, line.parameters, line.flops.strip()) for line in lines]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    widths[0] = min(widths[0], max(WIDTH - sum(widths[1:]) - 6, 16))
    for label, output, parameters, flops in cells:
        lead = label if len(label) <= widths[0] else f"{label[: widths[0] - 1]}…"
        yield f"{lead:<{widths[0]}}  {output:<{widths[1]}}  {parameters:>{widths[2]}}  {flops:>{widths[3]}}".rstrip()


def _label(line: Line) -> str:
    kind = "" if line.type == line.label else f" {line.type}"
    return f"{'  ' * line.depth}{line.label}{kind}"


def _wrapped(text: str, indent: str) -> list[str]:
    return [
        part
        for line in text.splitlines()
        for part in textwrap.wrap(
            line, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False
        )
    ]


def as_html(table: ShapeTable) -> str:
    """The table for a notebook."""
    lines, legend = shown_lines(table)
    rows = "".join(
        f"<tr><td style='text-align:left;padding-left:{1 + line.depth}em'>{html.escape(line.label)}</td>"
        f"<td style='text-align:left'>{html.escape(line.type)}</td>"
        f"<td style='text-align:left'>{html.escape(line.output)}</td>"
        f"<td>{line.parameters}</td><td>{line.flops}</td></tr>"
        for line in lines
    )
    head = "<tr>" + "".join(f"<th>{name}</th>" for name in ("module", "type", "output", "params", "FLOPs")) + "</tr>"
    said = [f"{mark} {text}" for mark, text in legend.items()] + [*table.constraints, *table.notes]
    said += [f"{f.severity} {f.rule}: {f.summary} ({f.hint})" for f in table.findings]
    top = "<br>".join(html.escape(text) for text in (table.heading(), *table.given().splitlines()))
    items = "".join(f"<li>{html.escape(text)}</li>" for text in said)
    return f"<div>{top}<table>{head}{rows}</table><ul>{items}</ul></div>"
