"""Chapter 8: what training makes small.

Glossary
    logits     a model's scores, before softmax (batch, classes), or before a sigmoid (any shape)
    y          what is right: a class, a probability or a number
    ŷ          what a model says instead; e = y - ŷ
    p          softmax or sigmoid of the logits
    ε          share of the truth that label smoothing spreads over all classes
    K          number of classes
    δ, β       error from which on a loss grows in a straight line
    α, γ       weight of the rare class, and how much less easy samples count
    q          quantile

Source: chapter 8, "Learning optimization" and the BERT chapters of the book; Szegedy et al., Rethinking the Inception
Architecture (2016), section 7 (label smoothing); Lin et al., Focal Loss for Dense Object Detection (2017).

Differs from the book: classes are indices or probabilities, told apart by their dtype (E-03); probabilities and logits
have a loss each (E-02); smoothed targets sum to 1 (E-38); no logarithm is taken of a sigmoid or softmax that has become
0 (E-44, E-55); labels can be left out, -100 by default (E-43); biases cost nothing (E-54); of probabilities the
logarithm is clipped (at -100, as PyTorch does), not the number (at 1e-7).
Different shapes are refused, where plain arithmetic makes (batch, batch) of (batch) and (batch, 1).

Does not handle: class weights, sums and losses per sample, focal loss over several classes or of soft targets;
labels and probabilities out of range are not looked for (a label raises in `gather`, a probability gives NaN).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reference_models.activations import log_softmax, softplus
from tensorscope import shapes

if TYPE_CHECKING:
    from collections.abc import Iterable

IGNORED = -100  # the label of what does not count, such as padding


@shapes("*batch, *batch ->")
def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error.

    Args:
        prediction: (...) float tensor.
        target: (...) tensor of the same shape.
    """
    # L = 1/n Σᵢ (yᵢ - ŷᵢ)²
    return (prediction - target).square().mean()


@shapes("*batch, *batch ->")
def mae(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error, which minds outliers less.

    Args:
        prediction: (...) float tensor.
        target: (...) tensor of the same shape.
    """
    # L = 1/n Σᵢ |yᵢ - ŷᵢ|
    return (prediction - target).abs().mean()


@shapes("*batch, *batch ->")
def huber(prediction: Tensor, target: Tensor, delta: float = 1.0) -> Tensor:
    """Half the squared error up to δ, from there a straight line of slope δ.

    Args:
        prediction: (...) float tensor.
        target: (...) tensor of the same shape.
        delta: δ.

    Raises:
        ValueError: δ is not positive.
    """
    if not delta > 0:
        raise ValueError(f"expected `delta` above 0, got {delta}")
    # m (|e| - m/2) with m = min(|e|, δ): ½e², or δ (|e| - ½δ)
    error = (prediction - target).abs()
    near = error.clamp(max=delta)
    return (near * (error - near / 2)).mean()


@shapes("*batch, *batch ->")
def smooth_l1(prediction: Tensor, target: Tensor, beta: float = 1.0) -> Tensor:
    """Huber's loss divided by β, so that far errors count as in `mae`.

    Args:
        prediction: (...) float tensor.
        target: (...) tensor of the same shape.
        beta: β; 0 is the absolute error.

    Raises:
        ValueError: β is negative.
    """
    if not beta >= 0:
        raise ValueError(f"expected `beta` of at least 0, got {beta}")
    return huber(prediction, target, beta) / beta if beta else mae(prediction, target)


@shapes("*batch, *batch ->")
def quantile(prediction: Tensor, target: Tensor, q: float = 0.5) -> Tensor:
    """Pinball loss, smallest where a share q of the targets is below the prediction.

    Args:
        prediction: (...) float tensor.
        target: (...) tensor of the same shape.
        q: the share; ½ is the median and half of `mae`.

    Raises:
        ValueError: q is not between 0 and 1.
    """
    if not 0 < q < 1:
        raise ValueError(f"expected `q` between 0 and 1, got {q}")
    # max(q e, (q - 1) e)
    error = target - prediction
    return torch.maximum(q * error, (q - 1) * error).mean()


@shapes("*batch, *batch ->")
def bce(probabilities: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of probabilities; training is better served by `bce_with_logits`.

    Args:
        probabilities: (...) float tensor from 0 to 1.
        target: (...) float tensor from 0 to 1, of the same shape.
    """
    # L = -1/n Σᵢ yᵢ log pᵢ + (1 - yᵢ) log(1 - pᵢ)
    return -(target * _log(probabilities) + (1 - target) * _log(1 - probabilities)).mean()


def _log(p: Tensor) -> Tensor:
    # As PyTorch's: log p is at least -100, and its slope 1/p at most 10¹², so that both are finite at 0.
    tiny, fixed = p <= 1e-12, p.detach()
    least = fixed.log().clamp(min=-100) + (p - fixed) * 1e12
    return torch.where(tiny, least, torch.where(tiny, 1, p).log())


@shapes("*batch, *batch ->")
def bce_with_logits(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of the sigmoid of logits of any size.

    Args:
        logits: (...) float tensor.
        target: (...) float tensor from 0 to 1, of the same shape.
    """
    # -y log σ(x) - (1 - y) log(1 - σ(x)) = (1 - y) x + log(1 + e⁻ˣ)
    return ((1 - target) * logits + softplus(-logits)).mean()


@shapes("*batch, *batch ->")
def focal(logits: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Binary cross-entropy in which what is easy and what is common count less.

    Args:
        logits: (...) float tensor.
        target: (...) tensor of zeros and ones, of the same shape.
        alpha: α, the weight of the ones; zeros have 1 - α.
        gamma: γ; with 0, easy samples count in full.

    Raises:
        ValueError: α is not from 0 to 1, or γ is negative.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"expected `alpha` from 0 to 1, got {alpha}")
    if not gamma >= 0:
        raise ValueError(f"expected `gamma` of at least 0, got {gamma}")
    # p = σ(z) is what the truth gets: z is x for ones, -x for zeros.
    z = (2 * target - 1) * logits
    weight = alpha * target + (1 - alpha) * (1 - target)
    # -α (1 - p)^γ log p, with log p = -softplus(-z) and log(1 - p) = -softplus(z)
    return (weight * torch.exp(-gamma * softplus(z)) * softplus(-z)).mean()


@shapes("*batch classes, ... ->")
def cross_entropy(
    logits: Tensor, labels: Tensor, *, ignore_index: int = IGNORED, label_smoothing: float = 0.0
) -> Tensor:
    """Mean surprise at what is right.

    Args:
        logits: (..., classes) float tensor, such as (batch, classes) or (batch, seq, classes).
        labels: (...) integer tensor of class indices, or (..., classes) float tensor of probabilities (one-hot or not).
        ignore_index: the label of what does not count.
        label_smoothing: ε.

    Returns:
        0-d tensor, NaN if nothing counts.

    Raises:
        ValueError: one-hot labels are integers, or ε is not from 0 to 1.
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"expected `label_smoothing` from 0 to 1, got {label_smoothing}")
    if labels.is_floating_point():
        return soft_cross_entropy(logits, labels, label_smoothing)
    if labels.shape == logits.shape:
        raise ValueError(
            f"expected `labels` as class indices {tuple(logits.shape[:-1])} or as probabilities, got one-hot "
            f"{labels.dtype} of {tuple(labels.shape)}: `labels.float()` makes them probabilities"
        )
    return hard_cross_entropy(logits, labels.long(), ignore_index, label_smoothing)


@shapes("*batch classes, *batch ->")
def hard_cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int, label_smoothing: float) -> Tensor:
    """`cross_entropy` where one class is right.

    Args:
        logits: (..., classes) float tensor.
        labels: (...) int64 tensor of class indices.
        ignore_index: the label of what does not count.
        label_smoothing: ε.
    """
    counts = labels != ignore_index
    log_p = log_softmax(logits)
    # L = -1/n Σᵢ log p(yᵢ), over those that count
    surprise = -log_p.gather(-1, labels.where(counts, 0).unsqueeze(-1)).squeeze(-1)
    if label_smoothing:
        # (1 - ε) L + ε · mean surprise of all classes, as if y were (1 - ε) · onehot + ε/K
        surprise = (1 - label_smoothing) * surprise - label_smoothing * log_p.mean(-1)
    # Σ / n as mean / share: a sum over many tokens would overflow in float16.
    return surprise.where(counts, 0).mean() / counts.to(surprise.dtype).mean()


@shapes("*batch classes, *batch classes ->")
def soft_cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """`cross_entropy` where each class has its probability.

    Args:
        logits: (..., classes) float tensor.
        labels: (..., classes) float tensor of probabilities.
        label_smoothing: ε.
    """
    # y ← (1 - ε) y + ε/K
    if label_smoothing:
        labels = (1 - label_smoothing) * labels + label_smoothing / labels.shape[-1]
    # L = -1/n Σᵢ Σ_c y_c log p_c
    return -(labels * log_softmax(logits)).sum(-1).mean()


@shapes("*batch classes, *batch ->")
def perplexity(logits: Tensor, labels: Tensor, *, ignore_index: int = IGNORED) -> Tensor:
    """Among how many equally likely classes a model is as uncertain: the number of classes before it has learnt.

    Args:
        logits: (..., classes) float tensor.
        labels: (...) integer tensor of class indices.
        ignore_index: the label of what does not count.
    """
    # e^L
    return cross_entropy(logits, labels, ignore_index=ignore_index).exp()


@shapes("*batch classes, *batch ->")
def accuracy(logits: Tensor, labels: Tensor, *, ignore_index: int = IGNORED) -> Tensor:
    """Share of samples whose largest logit is at the right class.

    Args:
        logits: (..., classes) float tensor.
        labels: (...) integer tensor of class indices.
        ignore_index: the label of what does not count.

    Returns:
        0-d tensor, NaN if nothing counts.
    """
    counts = labels != ignore_index
    right = (logits.argmax(-1) == labels) & counts
    return right.sum() / counts.sum()


@shapes("->")
def l2_penalty(parameters: Iterable[Tensor]) -> Tensor:
    """Sum of all squared weights, to be added to a loss in small part; biases (fewer than 2 axes) are left out.

    Adding λ/2 of it is what `weight_decay=λ` means to SGD.

    Args:
        parameters: of a model.
    """
    # Σ w²
    weights = [weight.square().sum() for weight in parameters if weight.dim() >= 2]
    return torch.stack(weights).sum() if weights else torch.zeros(())
