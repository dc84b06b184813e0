"""Chapter 10: activation functions.

Glossary
    x          the number an activation bends
    σ          softmax, exp(xᵢ) / Σⱼ exp(xⱼ)

Source: chapter 10 of the book; softmax and its logarithm after Goodfellow, Bengio and Courville, Deep Learning, 4.1
(the largest logit is subtracted, so that no exponential overflows).

Does not handle: sigmoid, tanh and the smooth rectifiers (not here yet); a softmax over no classes at all.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tensorscope import shapes


@shapes("... -> ...")
def relu(x: Tensor) -> Tensor:
    """The rectifier, max(x, 0); its slope at 0 is 0, and NaN stays NaN.

    Args:
        x: (...) float tensor.
    """
    return torch.where(x <= 0, 0, x)


@shapes("*batch classes -> *batch classes")
def log_softmax(logits: Tensor) -> Tensor:
    """The logarithm of softmax over the last axis.

    Args:
        logits: (..., classes) float tensor.
    """
    # log σ(x)ᵢ = xᵢ - m - log Σⱼ exp(xⱼ - m), for any m; m cancels, so it needs no gradient.
    shifted = logits - logits.detach().amax(-1, keepdim=True)
    return shifted - shifted.exp().sum(-1, keepdim=True).log()


@shapes("*batch classes -> *batch classes")
def softmax(logits: Tensor) -> Tensor:
    """Probabilities over the last axis, from numbers of any size.

    Args:
        logits: (..., classes) float tensor.
    """
    # σ(x)ᵢ = exp(xᵢ - m) / Σⱼ exp(xⱼ - m)
    raised = (logits - logits.detach().amax(-1, keepdim=True)).exp()
    return raised / raised.sum(-1, keepdim=True)


class ReLU(nn.Module):
    """The rectifier as a module, so that its output is a place to look at."""

    @shapes("... -> ...")
    def forward(self, x: Tensor) -> Tensor:
        """Rectify.

        Args:
            x: (...) float tensor.
        """
        return relu(x)
