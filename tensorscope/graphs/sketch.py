"""What a drawing of a graph shows: nodes, boxes around them, links; trifles merged so that it stays legible."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tensorscope.graphs.graph import Flow, Role
from tensorscope.graphs.kinds import OpKind, kind_of

if TYPE_CHECKING:
    from tensorscope.graphs.graph import Call, Edge, Graph, Op
    from tensorscope.graphs.overlay import Overlay


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the drawing.

    Attributes:
        id: of its first operation.
        parent: id of the box it lies in.
        title: name of the module or operation.
        type: class of the module, empty for a bare operation.
        notes: further short remarks.
        kind: what it does.
        repeat: how many times it stands for itself.
        flow: how those hang together.
        members: paths of the modules it shows.
        where: `file:line` of the user's own code.
        parts: of a stack, the nodes drawn as its rows.
        shapes: of a stack, what flows from each row to the next.
    """

    id: int
    parent: int
    title: str
    type: str
    notes: tuple[str, ...]
    kind: OpKind
    repeat: int = 1
    flow: Flow = Flow.ONCE
    members: tuple[str, ...] = ()
    where: str = ""
    parts: tuple[Node, ...] = ()
    shapes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Box:
    """A module call, or a group of siblings, drawn around its contents; its attributes are those of `Node`."""

    id: int
    parent: int
    title: str
    type: str
    notes: tuple[str, ...]
    repeat: int
    flow: Flow
    group: bool
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """A tensor from one node to another; the label is empty if another link already carries it."""

    source: int
    target: int
    label: str
    back: bool


@dataclass(frozen=True, slots=True)
class Sketch:
    """All of a drawing."""

    title: str
    notes: tuple[str, ...]
    nodes: list[Node] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    shown: Overlay | None = None


def sketch(graph: Graph) -> Sketch:
    """Decide what a drawing of the graph shows."""
    return _Sketcher(graph).sketch()


def amount(number: int) -> str:
    """A count in three digits at most: `950`, `12.3 k`, `124 M`."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


class _Sketcher:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.shown = self._shown_calls()
        self.nodes = self._grouped()

    def sketch(self) -> Sketch:
        graph = self.graph
        notes = [" = ".join(names) + " (one parameter)" for names in graph.tied[:4]]
        notes += [f"… and {len(graph.tied) - 4} more shared parameters"] if len(graph.tied) > 4 else []
        sketch = Sketch(graph.name, (f"{amount(graph.parameters)} parameters", *notes, *graph.notes), shown=graph.shown)
        members: dict[int, list[Op]] = defaultdict(list)
        for op in graph.ops:
            members[self.nodes[op.id]].append(op)
        sketch.nodes.extend(self._node(ops) for ops in members.values())
        needed = {0} | {node.parent for node in sketch.nodes}
        for call in reversed(graph.calls):
            if call.id in needed and call.parent >= 0:
                needed.add(call.parent)
        sketch.boxes.extend(self._box(call) for call in graph.calls if call.id in needed and call.id)
        sketch.links.extend(self._links())
        return sketch

    def _shown_calls(self) -> list[int]:
        """For each call the outermost one around it that is drawn as a single node, or -1."""
        graph = self.graph
        holds, repeats, inner = [0] * len(graph.calls), [1] * len(graph.calls), [0] * len(graph.calls)
        for op in graph.ops:
            holds[op.call] += 1
        for call in reversed(graph.calls[1:]):
            holds[call.parent] += holds[call.id]
            repeats[call.parent] = max(repeats[call.parent], call.repeat, repeats[call.id])
            inner[call.parent] += 1
        shown: list[int] = []
        for call in graph.calls:
            around = shown[call.parent] if call.parent >= 0 else -1
            module = graph.modules.get(call.path)
            # One of torch's own layers is one thing, whatever it prepares inside.
            whole = module is not None and module.builtin and not inner[call.id] and not call.group
            single = call.id > 0 and (whole or (holds[call.id] == 1 and repeats[call.id] == 1))
            shown.append(around if around >= 0 else call.id if single else -1)
        return shown

    def _grouped(self) -> list[int]:
        """For each operation the first operation of the node it is drawn in."""
        graph = self.graph
        first: dict[int, int] = {}
        nodes: list[int] = []
        for op in graph.ops:
            call = self.shown[op.call] if op.role in (Role.OP, Role.MODULE) else -1
            nodes.append(op.id if call < 0 else first.setdefault(call, op.id))
        into: dict[int, list[Edge]] = defaultdict(list)
        out: dict[int, set[int]] = defaultdict(set)
        for edge in graph.edges:
            into[edge.target].append(edge)
            out[edge.source].add(edge.target)
        for op in graph.ops:
            # A view of a view: moving elements about twice is drawn as one node.
            if len(into[op.id]) == 1 and self._moves(op):
                before = graph.ops[into[op.id][0].source]
                alike = before.call == op.call and self._moves(before)
                if alike and len(out[before.id]) == 1 and not into[op.id][0].back:
                    nodes[op.id] = nodes[before.id]
        return nodes

    def _moves(self, op: Op) -> bool:
        return op.role is Role.OP and self.shown[op.call] < 0 and kind_of(op.name) is OpKind.SHAPE

    def _node(self, ops: list[Op]) -> Node:
        op, call = ops[-1], self.graph.calls[ops[0].call]
        if op.role in (Role.INPUT, Role.OUTPUT):
            return Node(op.id, 0, op.name, "", (), OpKind(op.role.value))
        shown = self.shown[op.call]
        if shown < 0:
            title = " · ".join(dict.fromkeys(each.name for each in ops))
            notes = tuple(weight.removeprefix(f"{call.path}.") for weight in op.weights)
            return Node(ops[0].id, op.call, title, "", notes, kind_of(op.name), where=op.where)
        return self._module_node(self.graph.calls[shown], ops)

    def _module_node(self, call: Call, ops: list[Op]) -> Node:
        module = self.graph.modules.get(call.path) if not call.group else None
        type_ = module.type if module else ""
        op = next((op for op in ops if _implied(op.name, type_)), ops[-1])
        notes = []
        if op.role is Role.MODULE:
            notes.append(f"{op.count} operations")
        elif type_ and not _implied(op.name, type_):
            notes.append(op.name)
        own = [weight for each in ops for weight in each.weights]
        foreign = [weight for weight in own if not weight.startswith(f"{call.path}.")]
        if module and module.parameters:
            notes.append(f"{amount(module.parameters)} params")
        notes += [f"uses {weight}" for weight in foreign]
        title = op.name if call.group else self._name(call)
        kind = OpKind.MODULE if op.role is Role.MODULE else kind_of(op.name)
        return Node(
            ops[0].id, call.parent, title, type_, tuple(notes), kind, call.repeat, call.flow, call.members, op.where
        )

    def _box(self, call: Call) -> Box:
        module = self.graph.modules.get(call.path) if not call.group else None
        notes = (f"{amount(module.parameters)} params",) if module and module.parameters else ()
        return Box(
            id=call.id,
            parent=call.parent,
            title=self._name(call),
            type=module.type if module else "",
            notes=notes,
            repeat=call.repeat,
            flow=call.flow,
            group=call.group,
            members=call.members,
        )

    def _name(self, call: Call) -> str:
        """The path of a module from the one around it; of several with different ones, the first and the last."""
        if not call.members:
            return ""
        around = self.graph.calls[max(call.parent, 0)]
        while around.group:
            around = self.graph.calls[around.parent]
        first = call.members[0].removeprefix(f"{around.members[0]}.")
        last = call.members[-1].removeprefix(f"{around.members[-1]}.")
        if first == last:
            return first
        stem, _, tail = last.rpartition(".")
        return f"{first} … {tail if stem and first.startswith(f'{stem}.') else last}"

    def _links(self) -> list[Link]:
        graph = self.graph
        usual = _usual_dtype(graph)
        labelled: set[tuple[int, int, bool]] = set()
        links: dict[tuple[int, int, int, bool], Link] = {}
        for edge in graph.edges:
            source, target = self.nodes[edge.source], self.nodes[edge.target]
            key = (source, target, edge.port if edge.source == source else -edge.source, edge.back)
            if (source == target and not edge.back) or key in links:
                continue
            tensor = (edge.source, edge.port, edge.back)
            label = str(edge.value).replace("-1", "?") if tensor not in labelled else ""
            label += f" {edge.value.dtype}" if label and edge.value.dtype != usual else ""
            labelled.add(tensor)
            links[key] = Link(source, target, label, edge.back)
        return list(links.values())


def _implied(op: str, type_: str) -> bool:
    """Whether the class says what the operation is, as `Conv2d` says `conv2d`."""
    plain, kind = op.replace("_", "").lower(), type_.lower()
    return bool(plain) and (kind.startswith(plain) or plain.startswith(kind))


def _usual_dtype(graph: Graph) -> str:
    counts: dict[str, int] = defaultdict(int)
    for edge in graph.edges:
        if "float" in edge.value.dtype:
            counts[edge.value.dtype] += 1
    return max(counts, key=lambda dtype: counts[dtype], default="")
