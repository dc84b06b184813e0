"""Chapter 12: convolution from its definition, and its variants.

Glossary
    n          pixels along one axis of the image
    k          kernel size (height, width); each of its numbers is a tap
    s          stride: how far the kernel moves
    p          padding: rows and columns of zeros around the image
    d          dilation: how far apart the kernel's taps are
    g          groups: slices of channels that do not see each other
    r          receptive field: pixels that one number of the last layer depends on, along one axis
    window     the patch of the image under the kernel (channels, k, k)

Source: chapter 12 of the book; Dumoulin and Visin, A guide to convolution arithmetic (2016); Howard et al., MobileNets
(2017), for the depthwise separable form. A 1×1 convolution is `Conv2d(channels, filters, 1)`: a linear layer per pixel.

Differs from the book: the image is padded once, not twice (erratum E-17); the worked figure has its right numbers
(E-18); output sizes are rounded down and know dilation, receptive fields know strides (E-19); weights start from He's
range, not from zero (E-40).
Does not handle: kernels and strides that differ between height and width, padding other than with zeros.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, TypedDict, Unpack

import torch
from torch import Tensor, nn

from reference_models.initialization import kaiming_uniform, uniform
from tensorscope import shapes

if TYPE_CHECKING:
    from collections.abc import Iterable


class Slide(TypedDict, total=False):
    """How a kernel moves: s, p and d of the glossary, 1, 0 and 1 if they are not said."""

    stride: int
    padding: int
    dilation: int


def checked(*, stride: int = 1, padding: int = 0, dilation: int = 1) -> Slide:
    """Complete what is said of how a kernel moves.

    Raises:
        ValueError: a number is too small.
    """
    for name, value, least in (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1)):
        if value < least:
            raise ValueError(f"expected a `{name}` of at least {least}, got {value}")
    return {"stride": stride, "padding": padding, "dilation": dilation}


def output_size(length: int, size: int, **slide: Unpack[Slide]) -> int:
    """Count the positions of a kernel along one axis.

    Args:
        length: pixels of the image.
        size: taps of the kernel.
        slide: `stride`, `padding`, `dilation`.

    Raises:
        ValueError: the kernel is larger than the padded image.
    """
    how = checked(**slide)
    span, padded = how["dilation"] * (size - 1) + 1, length + 2 * how["padding"]
    if span > padded:
        raise ValueError(f"a kernel that spans {span} does not fit on {padded} pixels")
    # out = ⌊(n + 2p - d(k - 1) - 1) / s⌋ + 1
    return (padded - span) // how["stride"] + 1


def receptive_field(layers: Iterable[tuple[int, int, int]]) -> int:
    """Count the pixels, along one axis, that one number after these layers depends on.

    Args:
        layers: (size, stride, dilation) of each convolution or pooling, the first one first.
    """
    # r = 1 + Σᵢ (kᵢ - 1) · dᵢ · Π_{j<i} sⱼ
    field, step = 1, 1
    for size, stride, dilation in layers:
        field += (size - 1) * dilation * step
        step *= stride
    return field


@shapes("batch channels height width -> batch channels out_height out_width _ _")
def windows(images: Tensor, size: tuple[int, int], stride: int = 1, dilation: int = 1) -> Tensor:
    """A view of every patch that a kernel of this size lies on.

    Args:
        images: (batch, channels, height, width) tensor.
        size: height and width of the kernel.
        stride: pixels from one patch to the next.
        dilation: pixels from one tap to the next.

    Raises:
        ValueError: the kernel is larger than the image.
    """
    for axis, taps in zip((2, 3), size, strict=True):
        output_size(images.shape[axis], taps, stride=stride, dilation=dilation)
        images = images.unfold(axis, dilation * (taps - 1) + 1, stride)
    return images[..., ::dilation, ::dilation]


@shapes(
    "batch channels height width, out_channels _ kernel_height kernel_width, out_channels"
    " -> batch out_channels out_height out_width"
)
def conv2d(
    images: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Tensor:
    """Slide kernels over images and sum up what lies under them (cross-correlation).

    The number of groups follows from the sizes: channels / weight's second axis.

    Args:
        images: (batch, channels, height, width) float tensor.
        weight: (out_channels, channels / groups, kernel_height, kernel_width) float tensor.
        bias: (out_channels) float tensor.
        stride: pixels from one position of the kernel to the next.
        padding: rows and columns of zeros on each side.
        dilation: pixels from one tap of the kernel to the next.

    Raises:
        ValueError: the channels do not split into the weight's, or the kernel is larger than the padded image.
    """
    filters, depth, *kernel = weight.shape
    groups, left = divmod(images.shape[1], depth) if depth else (0, 0)
    if left or groups == 0 or filters % groups:
        raise ValueError(f"{images.shape[1]} channels do not go with a weight of shape {tuple(weight.shape)}")
    height, width = (
        output_size(length, taps, stride=stride, padding=padding, dilation=dilation)
        for length, taps in zip(images.shape[2:], kernel, strict=True)
    )
    padded = torch.constant_pad_nd(images, [padding] * 4)
    patches = windows(padded, (kernel[0], kernel[1]), stride, dilation).permute(0, 1, 4, 5, 2, 3)
    columns = patches.reshape(len(images), groups, depth * math.prod(kernel), height * width)
    # y[o, h, w] = b[o] + Σ_{c, i, j} W[o, c, i, j] · x[c, s·h + d·i, s·w + d·j], all windows as one matrix product
    rows = weight.reshape(groups, filters // groups, depth * math.prod(kernel))
    out = (rows @ columns).reshape(len(images), filters, height, width)
    return out if bias is None else out + bias[:, None, None]


@shapes(
    "batch channels height width, channels _ kernel_height kernel_width, out_channels"
    " -> batch out_channels out_height out_width"
)
def conv_transpose2d(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    groups: int = 1,
    output_padding: int = 0,
    **slide: Unpack[Slide],
) -> Tensor:
    """Stamp a kernel for each pixel, as strong as the pixel is: the way back from `conv2d`'s outputs to its inputs.

    Args:
        images: (batch, channels, height, width) float tensor.
        weight: (channels, out_channels / groups, kernel_height, kernel_width) float tensor.
        bias: (out_channels) float tensor.
        groups: slices of channels that do not see each other.
        output_padding: rows and columns more at the bottom and the right; tells apart the sizes that `conv2d` rounds.
        slide: `stride` from one stamp to the next, `padding` to be cut off each side, `dilation` between taps.

    Raises:
        ValueError: the channels do not split into groups, or nothing would be left of the image.
    """
    how = checked(**slide)
    stride, padding, dilation = how["stride"], how["padding"], how["dilation"]
    (batch, channels, *lengths), (_, depth, *kernel) = images.shape, weight.shape
    if groups < 1 or channels % groups:
        raise ValueError(f"{channels} channels do not split into {groups} groups")
    if not 0 <= output_padding < max(stride, dilation):
        raise ValueError(f"expected an `output_padding` of 0 to {max(stride, dilation) - 1}, got {output_padding}")
    # full = s(n - 1) + d(k - 1) + 1 + output_padding, out = full - 2p
    full = [stride * (n - 1) + dilation * (k - 1) + 1 + output_padding for n, k in zip(lengths, kernel, strict=True)]
    height, width = (length - 2 * padding for length in full)
    if min(height, width, *lengths) < 1:
        raise ValueError(f"images of shape {tuple(images.shape)} would become {height}×{width} pixels")
    pixels = images.reshape(batch, groups, channels // groups, math.prod(lengths))
    rows = weight.reshape(groups, channels // groups, depth * math.prod(kernel)).transpose(1, 2)
    stamps = (rows @ pixels).reshape(batch, groups * depth, *kernel, *lengths)
    canvas = stamps.new_zeros(batch, groups * depth, *full)
    for i, j in product(range(kernel[0]), range(kernel[1])):
        down, right = (
            slice(dilation * t, dilation * t + stride * (n - 1) + 1, stride)
            for t, n in zip((i, j), lengths, strict=True)
        )
        # y[o, s·h + d·i, s·w + d·j] += Σ_c W[c, o, i, j] · x[c, h, w]
        canvas[:, :, down, right] += stamps[:, :, i, j]
    out = canvas[:, :, padding : padding + height, padding : padding + width]
    return out if bias is None else out + bias[:, None, None]


class Conv2d(nn.Module):
    """Learned kernels over images.

    Args:
        channels: channels in.
        filters: kernels, hence channels out.
        size: height and width of each kernel.
        groups: slices of channels that do not see each other; as many as channels for a depthwise convolution.
        bias: whether each kernel adds a number of its own.
        slide: `stride`, `padding`, `dilation`.

    Raises:
        ValueError: channels or filters do not split into groups, or a number is too small.
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        size: int,
        *,
        groups: int = 1,
        bias: bool = True,
        **slide: Unpack[Slide],
    ) -> None:
        super().__init__()
        if groups < 1 or channels % groups or filters % groups:
            raise ValueError(f"{channels} channels and {filters} filters do not split into {groups} groups")
        self.channels, self.groups, self.slide = channels, groups, checked(**slide)
        depth = channels // groups
        self.weight = nn.Parameter(kaiming_uniform(filters, depth, size, size))
        start = uniform(filters, bound=1 / math.sqrt(depth * size * size)) if bias else None
        self.bias = None if start is None else nn.Parameter(start)

    @shapes("batch channels height width -> batch out_channels out_height out_width")
    def forward(self, images: Tensor) -> Tensor:
        """Slide the kernels over the images.

        Args:
            images: (batch, channels, height, width) float tensor.

        Raises:
            ValueError: the images have other channels; `conv2d` alone would take a multiple of them for groups.
        """
        if images.shape[1] != self.channels:
            raise ValueError(f"images of {images.shape[1]} channels do not go with kernels of {self.channels}")
        return conv2d(images, self.weight, self.bias, **self.slide)

    def extra_repr(self) -> str:
        """Sizes, for `print(model)`."""
        filters, _, size, _ = self.weight.shape
        how = {"size": size, "stride": self.slide["stride"], "padding": self.slide["padding"]}
        rare = {"dilation": self.slide["dilation"], "groups": self.groups}
        how |= {name: value for name, value in rare.items() if value != 1}
        return f"{self.channels}, {filters}, " + ", ".join(f"{name}={value}" for name, value in how.items())


class ConvTranspose2d(nn.Module):
    """Learned stamps: the way from small images to large ones.

    Args:
        channels: channels in.
        filters: channels out.
        size: height and width of each stamp.
        output_padding: rows and columns more at the bottom and the right.
        groups: slices of channels that do not see each other.
        slide: `stride`, `padding`, `dilation`.
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        size: int,
        *,
        output_padding: int = 0,
        groups: int = 1,
        **slide: Unpack[Slide],
    ) -> None:
        super().__init__()
        if groups < 1 or channels % groups or filters % groups:
            raise ValueError(f"{channels} channels and {filters} filters do not split into {groups} groups")
        self.groups, self.output_padding, self.slide = groups, output_padding, checked(**slide)
        self.weight = nn.Parameter(kaiming_uniform(channels, filters // groups, size, size))
        self.bias = nn.Parameter(uniform(filters, bound=1 / math.sqrt(filters // groups * size * size)))

    @shapes("batch channels height width -> batch out_channels out_height out_width")
    def forward(self, images: Tensor) -> Tensor:
        """Stamp the kernels onto larger images.

        Args:
            images: (batch, channels, height, width) float tensor.
        """
        return conv_transpose2d(
            images, self.weight, self.bias, groups=self.groups, output_padding=self.output_padding, **self.slide
        )


class DepthwiseSeparableConv2d(nn.Module):
    """A convolution in two: each channel by itself, then all channels of each pixel by a 1×1 convolution.

    It has C·k² + C + C·F + F parameters where one convolution has C·F·k² + F.

    Args:
        channels: channels in, C.
        filters: channels out, F.
        size: height and width of the kernel that slides, k.
        slide: its `stride`, `padding`, `dilation`.
    """

    def __init__(self, channels: int, filters: int, size: int, **slide: Unpack[Slide]) -> None:
        super().__init__()
        self.depthwise = Conv2d(channels, channels, size, groups=channels, **slide)
        self.pointwise = Conv2d(channels, filters, 1)

    @shapes("batch channels height width -> batch out_channels out_height out_width")
    def forward(self, images: Tensor) -> Tensor:
        """Slide, then mix.

        Args:
            images: (batch, channels, height, width) float tensor.
        """
        mixed: Tensor = self.pointwise(self.depthwise(images))
        return mixed
