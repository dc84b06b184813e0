"""Telling whether tensors flow into and out of all repetitions alike."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tensorscope.graphs.graph import Edge, Graph

OUTSIDE = -1


@dataclass(frozen=True, slots=True)
class Span:
    """`repeats` stretches of `size` operations, from operation `first` on."""

    first: int
    size: int
    repeats: int

    def turn(self, op: int) -> int:
        """Which repetition an operation belongs to; outside of them it is none of 0 … repeats - 1."""
        return (op - self.first) // self.size

    def place(self, op: int) -> int:
        """Where in its repetition an operation is."""
        return (op - self.first) % self.size


class Flows:
    """The edges of a graph by the operations at their ends.

    Args:
        graph: the graph.
        tokens: operation → what it does.
    """

    def __init__(self, graph: Graph, tokens: Sequence[int]) -> None:
        self._tokens = tokens
        self._into: dict[int, list[Edge]] = defaultdict(list)
        self._out: dict[int, list[tuple[int, Edge]]] = defaultdict(list)
        for index, edge in enumerate(graph.edges):
            self._into[edge.target].append(edge)
            self._out[edge.source].append((index, edge))

    def agree(self, span: Span) -> tuple[int, int]:
        """How much of a span is uniform: first uniform repetition (0 or 1) and number of uniform ones from there."""
        usual = self._entering(span, 1)
        from_outside = {(*wire[:2], OUTSIDE, OUTSIDE, OUTSIDE) if wire[3] > 0 else wire for wire in usual}
        skipped = int(self._entering(span, 0) != from_outside)
        stop = next((turn for turn in range(2, span.repeats) if self._entering(span, turn) != usual), span.repeats)
        leaving = self._leaving(span, skipped)
        # The last repetition may hand on what the others keep among themselves.
        for turn in range(skipped + 1, stop - 1):
            if self._leaving(span, turn) != leaving:
                stop = turn + 1
                break
        if not any(wire[3] > 0 for wire in usual) and self._leaving(span, stop - 1) != leaving:
            stop -= 1
        return skipped, stop - skipped

    def inside(self, span: Span) -> Iterator[tuple[int, Edge, int]]:
        """The edges that both begin and end in a span: index, edge and how many repetitions further it ends."""
        for op in range(span.first, span.first + span.size * span.repeats):
            for index, edge in self._out[op]:
                turn = span.turn(edge.target)
                if turn < span.repeats:
                    yield index, edge, turn - span.turn(op)

    def _entering(self, span: Span, turn: int) -> set[tuple[int, int, int, int, int]]:
        """What a repetition takes: place, slot and port, and from how many repetitions back and which place there."""
        first = span.first + turn * span.size
        taken = set()
        for op in range(first, first + span.size):
            for edge in self._into[op]:
                known = edge.source >= span.first
                lag, source = (turn - span.turn(edge.source), span.place(edge.source)) if known else (OUTSIDE, OUTSIDE)
                taken.add((op - first, edge.slot, edge.port if known else OUTSIDE, lag, source))
        return taken

    def _leaving(self, span: Span, turn: int) -> set[tuple[int, int, int, int]]:
        """What a repetition gives to operations after the span: place, port, what takes it and as which argument."""
        first = span.first + turn * span.size
        return {
            (op - first, edge.port, self._tokens[edge.target], edge.slot)
            for op in range(first, first + span.size)
            for _, edge in self._out[op]
            if span.turn(edge.target) >= span.repeats
        }
