"""Making a graph sound again after parts were taken out of it: numbered from zero, without calls that hold nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorscope.graphs.graph import Call, Edge, Graph


def rebuilt(graph: Graph) -> Graph:
    """Number operations and calls from zero in their order; drop empty calls and edges that lost an end.

    Operations must be in the order of execution, calls with parents first; the numbers they have may be any.
    """
    parents = {call.id: call.parent for call in graph.calls}
    alive = {0}
    for op in graph.ops:
        call = op.call
        while call not in alive:
            alive.add(call)
            call = parents[call]
    kept: list[Call] = [call for call in graph.calls if call.id in alive]
    calls = {call.id: new for new, call in enumerate(kept)} | {-1: -1}
    ops = {op.id: new for new, op in enumerate(graph.ops)}
    edges: list[Edge] = [edge for edge in graph.edges if edge.source in ops and edge.target in ops]
    return replace(
        graph,
        ops=tuple(replace(op, id=ops[op.id], call=calls[op.call]) for op in graph.ops),
        edges=tuple(replace(edge, source=ops[edge.source], target=ops[edge.target]) for edge in edges),
        calls=tuple(replace(call, id=calls[call.id], parent=calls[call.parent]) for call in kept),
    )
