"""What does not fit in convolutions, pooling and normalisation."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tensorscope.live.postmortem.scene import Mismatch, Remedy
from tensorscope.reports import shape_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from tensorscope.live.postmortem.scene import Scene


def convolution(scene: Scene) -> Mismatch | None:
    """A convolution whose input has too few axes, other channels, or less room than the kernel."""
    call = scene.call
    x, weight = call.tensor("input"), call.tensor("weight")
    if x is None or weight is None or weight.ndim < 3:
        return None
    groups = call.roles.get("groups", 1)
    transposed = "transpose" in call.op
    want = weight.shape[0] if transposed else weight.shape[1] * (groups if isinstance(groups, int) else 1)
    spatial = weight.ndim - 2
    if x.ndim not in (spatial + 1, spatial + 2):
        return _too_few_axes(scene, x, spatial, want, transposed=transposed)
    place = x.ndim - spatial - 1
    if x.shape[place] != want:
        return _other_channels(scene, x, place, want)
    if "Kernel size can't be greater" in scene.message or "should be at least" in scene.message:
        return _no_room(scene, x, tuple(weight.shape[2:]))
    return None


def _too_few_axes(scene: Scene, x: Tensor, spatial: int, want: int, *, transposed: bool) -> Mismatch:
    wants = f"{spatial + 2}-D (batch, channels and {spatial} of space)"
    found = Mismatch(f"{scene.subject} takes a {wants} tensor and got {x.ndim} axes: {shape_text(tuple(x.shape))}")
    found.layout = True
    if x.ndim == spatial and want == 1:
        found.remedies.append(scene.transform("input", "[None, None]", 8))
    if x.ndim == 2 and x.shape[1] == want and spatial > 0 and transposed:
        found.remedies.append(scene.transform("input", f"[:, :, {', '.join(['None'] * spatial)}]", 5))
    side = round((x.shape[1] / want) ** (1 / spatial)) if x.ndim == 2 and want else 0
    if side > 1 and x.shape[1] == want * side**spatial:
        sizes = ", ".join([str(want), *[str(side)] * spatial])
        found.remedies.append(scene.transform("input", f".unflatten(1, ({sizes}))", 6))
    if x.ndim == spatial + 3:
        found.remedies.append(scene.transform("input", ".flatten(0, 1)", 20))
    if x.ndim == spatial + 3 and 1 in x.shape:
        place = list(x.shape).index(1)
        found.remedies.append(scene.transform("input", f".squeeze({place})", 12))
    return found


def _other_channels(scene: Scene, x: Tensor, place: int, want: int) -> Mismatch:
    call = scene.call
    axis, spatial = scene.axes(x)[place], x.ndim - place - 1
    # What a layer has made are channels; only what came in can be in another order.
    worse = 60 if axis.weights() else 0
    title = f"{scene.subject} got {x.shape[place]} channels and takes {want}"
    found = Mismatch(title, [(call.text("input"), axis, want)])
    if x.ndim == spatial + 2 and x.shape[-1] == want:
        found.remedies.append(scene.transform("input", ".movedim(-1, 1)", 6 + worse))
    if x.ndim == spatial + 1 and want == 1:
        # (batch, height, width) is read as one image without a batch.
        found.title = f"{scene.subject} got {x.ndim} axes, read as one image of {x.shape[0]} channels; it takes {want}"
        found.remedies.append(scene.transform("input", ".unsqueeze(1)", 5))
    elif x.ndim == spatial + 1 and x.shape[-1] == want:
        found.remedies.append(scene.transform("input", ".movedim(-1, 0)", 9))
    swapped = [i for i, size in enumerate(x.shape) if size == want and i > place and i != x.ndim - 1]
    for other in swapped if spatial > 0 else []:
        suffix = f".transpose({place}, {other})"
        found.remedies.append(scene.transform("input", suffix, 18 + worse))
    if spatial == 1 and x.ndim == 3 and x.shape[-1] == want:
        # The features of a sequence come last, also those that a layer has made.
        found.remedies[0] = scene.transform("input", ".transpose(1, 2)", 6)
    sized = [scene.resized_producer(axis, want)]
    if hasattr(scene.module, "in_channels") and scene.depth:
        sized.append(scene.resized_consumer("in_channels", x.shape[place]))
    found.remedies += [remedy for remedy in sized if remedy is not None]
    return found


def _no_room(scene: Scene, x: Tensor, kernel: tuple[int, ...]) -> Mismatch:
    call = scene.call
    room = x.shape[-len(kernel) :]
    short = next((i for i, (have, need) in enumerate(zip(room, kernel, strict=True)) if have < need), 0)
    axis = scene.axes(x)[short - len(kernel)]
    said = "×".join(map(str, room)), "×".join(map(str, kernel))
    title = f"{scene.subject} has a window of {said[1]} and got a map of {said[0]}"
    found = Mismatch(title, [(call.text("input"), axis, kernel[short])])
    found.remedies += _more_room(scene, kernel)
    return found


def _more_room(scene: Scene, kernel: tuple[int, ...]) -> Iterator[Remedy]:
    if not scene.depth or not hasattr(scene.module, "padding"):
        return
    if isinstance(scene.module.padding, int | tuple):
        half = tuple(size // 2 for size in kernel)
        padding: Any = half[0] if len(set(half)) == 1 else half
        if (remedy := scene.rebuild(scene.path, 20, padding=padding)) is not None:
            yield remedy
    if all(size > 1 for size in kernel) and (remedy := scene.rebuild(scene.path, 28, kernel_size=1)) is not None:
        yield remedy


def pooling(scene: Scene) -> Mismatch | None:
    """A pooling of which nothing is left, or of a tensor without the axes it needs."""
    call = scene.call
    x = call.tensor("input", "self")
    kernel = call.roles.get("kernel_size")
    if x is None:
        return None
    spatial = next((int(d) for d in re.findall(r"(\d)d", call.op)), 2)
    if x.ndim not in (spatial + 1, spatial + 2):
        wants = f"{spatial + 1} or {spatial + 2}"
        return Mismatch(
            f"{scene.subject} takes a tensor of {wants} axes and got {x.ndim}: {shape_text(tuple(x.shape))}"
        )
    if "too small" in scene.message or "greater than" in scene.message:
        kernel = kernel or getattr(scene.module, "kernel_size", None)
        sizes = kernel if isinstance(kernel, tuple | list) else (kernel or 1,) * spatial
        return _no_room(scene, x, tuple(int(size) for size in sizes))
    return None


def batch_norm(scene: Scene) -> Mismatch | None:
    """A batch or instance normalisation of other channels or another number of axes than it takes."""
    call = scene.call
    x = call.tensor("input")
    kind = type(scene.module).__name__
    if x is None:
        return None
    features = getattr(scene.module, "num_features", None)
    if scene.failure.func is None and x.ndim >= 3 and type(features) is int and "num_features" in scene.message:
        table: Tensor | None = torch.empty(features, device="meta")
    else:
        table = call.tensor("running_mean", "weight")
    if table is None and (scene.failure.func is None or (x.ndim < 2 and scene.depth)):
        return _other_rank(scene, x, kind)
    if table is not None and x.ndim >= 2 and x.shape[1] != table.shape[0]:
        want = table.shape[0]
        axis = scene.axes(x)[1]
        found = Mismatch(
            f"{scene.subject} got {x.shape[1]} channels and takes {want}", [(call.text("input"), axis, want)]
        )
        sized = [scene.resized_consumer("num_features", x.shape[1]), scene.resized_producer(axis, want)]
        found.remedies += [remedy for remedy in sized if remedy is not None]
        if x.ndim > 2 and x.shape[-1] == want:
            found.remedies.append(_and_back(scene, -1, 1, 8))
        return found
    if "more than 1 value per channel" in scene.message:
        found = Mismatch(
            f"{scene.subject} has one value per channel to make statistics of: {shape_text(tuple(x.shape))}"
        )
        found.got = "batch statistics need two samples; in `eval()` the running ones are used"
        return found
    return None


def _other_rank(scene: Scene, x: Tensor, kind: str) -> Mismatch:
    title = f"{scene.subject} ({kind}) got {x.ndim} axes: {shape_text(tuple(x.shape))}"
    if said := re.search(r"expected (.*?) input", scene.message):
        title = f"{scene.subject} ({kind}) takes {said[1]} input and got {x.ndim} axes: {shape_text(tuple(x.shape))}"
    found = Mismatch(title, layout=True)
    fitting = {2: "1d", 3: "1d", 4: "2d", 5: "3d"}.get(x.ndim)
    if fitting and re.search(r"\dd$", kind):
        remedy = scene.rebuild(scene.path, 10, **{"class": kind[:-2] + fitting})
        found.remedies += [remedy] if remedy is not None else []
    return found


def layer_norm(scene: Scene) -> Mismatch | None:
    """A layer or RMS normalisation over other sizes than the last axes have."""
    call = scene.call
    x, shape = call.tensor("input"), call.roles.get("normalized_shape")
    if x is None or not isinstance(shape, list | tuple):
        return None
    wanted = tuple(int(n) for n in shape)
    have = tuple(x.shape[-len(wanted) :])
    if have == wanted:
        return None
    short = next((i for i in range(-1, -len(wanted) - 1, -1) if -i > len(have) or have[i] != wanted[i]), -1)
    axis = scene.axes(x)[short] if -short <= x.ndim else None
    sizes = (str(have[0]), str(wanted[0])) if len(wanted) == 1 and have else (shape_text(have), shape_text(wanted))
    title = f"{scene.subject} got {sizes[0]} as the last {'axis' if len(wanted) == 1 else 'axes'} and takes {sizes[1]}"
    found = Mismatch(title, [(call.text("input"), axis, wanted[short])] if axis else [], layout=True)
    places = [i for i, size in enumerate(x.shape[:-1]) if (size,) == wanted and i > 0]
    for place in places:
        found.remedies.append(_and_back(scene, place, -1, 10))
        turned = scene.transform("input", f".transpose({place}, -1)", 24)
        found.remedies.append(turned)
    if scene.depth and hasattr(scene.module, "normalized_shape"):
        remedies = [scene.resized_consumer("normalized_shape", have if len(have) > 1 else have[0])]  # type: ignore[arg-type]
        remedies.append(scene.resized_producer(axis, wanted[short]) if axis else None)
        found.remedies += [remedy for remedy in remedies if remedy is not None]
    return found


def _and_back(scene: Scene, place: int, goal: int, rank: int) -> Remedy:
    """An axis put elsewhere for the normalisation alone."""
    said = f"normalise `.movedim({place}, {goal})` of the input, then `.movedim({goal}, {place})` puts the axis back"
    if (x := scene.call.tensor("input")) is not None and x.ndim == 3:
        said = "normalise `.transpose(1, 2)` of the input, then transpose it back"
    func = scene.failure.func

    def around(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return func(x.movedim(place, goal), *args, **kwargs).movedim(goal, place)

    return Remedy(said, scene.replacing(around), scene.line, rank, recipe="around", target=f"`{scene.path}`")


def group_norm(scene: Scene) -> Mismatch | None:
    """A group normalisation of other channels than it takes."""
    call = scene.call
    x, weight, groups = call.tensor("input"), call.tensor("weight"), call.roles.get("num_groups")
    if x is None or x.ndim < 2 or not isinstance(groups, int):
        return None
    channels, axis = x.shape[1], scene.axes(x)[1]
    want = weight.shape[0] if weight is not None else None
    if want is not None and want != channels:
        found = Mismatch(
            f"{scene.subject} got {channels} channels and takes {want}", [(call.text("input"), axis, want)]
        )
        remedies = [scene.rebuild(scene.path, 20, num_channels=channels, num_groups=math.gcd(groups, channels))]
        remedies.append(scene.resized_producer(axis, want))
        found.remedies += [remedy for remedy in remedies if remedy is not None]
        return found
    if channels % groups:
        title = f"{scene.subject}: {channels} channels cannot be divided into {groups} groups"
        found = Mismatch(title, [(call.text("input"), axis, None)])
        if isinstance(scene.module, nn.GroupNorm):
            remedy = scene.rebuild(scene.path, 20, num_groups=math.gcd(groups, channels))
            found.remedies += [remedy] if remedy is not None else []
        elif "num_groups" in call.slots:
            fewer = math.gcd(groups, channels)
            said = f"{fewer} groups in place of {groups}"
            found.remedies.append(Remedy(said, scene.setting("num_groups", fewer), scene.line, 20))
        return found
    return None


_POOLS = [f"{kind}_pool{d}d" for kind in ("max", "avg", "lp", "adaptive_avg", "adaptive_max") for d in (1, 2, 3)]
_POOLS += [f"fractional_max_pool{d}d" for d in (2, 3)] + [f"max_pool{d}d_with_indices" for d in (1, 2, 3)]

ANALYSES: dict[str, Any] = {
    **{f"conv{d}d": convolution for d in (1, 2, 3)},
    **{f"conv_transpose{d}d": convolution for d in (1, 2, 3)},
    **dict.fromkeys(_POOLS, pooling),
    **dict.fromkeys(("batch_norm", "instance_norm"), batch_norm),
    **dict.fromkeys(("layer_norm", "rms_norm"), layer_norm),
    "group_norm": group_norm,
}
