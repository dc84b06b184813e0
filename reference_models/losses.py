"""Chapter 8: what training makes small.

Glossary
    logits     a model's scores, before softmax (batch, classes)
    y          the right class of each sample (batch,)
    p          softmax of the logits

Source: chapter 8 of the book.

Differs from the book: classes are given as indices, not one-hot (erratum E-03).
Does not handle: class weights, label smoothing, ignored labels, losses for regression (not here yet).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reference_models.activations import log_softmax
from tensorscope import shapes

if TYPE_CHECKING:
    from torch import Tensor


@shapes("batch classes, batch ->")
def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean surprise at the right classes.

    Args:
        logits: (batch, classes) float tensor.
        labels: (batch) int64 tensor of class indices.

    Returns:
        0-d tensor, NaN for an empty batch.
    """
    # L = -1/n Σᵢ log p(yᵢ)
    return -log_softmax(logits).gather(1, labels.unsqueeze(1)).mean()


@shapes("batch classes, batch ->")
def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of samples whose largest logit is at the right class.

    Args:
        logits: (batch, classes) float tensor.
        labels: (batch) int64 tensor of class indices.
    """
    return (logits.argmax(1) == labels).float().mean()
