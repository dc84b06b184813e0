"""Learning optimization: what keeps a network from learning its samples by heart.

Glossary
    p          how likely a number is dropped
    x̃          what is left of x
    λ          weight decay

Source: "Learning optimization" of the book, its chapter 28 on early stopping; Srivastava et al., Dropout (2014);
Tompson et al., Efficient object localization (2015) for whole features; Bengio et al., Curriculum learning (2009).

Differs from the book (erratum E-54): noise has mean 0 (the book's is uniform from 0 up); what is left after dropping
features is scaled as well; a curriculum is a function of the epoch, so that it cannot grow twice in one; decay leaves
biases alone. Dropout follows `train()` and `eval()` (E-41).

Does not handle: dropping in place, complex numbers, noise on labels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from tensorscope import shapes

if TYPE_CHECKING:
    from collections.abc import Mapping


def _check_p(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"`p` takes a probability, got {p}")


def _dropped(x: Tensor, p: float, kept: Tensor, generator: torch.Generator | None) -> Tensor:
    """Multiply with a mask, drawn into `kept`, that broadcasts to x."""
    if not x.is_floating_point():
        raise TypeError(f"expected a float tensor to drop from, got {x.dtype}")
    if p == 1:
        return x * 0
    # x̃ = x · mask / (1 - p): 1 with probability 1 - p, so that the mean of x̃ is x
    return x * kept.bernoulli_(1 - p, generator=generator).div_(1 - p)


@shapes("... -> ...")
def dropout(x: Tensor, p: float = 0.5, *, training: bool = True, generator: torch.Generator | None = None) -> Tensor:
    """Set some numbers to 0, and scale up the others (inverted dropout: nothing is to be done in evaluation).

    Args:
        x: (...) float tensor.
        p: how likely each number is dropped.
        training: x comes out as it is if not.
        generator: where randomness comes from; torch's own by default.

    Raises:
        ValueError: `p` is no probability.
        TypeError: x is not of floats.
    """
    _check_p(p)
    return _dropped(x, p, torch.empty_like(x), generator) if training and p else x


@shapes("batch channels ... -> batch channels ...")
def feature_dropout(
    x: Tensor, p: float = 0.5, *, training: bool = True, generator: torch.Generator | None = None
) -> Tensor:
    """Drop whole features of each sample: a channel with all its places, a column of a table.

    Args:
        x: (batch, channels, ...) float tensor.
        p: how likely each channel of each sample is dropped.
        training: x comes out as it is if not.
        generator: where randomness comes from; torch's own by default.

    Raises:
        ValueError: `p` is no probability.
        TypeError: x is not of floats.
    """
    _check_p(p)
    mask = x.new_empty(x.shape[:2] + (1,) * (x.ndim - 2))
    return _dropped(x, p, mask, generator) if training and p else x


class Dropout(nn.Module):
    """Drops numbers while training.

    Args:
        p: how likely each is dropped.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        _check_p(p)
        self.p = p

    @shapes("... -> ...")
    def forward(self, x: Tensor) -> Tensor:
        """Drop.

        Args:
            x: (...) float tensor.
        """
        return dropout(x, self.p, training=self.training)

    def extra_repr(self) -> str:
        """Probability, for `print(model)`."""
        return f"p={self.p}"


class FeatureDropout(nn.Module):
    """Drops whole features while training.

    Args:
        p: how likely each channel of each sample is dropped.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        _check_p(p)
        self.p = p

    @shapes("batch channels ... -> batch channels ...")
    def forward(self, x: Tensor) -> Tensor:
        """Drop.

        Args:
            x: (batch, channels, ...) float tensor.
        """
        return feature_dropout(x, self.p, training=self.training)

    def extra_repr(self) -> str:
        """Probability, for `print(model)`."""
        return f"p={self.p}"


class GaussianNoise(nn.Module):
    """Adds noise of mean 0 while training.

    Args:
        std: standard deviation of the noise.

    Raises:
        ValueError: `std` is negative or NaN.
    """

    def __init__(self, std: float = 0.1) -> None:
        super().__init__()
        if not std >= 0:
            raise ValueError(f"`std` takes a number of at least 0, got {std}")
        self.std = std

    @shapes("... -> ...")
    def forward(self, x: Tensor) -> Tensor:
        """Add noise.

        Args:
            x: (...) float tensor.
        """
        # x̃ = x + std · N(0, 1)
        return x + self.std * torch.randn_like(x) if self.training and self.std else x

    def extra_repr(self) -> str:
        """Standard deviation, for `print(model)`."""
        return f"std={self.std}"


class EarlyStopping:
    """Says when a score has not got better for so long that training may end.

    Args:
        patience: how many times in a row it may fail to get better.
        min_delta: by how much it has to be better than the best.
        mode: `"min"` for a loss, `"max"` for an accuracy.

    Attributes:
        best: the best score so far.
        best_at: the how-manieth it was, from 0.
        stale: how often in a row it has not got better.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(self, patience: int = 10, min_delta: float = 1e-3, mode: Literal["min", "max"] = "min") -> None:
        if patience < 1:
            raise ValueError(f"`patience` takes a number from 1 on, got {patience}")
        if not min_delta >= 0:
            raise ValueError(f"`min_delta` takes a number of at least 0, got {min_delta}")
        if mode not in {"min", "max"}:
            raise ValueError(f'`mode` takes "min" or "max", got {mode!r}')
        self.patience, self.min_delta, self.mode = patience, min_delta, mode
        self.best = math.inf if mode == "min" else -math.inf
        self.best_at, self.stale, self.seen = -1, 0, 0

    def update(self, score: float) -> bool:
        """Look at the next score; NaN is never better.

        Returns:
            Whether to stop.
        """
        gain = self.best - score if self.mode == "min" else score - self.best
        if gain > self.min_delta:
            self.best, self.best_at, self.stale = score, self.seen, 0
        else:
            self.stale += 1
        self.seen += 1
        return self.stop

    @property
    def stop(self) -> bool:
        """Whether patience is at its end."""
        return self.stale >= self.patience


class Curriculum:
    """Easy samples first: the share of them that is trained on grows evenly, until it is all.

    Args:
        difficulty: (batch) tensor, a score per sample; higher is harder.
        start: share of the first epoch.
        epochs: after how many epochs all samples take part.

    Raises:
        ValueError: a score is NaN, `start` is no share, or `epochs` is not positive.
    """

    def __init__(self, difficulty: Tensor, start: float = 0.3, epochs: int = 10) -> None:
        if not 0 <= start <= 1:
            raise ValueError(f"`start` takes a share from 0 to 1, got {start}")
        if epochs < 1:
            raise ValueError(f"`epochs` takes a number from 1 on, got {epochs}")
        self.start, self.epochs = start, epochs
        self.easiest_first = _ranked(difficulty)

    def share(self, epoch: int) -> float:
        """What share of the samples takes part in an epoch, counted from 0."""
        # share = start + (1 - start) · epoch / epochs, at most 1
        return min(1.0, self.start + (1 - self.start) * epoch / self.epochs)

    def samples(self, epoch: int) -> Tensor:
        """Indices of the samples of an epoch, easiest first; where there are samples, there is at least one.

        Returns:
            (count) int64 tensor.
        """
        count = round(self.share(epoch) * len(self.easiest_first))
        return self.easiest_first[: max(count, 1)]


@shapes("batch -> batch")
def _ranked(difficulty: Tensor) -> Tensor:
    if difficulty.isnan().any():
        raise ValueError("`difficulty` takes a score for each sample, got NaN")
    return difficulty.argsort(stable=True)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer in which weights decay, and biases and the gains of norms do not.

    Args:
        model: whose parameters to group.
        weight_decay: λ of the weights.
    """
    groups: Mapping[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        is_bias = parameter.ndim < 2 or name.rpartition(".")[2].startswith("bias")
        groups[not is_bias].append(parameter)
    return [
        {"params": groups[True], "weight_decay": weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]
