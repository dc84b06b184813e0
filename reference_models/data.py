"""Chapter 22: data, split and served in batches.

Glossary
    sample     one input and its label
    stratified each class is split in the same proportion

Source: chapter 22 of the book. The digits are the 1 797 scans of 8×8 that come with scikit-learn, which stand in for
MNIST since nothing has to be downloaded for them.

Does not handle: files, augmentation, data that does not fit into memory (not here yet).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tensorscope import shapes

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs and their labels, one row each."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor | slice) -> Samples:
        return Samples(self.inputs[rows], self.labels[rows])

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[Samples]:
        """Serve all samples once; the last batch is short if they do not divide.

        Args:
            size: samples per batch.
            generator: shuffles them; in order without one.
        """
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        for start in range(0, len(self), size):
            yield self[order[start : start + size]]


def digits(image: int = 8) -> Samples:
    """Scans of handwritten digits, (sample, 1, image, image) in [0, 1].

    Args:
        image: height and width; larger than 8 they are interpolated.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    inputs = torch.as_tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16
    return Samples(resize(inputs, image), torch.as_tensor(bunch.target, dtype=torch.int64))


def split(samples: Samples, seed: int, *, test: float = 0.2) -> tuple[Samples, Samples]:
    """Split each class of the samples in the same proportion; rows keep their order.

    Args:
        samples: what to split.
        seed: which split.
        test: share of the second part.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(samples), dtype=torch.bool)
    for label in sorted(set(samples.labels.tolist())):
        rows = (samples.labels == label).nonzero().squeeze(1)
        chosen[rows[torch.randperm(len(rows), generator=generator)[: round(test * len(rows))]]] = True
    return samples[~chosen], samples[chosen]


@shapes("batch channels _height _width -> batch channels side side")
def resize(images: Tensor, side: int) -> Tensor:
    """Interpolate images to side×side pixels, linearly in both directions.

    Args:
        images: (batch, channels, height, width) float tensor.
        side: new height and width.
    """
    rows, columns = (_interpolation(length, side) for length in images.shape[2:])
    return rows @ images @ columns.T


def _interpolation(length: int, side: int) -> Tensor:
    """The (side, length) matrix that interpolates a line of pixels."""
    # Pixel i of the result has its middle at (i + ½) · length / side - ½ of the original; outside, the edge goes on.
    middle = ((torch.arange(side) + 0.5) * length / side - 0.5).clamp(0, length - 1)
    # Each original pixel weighs 1 at its own middle and falls to 0 one pixel away.
    return (1 - (middle[:, None] - torch.arange(length)).abs()).clamp(min=0)
