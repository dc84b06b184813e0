"""Chapters 12 and 13: convolution, and a network that reads digits.

Glossary
    k          kernel size (height, width)
    s          stride: how far the kernel moves
    p          padding: rows and columns of zeros around the image
    d          dilation: how far apart the kernel's taps are
    g          groups: slices of channels that do not see each other
    window     the patch of the image under the kernel (channels, k, k)

Source: chapters 12 and 13 of the book; Dumoulin and Visin, A guide to convolution arithmetic (2016).

Differs from the book: the image is padded once, not twice (erratum E-17); output sizes are rounded down and know
dilation (E-19); weights start from He's range, not from zero (E-40); the network returns logits (E-57).
Does not handle: kernels and strides that differ between height and width, transposed convolution, dilated pooling.
"""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor, nn

from reference_models.activations import ReLU
from reference_models.initialization import kaiming_uniform, uniform
from reference_models.mlp import Linear
from tensorscope import shapes


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
    for axis, length in zip((2, 3), size, strict=True):
        # out = ⌊(n - d(k - 1) - 1) / s⌋ + 1
        span = dilation * (length - 1) + 1
        if span > images.shape[axis]:
            raise ValueError(f"a kernel that spans {span} does not fit on axis {axis} of {tuple(images.shape)}")
        images = images.unfold(axis, span, stride)
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
    groups, left = divmod(images.shape[1], depth)
    if left or groups == 0 or filters % groups:
        raise ValueError(f"{images.shape[1]} channels do not go with a weight of shape {tuple(weight.shape)}")
    padded = torch.constant_pad_nd(images, [padding] * 4)
    patches = windows(padded, (kernel[0], kernel[1]), stride, dilation)
    batch, _, height, width = patches.shape[:4]
    # y[o, h, w] = b[o] + Σ_{c, i, j} W[o, c, i, j] · x[c, s·h + d·i, s·w + d·j], all windows as one matrix product
    columns = patches.permute(0, 1, 4, 5, 2, 3).reshape(batch, groups, depth * math.prod(kernel), height * width)
    out = (weight.reshape(groups, filters // groups, -1) @ columns).reshape(batch, filters, height, width)
    return out if bias is None else out + bias[:, None, None]


@shapes("batch channels height width -> batch channels out_height out_width")
def max_pool2d(images: Tensor, size: int = 2, stride: int | None = None, padding: int = 0) -> Tensor:
    """Keep the largest number of each patch; of equal ones the first gets the gradient.

    Args:
        images: (batch, channels, height, width) float tensor.
        size: height and width of a patch.
        stride: pixels from one patch to the next; the patch's size by default.
        padding: rows and columns of -∞ on each side, at most half a patch.

    Raises:
        ValueError: the patch is larger than the padded image, or could lie on padding alone.
    """
    if 2 * padding > size:
        raise ValueError(f"padding {padding} is more than half a patch of {size}")
    padded = torch.constant_pad_nd(images, [padding] * 4, -math.inf)
    return windows(padded, (size, size), stride or size).flatten(-2).max(-1).values


class Conv2d(nn.Module):
    """Learned kernels over images.

    Args:
        channels: channels in.
        filters: kernels, hence channels out.
        size: height and width of each kernel.
        stride: pixels from one position of the kernel to the next.
        padding: rows and columns of zeros on each side.
        groups: slices of channels that do not see each other.
    """

    def __init__(
        self, channels: int, filters: int, size: int, *, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> None:
        super().__init__()
        self.channels, self.stride, self.padding = channels, stride, padding
        self.weight = nn.Parameter(kaiming_uniform(filters, channels // groups, size, size))
        self.bias = nn.Parameter(uniform(filters, bound=1 / math.sqrt(channels // groups * size * size)))

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
        return conv2d(images, self.weight, self.bias, stride=self.stride, padding=self.padding)

    def extra_repr(self) -> str:
        """Sizes, for `print(model)`."""
        filters, depth, size, _ = self.weight.shape
        return f"{depth}, {filters}, size={size}, stride={self.stride}, padding={self.padding}"


class MaxPool2d(nn.Module):
    """The largest number of each patch.

    Args:
        size: height and width of a patch, and how far apart patches are.
    """

    def __init__(self, size: int = 2) -> None:
        super().__init__()
        self.size = size

    @shapes("batch channels height width -> batch channels out_height out_width")
    def forward(self, images: Tensor) -> Tensor:
        """Shrink the images.

        Args:
            images: (batch, channels, height, width) float tensor.
        """
        return max_pool2d(images, self.size)

    def extra_repr(self) -> str:
        """Sizes, for `print(model)`."""
        return f"{self.size}"


class Flatten(nn.Module):
    """All axes but the batch, in one."""

    @shapes("batch ... -> batch features")
    def forward(self, x: Tensor) -> Tensor:
        """Flatten.

        Args:
            x: (batch, ...) tensor.
        """
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))


class SimpleCNN(nn.Module):
    """Chapter 13's network: two convolutions, each rectified and pooled, then two layers of weighted sums.

    With the defaults, shapes go (batch, 1, 28, 28) → conv1 (32, 26, 26) → pool1 (32, 13, 13) → conv2 (64, 11, 11)
    → pool2 (64, 5, 5) → flatten (1600) → fc1 (128) → fc2 (10), and there are 225 034 parameters.

    Args:
        image: height and width of the images.
        channels: channels of the images.
        classes: logits out.
        filters: kernels of the first and second convolution.
        hidden: width of the layer before the logits.
        padding: zeros around the images of both convolutions.
    """

    def __init__(
        self,
        image: int = 28,
        channels: int = 1,
        classes: int = 10,
        *,
        filters: tuple[int, int] = (32, 64),
        hidden: int = 128,
        padding: int = 0,
    ) -> None:
        super().__init__()
        first, second = filters
        self.conv1 = Conv2d(channels, first, 3, padding=padding)
        self.relu1 = ReLU()
        self.pool1 = MaxPool2d(2)
        self.conv2 = Conv2d(first, second, 3, padding=padding)
        self.relu2 = ReLU()
        self.pool2 = MaxPool2d(2)
        self.flatten = Flatten()
        # Each kernel of 3 takes 2 - 2p off the image, each pool halves it.
        side = image
        for _ in range(2):
            side = (side - 2 + 2 * padding) // 2
        self.fc1 = Linear(second * side * side, hidden)
        self.relu3 = ReLU()
        self.fc2 = Linear(hidden, classes)

    @classmethod
    def tiny(cls) -> Self:
        """The same network for 8×8 images, small enough for tests."""
        return cls(8, filters=(16, 32), hidden=64, padding=1)

    @shapes("batch channels height width -> batch classes")
    def forward(self, images: Tensor) -> Tensor:
        """Score the classes.

        Args:
            images: (batch, channels, height, width) float tensor.

        Returns:
            (batch, classes) logits.
        """
        x = self.pool1(self.relu1(self.conv1(images)))
        x = self.pool2(self.relu2(self.conv2(x)))
        logits: Tensor = self.fc2(self.relu3(self.fc1(self.flatten(x))))
        return logits
