"""What to change so that an operation stays finite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope.run.origin import Direction

if TYPE_CHECKING:
    from tensorscope.run.origin import Origin

_NORM = "a norm's slope at 0 is infinite: `(x.pow(2).sum(dim) + eps).sqrt()`, or an `eps` that is not 0"
_LOG = (
    "keep its argument away from 0: `x.clamp(min=eps).log()`, `log1p`, or `log_softmax` instead of the log of a softmax"
)
_DIV = "keep the divisor away from 0: add a small `eps` to it, or `clamp(min=eps)` where it is never negative"
_ROOT = "add a small `eps` inside: `(x + eps).sqrt()`; its slope at 0 is infinite"
_POWER = "the slope of a power below 1 is infinite at 0: add a small `eps` to the base, or clamp it"
_EXP = "subtract the largest value before `exp`, as `softmax` and `logsumexp` do, or clamp its argument"
_SOFTMAX = (
    "a row of −Inf has no softmax: leave at least one entry of each row unmasked, or use the dtype's lowest number"
)
_SLOPE = "its slope is infinite there: clamp its argument to inside of the domain"
_SPREAD = "the spread of equal values, or of one value, has no slope: add a small `eps`, or do without it there"
_HINTS = {
    **dict.fromkeys(("div", "reciprocal", "true_divide", "remainder", "fmod", "floor_divide"), _DIV),
    **dict.fromkeys(("log", "log2", "log10", "logit", "xlogy", "digamma", "lgamma"), _LOG),
    "log1p": "keep its argument above −1",
    **dict.fromkeys(("sqrt", "rsqrt"), _ROOT),
    **dict.fromkeys(("pow", "float_power"), _POWER),
    **dict.fromkeys(("norm", "vector_norm", "matrix_norm", "cdist", "pairwise_distance", "dist"), _NORM),
    **dict.fromkeys(("exp", "expm1", "exp2", "sinh", "cosh"), _EXP),
    **dict.fromkeys(("softmax", "log_softmax", "logsumexp", "scaled_dot_product_attention"), _SOFTMAX),
    **dict.fromkeys(("acos", "asin", "arccos", "arcsin", "atanh", "arctanh", "acosh", "erfinv"), _SLOPE),
    **dict.fromkeys(("std", "var", "std_mean", "var_mean"), _SPREAD),
    **dict.fromkeys(("layer_norm", "batch_norm", "group_norm", "instance_norm", "rms_norm"),
                    "give the normalisation an `eps` that is not 0 in this dtype, and more than one value each"),
    **dict.fromkeys(("linalg_inv", "inverse", "linalg_solve", "linalg_cholesky", "cholesky", "svd", "linalg_svd",
                     "linalg_eigh", "logdet", "slogdet", "det", "linalg_det"),
                    "the matrix is singular, or its values coincide: add a small multiple of the identity"),
    **dict.fromkeys(("mean", "nanmean", "median"), "nothing is left to average: skip empty selections"),
}  # fmt: skip
_HALF = "the numbers outgrow float16 (65504): use bfloat16, or run this part with `torch.autocast(…, enabled=False)`"
_HALF_BACK = "the gradient outgrows float16 (65504): let `torch.amp.GradScaler` choose the scale, or use bfloat16"
_OVERFLOW = (
    "the numbers outgrow their type: lower the learning rate, normalise before this, or look for weights that grow"
)
_GIVEN = "the program itself hands it what is not finite: replace that before, or mask with a number that is finite"
_LARGEST_HALF = 1e4  # products of a few such numbers outgrow float16


def advice(origin: Origin) -> str:
    """One hint that fits what did it."""
    if origin.direction is Direction.INPUT:
        return "check the data before it is batched: `torch.isfinite(x).all()`; drop or fill what is missing"
    if origin.direction is Direction.PARAMETER:
        return "an update or an initialisation made it so: clip the gradients, lower the learning rate, check `init`"
    if origin.direction is Direction.LOSS:
        return _of_loss(origin)
    if origin.direction is Direction.UNKNOWN:
        return "measure every step (`trace(model, every=1)`) to see in which module it begins"
    return _of_operation(origin)


def _of_operation(origin: Origin) -> str:
    op = origin.op.removesuffix("_")
    half = any(one.dtype == "float16" for one in origin.culprits)
    largest = max((one.largest for one in origin.culprits), default=0.0)
    if half and largest > _LARGEST_HALF / 100 and not any(one.zeros for one in origin.culprits[:1] if op in _HINTS):
        return _HALF if origin.direction is Direction.FORWARD else _HALF_BACK
    if op in _HINTS:
        return _HINTS[op]
    if origin.direction is Direction.FORWARD and any(one.nonfinite for one in origin.culprits):
        return _GIVEN
    return _OVERFLOW


def _of_loss(origin: Origin) -> str:
    known = [op.removesuffix("_") for op in origin.ops if op.removesuffix("_") in _HINTS]
    if known:
        return f"in the loss, {known[0]}: {_HINTS[known[0]]}"
    if any(one.zeros for one in origin.culprits):
        return "the output holds zeros: look in the loss for a log, a division, a square root or a norm of them"
    return "look at what the loss does with the output: log of 0, 0/0, sqrt at 0, exp of large values, empty selections"
