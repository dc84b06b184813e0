"""Telling which parts of a graph do the same: children of calls, each with a token equal for equal structure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tensorscope.graphs.graph import Role

if TYPE_CHECKING:
    from collections.abc import Hashable

    from tensorscope.graphs.graph import Graph, Op


@dataclass(frozen=True, slots=True)
class Child:
    """An operation or a call inside a call.

    Attributes:
        call: id of the call, None for an operation.
        first: its first operation.
        stop: one past its last operation; what a call does is never interleaved with what its siblings do.
        token: equal for children that do the same.
    """

    call: int | None
    first: int
    stop: int
    token: int


class Outline:
    """The children of every call, in the order of execution.

    Attributes:
        children: call → its children.
        tokens: operation → its token.
        ends: call → one past the last call inside it; calls inside a call follow it directly.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._known: dict[Hashable, int] = {}
        self.ends = _ends(graph)
        self.tokens = [self._token(self._describe(op)) for op in graph.ops]
        self.children: dict[int, list[Child]] = self._outline()

    def _token(self, description: Hashable) -> int:
        return self._known.setdefault(description, len(self._known))

    def _describe(self, op: Op) -> Hashable:
        if op.role in (Role.INPUT, Role.OUTPUT):
            return op.id
        module = self._graph.modules.get(self._graph.calls[op.call].path)
        # The same line run again is a loop, another line has another meaning: the same operations on queries and on
        # keys are no repetition. Inside torch's own modules the line is that of the caller, and says nothing.
        where = "" if module and module.builtin else op.where
        return op.name, op.role, op.outputs, op.count, where

    def _outline(self) -> dict[int, list[Child]]:
        members: dict[int, list[tuple[int, int]]] = defaultdict(list)  # call → (operation, -1) or (-1, call)
        seen = {0}
        for op in self._graph.ops:
            entry, call = (op.id, -1), op.call
            members[call].append(entry)
            while call not in seen:
                seen.add(call)
                parent = self._graph.calls[call].parent
                members[parent].append((-1, call))
                call = parent
        inner = self._inner_edges()
        children: dict[int, list[Child]] = {}
        for call in reversed(range(len(self._graph.calls))):  # the innermost first
            children[call] = [self._child(op, inside, children, inner) for op, inside in members[call]]
        return children

    def _child(
        self,
        op: int,
        call: int,
        children: dict[int, list[Child]],
        inner: dict[int, list[tuple[int, int, int, int]]],
    ) -> Child:
        if call < 0:
            return Child(None, op, op + 1, self.tokens[op])
        inside = children[call]
        first, stop = inside[0].first, inside[-1].stop
        module = self._graph.modules.get(self._graph.calls[call].path)
        kind = (module.type, module.parameters) if module else None
        wires = tuple((source - first, target - first, port, slot) for source, target, port, slot in inner[call])
        return Child(call, first, stop, self._token((kind, tuple(child.token for child in inside), wires)))

    def _inner_edges(self) -> dict[int, list[tuple[int, int, int, int]]]:
        """Call → the edges between different children of it."""
        calls, inner = self._graph.calls, defaultdict(list)
        for edge in self._graph.edges:
            a, b = self._graph.ops[edge.source].call, self._graph.ops[edge.target].call
            while a != b:  # parents have smaller numbers
                if a > b:
                    a = calls[a].parent
                else:
                    b = calls[b].parent
            inner[a].append((edge.source, edge.target, edge.port, edge.slot))
        return inner


def _ends(graph: Graph) -> list[int]:
    ends = [call.id + 1 for call in graph.calls]
    for call in reversed(graph.calls):
        if call.parent >= 0:
            ends[call.parent] = max(ends[call.parent], ends[call.id])
    return ends
