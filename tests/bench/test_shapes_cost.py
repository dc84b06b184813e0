"""What the shape decorator costs a call, in microseconds: printed, never judged."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Annotated

import pytest
import torch
from torch import Tensor

from tensorscope import shapes

ROUNDS, CALLS = 41, 2000

pytestmark = pytest.mark.bench


def plain(x, mask=None):
    return x


@shapes
def annotated(x: Annotated[Tensor, "float[batch seq dim]"], mask: Annotated[Tensor | None, "seq seq"] = None):
    return x


def test_cost_of_a_call() -> None:
    x, mask, state = torch.zeros(4, 5, 6), torch.zeros(5, 5), (torch.zeros(1, 4, 6), torch.zeros(1, 4, 6))
    flat = shapes("batch seq dim, mask: seq seq -> batch seq dim")(plain)
    typed = shapes("float[batch seq dim], mask: float[seq seq] -> float[batch seq dim]")(plain)
    tuples = shapes("batch seq dim, (layers batch hidden, layers batch hidden) -> batch seq dim")(plain)
    parts = shapes("x.ids: batch seq dim, x.mask: seq seq")(lambda x: None)
    ways: dict[str, Callable[[], object]] = {
        "bare": lambda: plain(x, mask),
        "two tensors": lambda: flat(x, mask),
        "dtypes": lambda: typed(x, mask),
        "annotations": lambda: annotated(x, mask),
        "a tuple": lambda: tuples(x, state),
        "a dict": lambda: parts({"ids": x, "mask": mask}),
    }
    microseconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, call in ways.items():
            began = time.perf_counter()
            for _ in range(CALLS):
                call()
            microseconds[name].append((time.perf_counter() - began) / CALLS * 1e6)
    print()
    for name, taken in microseconds.items():
        print(f"  {name:12} {median(taken):5.2f} µs a call")
