"""Leaving out the interior of modules below a depth."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from tensorscope.graphs.graph import Role
from tensorscope.graphs.rebuild import rebuilt

if TYPE_CHECKING:
    from tensorscope.graphs.graph import Edge, Graph, Op, Value


def collapse(graph: Graph, depth: int) -> Graph:
    """Make one operation of every module call `depth` levels below the model; groups made by folding are no level."""
    closed = _closed(graph, max(depth, 0))
    first: dict[int, int] = {}
    stands: list[int] = []  # for each operation, the one that stands for it
    interiors: dict[int, list[Op]] = defaultdict(list)
    for op in graph.ops:
        call = closed[op.call] if op.role in (Role.OP, Role.MODULE) else -1
        stands.append(op.id if call < 0 else first.setdefault(call, op.id))
        interiors[stands[-1]].append(op)
    summaries = {op for op in first.values() if len(interiors[op]) > 1}
    edges, leaving = _edges(graph, stands, summaries)
    ops = tuple(
        _summary(graph, closed[op.call], interiors[op.id], leaving[op.id]) if op.id in summaries else op
        for op in graph.ops
        if stands[op.id] == op.id
    )
    return rebuilt(replace(graph, ops=ops, edges=edges))


def _closed(graph: Graph, depth: int) -> list[int]:
    """For each call the outermost collapsed one that it lies in, or -1."""
    levels: list[int] = []
    closed: list[int] = []
    for call in graph.calls:
        level = levels[call.parent] + (not call.group) if call.parent >= 0 else 0
        levels.append(level)
        around = closed[call.parent] if call.parent >= 0 else -1
        own = call.id if level >= depth and not call.group else -1
        closed.append(around if around >= 0 else own)
    return closed


def _edges(
    graph: Graph, stands: list[int], collapsed: set[int]
) -> tuple[tuple[Edge, ...], dict[int, dict[tuple[int, int], Value]]]:
    """What still flows, and for each collapsed operation the tensors that leave it, by where they were made."""
    leaving: dict[int, dict[tuple[int, int], Value]] = defaultdict(dict)
    edges: dict[tuple[int, int, int, bool], Edge] = {}
    for edge in graph.edges:
        source, target, port = stands[edge.source], stands[edge.target], edge.port
        if source == target and not edge.back:
            continue
        if source in collapsed:
            own = leaving[source]
            own.setdefault((edge.source, edge.port), edge.value)
            port = list(own).index((edge.source, edge.port))
        key = (source, port, target, edge.back)
        edges.setdefault(key, replace(edge, source=source, target=target, port=port))
    return tuple(edges.values()), leaving


def _summary(graph: Graph, call: int, interior: list[Op], leaving: dict[tuple[int, int], Value]) -> Op:
    """The one operation that a collapsed call becomes."""
    module = graph.modules.get(graph.calls[call].path)
    return replace(
        interior[0],
        name=module.type if module else graph.name,
        call=call,
        outputs=tuple(leaving.values()),
        role=Role.MODULE,
        weights=tuple(dict.fromkeys(weight for op in interior for weight in op.weights)),
        count=sum(op.count * graph.times[op.call] // graph.times[call] for op in interior),
        flops=sum(op.flops * graph.times[op.call] // graph.times[call] for op in interior),
    )


def condense(graph: Graph, size: int) -> Graph:
    """Make at most `size` operations of all, each of some that follow one another; for what is too large to draw."""
    inner = [op.id for op in graph.ops if op.role in (Role.OP, Role.MODULE)]
    step = -(-len(inner) // size)
    stands = list(range(len(graph.ops)))
    for position, op in enumerate(inner):
        stands[op] = inner[position - position % step]
    edges, leaving = _edges(graph, stands, set(inner))
    ops = [op for op in graph.ops if op.role not in (Role.OP, Role.MODULE)]
    for start in range(0, len(inner), step):
        interior = [graph.ops[op] for op in inner[start : start + step]]
        chunk = _summary(graph, 0, interior, leaving[interior[0].id])
        ops.append(replace(chunk, name=" … ".join(dict.fromkeys((interior[0].name, interior[-1].name)))))
    return rebuilt(replace(graph, ops=tuple(sorted(ops, key=lambda op: op.id)), edges=edges))
