"""Axes through convolutions, pooling, padding and resizing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tensorscope.live.postmortem.axes import Axes, Cut, Kind, Rule
from tensorscope.live.postmortem.follow_operation import (
    Operation,
    each,
    is_number,
    position,
    quotient,
    replaced,
    shifted,
    strided,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tensorscope.live.postmortem.follow_operation import Follow

_PLACES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


def image(call: Operation, count: int) -> Axes:
    """The first operand's axes, named as those of an image with so many axes of places."""
    axes = call.operand()
    names = ("batch", "channels", *_PLACES[count])
    call.known.name_inputs(axes, names[-len(axes) :])
    return axes


def places(op: str) -> int:
    """How many axes the windows of an operation have: `conv2d` has two."""
    return int(op.partition("d_with")[0].rstrip("d_")[-1])


# -- convolutions ----------------------------------------------------------------------------------------------------


def _convolved(call: Operation) -> list[Axes]:
    """Source of the formula: the documentation of `torch.nn.Conv2d`."""
    count = places(call.op)
    axes, weight = image(call, count), call.operand(1, "weight")
    strides, dilations = each(call.value(3, "stride", 1), count), each(call.value(5, "dilation", 1), count)
    reach = [dilation * (axis.size - 1) for dilation, axis in zip(dilations, weight[-count:], strict=True)]
    padding = call.value(4, "padding", 0)
    if isinstance(padding, str):
        padded = reach if padding == "same" else [0] * count
    else:
        padded = [2 * side for side in each(padding, count)]
    rules = [strided(pad - wide - 1, step) for pad, wide, step in zip(padded, reach, strides, strict=True)]
    return [(*axes[: -count - 1], weight[0], *_all(call, axes[-count:], rules))]


def _transposed(call: Operation) -> list[Axes]:
    """Source of the formula: the documentation of `torch.nn.ConvTranspose2d`."""
    count = places(call.op)
    axes, weight = image(call, count), call.operand(1, "weight")
    strides, paddings = each(call.value(3, "stride", 1), count), each(call.value(4, "padding", 0), count)
    more, dilations = each(call.value(5, "output_padding", 0), count), each(call.value(7, "dilation", 1), count)
    rules = [
        _spread(stride, dilation * (axis.size - 1) - 2 * padding + extra + 1)
        for stride, padding, dilation, extra, axis in zip(
            strides, paddings, dilations, more, weight[-count:], strict=True
        )
    ]
    groups = int(call.value(6, "groups", 1))
    channels = weight[1] if groups == 1 else call.product([call.fixed(groups, "groups"), weight[1]])
    return [(*axes[: -count - 1], channels, *_all(call, axes[-count:], rules))]


def _spread(stride: int, least: int) -> Rule:
    """The reverse of a window's places: (size − 1) · stride + the first one's reach."""
    text = f"{{0}} · {stride}" if least == stride else shifted(f"({{0}} − 1) · {stride}", least)
    if stride == 1:
        text = shifted("{0}", least - 1)
    return Rule(lambda size: (size - 1) * stride + least, text)


def _all(call: Operation, axes: Axes, rules: Sequence[Rule]) -> Axes:
    return tuple(call.window(axis, rule) for axis, rule in zip(axes, rules, strict=True))


# -- pooling ---------------------------------------------------------------------------------------------------------


def _pooled(call: Operation) -> list[Axes]:
    """Source of the formula: `pooling_output_shape` in torch's `ATen/native/Pool.h`."""
    count, norm = places(call.op), int(call.op.startswith("lp_"))
    axes, highest = image(call, count), call.op.startswith("max_")
    kernels = each(call.value(1 + norm, "kernel_size"), count)
    strides = each(call.value(2 + norm, "stride") or kernels, count)
    paddings = [0] * count if norm else each(call.value(3, "padding", 0), count)
    dilations = each(call.value(4, "dilation", 1), count) if highest else [1] * count
    ceil = bool(call.value(5 if highest else 4, "ceil_mode", False))
    rules = [
        pooled(kernel, stride, padding, dilation, ceil=ceil)
        for kernel, stride, padding, dilation in zip(kernels, strides, paddings, dilations, strict=True)
    ]
    return [(*axes[:-count], *_all(call, axes[-count:], rules))] * len(call.shapes)


def pooled(kernel: int, stride: int, padding: int, dilation: int, *, ceil: bool) -> Rule:
    """How many places a pooling window has; rounded up only for places that begin before the padding behind."""
    floor = strided(2 * padding - dilation * (kernel - 1) - 1, stride)
    if not ceil:
        return floor

    def size(length: int) -> int | None:
        reach = length + 2 * padding - dilation * (kernel - 1) - 1
        count = -(-reach // stride) + 1
        return count - 1 if (count - 1) * stride >= length + padding else count

    return Rule(size, f"⌈{{0}} / {stride}⌉" if kernel == stride and not padding and dilation == 1 else "")


def _adaptive(call: Operation) -> list[Axes]:
    count = places(call.op)
    axes, wanted = image(call, count), call.value(1, "output_size")
    wanted = [wanted] * count if wanted is None or is_number(wanted) else list(wanted)
    ends = [
        axis if size is None else call.literal(size, place)
        for place, (axis, size) in enumerate(zip(axes[-count:], wanted, strict=True), len(axes) - count)
    ]
    return [(*axes[:-count], *ends)] * len(call.shapes)


def _literals(call: Operation, sizes: Sequence[int], first: int) -> Axes:
    """Axes of sizes that were given, the first of them being that axis of the result."""
    return tuple(call.literal(size, place) for place, size in enumerate(sizes, first))


def _unpooled(call: Operation) -> list[Axes]:
    count = places(call.op)
    axes, kernels = image(call, count), each(call.value(2, "kernel_size"), count)
    if (size := call.value(5, "output_size")) is not None:
        return [(*axes[:-count], *_literals(call, list(size)[-count:], len(axes) - count))]
    strides, paddings = each(call.value(3, "stride") or kernels, count), each(call.value(4, "padding", 0), count)
    rules = [_spread(s, k - 2 * p) for k, s, p in zip(kernels, strides, paddings, strict=True)]
    return [(*axes[:-count], *_all(call, axes[-count:], rules))]


# -- windows as entries ----------------------------------------------------------------------------------------------


def _unfolded(call: Operation) -> list[Axes]:
    if not hasattr(call.func, "__objclass__"):  # not the tensor's method, but torch.nn.functional's
        return _patches(call)
    axes = call.operand()
    dim = position(call.value(1, "dimension"), len(axes))
    size, step = int(call.value(2, "size")), int(call.value(3, "step"))
    return [(*replaced(axes, dim, call.window(axes[dim], strided(-size, step))), call.literal(size))]


def _patches(call: Operation) -> list[Axes]:
    axes = image(call, 2)
    kernels, dilations = each(call.value(1, "kernel_size"), 2), each(call.value(2, "dilation", 1), 2)
    paddings, strides = each(call.value(3, "padding", 0), 2), each(call.value(4, "stride", 1), 2)
    rules = [
        strided(2 * p - d * (k - 1) - 1, s) for k, d, p, s in zip(kernels, dilations, paddings, strides, strict=True)
    ]
    entries = [call.fixed(kernel, "kernel_size") for kernel in kernels]
    return [(*axes[:-3], call.product([axes[-3], *entries]), call.product(_all(call, axes[-2:], rules)))]


def _folded(call: Operation) -> list[Axes]:
    axes, kernels = call.operand(), each(call.value(2, "kernel_size"), 2)
    channels, area = axes[-2], math.prod(kernels)
    if channels.kind is Kind.PRODUCT and [part.size for part in channels.parts[1:]] == [k for k in kernels if k > 1]:
        channels = channels.parts[0]
    elif area > 1:
        channels = call.part(channels, Cut((channels.size // area, area), 0, 0))
    return [(*axes[:-2], channels, *_literals(call, each(call.value(1, "output_size"), 2), len(axes) - 1))]


# -- padding and resizing --------------------------------------------------------------------------------------------


def _padded(call: Operation) -> list[Axes]:
    axes, pads = list(call.operand()), list(call.value(1, "pad"))
    for number, index in enumerate(range(0, len(pads), 2)):
        more = int(pads[index]) + int(pads[index + 1])
        axes[-1 - number] = call.window(axes[-1 - number], _wider(more))
    return [tuple(axes)]


def _wider(more: int) -> Rule:
    return Rule(lambda size: size + more, shifted("{0}", more))


def _resized(call: Operation) -> list[Axes]:
    axes = call.operand()
    count = len(axes) - 2
    image(call, count)
    size, scale = call.value(1, "size"), call.value(2, "scale_factor")
    if size is not None:
        return [(*axes[:2], *_literals(call, each(size, count), 2))]
    scales = [scale] * count if isinstance(scale, int | float) else list(scale)
    return [(*axes[:2], *_all(call, axes[2:], [scaled(float(entry)) for entry in scales]))]


def scaled(factor: float) -> Rule:
    """A length times a factor, rounded down as torch does."""
    text = "{0}" if factor == 1 else f"{{0}} · {factor:g}"
    return Rule(lambda size: math.floor(size * factor), text)


def _shuffled(call: Operation) -> list[Axes]:
    """(channels · r², height, width) becomes (channels, height · r, width · r)."""
    axes, factor = call.operand(), int(call.value(1, "upscale_factor"))
    if factor == 1:
        return [axes]
    channels = axes[-3]
    made = call.part(channels, Cut((channels.size // factor**2, factor**2), 0, 0))
    return [(*axes[:-3], made, *_all(call, axes[-2:], [scaled(factor)] * 2))]


def _unshuffled(call: Operation) -> list[Axes]:
    axes, factor = call.operand(), int(call.value(1, "downscale_factor"))
    if factor == 1:
        return [axes]
    channels = call.product([axes[-3], call.fixed(factor**2, "downscale_factor²")])
    made = (call.made(Kind.WINDOW, (axis,), quotient(factor)) for axis in axes[-2:])
    return [(*axes[:-3], channels, *made)]


def _sampled(call: Operation) -> list[Axes]:
    axes, grid = call.operand(), call.operand(1, "grid")
    return [(*axes[:2], *grid[1:-1])]


def _grid(call: Operation) -> list[Axes]:
    theta, size = call.operand(0, "theta"), list(call.value(1, "size"))
    return [
        (
            theta[0],
            *_literals(call, size[2:], 2),
            call.fixed(len(size) - 2, "coordinates"),
        )
    ]


_DIMS = (1, 2, 3)
RULES: dict[str, Follow] = {
    **{f"conv{n}d": _convolved for n in _DIMS},
    **{f"conv_transpose{n}d": _transposed for n in _DIMS},
    **{f"{kind}_pool{n}d": _pooled for n in _DIMS for kind in ("max", "avg", "lp")},
    **{f"max_pool{n}d_with_indices": _pooled for n in _DIMS},
    **{f"adaptive_{kind}_pool{n}d": _adaptive for n in _DIMS for kind in ("max", "avg")},
    **{f"adaptive_max_pool{n}d_with_indices": _adaptive for n in _DIMS},
    **{f"max_unpool{n}d": _unpooled for n in _DIMS},
    "unfold": _unfolded,
    "fold": _folded,
    "pad": _padded,
    **dict.fromkeys(("interpolate", "upsample", "upsample_nearest", "upsample_bilinear"), _resized),
    "pixel_shuffle": _shuffled,
    "pixel_unshuffle": _unshuffled,
    "grid_sample": _sampled,
    "affine_grid": _grid,
}
