"""Chapter 12: convolution before networks: signals, and kernels that people found.

Glossary
    x          signal (…, seq)
    w          kernel; each of its numbers is a tap
    y          what comes out

Source: chapter 12 of the book; Gonzalez and Woods, Digital Image Processing, for the fixed kernels.

Differs from the book: convolution proper and cross-correlation have a name each.
Does not handle: strides and dilation of signals, kernels other than 3×3 by name.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reference_models.convolution import conv2d
from tensorscope import shapes

# Kernels that people found before networks did. A row goes from left to right; x looks for edges that rise to the
# right, y for those that rise downwards.
KERNELS = {
    "identity": ((0, 0, 0), (0, 1, 0), (0, 0, 0)),
    "sobel_x": ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)),
    "sobel_y": ((-1, -2, -1), (0, 0, 0), (1, 2, 1)),
    "prewitt_x": ((-1, 0, 1), (-1, 0, 1), (-1, 0, 1)),
    "prewitt_y": ((-1, -1, -1), (0, 0, 0), (1, 1, 1)),
    "gaussian": ((1 / 16, 2 / 16, 1 / 16), (2 / 16, 4 / 16, 2 / 16), (1 / 16, 2 / 16, 1 / 16)),
    "sharpen": ((0, -1, 0), (-1, 5, -1), (0, -1, 0)),
}


@shapes("*batch seq, taps -> *batch out_seq")
def correlate(signal: Tensor, kernel: Tensor) -> Tensor:
    """Slide a kernel over a signal as it is (cross-correlation): what networks call convolution.

    Args:
        signal: (..., seq) tensor.
        kernel: (taps) tensor of the same dtype.

    Returns:
        (..., seq - taps + 1), where the kernel lies on the signal wholly.

    Raises:
        ValueError: the kernel is longer than the signal, or has no taps.
    """
    if not 1 <= len(kernel) <= signal.shape[-1]:
        raise ValueError(f"expected a kernel of 1 to {signal.shape[-1]} taps, got {len(kernel)}")
    # y[t] = Σᵢ x[t + i] · w[i]
    return signal.unfold(-1, len(kernel), 1) @ kernel


@shapes("*batch seq, taps -> *batch out_seq")
def convolve(signal: Tensor, kernel: Tensor) -> Tensor:
    """Convolve as in signal processing: the kernel is turned around, so that the operation commutes.

    Args:
        signal: (..., seq) tensor.
        kernel: (taps) tensor of the same dtype.

    Returns:
        (..., seq + taps - 1), wherever the kernel touches the signal.

    Raises:
        ValueError: one of them is empty.
    """
    if not len(kernel) or not signal.shape[-1]:
        raise ValueError(f"expected numbers to convolve, got {signal.shape[-1]} and {len(kernel)} of them")
    # y[t] = Σᵢ x[t - i] · w[i]
    return correlate(torch.constant_pad_nd(signal, [len(kernel) - 1] * 2), kernel.flip(0))


def fixed_kernel(name: str) -> Tensor:
    """One of `KERNELS`, (3, 3).

    Raises:
        ValueError: there is none of this name.
    """
    if name not in KERNELS:
        raise ValueError(f"expected one of {', '.join(KERNELS)}, got {name!r}")
    return torch.tensor(KERNELS[name], dtype=torch.get_default_dtype())


@shapes("batch channels height width, kernel_height kernel_width -> batch channels out_height out_width")
def filter_images(images: Tensor, kernel: Tensor, padding: int = 0) -> Tensor:
    """Slide one kernel over each channel by itself.

    Args:
        images: (batch, channels, height, width) float tensor.
        kernel: (kernel_height, kernel_width) float tensor, such as a `fixed_kernel`.
        padding: rows and columns of zeros on each side.
    """
    return conv2d(images, kernel.expand(images.shape[1], 1, *kernel.shape), padding=padding)
