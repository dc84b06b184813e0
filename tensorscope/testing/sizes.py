"""Sizes that find mistakes, and assignments of sizes to the names of a contract."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tensorscope.dims import Computed, Fixed, Name, Rest, Sizes

if TYPE_CHECKING:
    from tensorscope.contracts import One

Pins = Mapping[str, Any] | st.SearchStrategy[int] | None
Shape = tuple[int, ...]

_LARGEST_BY_RANK = {3: 17, 4: 9}  # keeps tensors below 10 000 numbers
_MOST_REST = 2  # axes that `*batch` and `...` stand for


@functools.cache
def odd_sizes(largest: int = 17, *, empty: bool = False) -> st.SearchStrategy[int]:
    """Sizes that break code that works for the usual ones: 1, primes, powers of two and their neighbours.

    Args:
        largest: the largest size.
        empty: whether 0 is among them.
    """
    sizes = [n for n in range(1, largest + 1) if _is_odd(n)]
    return st.sampled_from([*sizes, 0] if empty else sizes)


def broadcastable(count: int = 2, *, axes: int = 4, largest: int = 5, empty: bool = False) -> st.SearchStrategy[Any]:
    """Tuples of shapes that broadcast together; ranks differ, and axes of 1 are stretched.

    Args:
        count: how many shapes.
        axes: the largest number of axes of one.
        largest: the largest size of an axis.
        empty: whether axes of size 0 are among them.
    """
    shapes = hnp.mutually_broadcastable_shapes(
        num_shapes=count, min_dims=0, max_dims=axes, min_side=0 if empty else 1, max_side=largest
    )
    return shapes.map(lambda drawn: drawn.input_shapes)


def _is_odd(n: int) -> bool:
    power = 1 << (n.bit_length() - 1)
    near = n - power <= 1 or 2 * power - n <= 1
    return near or all(n % factor for factor in range(2, n))


@st.composite
def assignments(draw: st.DrawFn, tensors: Iterable[One], pins: Pins = None) -> Sizes:
    """A size for every name of the tensors, such that computed axes come out.

    Args:
        draw: of Hypothesis.
        tensors: whose axes have names.
        pins: sizes, or strategies for them, by name (a tuple for `*batch`); or one strategy for all.
    """
    tensors = list(tensors)
    rank = max((len(tensor.dims.axes) for tensor in tensors), default=0)
    any_size = pins if isinstance(pins, st.SearchStrategy) else odd_sizes(_LARGEST_BY_RANK.get(max(rank, 3), 5))
    pinned: Mapping[str, Any] = pins if isinstance(pins, Mapping) else {}
    sizes: Sizes = {}
    for name in dict.fromkeys(_names(tensors)):
        pin = pinned.get(name, any_size if not name.startswith("*") else _rest(any_size))
        sizes[name] = draw(pin) if isinstance(pin, st.SearchStrategy) else pin
    for name, divisor in _divisions(tensors):
        size, by = sizes.get(name), _value(divisor, sizes)
        if name not in pinned and isinstance(size, int) and by:
            sizes[name] = -(-size // by) * by
    return sizes


@st.composite
def shapes_from(draw: st.DrawFn, tensor: One, sizes: Sizes) -> Shape:
    """A shape of one tensor under an assignment of sizes; axes that have no name may be of any size."""
    shape: list[int] = []
    for axis in tensor.dims.axes:
        match axis:
            case Rest():
                shape += draw(_rest_shape(axis, sizes))
                continue
            case Fixed():
                size = axis.size
            case Name():
                size = _integer(sizes[axis.name])
            case Computed():
                value = axis.value(sizes)
                size = -1 if value is None else value
            case _:
                size = draw(odd_sizes(3))
        assume(size >= 0)  # `seq-1` of an empty sequence
        shape.append(1 if getattr(axis, "broadcast", False) and draw(st.booleans()) else size)
    return tuple(shape)


def _names(tensors: Iterable[One]) -> Iterator[str]:
    for tensor in tensors:
        for axis in tensor.dims.axes:
            if isinstance(axis, Name):
                yield axis.name
            elif isinstance(axis, Rest) and axis.name:
                yield f"*{axis.name}"
            elif isinstance(axis, Computed):
                yield from axis.uses


def _rest(sizes: st.SearchStrategy[int]) -> st.SearchStrategy[Shape]:
    return st.lists(sizes.filter(lambda size: size <= 5), max_size=_MOST_REST).map(tuple)


@st.composite
def _rest_shape(draw: st.DrawFn, axis: Rest, sizes: Sizes) -> Shape:
    whole = sizes[f"*{axis.name}"] if axis.name else draw(_rest(odd_sizes(3)))
    assert isinstance(whole, tuple)
    if not axis.broadcast:
        return whole
    kept = whole[draw(st.integers(0, len(whole))) :]
    return tuple(1 if draw(st.booleans()) else size for size in kept)


def _divisions(tensors: Iterable[One]) -> Iterator[tuple[str, ast.expr]]:
    """Names that some axis divides: `dim//heads` means that heads divide it."""
    for tensor in tensors:
        for axis in tensor.dims.axes:
            for node in ast.walk(axis.tree) if isinstance(axis, Computed) else ():
                if (
                    isinstance(node, ast.BinOp)
                    and isinstance(node.op, ast.FloorDiv)
                    and isinstance(node.left, ast.Name)
                ):
                    yield node.left.id, node.right


def _value(tree: ast.expr, sizes: Sizes) -> int | None:
    return Computed("", tree=tree).value(sizes)


def _integer(size: object) -> int:
    if not isinstance(size, int):
        raise TypeError(f"the size of an axis is one integer, not {size!r}")
    return size
