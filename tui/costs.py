"""What each module costs: time, arithmetic, memory; everything with what is inside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tensorscope.events import ModuleInfo
    from tensorscope.run.reader import Run

_flops: WeakKeyDictionary[Run, dict[str, int]] = WeakKeyDictionary()  # a graph is recorded once; reading it takes time


@dataclass(frozen=True, slots=True)
class Cost:
    """What one module costs, with all that is inside it.

    Attributes:
        forward: seconds of its calls in one step, median of the newest measured ones; NaN if not timed.
        backward: seconds of its backward, likewise.
        share: its part of the model's forward and backward time; NaN if not timed.
        flops: floating-point operations of its forward; None if unknown.
        parameters: elements of its parameters, shared ones counted once.
        bytes: that those take.
    """

    forward: float = math.nan
    backward: float = math.nan
    share: float = math.nan
    flops: int | None = None
    parameters: int = 0
    bytes: int = 0


def costs_of(run: Run) -> dict[str, Cost]:
    """The costs of every module, by its path."""
    return costs(run.modules, run.median_times(), _flops_of(run))


def costs(
    modules: Sequence[ModuleInfo], times: Mapping[str, tuple[float, float]], flops: Mapping[str, int]
) -> dict[str, Cost]:
    """The costs of modules.

    Args:
        modules: the model's, each with the parameters that it holds itself.
        times: path → seconds of forward and backward, with what is inside.
        flops: path → operations, with what is inside.
    """
    held = {module.path: [0, 0] for module in modules}
    for module in modules:
        for path in around(module.path):
            if path in held:
                held[path][0] += module.parameters
                held[path][1] += module.bytes
    whole = _together(times.get("", (math.nan, math.nan))) or max(map(_together, times.values()), default=0.0)
    found = {}
    for path, (parameters, size) in held.items():
        forward, backward = times.get(path, (math.nan, math.nan))
        share = _together((forward, backward)) / whole if path in times and whole else math.nan
        found[path] = Cost(forward, backward, share, flops.get(path), parameters, size)
    return found


def around(path: str) -> list[str]:
    """A module's path and those of the modules around it, the model itself, whose path is empty, last."""
    parts = path.split(".") if path else []
    return [".".join(parts[:depth]) for depth in range(len(parts), -1, -1)]


def _together(times: tuple[float, float]) -> float:
    return sum(seconds for seconds in times if not math.isnan(seconds))


def _flops_of(run: Run) -> dict[str, int]:
    if run not in _flops:
        graph = run.graph
        if graph is None:
            return {}
        _flops[run] = graph.flops
    return _flops[run]
