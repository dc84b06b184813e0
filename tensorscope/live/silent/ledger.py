"""What is known of each tensor while a program is watched."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from tensorscope.events import Severity
from tensorscope.live.silent.axes import Axis, Kind, Scramble

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_WRITTEN = {
    **{"lstm": "LSTM", "gru": "GRU", "rnn_tanh": "RNN", "rnn_relu": "RNN"},
    "multi_head_attention_forward": "MultiheadAttention",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where an operation ran.

    Attributes:
        op: its name.
        path: dotted path of the innermost module; empty for the model itself.
        line: `file:line` of the user's code.
        after: whether the model's forward was over.
    """

    op: str
    path: str
    line: str
    after: bool = False

    @property
    def written(self) -> str:
        """The operation as the user wrote it: the module, where nobody calls the function by hand."""
        return _WRITTEN.get(self.op, self.op)


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask that went into scores.

    Attributes:
        hidden: a copy of it, true where nothing is to be seen; broadcasts to the scores.
        causal: whether it is triangular over square scores.
        either: whether it is unknown which of its two values hides.
        place: the operation that put it in.
        per_sample: whether its first axis is axis 0 of an input.
    """

    hidden: torch.Tensor
    causal: bool
    either: bool
    place: Place
    per_sample: bool = False


@dataclass(frozen=True, slots=True)
class Soft:
    """A softmax that a tensor went through: over which of its axes, and where."""

    axis: Axis
    place: Place


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a tensor.

    Attributes:
        axes: one for each of its dimensions.
        live: whether it depends on what the model was given.
        weight: path of the parameter or buffer that it is, or was reshaped from.
        scores: whether it is the product of two live tensors, such as queries and keys.
        soft: the softmax that it went through.
        masks: what was masked in it.
        maker: the name of the operation that made it.
        outside: whether nobody was seen to make it, such as a target.
        output: whether it is what the model returned.
        outer: the operation that grew it by broadcasting what should have lined up.
    """

    axes: tuple[Axis, ...]
    live: bool = False
    weight: str = ""
    scores: bool = False
    soft: Soft | None = None
    masks: tuple[Mask, ...] = ()
    maker: str = ""
    outside: bool = False
    output: bool = False
    outer: Place | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return tuple(axis.size for axis in self.axes)

    def with_axes(self, axes: Sequence[Axis]) -> Seen:
        """The same data under other axes."""
        return replace(self, axes=tuple(axes))


@dataclass(frozen=True, slots=True)
class Mistake:
    """What a rule found.

    Attributes:
        rule: its id.
        place: the operation at which it happens.
        says: one clause with the shapes; the operation and the line are added.
        hint: what to change in the code.
        evidence: name → number.
        severity: how bad.
        site: where, if not the module of the place.
    """

    rule: str
    place: Place
    says: str
    hint: str
    evidence: dict[str, float] = field(default_factory=dict)
    severity: Severity = Severity.ERROR
    site: str | None = None


@dataclass(slots=True)
class Event:
    """One operation, with what is known of its operands."""

    place: Place
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    results: list[torch.Tensor]
    ledger: Ledger
    scrambles: list[Scramble] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the operation, without the mark of one that works in place."""
        return self.place.op.removesuffix("_") if not self.place.op.startswith("_") else self.place.op

    def operand(self, index: int, keyword: str = "") -> torch.Tensor | None:
        """A tensor argument, by position or keyword."""
        value = self.argument(index, keyword)
        return value if isinstance(value, torch.Tensor) else None

    def argument(self, index: int, keyword: str = "", default: Any = None) -> Any:
        """An argument, by position or keyword."""
        if 0 <= index < len(self.args):
            return self.args[index]
        return self.kwargs.get(keyword, default)

    def seen(self, tensor: torch.Tensor) -> Seen:
        """What is known of a tensor."""
        return self.ledger.seen(tensor)

    def tensors(self) -> list[torch.Tensor]:
        """Every tensor among the arguments, in containers too."""
        found: list[torch.Tensor] = []
        for value in (*self.args, *self.kwargs.values()):
            if isinstance(value, torch.Tensor):
                found.append(value)
            elif isinstance(value, list | tuple):
                found += [entry for entry in value if isinstance(entry, torch.Tensor)]
        return found


@dataclass(slots=True)
class Ledger:
    """Remembers what is known of tensors without keeping them alive.

    Attributes:
        weights: id → path of parameters and buffers.
    """

    weights: dict[int, str]
    _known: dict[int, tuple[weakref.ref[torch.Tensor], Seen]] = field(default_factory=dict)
    _weights: dict[str, Seen] = field(default_factory=dict)

    def seen(self, tensor: torch.Tensor) -> Seen:
        """What is known of a tensor; one that was never seen comes from outside."""
        known = self._known.get(id(tensor))
        if known is not None and known[0]() is tensor and known[1].sizes == tuple(tensor.shape):
            return known[1]
        path = self.weights.get(id(tensor))
        if path is not None:
            if path not in self._weights:
                axes = tuple(Axis(size, Kind.WEIGHT) for size in tensor.shape)
                self._weights[path] = Seen(axes, weight=path)
            return self._weights[path]
        seen = Seen(tuple(Axis(size, Kind.OUTSIDE) for size in tensor.shape), outside=True)
        self.note(tensor, seen)
        return seen

    def note(self, tensor: torch.Tensor, seen: Seen) -> None:
        """Remember what is known of a tensor."""
        self._known[id(tensor)] = (weakref.ref(tensor), seen)

    def is_known(self, tensor: torch.Tensor) -> bool:
        """Whether it was seen before."""
        known = self._known.get(id(tensor))
        return known is not None and known[0]() is tensor

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()
        self._weights.clear()


def shape_text(sizes: Sequence[int]) -> str:
    """A shape as torch's users write it."""
    return f"({', '.join(map(str, sizes))}{',' if len(sizes) == 1 else ''})"


def count_text(count: int, thing: str) -> str:
    """A number of things, one of them in the singular."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def fresh(shape: Sequence[int], kind: Kind = Kind.DERIVED) -> tuple[Axis, ...]:
    """Axes of which nothing is known."""
    return tuple(Axis(int(size), kind) for size in shape)
