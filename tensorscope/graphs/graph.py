"""The computation graph as plain data: operations, what flows between them, and the module calls they belong to."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorscope.errors import GraphError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tensorscope.graphs.overlay import Overlay, Recorded

VERSION = 1


class Role(StrEnum):
    """What an operation is to the program."""

    INPUT = "input"
    OUTPUT = "output"
    OP = "op"
    MODULE = "module"  # a whole module call, its interior left out


class Flow(StrEnum):
    """How the repetitions of a folded call hang together."""

    ONCE = ""
    SEQUENCE = "sequence"  # each feeds the next, with parameters of its own
    LOOP = "loop"  # each feeds the next, the same modules every time
    PARALLEL = "parallel"  # none feeds another


@dataclass(frozen=True, slots=True)
class Value:
    """What is known of one tensor: its sizes, its dtype such as `float32`, and one name per axis where declared."""

    dims: tuple[int, ...]
    dtype: str = ""
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        if len(self.names) != len(self.dims):
            return f"({', '.join(map(str, self.dims))})"
        return f"({', '.join(f'{n}={d}' if n else str(d) for n, d in zip(self.names, self.dims, strict=True))})"


@dataclass(frozen=True, slots=True)
class Op:
    """One operation, input or output.

    Attributes:
        id: its place in the order of execution.
        name: such as `linear`; for an input or output its name in the forward's signature or result.
        call: id of the module call it runs in.
        outputs: the tensors it returns; for an output of the model, those that it receives.
        role: what it is to the program.
        where: `file:line` of the user's own code.
        weights: paths of the parameters and buffers it reads.
        count: operations that it stands for, more than one where a module was collapsed.
        flops: floating-point operations of its products and convolutions.
    """

    id: int
    name: str
    call: int = 0
    outputs: tuple[Value, ...] = ()
    role: Role = Role.OP
    where: str = ""
    weights: tuple[str, ...] = ()
    count: int = 1
    flops: int = 0


@dataclass(frozen=True, slots=True)
class Edge:
    """A tensor on its way from one operation to another.

    Attributes:
        source: id of the operation that made it.
        target: id of the operation that takes it.
        value: what is known of it.
        port: which of the source's outputs it is.
        slot: which argument of the target it is; the elements of a list share one.
        back: whether it goes to the next repetition of a loop.
    """

    source: int
    target: int
    value: Value
    port: int = 0
    slot: int = 0
    back: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a module, or a group of siblings that repeat together.

    Attributes:
        id: calls are numbered as they begin; 0 is the model itself.
        path: dotted path of the module; for a group, of what holds it.
        parent: id of the call around it, -1 for the model.
        number: how many calls of the same module came before.
        group: whether this is a group made by folding and no module.
        repeat: how many times it happens.
        flow: how the repetitions hang together.
        members: the paths of all modules it stands for.
    """

    id: int
    path: str
    parent: int
    number: int = 0
    group: bool = False
    repeat: int = 1
    flow: Flow = Flow.ONCE
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Module:
    """One module of the model.

    Attributes:
        path: dotted path, empty for the model.
        type: class name.
        parameters: elements of all parameters below it, each counted once.
        calls: how many times it was called.
        builtin: whether the class is torch's own.
        aliases: further paths of the same object.
    """

    path: str
    type: str
    parameters: int = 0
    calls: int = 0
    builtin: bool = False
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Graph:
    """The operations of one forward pass and what flows between them.

    Attributes:
        name: class name of the model.
        ops: in order of execution; `ops[i].id == i`.
        edges: what flows.
        calls: the nested module calls; `calls[i].id == i`, parents first.
        modules: path → module.
        tied: groups of paths that are one and the same parameter.
        notes: what the reader should know about how it was captured.
        folded: whether repetitions are shown once.
        shown: what of a run is shown on it.
    """

    name: str
    ops: tuple[Op, ...]
    edges: tuple[Edge, ...]
    calls: tuple[Call, ...]
    modules: Mapping[str, Module]
    tied: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    folded: bool = False
    shown: Overlay | None = field(default=None, compare=False)

    @cached_property
    def times(self) -> tuple[int, ...]:
        """How many times each call happens, the repetitions around it counted."""
        times: list[int] = []
        for call in self.calls:
            times.append(call.repeat * (times[call.parent] if call.parent >= 0 else 1))
        return tuple(times)

    @property
    def operations(self) -> int:
        """Operations of the whole pass, each repetition counted; the same before and after folding."""
        return sum(op.count * self.times[op.call] for op in self.ops if op.role in (Role.OP, Role.MODULE))

    @cached_property
    def flops(self) -> dict[str, int]:
        """Module path → floating-point operations of all its calls, what runs within them included; of a whole pass.

        In a folded graph a module that stands for several has what they have together.
        """
        around: list[frozenset[str]] = []
        total: Counter[str] = Counter(dict.fromkeys(self.modules, 0))
        for call in self.calls:
            own = frozenset() if call.group else frozenset((call.path,))
            around.append((around[call.parent] if call.parent >= 0 else frozenset()) | own)
        for op in self.ops:
            for path in around[op.call]:
                total[path] += op.flops * self.times[op.call]
        return dict(total)

    @property
    def parameters(self) -> int:
        """Elements of all parameters, shared ones counted once."""
        return self.modules[""].parameters if "" in self.modules else 0

    def fold(self) -> Graph:
        """Show what repeats once: identical neighbouring blocks, periodic runs, loops."""
        from tensorscope.graphs.fold import fold

        return self if self.folded else fold(self)

    def collapse(self, depth: int) -> Graph:
        """Leave out the interior of the modules `depth` levels below the model; 1 leaves its direct children."""
        from tensorscope.graphs.collapse import collapse

        return collapse(self, depth)

    def overlay(self, run: Recorded, stat: str = "rms", *, gradient: bool = False) -> Graph:
        """Show on the modules what a run last measured, and mark what is not finite and what was found.

        Args:
            run: the run.
            stat: a statistic, one of `events.STORED` and `events.DERIVED`.
            gradient: whether to show the gradients of the outputs in place of the outputs.

        Raises:
            GraphError: the run has measured no module.
        """
        from tensorscope.graphs.overlay import measured

        return replace(self, shown=measured(run, stat, gradient=gradient))

    def to_dot(self, *, fold: bool = True) -> str:
        """The drawing as DOT text, repetitions shown once unless `fold` is False."""
        from tensorscope.graphs.dot import dot

        return dot(self.fold() if fold else self)

    def save(self, path: str | Path, *, fold: bool = True) -> Path:
        """Draw into a file, in the format that its suffix names: `.svg`, `.png`, `.pdf` or `.dot`.

        Args:
            path: the file to write.
            fold: whether to show repetitions once.

        Raises:
            GraphError: another suffix, or the drawing failed.
        """
        from tensorscope.graphs.render import save

        return save(self, Path(path), fold=fold)

    def to_json(self) -> str:
        """The graph as compact JSON text; an overlay is not kept."""
        return json.dumps(_packed(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Graph:
        """Read what `to_json` wrote.

        Raises:
            GraphError: the text is no graph, or of a newer version.
        """
        try:
            return _unpacked(json.loads(text))
        except (ValueError, KeyError, IndexError, TypeError) as error:
            facts = {"reason": f"{type(error).__name__}: {error}"}
            raise GraphError("this is not a stored graph", facts=facts) from error

    def _repr_svg_(self) -> str:
        from tensorscope.graphs.render import render

        return render(self, "svg").decode()

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"image/svg+xml": self._repr_svg_(), "text/plain": repr(self)}

    def __repr__(self) -> str:
        kinds = Counter(op.role for op in self.ops)
        return (
            f"<Graph {self.name}: {self.operations} operations, {len(self.modules)} modules, "
            f"{kinds[Role.INPUT]} inputs, {kinds[Role.OUTPUT]} outputs{', folded' if self.folded else ''}>"
        )


def _packed(graph: Graph) -> dict[str, Any]:
    """Rows in place of objects; each distinct tensor description is written once."""
    values: dict[Value, int] = {}

    def index(value: Value) -> int:
        return values.setdefault(value, len(values))

    ops = [
        [
            *(op.name, op.call, [index(v) for v in op.outputs]),
            *(op.role.value, op.where, list(op.weights), op.count, op.flops),
        ]
        for op in graph.ops
    ]
    edges = [[e.source, e.target, index(e.value), e.port, e.slot, int(e.back)] for e in graph.edges]
    return {
        "version": VERSION,
        "name": graph.name,
        "ops": ops,
        "edges": edges,
        "calls": [
            [c.path, c.parent, c.number, int(c.group), c.repeat, c.flow.value, list(c.members)] for c in graph.calls
        ],
        "modules": [
            [m.path, m.type, m.parameters, m.calls, int(m.builtin), list(m.aliases)] for m in graph.modules.values()
        ],
        "values": [[list(v.dims), v.dtype, list(v.names)] for v in values],
        "tied": [list(names) for names in graph.tied],
        "notes": list(graph.notes),
        "folded": graph.folded,
    }


def _unpacked(data: dict[str, Any]) -> Graph:
    if data["version"] > VERSION:
        raise ValueError(f"version {data['version']} is newer than {VERSION}")
    values = [Value(tuple(dims), dtype, tuple(names)) for dims, dtype, names in data["values"]]
    modules = [Module(p, t, n, c, bool(b), tuple(a)) for p, t, n, c, b, a in data["modules"]]
    return Graph(
        name=data["name"],
        ops=tuple(
            Op(i, name, call, tuple(values[v] for v in outs), Role(role), where, tuple(weights), count, flops)
            for i, (name, call, outs, role, where, weights, count, flops) in enumerate(data["ops"])
        ),
        edges=tuple(Edge(s, t, values[v], port, slot, bool(back)) for s, t, v, port, slot, back in data["edges"]),
        calls=tuple(
            Call(i, path, parent, number, bool(group), repeat, Flow(flow), tuple(members))
            for i, (path, parent, number, group, repeat, flow, members) in enumerate(data["calls"])
        ),
        modules={module.path: module for module in modules},
        tied=tuple(tuple(names) for names in data["tied"]),
        notes=tuple(data["notes"]),
        folded=data["folded"],
    )
