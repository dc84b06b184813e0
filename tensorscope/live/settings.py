"""What an optimizer is set to: everything once, and step by step what schedules move."""

from __future__ import annotations

import numbers as abstract
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch.optim import Optimizer

MOST_GROUPS = 32  # groups of one optimizer whose numbers are followed
_LONGEST = 16  # entries of a tuple or list that are kept

Number = float | torch.Tensor


def describe(optimizer: Optimizer, names: Mapping[int, str]) -> dict[str, Any]:
    """The optimizer's type and its groups, JSON-able.

    Args:
        optimizer: any, the user's own too.
        names: id of a parameter → its name in the model.

    Returns:
        `type`, and `groups`: of each its `settings` (numbers, truth values, strings, None and short tuples of them; a
        tensor is written `"tensor"`, for looking at it might wait), the `parameters` in it by name, and how many
        `others` it holds that are not the model's.
    """
    groups = []
    for group in optimizer.param_groups:
        own = group.get("params", ())
        settings = {str(key): _plain(value) for key, value in group.items() if key != "params"}
        known = [names[id(parameter)] for parameter in own if id(parameter) in names]
        kept = {key: value for key, value in settings.items() if value is not _LEFT_OUT}
        groups.append({"settings": kept, "parameters": known, "others": len(own) - len(known)})
    return {"type": type(optimizer).__name__, "groups": groups}


def numbers(optimizer: Optimizer) -> dict[str, Number]:
    """The settings that schedules move: learning rate, momentum (Adam's is `beta1`), weight decay.

    Args:
        optimizer: any.

    Returns:
        `lr`, `momentum`, `beta1`, `weight_decay`, as far as there are such, for the first group; `lr[1]` and so on for
        the further ones, `MOST_GROUPS` at most. What is a tensor stays one: a copy on its device, which nobody reads.
    """
    found: dict[str, Number] = {}
    for index, group in enumerate(optimizer.param_groups[:MOST_GROUPS]):
        for name, value in _moving(group):
            number = _number(value)
            if number is not None:
                found[f"{name}[{index}]" if index else name] = number
    return found


def _moving(group: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in ("lr", "momentum", "weight_decay"):
        yield name, group.get(name)
    betas = group.get("betas")
    if isinstance(betas, tuple | list) and betas:
        yield "beta1", betas[0]


def _number(value: object) -> Number | None:
    if isinstance(value, torch.Tensor):
        readable = value.numel() == 1 and not value.is_meta and not value.is_complex()
        return value.detach().reshape(()).clone() if readable else None
    if isinstance(value, bool):
        return None
    return float(value) if isinstance(value, abstract.Real) else None


_LEFT_OUT = object()  # a setting that JSON has no word for, such as a function


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, torch.Tensor):
        return "tensor"
    if isinstance(value, abstract.Integral):
        return int(value)
    if isinstance(value, abstract.Real):
        return float(value)
    if isinstance(value, tuple | list) and len(value) <= _LONGEST:
        entries = [_plain(entry) for entry in value]
        return entries if all(entry is not _LEFT_OUT for entry in entries) else _LEFT_OUT
    return _LEFT_OUT
