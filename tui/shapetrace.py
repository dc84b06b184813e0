"""Every call of the recorded first forward with the dims that went in and came out; without a graph, what is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

from tensorscope.events import ROOT, Kind, Site
from tensorscope.graphs.graph import Role, Value
from tui.explanation import ways

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tensorscope.graphs.graph import Call, Edge, Graph
    from tensorscope.reports import ShapeReport
    from tensorscope.run.reader import Run


@dataclass(frozen=True, slots=True)
class ShapeRow:
    """One call.

    Attributes:
        label: the module's path, with the number of its call.
        module: the module's path.
        name: class of the module, or name of the operation.
        ins: the tensors that went in.
        outs: the tensors that came out.
        weights: paths of the parameters and buffers that an operation reads.
        where: `file:line` of the user's own code, empty if unknown.
        failed: whether this is the call that raised.
    """

    label: str
    module: str
    name: str
    ins: tuple[Value, ...] = ()
    outs: tuple[Value, ...] = ()
    weights: tuple[str, ...] = ()
    where: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class ShapeTrace:
    """The calls of one forward pass, in order.

    Attributes:
        modules: calls of modules, a parent before its children.
        ops: all operations.
        whole: whether the pass was recorded to its end.
    """

    modules: tuple[ShapeRow, ...]
    ops: tuple[ShapeRow, ...]
    whole: bool = True


@dataclass(frozen=True, slots=True)
class AskShapes:
    """Asks for the shape trace."""

    pace: ClassVar[float] = 0.5

    def answer(self, run: Run) -> ShapeTrace:
        """Read it; the graph, which never changes once it is written, only once."""
        report = next(reversed(run.reports), None)
        known = _traces.get(run)
        if known is not None and known[0] == report:
            return known[1]
        graph = run.graph
        if graph is None:
            return unfinished(run, report)
        trace = of_graph(graph, report)
        _traces[run] = report, trace
        return trace


_traces: WeakKeyDictionary[Run, tuple[ShapeReport | None, ShapeTrace]] = WeakKeyDictionary()


def of_graph(graph: Graph, report: ShapeReport | None = None) -> ShapeTrace:
    """The trace of a recorded pass; a later call that raised is marked."""
    return ShapeTrace(tuple(_module_rows(graph, report)), tuple(_op_rows(graph, report)))


def unfinished(run: Run, report: ShapeReport | None) -> ShapeTrace:
    """What is known of a pass that was not recorded to its end: the shapes seen, the origin of the error, the error."""
    types = {module.path: module.type for module in run.modules}
    shapes = run.last_shapes()
    sites = [site for site in shapes if not site.gradient and site.kind is not Kind.PARAMETER]
    sites.sort(key=lambda site: site.kind is not Kind.INPUT)
    seen = []
    for site in sites:
        shape = shapes[site]
        label, name = ("input", "") if site.kind is Kind.INPUT else (str(site), types.get(site.path, ""))
        seen.append(ShapeRow(label, site.path, name, outs=(Value(shape.dims, shape.dtype, shape.names),)))
    if report is None:
        return ShapeTrace(tuple(seen), tuple(seen), whole=False)
    chain, end = _chain(report), _failure(report)
    return ShapeTrace((*(seen or chain), end), (*(chain or seen), end), whole=False)


def changed_axes(before: tuple[int, ...], after: tuple[int, ...]) -> set[int]:
    """Axes of `after` that are not as they were: those that differ, or, at another rank, those in the middle."""
    if len(before) == len(after):
        return {axis for axis, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}
    first = _agreeing(before, after)
    last = _agreeing(before[first:][::-1], after[first:][::-1])
    return set(range(first, len(after) - last))


def _agreeing(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many sizes agree from the start."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _module_rows(graph: Graph, report: ShapeReport | None) -> Iterable[ShapeRow]:
    ins, outs = _crossings(graph)
    last = {call: op.outputs for op in graph.ops if op.role is not Role.OUTPUT for call in _around(graph, op.call)}
    for call in graph.calls:
        module = graph.modules.get(call.path)
        yield ShapeRow(
            _label(graph, call),
            call.path,
            module.type if module else "",
            tuple(ins[call.id].values()),
            tuple(outs[call.id].values()) or last.get(call.id, ()),
            failed=report is not None and report.module == call.path,
        )


def _crossings(graph: Graph) -> tuple[list[dict[tuple[int, int], Value]], list[dict[tuple[int, int], Value]]]:
    """The tensors that enter and that leave each call, each once, told by what made them."""
    ins: list[dict[tuple[int, int], Value]] = [{} for _ in graph.calls]
    outs: list[dict[tuple[int, int], Value]] = [{} for _ in graph.calls]
    around = [_around(graph, call.id) for call in graph.calls]
    for op in graph.ops:
        if op.role is Role.INPUT:
            ins[0].update({(op.id, port): value for port, value in enumerate(op.outputs)})
        elif op.role is Role.OUTPUT:
            outs[0].update({(op.id, port): value for port, value in enumerate(op.outputs)})
    for edge in sorted(graph.edges, key=lambda edge: (edge.target, edge.slot)):
        source, target = around[graph.ops[edge.source].call], around[graph.ops[edge.target].call]
        key = edge.source, edge.port
        for call in target - source:
            ins[call].setdefault(key, edge.value)
        for call in source - target:
            outs[call].setdefault(key, edge.value)
    return ins, outs


def _around(graph: Graph, call: int) -> frozenset[int]:
    """A call and those that it happens in."""
    found = []
    while call >= 0:
        found.append(call)
        call = graph.calls[call].parent
    return frozenset(found)


def _op_rows(graph: Graph, report: ShapeReport | None) -> Iterable[ShapeRow]:
    into: list[list[Edge]] = [[] for _ in graph.ops]
    for edge in graph.edges:
        into[edge.target].append(edge)
    failed = _failed_op(graph, report)
    for op in graph.ops:
        call = graph.calls[op.call]
        received = tuple(edge.value for edge in sorted(into[op.id], key=lambda edge: edge.slot))
        ends = op.role is Role.OUTPUT
        named = op.role in {Role.INPUT, Role.OUTPUT} and op.name != op.role
        yield ShapeRow(
            _label(graph, call),
            call.path,
            f"{op.role} {op.name}" if named else op.name,
            (received or op.outputs) if ends else received,
            () if ends else op.outputs,
            op.weights,
            op.where,
            op.id == failed,
        )


def _failed_op(graph: Graph, report: ShapeReport | None) -> int:
    """The operation that raised when it ran again later: the same one in the module; -1 if it is not among them."""
    if report is None:
        return -1
    inside = [op for op in graph.ops if op.role is Role.OP and graph.calls[op.call].path == report.module]
    same = [op.id for op in inside if op.name == report.op]
    return same[0] if len(same) == 1 else -1


def _label(graph: Graph, call: Call) -> str:
    return str(Site(call.path, call=call.number)) if call.path else graph.name


def _chain(report: ShapeReport) -> list[ShapeRow]:
    rows: list[ShapeRow] = []
    for way in ways(report.origin).values():
        taken: tuple[Value, ...] = ()
        for step in way:
            made = (Value(step.dims, "", step.names),)
            rows.append(ShapeRow(step.label, step.module, step.op, taken, made, where=str(step.where or "")))
            taken = made
    return rows


def _failure(report: ShapeReport) -> ShapeRow:
    taken = tuple(Value(operand.dims, operand.dtype, operand.names) for operand in report.operands)
    return ShapeRow(report.module or ROOT, report.module, report.op, taken, where=str(report.where or ""), failed=True)
