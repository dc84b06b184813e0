"""Turning a graph into a picture, with Graphviz in a process of its own.

In a process of its own because laying out may take long or crash, and the one that asks may be training. A `dot` on the
PATH draws if there is one; otherwise the Graphviz that pygraphviz's wheels carry.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from tensorscope.errors import GraphError
from tensorscope.graphs.collapse import collapse, condense
from tensorscope.graphs.dot import write
from tensorscope.graphs.sketch import Sketch, sketch

if TYPE_CHECKING:
    from pathlib import Path

    from tensorscope.graphs.graph import Graph

FORMATS = ("svg", "png", "pdf")
SIZES = (1500, 400, 100)  # nodes that are tried, the next where the layout of the one before takes too long
PATIENCE = 25.0  # seconds for one try
RESOLUTION = 144  # dots per inch of a PNG

_DRAW = """
import sys, pygraphviz
graph = pygraphviz.AGraph(string=sys.stdin.buffer.read().decode())
sys.stdout.buffer.write(graph.draw(format=sys.argv[1], prog="dot"))
"""


def save(graph: Graph, path: Path, *, fold: bool = True) -> Path:
    """Draw into a file; see `Graph.save`."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("dot", *FORMATS):
        facts = {"got": path.name, "expected": ", ".join(f".{known}" for known in ("dot", *FORMATS))}
        hint = f"save to `{path.with_suffix('.svg')}`"
        raise GraphError(f"a graph cannot be saved as `{path.suffix or path.name}`", facts=facts, hint=hint)
    drawn = graph.to_dot(fold=fold).encode() if kind == "dot" else render(graph, kind, fold=fold)
    try:
        path.write_bytes(drawn)
    except OSError as error:
        raise GraphError(f"`{path}` cannot be written", facts={"reason": error.strerror or error}) from error
    return path


def render(graph: Graph, kind: str, *, fold: bool = True) -> bytes:
    """Draw as `svg`, `png` or `pdf`; what is too large to lay out in time is drawn with less detail.

    Raises:
        GraphError: there is no Graphviz, or it failed.
    """
    graph = graph.fold() if fold else graph
    for size in SIZES:
        drawn = _draw(write(fitted(graph, size)), kind)
        if drawn is not None:
            return drawn
    hint = "leave out detail: `graph(…, depth=1)`"
    raise GraphError(f"the graph of `{graph.name}` could not be laid out in time", hint=hint)


def fitted(graph: Graph, size: int) -> Sketch:
    """What to draw of a graph with at most about `size` nodes: deep modules are collapsed, then whatever it takes."""
    drawing = sketch(graph)
    depth = max((call.path.count(".") + 1 for call in graph.calls), default=1)
    while len(drawing.nodes) > size and depth > 1:
        depth -= 1
        drawing = sketch(collapse(graph, depth))
    return drawing if len(drawing.nodes) <= size else sketch(condense(collapse(graph, 1), size))


def _draw(dot: str, kind: str) -> bytes | None:
    """What Graphviz makes of DOT text, None if it takes too long."""
    program = shutil.which("dot")
    command = [program, f"-T{kind}"] if program else [sys.executable, "-c", _DRAW, kind]
    if kind == "png":
        dot = dot.replace("{", f"{{\n\tgraph [dpi={RESOLUTION}]", 1)
    try:
        done = subprocess.run(command, input=dot.encode(), capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return None
    except OSError as error:
        raise GraphError("Graphviz cannot be started", facts={"command": command[0], "error": error}) from error
    if done.returncode or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        hint = "reinstall `pygraphviz`, or install Graphviz" if any("pygraphviz" in line for line in said) else None
        raise GraphError("Graphviz failed to draw", facts={"said": "\n".join(said[-3:])}, hint=hint)
    return done.stdout
