"""Drawing a chain of nodes as one stack of rows, so that a large drawing stays on a page."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from tensorscope.graphs.kinds import OpKind

if TYPE_CHECKING:
    from tensorscope.graphs.sketch import Link, Node, Sketch

ROOMY = 24  # nodes of a drawing that needs no stacks


def stacked(drawing: Sketch) -> Sketch:
    """Make one node of every chain in which each hands its result to the next alone, if the drawing is large."""
    if len(drawing.nodes) <= ROOMY:
        return drawing
    nodes = {node.id: node for node in drawing.nodes}
    after = _successors(drawing, nodes)
    tops = {node.id: node.id for node in drawing.nodes}
    stacks: list[Node] = []
    below = {link.target for link in after.values()}
    for node in drawing.nodes:
        if node.id in below:
            continue
        parts, shapes, last = [node], [], node.id
        while last in after:
            shapes.append(after[last].label)
            last = after[last].target
            tops[last] = node.id
            parts.append(nodes[last])
        stacks.append(node if len(parts) == 1 else replace(node, parts=tuple(parts), shapes=tuple(shapes)))
    inner = {id(link) for link in after.values()}
    outer = [link for link in drawing.links if id(link) not in inner]
    links = [replace(link, source=tops[link.source], target=tops[link.target]) for link in outer]
    return replace(drawing, nodes=stacks, links=links)


def _successors(drawing: Sketch, nodes: dict[int, Node]) -> dict[int, Link]:
    """Node → its only link, where that is the only one of the node that it leads to."""
    out = Counter(link.source for link in drawing.links)
    into = Counter(link.target for link in drawing.links)
    return {
        link.source: link
        for link in drawing.links
        if out[link.source] == into[link.target] == 1
        and not link.back
        and nodes[link.source].parent == nodes[link.target].parent
        and _stacks(nodes[link.source])
        and _stacks(nodes[link.target])
    }


def _stacks(node: Node) -> bool:
    return node.repeat == 1 and node.kind not in (OpKind.INPUT, OpKind.OUTPUT)
