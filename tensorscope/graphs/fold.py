"""Showing what repeats once: identical sibling blocks, periodic runs of layers, loops over one cell.

A call's children (operations and calls, in the order of execution) are a sequence of tokens that are equal where the
children do the same. Where it is periodic, and tensors flow into and out of every repetition alike, the first
repetition stands for all. From the outside in, so that only what is kept is looked at further: near-linear.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from tensorscope.graphs.flows import Flows, Span
from tensorscope.graphs.graph import Call, Flow
from tensorscope.graphs.periods import Run, runs_at
from tensorscope.graphs.rebuild import rebuilt
from tensorscope.graphs.signatures import Outline

if TYPE_CHECKING:
    from tensorscope.graphs.graph import Edge, Graph
    from tensorscope.graphs.signatures import Child

SAVED = 4  # operations that a fold has to save to be worth its box
PATIENCE = 8  # failures after which a period is not tried again in the same call


def fold(graph: Graph) -> Graph:
    """The graph with repetitions shown once; see the module."""
    folding = _Folding(graph)
    folding.run()
    return folding.result()


class _Folding:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.outline = Outline(graph)
        self.flows = Flows(graph, self.outline.tokens)
        self.stands = list(range(len(graph.ops)))  # for each operation one that stands for it, maybe not the last one
        self.homes = [op.call for op in graph.ops]
        self.calls = list(graph.calls)
        self.paths = [call.members for call in graph.calls]
        self.gone: set[int] = set()  # edges inside repetitions that are not shown
        self.carried: dict[int, Flow] = {}  # edges from one repetition to another

    def run(self) -> None:
        """Fold every sequence of children, the outermost first."""
        waiting = [(0, self.outline.children[0])]
        while waiting:
            home, children = waiting.pop()
            sequence = _Sequence(children)
            start = 0
            while start < len(children):
                run = self._run_at(sequence, start)
                if run.repeats > 1:
                    waiting.append(self._fold(home, children, run))
                else:
                    calls = [child.call for child in children[run.start : run.stop] if child.call is not None]
                    waiting += [(call, self.outline.children[call]) for call in calls]
                start = run.stop

    def result(self) -> Graph:
        """What is left."""
        edges: dict[tuple[int, int, int, bool], Edge] = {}
        for index, edge in enumerate(self.graph.edges):
            flow = self.carried.get(index)
            if index in self.gone or flow is Flow.SEQUENCE:
                continue
            source, target, back = self._stand(edge.source), self._stand(edge.target), flow is Flow.LOOP
            key = (source, edge.port, target, back)
            edges.setdefault(key, replace(edge, source=source, target=target, back=back))
        ops = [replace(op, call=self.homes[op.id]) for op in self.graph.ops if self.stands[op.id] == op.id]
        firsts: dict[int, int] = {}
        for op in ops:
            call = op.call
            while call >= 0 and call not in firsts:
                firsts[call] = op.id
                call = self.calls[call].parent
        kept = [call for call in self.calls if call.id in firsts]
        calls = [replace(call, members=tuple(dict.fromkeys(self.paths[call.id]))) for call in kept]
        # As they begin, and where two begin together the outer one first.
        calls.sort(key=lambda call: (firsts[call.id], self._level(call.id)))
        whole = replace(self.graph, ops=tuple(ops), edges=tuple(edges.values()), calls=tuple(calls), folded=True)
        return rebuilt(whole)

    def _run_at(self, sequence: _Sequence, start: int) -> Run:
        """The run to fold at `start`; one repetition of something if there is none."""
        for run in runs_at(sequence.tokens, start, sequence.barred):
            span = _span(sequence.children, run)
            size = sum(op.count for op in self.graph.ops[span.first : span.first + span.size])
            if size * (run.repeats - 1) < SAVED:
                continue
            skipped, repeats = self.flows.agree(span)
            if size * (repeats - 1) >= SAVED:
                # A first one that differs in what it is given is shown by itself.
                return Run(start, run.period, 1 if skipped else repeats)
            sequence.fail(run.period)
        return Run(start, 1, 1)

    def _fold(self, home: int, children: list[Child], run: Run) -> tuple[int, list[Child]]:
        """Let the first repetition stand for all; returns what is to be looked into further."""
        span = _span(children, run)
        carries = False
        for index, _, lag in self.flows.inside(span):
            if lag > 0:
                carries = True
                self.carried[index] = Flow.SEQUENCE
            elif self.graph.edges[index].source >= span.first + span.size:
                self.gone.add(index)
        flow = self._flow(children, run) if carries else Flow.PARALLEL
        if flow is Flow.LOOP:
            self.carried.update({index: flow for index, _, lag in self.flows.inside(span) if lag > 0})
        for op in range(span.first + span.size, span.first + span.size * span.repeats):
            self.stands[op] = span.first + span.place(op)
        for position in range(run.start + run.period, run.stop):
            self._merge(children[run.start + (position - run.start) % run.period], children[position])
        kept = children[run.start : run.start + run.period]
        if len(kept) == 1 and kept[0].call is not None:
            call = kept[0].call
            self.calls[call] = replace(self.calls[call], repeat=run.repeats, flow=flow)
            return call, self.outline.children[call]
        group = Call(len(self.calls), self.calls[home].path, home, 0, True, run.repeats, flow)
        return self._group(group, kept, children[run.start : run.stop])

    def _group(self, group: Call, kept: list[Child], all_of_them: list[Child]) -> tuple[int, list[Child]]:
        """Put siblings that repeat together into a call of their own."""
        self.calls.append(group)
        self.paths.append(tuple(self.graph.calls[c.call].path for c in all_of_them if c.call is not None))
        for child in kept:
            if child.call is None:
                self.homes[child.first] = group.id
            else:
                self.calls[child.call] = replace(self.calls[child.call], parent=group.id)
        return group.id, kept

    def _merge(self, kept: Child, other: Child) -> None:
        """Note which modules a call that is shown stands for."""
        if kept.call is not None and other.call is not None:
            for offset in range(self.outline.ends[kept.call] - kept.call):
                self.paths[kept.call + offset] += self.paths[other.call + offset]

    def _flow(self, children: list[Child], run: Run) -> Flow:
        """Whether the repetitions are of the same modules."""
        first, second = (
            [self.graph.calls[child.call].path for child in turn if child.call is not None]
            for turn in (children[run.start :][: run.period], children[run.start + run.period :][: run.period])
        )
        return Flow.LOOP if first == second else Flow.SEQUENCE

    def _stand(self, op: int) -> int:
        while self.stands[op] != op:
            op = self.stands[op]
        return op

    def _level(self, call: int) -> int:
        level = 0
        while (call := self.calls[call].parent) >= 0:
            level += 1
        return level


class _Sequence:
    """The children of one call and what was tried on them in vain."""

    def __init__(self, children: list[Child]) -> None:
        self.children = children
        self.tokens = [child.token for child in children]
        self.barred: set[int] = set()
        self._failed: Counter[int] = Counter()

    def fail(self, period: int) -> None:
        """Note that a period is no repetition here; after some failures it is not tried again."""
        self._failed[period] += 1
        if self._failed[period] >= PATIENCE:
            self.barred.add(period)


def _span(children: list[Child], run: Run) -> Span:
    first = children[run.start].first
    return Span(first, children[run.start + run.period - 1].stop - first, run.repeats)
