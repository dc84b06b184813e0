"""Finds tensors in whatever a module takes or returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch

LARGEST_NEST = 64  # tensors of one value that are looked at


def tensors_in(value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in nested containers and dataclasses, with its place: `1`, `hidden.0`, empty for the first."""
    for number, (place, tensor) in enumerate(_walk(value, "", 0)):
        if number == LARGEST_NEST:
            return
        yield ("" if number == 0 else place), tensor


def _walk(value: Any, place: str, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield place, value
    elif depth < 8:
        for key, member in _members(value):
            yield from _walk(member, f"{place}.{key}" if place else str(key), depth + 1)


def _members(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, (tuple, list)):
        yield from enumerate(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((f.name, getattr(value, f.name, None)) for f in dataclasses.fields(value))
