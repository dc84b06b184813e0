"""How much memory the process and its accelerators hold."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in a unit of `ru_maxrss`


def memory(devices: Iterable[str | torch.device]) -> dict[str, float]:
    """What is held now, in bytes; nothing waits for an accelerator, and none is woken.

    Args:
        devices: those the model is on, such as `cuda:1`; without a number its kind's current one. The CPU is left out.

    Returns:
        `memory` (resident bytes of the process; where only the highest so far is known, that, as `memory_peak`), and
        for each device `memory:cuda:1` (allocated by torch) and `memory_peak:cuda:1`, as far as it tells.
    """
    found = _resident()
    for device in devices:
        found |= _allocated(torch.device(device))
    return found


def _resident() -> dict[str, float]:
    try:
        handle = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return _highest()
    try:
        # size, resident, shared, … in pages
        return {"memory": float(int(os.read(handle, 128).split()[1]) * _PAGE)}
    finally:
        os.close(handle)


def _highest() -> dict[str, float]:
    try:
        import resource
    except ImportError:  # Windows
        return {}
    return {"memory_peak": float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _PEAK_UNIT)}


def _allocated(device: torch.device) -> dict[str, float]:
    if device.type == "mps":
        return {f"memory:{device}": float(torch.mps.current_allocated_memory())}
    if device.type not in ("cuda", "xpu"):
        return {}
    module: Any = getattr(torch, device.type)
    if not module.is_initialized():
        return {}
    # The allocator's own counters, nested as they are: to flatten them all takes longer than anything else here.
    counters = module.memory.memory_stats_as_nested_dict(device).get("allocated_bytes", {}).get("all", {})
    named = (("memory", "current"), ("memory_peak", "peak"))
    return {f"{name}:{device}": float(counters[key]) for name, key in named if key in counters}
