"""Chapter 12: pooling, which shrinks images without learning anything, and flattening what is left of them.

Glossary
    k          height and width of a patch
    s          stride: how far apart patches are; k by default
    p          padding around the image

Source: chapters 12 and 13 of the book; Lin et al., Network in Network (2013), for global average pooling.

Does not handle: patches that differ between height and width, sizes that are rounded up; and where a patch holds
nothing but -∞ and padding, or several NaN, another of its pixels than torch's gets the gradient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from reference_models.convolution import windows
from tensorscope import shapes


@shapes("batch channels height width -> batch channels out_height out_width")
def max_pool2d(images: Tensor, size: int = 2, stride: int | None = None, padding: int = 0, dilation: int = 1) -> Tensor:
    """Keep the largest number of each patch; of equal ones the first gets the gradient.

    Args:
        images: (batch, channels, height, width) float tensor.
        size: height and width of a patch.
        stride: pixels from one patch to the next; the patch's size by default.
        padding: rows and columns of -∞ on each side, at most half a patch.
        dilation: pixels from one number of a patch to the next.

    Raises:
        ValueError: the patch is larger than the padded image, or could lie on padding alone.
    """
    padded = torch.constant_pad_nd(images, [_at_most_half(padding, size)] * 4, -math.inf)
    # y[h, w] = max_{i, j} x[s·h + d·i, s·w + d·j]
    return windows(padded, (size, size), size if stride is None else stride, dilation).flatten(-2).max(-1).values


@shapes("batch channels height width -> batch channels out_height out_width")
def avg_pool2d(images: Tensor, size: int = 2, stride: int | None = None, padding: int = 0) -> Tensor:
    """Keep the mean of each patch; zeros of the padding count.

    Args:
        images: (batch, channels, height, width) float tensor.
        size: height and width of a patch.
        stride: pixels from one patch to the next; the patch's size by default.
        padding: rows and columns of zeros on each side, at most half a patch.

    Raises:
        ValueError: the patch is larger than the padded image, or could lie on padding alone.
    """
    padded = torch.constant_pad_nd(images, [_at_most_half(padding, size)] * 4)
    # y[h, w] = 1/k² Σ_{i, j} x[s·h + i, s·w + j]
    return windows(padded, (size, size), size if stride is None else stride).mean((-2, -1))


def _at_most_half(padding: int, size: int) -> int:
    if not 0 <= 2 * padding <= size:
        raise ValueError(f"expected a `padding` of at most half a patch of {size}, got {padding}")
    return padding


@shapes("batch channels height width -> batch channels")
def global_avg_pool2d(images: Tensor) -> Tensor:
    """Keep the mean of each channel, whatever the size of the images.

    Args:
        images: (batch, channels, height, width) float tensor.
    """
    return images.mean((-2, -1))


class MaxPool2d(nn.Module):
    """The largest number of each patch.

    Args:
        size: height and width of a patch.
        stride: how far apart patches are; patches do not overlap by default.
        padding: rows and columns of -∞ on each side.
    """

    def __init__(self, size: int = 2, stride: int | None = None, padding: int = 0) -> None:
        super().__init__()
        self.size, self.stride, self.padding = size, stride, padding

    @shapes("batch channels height width -> batch channels out_height out_width")
    def forward(self, images: Tensor) -> Tensor:
        """Shrink the images.

        Args:
            images: (batch, channels, height, width) float tensor.
        """
        return max_pool2d(images, self.size, self.stride, self.padding)

    def extra_repr(self) -> str:
        """Sizes, for `print(model)`."""
        return _described(self.size, self.stride, self.padding)


class AvgPool2d(nn.Module):
    """The mean of each patch.

    Args:
        size: height and width of a patch.
        stride: how far apart patches are; patches do not overlap by default.
        padding: rows and columns of zeros on each side.
    """

    def __init__(self, size: int = 2, stride: int | None = None, padding: int = 0) -> None:
        super().__init__()
        self.size, self.stride, self.padding = size, stride, padding

    @shapes("batch channels height width -> batch channels out_height out_width")
    def forward(self, images: Tensor) -> Tensor:
        """Shrink the images.

        Args:
            images: (batch, channels, height, width) float tensor.
        """
        return avg_pool2d(images, self.size, self.stride, self.padding)

    def extra_repr(self) -> str:
        """Sizes, for `print(model)`."""
        return _described(self.size, self.stride, self.padding)


def _described(size: int, stride: int | None, padding: int) -> str:
    return f"{size}" + f", stride={stride}" * (stride is not None) + f", padding={padding}" * (padding > 0)


class GlobalAvgPool2d(nn.Module):
    """The mean of each channel, so that what follows does not depend on the size of the images."""

    @shapes("batch channels height width -> batch channels")
    def forward(self, images: Tensor) -> Tensor:
        """Average.

        Args:
            images: (batch, channels, height, width) float tensor.
        """
        return global_avg_pool2d(images)


class Flatten(nn.Module):
    """All axes but the batch, in one."""

    @shapes("batch ... -> batch features")
    def forward(self, x: Tensor) -> Tensor:
        """Flatten.

        Args:
            x: (batch, ...) tensor.
        """
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))
