"""Tensors of different dtypes or on different devices, where they have to be alike."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from tensorscope.live.postmortem.scene import Mismatch, Remedy

if TYPE_CHECKING:
    from torch import Tensor

    from tensorscope.live.postmortem.axes import Axis
    from tensorscope.live.postmortem.scene import Scene

_DEVICE = re.compile(r"same device|on device|Tensor on device|device type|is on (cpu|cuda|meta|mps)|must be on", re.I)
_DTYPE = re.compile(
    r"dtype|scalar type|data type|type \(|Expected .*Tensor|Long|Half|Double|ComplexFloat|Byte|Bool"
    r"|not implemented for '|can't be cast|subtraction, the `-` operator, with (a|two) bool",
    re.I,
)
_WEIGHTS = ("weight", "bias", "running_mean", "other")


def other_kind(scene: Scene) -> Mismatch | None:
    """What differs in dtype or device, if that is what torch complains about."""
    call = scene.call
    if not call.tensors():
        return None
    if _DEVICE.search(scene.message) and (found := _devices(scene)):
        found.kind = "device_error"
        return found
    if _DTYPE.search(scene.message) and (found := _dtypes(scene) or _unsupported(scene)):
        found.kind = "dtype_error"
        return found
    return None


def _devices(scene: Scene) -> Mismatch | None:
    call = scene.call
    placed = {name: t.device for name, t in call.tensors().items()}
    if len(set(placed.values())) < 2:
        return None
    odd, like = _odd_one({name: str(device) for name, device in placed.items()}, call.tensors(), scene)
    device = placed[like]
    one, other = f"`{call.text(odd)}`", f"`{call.text(like)}`"
    found = Mismatch(f"{scene.subject}: {one} is on {placed[odd]} and {other} on {device}", _made(scene, odd))
    if call.roles[odd].is_meta:  # which has no data that could be moved
        found.remedies.append(Remedy(f"make {one} on {device}", None, "", 10))
    else:
        move = scene.transform(odd, f".to({call.text(like)}.device)", 10, lambda t: t.to(device))
        found.remedies.append(move)
    if path := scene.replay.weight(call.roles[odd]):
        said = f"move `{path}` along with the model: make it a buffer, and `model.to('{device}')`"
        found.remedies.append(Remedy(said, None, "", 30))
    return found


def _dtypes(scene: Scene) -> Mismatch | None:
    call = scene.call
    kinds = {name: str(t.dtype).removeprefix("torch.") for name, t in call.tensors().items() if t.numel() or t.ndim}
    if len(set(kinds.values())) < 2:
        return None
    odd, like = _odd_one(kinds, call.tensors(), scene)
    tensor, other = call.roles[odd], call.roles[like]
    one, two = f"`{call.text(odd)}`", f"`{call.text(like)}`"
    found = Mismatch(f"{scene.subject}: {one} is {kinds[odd]} and {two} is {kinds[like]}", _made(scene, odd))
    if tensor.is_complex() and not other.is_complex():
        found.remedies.append(scene.transform(odd, ".abs()", 10))
        found.remedies.append(scene.transform(odd, ".real", 12))
        return found
    short = {torch.float32: ".float()", torch.float64: ".double()", torch.int64: ".long()", torch.bool: ".bool()"}
    suffix = short.get(other.dtype, f".to({call.text(like)}.dtype)")
    found.remedies.append(scene.transform(odd, suffix, 10, lambda t: t.to(other.dtype)))
    if tensor.is_floating_point() and other.is_floating_point():
        back = short.get(tensor.dtype, f".to({call.text(odd)}.dtype)")
        found.remedies.append(scene.transform(like, back, 40, lambda t: t.to(tensor.dtype)))
    return found


def _made(scene: Scene, role: str) -> list[tuple[str, Axis, int | None]]:
    """A tensor to tell the origin of."""
    return [(scene.call.text(role), axis, None) for axis in scene.axes(scene.call.roles[role])[-1:]]


def _odd_one(kinds: dict[str, str], tensors: dict[str, Tensor], scene: Scene) -> tuple[str, str]:
    """The tensor that should change, and one it should be like: weights are as they are, and most are right."""
    names = list(kinds)
    fixed = [n for n in names if n in _WEIGHTS[:3] and scene.depth] or [
        n for n in names if scene.replay.weight(tensors[n])
    ]
    like = fixed[0] if fixed else max(names, key=lambda n: (tensors[n].is_floating_point(), -names.index(n)))
    return next(name for name in names if kinds[name] != kinds[like]), like


def _unsupported(scene: Scene) -> Mismatch | None:
    """An operation that is not made for a dtype, whatever the other operands are."""
    call = scene.call
    name, tensor = next(iter(call.tensors().items()))
    kind = str(tensor.dtype).removeprefix("torch.")
    if "with a bool tensor" in scene.message or "two bool tensors" in scene.message:
        found = Mismatch(f"{scene.subject}: `-` is not made for bool", _made(scene, name))
        if len(call.tensors()) == 1:
            said = f"`~{call.text(name)}` in place of {scene.subject}"
            found.remedies.append(Remedy(said, scene.replacing(lambda *_, t=name: ~tensor), scene.line, 5))
        found.remedies.append(scene.transform(name, ".float()", 12))
        other = list(call.tensors())[-1]
        if scene.node is not None and call.tensors()[other].dtype == torch.bool:
            found.remedies.append(scene.transform(other, ".float()", 10))
        return found
    if tensor.is_floating_point():
        wanted = next((d for word, d in (("Long", torch.int64), ("Int", torch.int64)) if word in scene.message), None)
        if wanted is None or "not implemented for" in scene.message:
            return None
        found = Mismatch(f"{scene.subject} takes whole numbers and got {kind}")
        found.remedies.append(scene.transform(name, ".long()", 10))
        return found
    found = Mismatch(f"{scene.subject} is not made for {kind}")
    found.remedies.append(scene.transform(name, ".float()", 10))
    return found
