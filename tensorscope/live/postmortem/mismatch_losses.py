"""What does not fit between predictions and targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tensorscope.live.postmortem.scene import Mismatch, Remedy
from tensorscope.reports import shape_text

if TYPE_CHECKING:
    from torch import Tensor

    from tensorscope.live.postmortem.scene import Scene


def classes(scene: Scene) -> Mismatch | None:
    """Cross entropy of logits and targets that do not belong together."""
    call = scene.call
    logits, target = call.tensor("input"), call.tensor("target")
    if logits is None or target is None or not logits.ndim:
        return None
    names = f"`{call.text('input')}`", f"`{call.text('target')}`"
    shapes = shape_text(tuple(logits.shape)), shape_text(tuple(target.shape))
    places = 1 if logits.ndim > 1 else 0
    found = Mismatch(f"{scene.subject}: logits {names[0]} {shapes[0]} and targets {names[1]} {shapes[1]} do not fit")
    found.got = f"classes belong on axis {places}: logits (batch, classes, …), targets (batch, …)"
    found.blamed = [(call.text("input"), scene.axes(logits)[-1], None)]
    if target.is_floating_point():
        return _floating(scene, found, logits, target)
    if target.shape == logits.shape:
        found.title = (
            f"{scene.subject}: {names[1]} {shapes[1]} is one-hot and {_dtype(target)}; classes are numbers, or floats"
        )
        found.remedies.append(scene.transform("target", ".argmax(1)", 8))
        found.remedies.append(scene.transform("target", ".float()", 10))
        return found
    if target.dtype not in (torch.int64, torch.uint8):
        found.title = f"{scene.subject}: targets {names[1]} are {_dtype(target)}, int64 is needed"
        found.remedies.append(scene.transform("target", ".long()", 5))
    if target.numel() and not target.is_meta and "out of bounds" in scene.message:
        return _beyond(scene, logits, target, places)
    if logits.ndim == target.ndim + 1 and logits.ndim > 2 and logits.shape[0] == target.shape[0]:
        _other_map(scene, found, logits, target)
    elif logits.ndim == 2 and target.ndim == 1:
        found.title = (
            f"{scene.subject}: {logits.shape[0]} predictions {names[0]} and {target.shape[0]} targets {names[1]}"
        )
        found.blamed = [(call.text("input"), scene.axes(logits)[0], target.shape[0])]
    _rearranged(scene, found, logits, target)
    return found


def _floating(scene: Scene, found: Mismatch, logits: Tensor, target: Tensor) -> Mismatch:
    call = scene.call
    if target.shape != logits.shape or "Long" in scene.message:
        found.title = (
            f"{scene.subject}: targets `{call.text('target')}` are {_dtype(target)}, classes are whole numbers"
        )
        found.blamed = [(call.text("target"), axis, None) for axis in scene.axes(target)[-1:]]
        found.got = ""
        change = scene.transform("target", ".long()", 8)
        found.remedies.append(change)
        if target.ndim == logits.ndim and target.shape[-1] == 1:
            squeeze = scene.transform("target", ".squeeze(-1).long()", 9)
            found.remedies.append(squeeze)
    return found


def _beyond(scene: Scene, logits: Tensor, target: Tensor, place: int) -> Mismatch:
    call = scene.call
    low, high, count = int(target.min()), int(target.max()), logits.shape[place]
    bad = high if high >= count else low
    axis = scene.axes(logits)[place]
    title = f"{scene.subject}: class {bad} is not within the {count} classes of `{call.text('input')}`"
    found = Mismatch(title, [(call.text("input"), axis, high + 1)], kind="index_out_of_range")
    found.got = f"`{call.text('target')}` holds classes {low} to {high}"
    if (remedy := scene.resized_producer(axis, high + 1, 12)) is not None:
        found.remedies.append(remedy)
    if low >= 1 and high == count:
        found.remedies.append(scene.transform("target", " - 1", 10))
    return found


def _other_map(scene: Scene, found: Mismatch, logits: Tensor, target: Tensor) -> None:
    """Logits of a map of another size than the targets'."""
    call = scene.call
    places = [i for i in range(2, logits.ndim) if logits.shape[i] != target.shape[i - 1]]
    if not places or logits.shape[-1] == target.shape[0]:
        return
    axis, size = scene.axes(logits)[places[0]], target.shape[places[0] - 1]
    found.blamed = [(call.text("input"), axis, size)]
    found.remedies += scene.window(axis, size, 8)
    maker = next((part for part in axis.steps()), None)
    if maker is not None and logits.ndim == 4:
        text = f"F.interpolate({call.text('input')}, size={call.text('target')}.shape[1:])"
        edit = scene.changing("input", lambda t: torch.nn.functional.interpolate(t, size=target.shape[1:]))
        found.remedies.append(Remedy(f"`{text}` in place of `{call.text('input')}`", edit, scene.line, 20))


def _rearranged(scene: Scene, found: Mismatch, logits: Tensor, target: Tensor) -> None:
    shape, want = tuple(logits.shape), tuple(target.shape)
    if len(shape) >= 3 and want == shape[:-1]:
        turn = ".transpose(1, 2)" if len(shape) == 3 else ".movedim(-1, 1)"
        found.remedies.append(scene.transform("input", turn, 6))
    if len(want) == len(shape) and want[-1] == 1:
        found.remedies.append(scene.transform("target", ".squeeze(-1)", 6))
    if len(want) == len(shape) and len(want) > 1 and want[1] == 1 and want[0] == shape[0]:
        found.remedies.append(scene.transform("target", ".squeeze(1)", 5))
    if len(shape) == 2 and len(want) == 2 and want[0] * want[1] == shape[0]:
        found.remedies.append(scene.transform("target", ".flatten()", 8))
    if len(shape) == 3 and len(want) == 1 and want[0] == shape[0] * shape[1]:
        found.remedies.append(scene.transform("input", ".flatten(0, 1)", 8))


def elementwise(scene: Scene) -> Mismatch | None:
    """A loss that wants predictions and targets of one shape."""
    call = scene.call
    x, target = call.tensor("input"), call.tensor("target")
    if x is None or target is None:
        return None
    if x.shape == target.shape:
        return None
    names = f"`{call.text('input')}`", f"`{call.text('target')}`"
    shapes = shape_text(tuple(x.shape)), shape_text(tuple(target.shape))
    found = Mismatch(f"{scene.subject}: predictions {names[0]} are {shapes[0]} and targets {names[1]} are {shapes[1]}")
    found.blamed = [(call.text("input"), axis, None) for axis in scene.axes(x)[-1:]]
    if x.ndim == target.ndim + 1 and x.shape[-1] == 1 and x.shape[:-1] == target.shape:
        found.remedies.append(scene.transform("input", ".squeeze(-1)", 5))
        found.remedies.append(scene.transform("target", ".unsqueeze(-1)", 6))
    if target.ndim == x.ndim + 1 and target.shape[-1] == 1 and target.shape[:-1] == x.shape:
        found.remedies.append(scene.transform("target", ".squeeze(-1)", 5))
    if x.ndim == target.ndim == 2 and x.shape == target.t().shape:
        found.remedies.append(scene.transform("target", ".t()", 12))
    if target.ndim == x.ndim and all(n in (1, m) for m, n in zip(x.shape, target.shape, strict=True)):
        text = f".expand_as({call.text('input')})"
        found.remedies.append(scene.transform("target", text, 18, lambda t: t.expand(x.shape)))
    if x.numel() == target.numel():
        found.remedies.append(
            scene.transform("target", f".view_as({call.text('input')})", 14, lambda t: t.reshape(x.shape))
        )
    differing = [i for i in range(min(x.ndim, target.ndim)) if x.shape[i] != target.shape[i]]
    if x.ndim == target.ndim and len(differing) == 1:
        axis = scene.axes(x)[differing[0]]
        found.blamed = [(call.text("input"), axis, target.shape[differing[0]])]
        if (remedy := scene.resized_producer(axis, target.shape[differing[0]], 10)) is not None:
            found.remedies.append(remedy)
    return found


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


ANALYSES: dict[str, Any] = {
    **dict.fromkeys(("cross_entropy", "nll_loss"), classes),
    **dict.fromkeys(
        ("binary_cross_entropy", "binary_cross_entropy_with_logits", "multilabel_soft_margin_loss"), elementwise
    ),
}
