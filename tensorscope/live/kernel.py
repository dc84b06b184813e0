"""The compiled half of measuring (`kernel.cpp`): what it offers, and whether it is there.

The kernel reads memory that it is given the address of: callers see to it that a tensor's elements lie there, densely.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH = 8  # numbers in a row of moments
COUNT, MEAN, M2, LOW, HIGH, ZEROS, BAD, OWN = range(WIDTH)
LARGE = 1 << 16  # elements from which on other threads may run meanwhile

KINDS = {
    torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3, torch.int64: 4, torch.int32: 5,
    torch.int16: 6, torch.int8: 7, torch.uint8: 8, torch.bool: 8,
}  # fmt: skip

_ADDRESS, _LONG, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
_SIGNATURES: dict[str, tuple[list[Any], Any]] = {
    "measure": ([_ADDRESS, _LONG, _INT, _INT, _ADDRESS, _ADDRESS], None),
    "join": ([_ADDRESS, _ADDRESS], None),
    "sample": ([_ADDRESS, _LONG, _LONG, _INT, _ADDRESS], None),
    "change": ([_ADDRESS, _LONG, _LONG, _INT, _ADDRESS, _ADDRESS, _ADDRESS], None),
    "dead": ([_ADDRESS, _LONG, _LONG, _LONG, _INT, _INT, _ADDRESS, _ADDRESS, _INT, _INT], _LONG),
    "first_bad": ([_ADDRESS, _ADDRESS, _LONG], _LONG),
    "limit": ([_INT], None),
}


class Kernel:
    """The functions of the library, each as it is described in `kernel.cpp`.

    Those keep other threads waiting, since handing them the interpreter takes longer than a small tensor;
    `measure_large` and `first_bad` don't.
    """

    measure: Callable[[int, int, int, int, int, int], None]
    measure_large: Callable[[int, int, int, int, int, int], None]
    join: Callable[[int, int], None]
    sample: Callable[[int, int, int, int, int], None]
    change: Callable[[int, int, int, int, int, int, int], None]
    dead: Callable[[int, int, int, int, int, int, int, int, int, int], int]
    first_bad: Callable[[int, int, int], int]
    limit: Callable[[int], None]

    def __init__(self, path: Path) -> None:
        holding, releasing = ctypes.PyDLL(str(path)), ctypes.CDLL(str(path))
        for name in _SIGNATURES:
            setattr(self, name, _function(releasing if name == "first_bad" else holding, name))
        self.measure_large = _function(releasing, "measure")


def _function(library: ctypes.CDLL, name: str) -> Any:
    function = getattr(library, f"tensorscope_{name}")
    function.argtypes, function.restype = _SIGNATURES[name]
    return function


def _load() -> Kernel | None:
    path = Path(__file__).with_name("_kernel.so")
    try:
        return Kernel(path) if path.exists() else None
    except (OSError, AttributeError):  # built for another machine, or from another version
        return None


KERNEL = _load()
