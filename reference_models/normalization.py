"""Learning optimization, and chapter 18: keeping numbers at the same scale, inside a network and before it.

Glossary
    x          what is normalised
    μ, σ²      mean and variance of x, over the batch (BatchNorm) or over one sample's features (LayerNorm)
    γ, β       weight and bias: the scale and place that the network wants instead
    ε          keeps the root away from 0
    n          how many numbers a mean is over

Source: "Learning optimization strategies" and chapter 18 of the book; Ioffe and Szegedy, Batch Normalization (2015);
Ba, Kiros and Hinton, Layer Normalization (2016); Zhang and Sennrich, Root Mean Square Layer Normalization (2019).

Differs from the book: batch normalization follows the mode that the model is in, divides by the biased variance, keeps
the unbiased one, and leaves what it keeps alone in evaluation (erratum E-42); ε is inside the root and γ starts from 1
(E-28, E-40); data are normalised by each column's own numbers, those of the training samples (E-54, E-58).
Does not handle: layers without weights, means over several axes in LayerNorm and RMSNorm, missing values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tensorscope import shapes


def _wide(x: Tensor) -> Tensor:
    """The tensor in at least single precision: half precision is too coarse for means and squares."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class BatchNorm1d(nn.Module):
    """Give each channel mean 0 and variance 1 over the batch, then the scale and place that are learned.

    Args:
        channels: numbers, or rows of numbers, of one sample.
        eps: ε.
        momentum: share of the newest batch in what is kept for evaluation.
    """

    axes: tuple[int, ...] = (2, 3)

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.num_batches_tracked: Tensor
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    @shapes("batch channels ... -> batch channels ...")
    def forward(self, x: Tensor) -> Tensor:
        """Normalise, by the batch in training and by what was kept of earlier ones in evaluation.

        Args:
            x: (batch, channels) or (batch, channels, seq) float tensor.

        Raises:
            ValueError: another number of axes or channels, or a training batch of one number per channel.
        """
        if x.ndim not in self.axes or x.shape[1] != len(self.weight):
            wanted = " or ".join(map(str, self.axes))
            raise ValueError(f"expected {wanted} axes and {len(self.weight)} channels, got a shape of {tuple(x.shape)}")
        rows = _wide(x).movedim(1, -1)
        mean, variance = self._measured(rows) if self.training else (self.running_mean, self.running_var)
        # y = γ (x - μ) / √(σ² + ε) + β
        y = (rows - mean) / (variance + self.eps).sqrt() * self.weight + self.bias
        return y.movedim(-1, 1).to(x.dtype)

    def _measured(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance over all axes but the last, which are kept for evaluation as well."""
        count = rows.shape[:-1].numel()
        if count == 1:
            raise ValueError("expected more than one number per channel in training, got a batch of 1")
        axes = tuple(range(rows.ndim - 1))
        # σ² = Σ (x - μ)² / n
        mean = rows.mean(axes)
        variance = (rows - mean).square().mean(axes)
        self.num_batches_tracked += 1
        if count:
            with torch.no_grad():
                # kept ← (1 - m) · kept + m · new, where the new variance is Σ (x - μ)² / (n - 1)
                self.running_mean.mul_(1 - self.momentum).add_(self.momentum * mean)
                self.running_var.mul_(1 - self.momentum).add_(self.momentum * variance * count / (count - 1))
        return mean, variance

    def extra_repr(self) -> str:
        """Sizes, for `print(model)`."""
        return f"{len(self.weight)}, eps={self.eps}, momentum={self.momentum}"


class BatchNorm2d(BatchNorm1d):
    """The same for images (batch, channels, height, width): one mean and one variance per channel."""

    axes = (4,)


class LayerNorm(nn.Module):
    """Give the features of each sample mean 0 and variance 1, then the scale and place that are learned.

    Args:
        dim: features.
        eps: ε.
    """

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    @shapes("*batch dim -> *batch dim")
    def forward(self, x: Tensor) -> Tensor:
        """Normalise.

        Args:
            x: (..., dim) float tensor.

        Raises:
            ValueError: another number of features.
        """
        wide = _wide(_with_features(x, self.weight))
        centred = wide - wide.mean(-1, keepdim=True)
        # y = γ (x - μ) / √(σ² + ε) + β
        y = centred / (centred.square().mean(-1, keepdim=True) + self.eps).sqrt() * self.weight + self.bias
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        """Sizes, for `print(model)`."""
        return f"{len(self.weight)}, eps={self.eps}"


class RMSNorm(nn.Module):
    """Give the features of each sample a mean square of 1, then the scale that is learned; they are not centred.

    Args:
        dim: features.
        eps: ε; by default the distance from 1 to the next number, of the type that is computed in.
    """

    def __init__(self, dim: int, eps: float | None = None) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    @shapes("*batch dim -> *batch dim")
    def forward(self, x: Tensor) -> Tensor:
        """Normalise.

        Args:
            x: (..., dim) float tensor.

        Raises:
            ValueError: another number of features.
        """
        wide = _wide(_with_features(x, self.weight))
        eps = torch.finfo(wide.dtype).eps if self.eps is None else self.eps
        # y = γ x / √(Σ x² / n + ε)
        y = wide / (wide.square().mean(-1, keepdim=True) + eps).sqrt() * self.weight
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        """Sizes, for `print(model)`."""
        return f"{len(self.weight)}, eps={self.eps}"


def _with_features(x: Tensor, weight: Tensor) -> Tensor:
    if x.shape[-1] != len(weight):
        raise ValueError(f"expected {len(weight)} features, got a shape of {tuple(x.shape)}")
    return x
