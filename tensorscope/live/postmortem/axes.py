"""Where one axis of a tensor came from: a tree that can be printed, and evaluated for other input sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

Axes = tuple["Axis", ...]


class Kind(StrEnum):
    """What an axis is to the axes it was made from."""

    INPUT = "input"  # an axis of an argument
    WEIGHT = "weight"  # an axis of a parameter or buffer
    LITERAL = "literal"  # a number in the program, or one that an operation fixes
    WINDOW = "window"  # positions of a window or a grid over an axis: convolution, pooling, padding, resizing
    PRODUCT = "product"  # several axes flattened into one, or one repeated
    PART = "part"  # a factor of an axis that was split up
    SUM = "sum"  # axes one behind the other
    SLICE = "slice"  # some entries of an axis
    UNKNOWN = "unknown"  # depends on values, or made by an operation without a rule


@dataclass(frozen=True, slots=True, order=True)
class InputAxis:
    """One axis of an argument of the program, counted from 0."""

    name: str
    index: int

    def __str__(self) -> str:
        return f"{self.name}[{self.index}]"


@dataclass(frozen=True, slots=True)
class Rule:
    """How a size follows from the sizes of an axis' parts.

    Attributes:
        size: the parts' sizes → the size; None where the operation would not run.
        text: the same for a reader, with `{0}` for the first part's size; empty if there is nothing short to write.
    """

    size: Callable[..., int | None]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Cut:
    """Which factor of the axis it was split from an axis is.

    Attributes:
        factors: sizes of all factors, in order.
        number: which of them this is.
        free: the factor that grows with the axis, None if that is not known.
    """

    factors: tuple[int, ...]
    number: int
    free: int | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Axis:
    """One axis and what it was made from. Two axes are the same only if they are one object.

    Attributes:
        size: number of entries.
        kind: what it is to its parts.
        label: what it is called: an input's name for it (`height`, else `x[2]`), the attribute that fixes a weight's
            size (`conv2.out_channels`), otherwise the module or operation that made it.
        parts: what it was made from.
        step: the step that made it; None for what the program was given.
        module: dotted path of the module in which that step ran.
        rule: how its size follows from the parts' sizes; without one, it is known only while these stay as they are.
        source: the argument's axis that it is, for an input.
        cut: which factor of its only part it is, where one was split up.
        varies: whether it depends on an input's sizes.
    """

    size: int
    kind: Kind
    label: str
    parts: tuple[Axis, ...] = ()
    step: int | None = None
    module: str = ""
    rule: Rule | None = None
    source: InputAxis | None = None
    cut: Cut | None = None
    varies: bool = field(init=False)

    def __post_init__(self) -> None:
        varies = self.source is not None or any(part.varies for part in self.parts)
        object.__setattr__(self, "varies", varies)

    def __repr__(self) -> str:  # without its parts, which may be many
        return f"Axis({self.size}, {self.kind.name}, {self.label!r})"

    def rename(self, label: str) -> None:
        """Give an input the name that it is known by as soon as something takes it."""
        object.__setattr__(self, "label", label)

    def tree(self) -> list[Axis]:
        """All axes that it was made from and itself, each once, parts before what was made from them."""
        done: dict[Axis, None] = {}
        waiting: list[tuple[Axis, Iterator[Axis]]] = [(self, iter(self.parts))]
        while waiting:  # no recursion: a long chain of crops or joins may be deeper than Python's stack
            axis, parts = waiting[-1]
            below = next((part for part in parts if part not in done), None)
            if below is None:
                done[axis] = None
                waiting.pop()
            else:
                waiting.append((below, iter(below.parts)))
        return list(done)

    def at(self, sizes: Mapping[InputAxis, int]) -> int | None:
        """Its size for other input sizes.

        Args:
            sizes: sizes of the inputs' axes that differ from the present ones.

        Returns:
            The size; None if it would not be positive, or is not known.
        """
        return evaluated(self.tree(), sizes)

    def steps(self) -> list[int]:
        """All steps in its tree, newest first."""
        return sorted({axis.step for axis in self.tree() if axis.step is not None}, reverse=True)

    def inputs(self) -> set[InputAxis]:
        """The inputs' axes that it depends on."""
        return {axis.source for axis in self.tree() if axis.source is not None}

    def weights(self) -> list[Axis]:
        """The axes of weights in its tree."""
        return [axis for axis in self.tree() if axis.kind is Kind.WEIGHT]


def evaluated(tree: list[Axis], sizes: Mapping[InputAxis, int]) -> int | None:
    """The size that the last axis of a `tree()` has for other input sizes; see `Axis.at`."""
    found: dict[Axis, int | None] = {}
    for axis in tree:
        found[axis] = _evaluated(axis, [found[part] for part in axis.parts], sizes)
    return found[tree[-1]] or None


def _evaluated(axis: Axis, parts: list[int | None], sizes: Mapping[InputAxis, int]) -> int | None:
    if axis.source is not None:
        return sizes.get(axis.source, axis.size)
    if axis.kind is Kind.UNKNOWN or None in parts:
        return None
    if axis.rule is None:
        return axis.size if all(part.size == now for part, now in zip(axis.parts, parts, strict=True)) else None
    size = axis.rule.size(*parts)
    return size if size is not None and size >= 0 else None


def alike(one: Axis, other: Axis) -> bool:
    """Whether two axes are one, or made in the same way from the same: the pieces of one split, for example."""
    pairs = [(one, other)]
    for _ in range(100):  # deeper ones are held to be different
        if not pairs:
            return True
        one, other = pairs.pop()
        if one is other:
            continue
        if (one.kind, one.size, one.label, one.step) != (other.kind, other.size, other.label, other.step):
            return False
        if len(one.parts) != len(other.parts) or not one.parts or one.kind is Kind.UNKNOWN:
            return False
        pairs += zip(one.parts, other.parts, strict=True)
    return False


def preferred(axes: Iterable[Axis]) -> Axis:
    """Of axes that a result's axis may come from, the one that tells most: inputs first, numbers last."""
    return min(axes, key=lambda axis: (axis.kind is Kind.UNKNOWN, axis.kind is Kind.LITERAL, not axis.varies))
