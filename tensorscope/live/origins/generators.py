"""The state of an accelerator's random generator."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


def generator_state(device: torch.device) -> torch.Tensor | None:
    """The state of a device's generator, which is kept on the CPU; None if it has none to be had."""
    try:
        state = _module(device).get_rng_state(device)
    except (AttributeError, RuntimeError):  # a device without random numbers, or one that is capturing a graph
        return None
    return state if isinstance(state, torch.Tensor) else None


def set_generator_state(device: torch.device | None, state: torch.Tensor) -> None:
    """Put a device's generator into a state, None: the CPU's."""
    if device is None:
        torch.set_rng_state(state)
    else:
        _module(device).set_rng_state(state, device)


@contextlib.contextmanager
def kept_generators(devices: list[torch.device]) -> Iterator[None]:
    """Put the generators of accelerators back as they were."""
    states = [(device, state) for device in devices if (state := generator_state(device)) is not None]
    try:
        yield
    finally:
        for device, state in states:
            set_generator_state(device, state)


def _module(device: torch.device) -> Any:
    return torch.get_device_module(device)
