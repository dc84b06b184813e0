"""Writing a drawing as DOT, the language of Graphviz."""

from __future__ import annotations

from collections import defaultdict
from html import escape
from typing import TYPE_CHECKING

from tensorscope.graphs.graph import Flow
from tensorscope.graphs.kinds import LOOKS, SYMBOLS, Look, OpKind
from tensorscope.graphs.sketch import Box, Node, sketch
from tensorscope.graphs.stack import stacked

if TYPE_CHECKING:
    import graphviz

    from tensorscope.graphs.graph import Graph
    from tensorscope.graphs.overlay import Overlay, Paint
    from tensorscope.graphs.sketch import Link, Sketch

FONT = "Helvetica,Arial,sans-serif"
GREY = "#6a737d"
ACCENT = "#b3410e"  # what repeats
LARGE = 300  # nodes


def dot(graph: Graph) -> str:
    """The graph as DOT text, as it is: fold it first."""
    return write(sketch(graph))


def write(drawing: Sketch) -> str:
    """A drawing as DOT text."""
    return _Page(stacked(drawing)).text()


_PAGE = {
    "labelloc": "t",
    "fontname": FONT,
    "fontsize": "14",
    "rankdir": "TB",
    "nodesep": "0.22",
    "ranksep": "0.16",
    "pad": "0.2",
    "bgcolor": "white",
}
_FAST = {"nslimit": "1", "nslimit1": "1", "mclimit": "0.1", "splines": "line"}
_NODES = {
    "fontname": FONT,
    "fontsize": "11",
    "shape": "box",
    "style": "filled",
    "height": "0.3",
    "width": "0.3",
    "margin": "0.09,0.05",
    "penwidth": "1",
}
_EDGES = {"fontname": FONT, "fontsize": "9", "fontcolor": GREY, "color": "#7a828c", "arrowsize": "0.6"}


class _Page:
    """A drawing on its way into DOT."""

    def __init__(self, drawing: Sketch) -> None:
        self.drawing = drawing
        drawn = {path for box in drawing.boxes for path in box.members}
        drawn |= {path for node in drawing.nodes for part in (node.parts or (node,)) for path in part.members}
        self.shown = drawing.shown and drawing.shown.settled(drawn)

    def text(self) -> str:
        import graphviz

        page = graphviz.Digraph(self.drawing.title, graph_attr=self.attributes(), node_attr=_NODES, edge_attr=_EDGES)
        inside: dict[int, list[Box | Node]] = defaultdict(list)
        for box in self.drawing.boxes:
            inside[box.parent].append(box)
        for node in self.drawing.nodes:
            inside[node.parent].append(node)
        self.fill(page, 0, inside)
        for link in self.drawing.links:
            _link(page, link)
        return str(page.source)

    def attributes(self) -> dict[str, str]:
        size, *notes = self.drawing.notes
        if self.shown:
            notes += self.shown.paint([""]).marks
        title = f'<B>{escape(self.drawing.title)}</B>  <FONT COLOR="{GREY}">{escape(size)}</FONT>'
        rows = "".join(f"<TR><TD>{line}</TD></TR>" for line in (title, *map(_small, notes)))
        legend = f"<TR><TD>{_legend(self.shown)}</TD></TR>" if self.shown else ""
        page = _PAGE | {"label": f'<<TABLE BORDER="0" CELLSPACING="0" CELLPADDING="1">{rows}{legend}</TABLE>>'}
        # The layout of a large drawing may be less pretty, and takes seconds in place of minutes.
        return page | _FAST if len(self.drawing.nodes) > LARGE else page

    def fill(self, page: graphviz.Digraph, box: int, inside: dict[int, list[Box | Node]]) -> None:
        for item in inside[box]:
            if isinstance(item, Node):
                self.node(page, item)
            else:
                with page.subgraph(name=f"cluster_{item.id}", graph_attr=self.frame(item)) as frame:
                    self.fill(frame, item.id, inside)

    def frame(self, box: Box) -> dict[str, str]:
        paint = self.painted(box)
        line = ACCENT if box.repeat > 1 else "#b6bcc4"
        return {
            "label": f'<<TABLE BORDER="0" CELLPADDING="2"><TR><TD>{self.headline(box)}</TD></TR></TABLE>>',
            "labeljust": "l",
            "labelloc": "t",
            "fontname": FONT,
            "fontsize": "11",
            "style": "rounded,dashed" if box.group else "rounded,filled",
            "fillcolor": "#00000008",
            "color": paint.line if paint and paint.line else line,
            "penwidth": "2.5" if paint and paint.line else "1.6" if box.repeat > 1 else "1",
            "margin": "10",
            "tooltip": _plain(", ".join(box.members[:3])),
        }

    def painted(self, item: Box | Node) -> Paint | None:
        return self.shown.paint(item.members) if self.shown else None

    def headline(self, item: Box | Node) -> str:
        """How often, name, class and remarks; what repeats comes first, where edges seldom cross it."""
        paint = self.painted(item)
        parts = []
        if item.repeat > 1:
            times = f"×{item.repeat}" + {Flow.LOOP: " loop", Flow.PARALLEL: " in parallel"}.get(item.flow, "")
            parts.append(f'<FONT COLOR="{ACCENT}"><B>{times}</B></FONT>')
        if item.title:
            strong = item.type or isinstance(item, Box) or item.kind in (OpKind.INPUT, OpKind.OUTPUT)
            parts.append(f"<B>{escape(item.title)}</B>" if strong else escape(item.title))
        if item.type:
            parts.append(escape(item.type))
        if paint and str(paint):
            parts.append(_remark(paint, chip=isinstance(item, Box)))
        elif item.notes:
            parts.append(_small(" · ".join(item.notes) + (" each" if item.repeat > 1 else "")))
        return "  ".join(parts) or " "

    def look(self, node: Node) -> Look:
        look, paint = LOOKS[node.kind], self.painted(node)
        if paint is None or node.kind in (OpKind.INPUT, OpKind.OUTPUT):
            return look
        return Look(paint.fill, paint.line or GREY)

    def node(self, page: graphviz.Digraph, node: Node) -> None:
        look = self.look(node)
        attributes = {"fillcolor": look.fill, "color": look.line, "style": look.style, "fontcolor": look.text}
        if node.parts:
            attributes |= {"shape": "plain", "style": "", "label": self.table(node)}
        elif not node.notes and not node.type and node.repeat == 1 and node.title in SYMBOLS:
            attributes |= {"shape": "circle", "label": SYMBOLS[node.title], "margin": "0", "fixedsize": "true"}
        else:
            attributes["label"] = f"<{self.headline(node)}>"
        paint = self.painted(node)
        if paint and paint.line:
            attributes["penwidth"] = "2.5"
        tooltip = " ".join(part for part in (", ".join(node.members[:3]), node.where) if part)
        page.node(f"n{node.id}", tooltip=_plain(tooltip or node.title), **attributes)

    def table(self, stack: Node) -> str:
        """A stack as rows: each says what it is, and what it hands down to the next."""
        rows = []
        for part, shape in zip(stack.parts, (*stack.shapes, ""), strict=True):
            look = self.look(part)
            paint = self.painted(part)
            cell = f'BGCOLOR="{look.fill}" COLOR="{look.line}" BORDER="{3 if paint and paint.line else 1}"'
            given = _small(f"↓ {shape}", look.text if self.shown else GREY) if shape else " "
            down = f'<TD {cell} SIDES="RTB" ALIGN="RIGHT">{given}</TD>'
            text = f'<FONT COLOR="{look.text}">{self.headline(part)}</FONT>'
            rows.append(f'<TR><TD {cell} SIDES="LTB" ALIGN="LEFT">{text}</TD>{down}</TR>')
        return f'<<TABLE BORDER="0" CELLBORDER="1" CELLSPACING="0" CELLPADDING="4">{"".join(rows)}</TABLE>>'


def _legend(shown: Overlay) -> str:
    cells = "".join(f'<TD BGCOLOR="{colour}" WIDTH="34" HEIGHT="10"></TD>' for colour, _ in shown.legend())
    edges = "".join(f'<TD ALIGN="LEFT">{_small(f"≥ {edge}")}</TD>' for _, edge in shown.legend())
    marks = _small("✖ not finite   ▲ found by diagnosis")
    first = f'<TR><TD ROWSPAN="2">{_small(shown.title)}  </TD>{cells}<TD ROWSPAN="2">  {marks}</TD></TR>'
    return f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="2">{first}<TR>{edges}</TR></TABLE>'


def _remark(paint: Paint, *, chip: bool) -> str:
    """What a run says of a module; on a box as a chip in its colour, as a whole box of it would hide what it holds."""
    text = escape(str(paint))
    text = f"<B>{text}</B>" if paint.line else text
    return f'</TD><TD BGCOLOR="{paint.fill}" STYLE="rounded">{text}' if chip else text


def _plain(text: str) -> str:
    from graphviz import escape as escape_plain

    return str(escape_plain(text))


def _small(text: str, colour: str = GREY) -> str:
    return f'<FONT POINT-SIZE="9" COLOR="{colour}">{escape(text)}</FONT>'


def _link(page: graphviz.Digraph, link: Link) -> None:
    attributes = {"label": f" {link.label} "} if link.label else {}
    if link.back:
        attributes |= {"style": "dashed", "color": ACCENT, "constraint": "false", "fontcolor": ACCENT}
    page.edge(f"n{link.source}", f"n{link.target}", **attributes)
