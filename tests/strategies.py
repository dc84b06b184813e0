"""Hypothesis strategies that the tests share: tensors of odd shapes, dtypes and values, and dims strings."""

from __future__ import annotations

import keyword
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

float_dtypes = st.sampled_from(FLOATS)
dtypes = st.sampled_from((*FLOATS, *INTEGERS, torch.bool))


def shapes(*, axes: int = 4, side: int = 5, smallest: int = 0) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes with up to so many axes, empty and single ones among them.

    Args:
        axes: the largest number of axes.
        side: the largest size.
        smallest: the smallest size.
    """
    return st.lists(st.integers(smallest, side), max_size=axes).map(tuple)


def values(*, largest: float = 100.0, non_finite: bool = False) -> st.SearchStrategy[float]:
    """Numbers that go wrong more often than others: zeros of both signs, small, large, and not finite.

    Args:
        largest: the largest magnitude of finite ones.
        non_finite: whether NaN and ±Inf are among them.
    """
    special = [0.0, -0.0, 1.0, -1.0, largest, -largest, *((float("nan"), float("inf"), -float("inf")) * non_finite)]
    return st.one_of(st.floats(-largest, largest), st.sampled_from(special))


@st.composite
def tensors(
    draw: st.DrawFn,
    shape: tuple[int, ...] | st.SearchStrategy[tuple[int, ...]] | None = None,
    dtype: torch.dtype | st.SearchStrategy[torch.dtype] = torch.float32,
    elements: st.SearchStrategy[float] | None = None,
) -> torch.Tensor:
    """Tensors, some of them not contiguous.

    Args:
        draw: of Hypothesis.
        shape: sizes; any of `shapes()` by default.
        dtype: element type.
        elements: what is in them; any of `values()` by default.
    """
    sizes: Any = draw(shape) if isinstance(shape, st.SearchStrategy) else shape
    sizes = draw(shapes()) if sizes is None else sizes
    kind = draw(dtype) if isinstance(dtype, st.SearchStrategy) else dtype
    if kind in INTEGERS or kind is torch.bool:
        elements = st.integers(0 if kind in {torch.uint8, torch.bool} else -100, 1 if kind is torch.bool else 100)
    array = draw(hnp.arrays(np.float64, sizes, elements=values() if elements is None else elements))
    tensor = torch.from_numpy(array).to(kind)
    if tensor.ndim >= 2 and draw(st.booleans()):
        tensor = tensor.transpose(0, -1).contiguous().transpose(0, -1)
    return tensor


NAMES = ("batch", "seq", "dim", "heads", "channels", "x1", "größe")
names = st.one_of(st.sampled_from(NAMES), st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True)).filter(
    lambda name: not keyword.iskeyword(name)
)


def expressions(terms: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Arithmetic over terms, at least one operator deep."""
    operators = st.sampled_from(["+", "-", "*", "//", "%"])

    def deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.builds("({}){}({})".format, inner, operators, inner)

    return st.builds("({}){}{}".format, st.recursive(terms, deeper, max_leaves=4), operators, terms)


@st.composite
def axis_texts(draw: st.DrawFn) -> str:
    """One entry of a dims string, other than those for any number of axes."""
    kind = draw(st.sampled_from(["name", "size", "named size", "free", "computed"]))
    mark = draw(st.sampled_from(["", "#"]))
    if kind == "name":
        return mark + draw(names)
    if kind == "free":
        return "_" + draw(st.sampled_from(["", "width"]))
    label = draw(names) + "=" if kind == "named size" else ""
    if kind == "computed":
        return mark + draw(expressions(st.one_of(names, st.integers(0, 9).map(str))))
    return label + mark + str(draw(st.integers(0, 12)))


@st.composite
def dims_texts(draw: st.DrawFn) -> str:
    """Dims strings that can be read."""
    entries = draw(st.lists(axis_texts(), max_size=5))
    rest = draw(st.sampled_from(["", "", "...", "*batch", "*#batch"]))
    if rest:
        entries.insert(draw(st.integers(0, len(entries))), rest)
    return draw(st.sampled_from([" ", "  "])).join(entries)
