"""Finds tensors in whatever a module takes or returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

LARGEST_NEST = 64  # tensors of one value that get a place
DEEPEST = 8  # levels of containers looked into for tensors


def tensors_in(value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in nested containers and dataclasses, with its place: `1`, `hidden.0`, empty for the first."""
    for number, (place, tensor) in enumerate(_walk(value, "", 0)):
        if number == LARGEST_NEST:
            return
        yield ("" if number == 0 else place), tensor


def leaves(value: object) -> Iterator[torch.Tensor]:
    """Every tensor in a value, in the same order."""
    return (tensor for _, tensor in _walk(value, "", 0))


def _walk(value: object, place: str, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield place, value
    elif depth < DEEPEST:
        for key, entry in entries(value):
            yield from _walk(entry, f"{place}.{key}" if place else key, depth + 1)


def entries(value: object) -> Iterable[tuple[str, object]]:
    """The named parts of a container or dataclass; none of anything else."""
    if isinstance(value, Mapping):
        return [(str(key), entry) for key, entry in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        names = getattr(value, "_fields", range(len(value)))
        return [(str(name), entry) for name, entry in zip(names, value, strict=True)]
    if isinstance(value, slice):
        return [("start", value.start), ("stop", value.stop), ("step", value.step)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value)]
    return ()


def named_tensors(name: str, value: object) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in a value, by the expression that leads to it."""
    if isinstance(value, torch.Tensor):
        yield name, value
    for key, entry in entries(value):
        yield from named_tensors(f"{name}[{key}]" if key.isdigit() else f"{name}.{key}", entry)
