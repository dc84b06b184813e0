"""One torch operation, as the rules that follow axes through it see it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from tensorscope.live.postmortem.axes import Axes, Axis, Cut, Kind, Rule, alike
from tensorscope.live.tensors import leaves

Follow = Callable[["Operation"], list[Axes]]  # axes of each tensor in the result


class OddOperationError(Exception):
    """A rule does not cover this call."""


class Known(Protocol):
    """What is known outside of the call."""

    def axes(self, tensor: Any) -> Axes:
        """The axes of a tensor."""

    def asked(self, size: int, module: str) -> Mapping[Axis, int]:
        """The axes whose size the program asked for and got this number, with their places in the tensors asked."""

    def called(self, op: str, module: str) -> str:
        """What a reader calls an operation that ran in a module."""

    def name_inputs(self, axes: Axes, names: Sequence[str]) -> None:
        """Name those axes that are an input's and have no name yet."""


@dataclass(slots=True)
class Operation:
    """A call that has returned.

    Attributes:
        op: the function's name as users know it.
        func: the function.
        args: its arguments.
        kwargs: its named arguments.
        shapes: of the tensors that came out.
        step: number of the call.
        module: dotted path of the module in which it ran.
        known: what is known outside of the call.
    """

    op: str
    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shapes: list[tuple[int, ...]]
    step: int
    module: str
    known: Known

    # -- what it was given -------------------------------------------------------------------------------------------

    def value(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by position or name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def axes(self, tensor: Any) -> Axes:
        """The axes of one of the operands.

        Raises:
            OddOperationError: it is no tensor.
        """
        if not isinstance(tensor, torch.Tensor):
            raise OddOperationError(f"{self.op} of {type(tensor).__name__}")
        return self.known.axes(tensor)

    def operand(self, position: int = 0, name: str = "input") -> Axes:
        """The axes of an operand by position or name."""
        return self.axes(self.value(position, name))

    def operands(self) -> list[Axes]:
        """The axes of all tensors among the arguments, `out` aside."""
        named = [value for key, value in self.kwargs.items() if key != "out"]
        return [self.known.axes(tensor) for tensor in leaves((*self.args, *named))]

    def numbers(self, position: int, name: str) -> list[int]:
        """Integers given one by one or as a list: `view(2, 3)`, `view((2, 3))`."""
        rest: Any = self.args[position:] or self.kwargs[name]
        rest = rest[0] if isinstance(rest, tuple) and len(rest) == 1 and not is_number(rest[0]) else rest
        return [int(entry) for entry in ([rest] if is_number(rest) else rest)]

    # -- what it makes -----------------------------------------------------------------------------------------------

    def literal(self, size: int, place: int | None = None) -> Axis:
        """An axis of a size that a number in the program says; what it stands for, if the program asked for that.

        Args:
            size: the number.
            place: which of the axes it is; of several equal sizes that were asked for, that of the same axis is meant.
        """
        asked = self.known.asked(size, self.module)
        if size == 1:  # as likely to be a 1 in the program
            asked = {axis: index for axis, index in asked.items() if index == place}
        meant = [axis for axis, index in asked.items() if len(asked) == 1 or index == place]
        if len(meant) == 1 and size != 1:
            return meant[0]
        label = f"given to `{self.op}`"
        if any(axis.varies or axis.at({}) is None for axis in asked):  # one of them, or none
            return Axis(int(size), Kind.LITERAL, label, tuple(asked), self.step, self.module)
        return self.fixed(size, label)

    def fixed(self, size: int, label: str = "") -> Axis:
        """An axis of a size that stays the same."""
        return Axis(int(size), Kind.LITERAL, label or f"made by `{self.op}`", (), self.step, self.module)

    def unknown(self, size: int) -> Axis:
        """An axis that depends on values."""
        return Axis(int(size), Kind.UNKNOWN, self.op, (), self.step, self.module)

    def made(self, kind: Kind, parts: Axes, rule: Rule, label: str = "") -> Axis:
        """An axis whose size follows from others.

        Raises:
            OddOperationError: it does not follow.
        """
        size = rule.size(*(part.size for part in parts))
        if size is None:
            raise OddOperationError(f"{self.op}: no size from {[part.size for part in parts]}")
        label = label or self.known.called(self.op, self.module)
        return Axis(size, kind, label, parts, self.step, self.module, rule)

    def window(self, axis: Axis, rule: Rule) -> Axis:
        """The positions of a window over an axis; the axis itself where that is all of its places."""
        return axis if rule.text == "{0}" else self.made(Kind.WINDOW, (axis,), rule)

    def product(self, axes: Sequence[Axis]) -> Axis:
        """Several axes as one; an axis that was split up comes back when its factors do."""
        factors = [axis for axis in axes if axis.size != 1 or axis.varies]
        factors = self._rejoined(factors)
        if len(factors) == 1:
            return factors[0]
        if not factors:
            return axes[0] if axes else self.fixed(1)
        return self.made(Kind.PRODUCT, tuple(factors), PRODUCT)

    def longer(self, axis: Axis, more: int) -> Axis:
        """An axis with a fixed number of entries added."""
        return self.made(Kind.SUM, (axis, self.fixed(more)), SUM) if more else axis

    def part(self, axis: Axis, cut: Cut) -> Axis:
        """One factor of an axis that is split up."""
        rest = math.prod(cut.factors) // cut.factors[cut.number] if math.prod(cut.factors) else 0
        size, rule = cut.factors[cut.number], None
        if cut.free == cut.number and rest:
            rule = quotient(rest)
        elif cut.free is not None:
            rule = constant(size)
        return Axis(size, Kind.PART, self.op, (axis,), self.step, self.module, rule, cut=cut)

    def _rejoined(self, axes: list[Axis]) -> list[Axis]:
        start = 0
        while start < len(axes):
            stop = start + 1
            while stop < len(axes) and _siblings(axes[stop - 1], axes[stop]):
                stop += 1
            if stop - start > 1:
                axes[start:stop] = [self._rejoin(axes[start:stop])]
                start = max(0, start - 1)  # what came back may be a factor itself
            else:
                start += 1
        return axes

    def _rejoin(self, run: list[Axis]) -> Axis:
        first, last = run[0].cut, run[-1].cut
        whole = run[-1].parts[0]
        if first is None or last is None or len(run) == len(first.factors):
            return whole
        before, inside, after = (
            first.factors[: first.number],
            first.factors[first.number : last.number + 1],
            first.factors[last.number + 1 :],
        )
        free = first.free
        if free is not None and free >= first.number:
            free = first.number if free <= last.number else free - len(inside) + 1
        return self.part(whole, Cut((*before, math.prod(inside), *after), first.number, free))


def _siblings(one: Axis, other: Axis) -> bool:
    """Whether two factors follow each other in axes that are the same, or equal and fixed."""
    if one.cut is None or other.cut is None or one.cut.factors != other.cut.factors:
        return False
    wholes = one.parts[0], other.parts[0]
    return one.cut.number + 1 == other.cut.number and (alike(*wholes) or not (wholes[0].varies or wholes[1].varies))


PRODUCT = Rule(lambda *sizes: math.prod(sizes))
SUM = Rule(lambda *sizes: sum(sizes))


def constant(size: int) -> Rule:
    """The same size whatever the parts'."""
    return Rule(lambda *_: size, "{0} / {factor}")


def quotient(divisor: int) -> Rule:
    """What is left of an axis when a factor is taken out of it."""
    return Rule(lambda size: size // divisor if size % divisor == 0 else None, f"{{0}} / {divisor}")


def shifted(text: str, number: int) -> str:
    """A term plus a number, as one writes it."""
    return text if number == 0 else f"{text} {'+' if number > 0 else '−'} {abs(number)}"


def strided(shift: int, stride: int) -> Rule:
    """The number of places of a window: (size + shift) // stride + 1, none before the first place."""
    numerator = shifted("{0}", shift)
    text = f"{{0}} // {stride}" if shift == -stride else shifted(f"({numerator}) // {stride}", 1)
    if stride == 1:
        text = shifted("{0}", shift + 1)
    return Rule(lambda size: (size + shift) // stride + 1 if size + shift >= 0 else None, text)


def is_number(value: object) -> bool:
    """Whether an argument is one integer."""
    return isinstance(value, int | torch.SymInt) or (isinstance(value, torch.Tensor) and value.ndim == 0)


def each(value: Any, count: int) -> list[int]:
    """An argument that is given once for all axes or once an axis."""
    numbers = [int(value)] if is_number(value) else [int(entry) for entry in value]
    return numbers * count if len(numbers) == 1 else numbers


def position(dim: int, rank: int) -> int:
    """An axis counted from the front.

    Raises:
        OddOperationError: there is no such axis.
    """
    if not -max(rank, 1) <= dim < max(rank, 1):
        raise OddOperationError(f"axis {dim} of {rank}")
    return int(dim) % max(rank, 1)


def without(axes: Axes, *dims: int) -> Axes:
    """All axes but some."""
    return tuple(axis for index, axis in enumerate(axes) if index not in dims)


def replaced(axes: Axes, dim: int, *others: Axis) -> Axes:
    """Axes with others in place of one."""
    return (*axes[:dim], *others, *axes[dim + 1 :])
