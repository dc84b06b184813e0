"""Axes through operations entry by entry, reductions and norms, and through operations that have no rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tensorscope.live.postmortem.axes import Axes, Axis, preferred
from tensorscope.live.postmortem.follow_operation import OddOperationError, Operation, position, without

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tensorscope.live.postmortem.follow_operation import Follow


def broadcast(call: Operation, *operands: Axes) -> Axes:
    """Axes of operands laid over each other, the last ones aligned; a size of 1 gives way to any other.

    Raises:
        OddOperationError: they do not go together.
    """
    rank = max(map(len, operands), default=0)
    return tuple(_overlaid(call, [axes[at] for axes in operands if len(axes) >= -at]) for at in range(-rank, 0))


def _overlaid(call: Operation, axes: Sequence[Axis]) -> Axis:
    wide = [axis for axis in axes if axis.size != 1]
    if len({axis.size for axis in wide}) > 1:
        raise OddOperationError(f"{call.op}: {[axis.size for axis in axes]}")
    return preferred(wide or axes)


def carry(call: Operation) -> list[Axes]:
    """The first operand's axes."""
    return [call.operand(0, "input" if "input" in call.kwargs else "self")] * len(call.shapes)


def overlay(call: Operation) -> list[Axes]:
    """All operands' axes laid over each other."""
    return [broadcast(call, *call.operands())] * len(call.shapes)


def by_default(call: Operation) -> list[Axes]:
    """What shapes alone say, for operations without a rule."""
    operands = call.operands()
    return [_by_default(call, operands, shape) for shape in call.shapes]


def _by_default(call: Operation, operands: list[Axes], shape: tuple[int, ...]) -> Axes:
    try:
        axes = broadcast(call, *operands)
        if sizes(axes) == shape:
            return axes
    except OddOperationError:
        pass
    same = [axes for axes in operands if sizes(axes) == shape]
    return same[0] if same else tuple(_only(call, operands, size) for size in shape)


def _only(call: Operation, operands: list[Axes], size: int) -> Axis:
    if not operands:
        return call.literal(size)
    found = list(dict.fromkeys(axis for axes in operands for axis in axes if axis.size == size != 1))
    return found[0] if len(found) == 1 else call.unknown(size)


def sizes(axes: Axes) -> tuple[int, ...]:
    """The shape that has these axes."""
    return tuple(axis.size for axis in axes)


# -- reductions ------------------------------------------------------------------------------------------------------

_DIM_SECOND = """
    sum mean prod max min amax amin aminmax argmax argmin any all var std var_mean std_mean median nanmedian mode
    logsumexp nansum nanmean count_nonzero linalg_vecdot
"""
_DIM_THIRD = """
    norm kthvalue quantile nanquantile linalg_vector_norm linalg_norm
"""


def _reduced(call: Operation, place: int) -> list[Axes]:
    axes = call.operand()
    if isinstance(call.value(1, "other"), torch.Tensor):
        return overlay(call)  # `torch.max(one, other)`
    dim = call.kwargs.get("axis", call.value(place, "dim"))
    dims = _dims(dim, len(axes))
    return [tuple(_left(call, axes, dims, keeps=len(shape) == len(axes))) for shape in call.shapes]


def _dims(dim: Any, rank: int) -> list[int]:
    if dim is None or isinstance(dim, bool) or (isinstance(dim, list | tuple) and not dim):
        return list(range(rank))
    return [position(entry, rank) for entry in (dim if isinstance(dim, list | tuple) else [dim])]


def _left(call: Operation, axes: Axes, dims: list[int], *, keeps: bool) -> Axes:
    if keeps:
        return tuple(call.fixed(1) if index in dims else axis for index, axis in enumerate(axes))
    return without(axes, *dims)


def _top(call: Operation) -> list[Axes]:
    axes, count = call.operand(), int(call.value(1, "k"))
    dim = position(call.value(2, "dim", -1), len(axes))
    return [(*axes[:dim], call.literal(count), *axes[dim + 1 :])] * len(call.shapes)


def _distance(call: Operation) -> list[Axes]:
    """Similarities along an axis: that one is gone."""
    axes = broadcast(call, *call.operands()[:2])
    dim = call.value(2, "dim", 1 if call.op == "cosine_similarity" else -1)
    return [without(axes, position(dim, len(axes)))]


def _second(call: Operation) -> list[Axes]:
    """The shape of the second operand: places that were looked up."""
    return [call.axes(call.args[1] if len(call.args) > 1 else next(iter(call.kwargs.values())))]


def _loss(call: Operation) -> list[Axes]:
    """A loss for each entry: the axis of classes is gone."""
    if call.shapes == [()]:
        return [()]
    axes = call.operand()
    return [without(axes, 1 if len(axes) > 1 else 0)]


def _sampled(call: Operation) -> list[Axes]:
    axes, count = call.operand(), int(call.value(1, "num_samples"))
    return [(*axes[:-1], call.literal(count))]


def _shorter(call: Operation) -> list[Axes]:
    from tensorscope.live.postmortem.follow_operation import replaced, strided

    axes, order = call.operand(), int(call.value(1, "n", 1))
    if call.value(3, "prepend") is not None or call.value(4, "append") is not None:
        raise OddOperationError("diff with more on its ends")
    dim = position(call.value(2, "dim", -1), len(axes))
    return [replaced(axes, dim, call.window(axes[dim], strided(-order - 1, 1)))]


_CARRIED = """
    batch_norm instance_norm layer_norm group_norm rms_norm local_response_norm normalize renorm prelu scatter
    scatter_add scatter_reduce index_add index_copy index_fill index_put index_reduce masked_scatter put
    fill_diagonal softmax log_softmax softmin gumbel_softmax cumsum cumprod cummax cummin logcumsumexp sort argsort
    flip fliplr flipud roll dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout rrelu tril
    triu clone contiguous detach to type_as copy fill zero zeros_like ones_like empty_like full_like rand_like
    randn_like randint_like inverse cholesky linalg_inv linalg_cholesky matrix_exp channel_shuffle bernoulli
"""
_OVERLAID = """
    add sub mul div floor_divide remainder pow eq ne lt le gt ge where masked_fill maximum minimum lerp addcmul
    addcdiv atan2 fmod logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor clamp rsub cross
    logaddexp hypot true_divide subtract multiply divide isclose
"""

RULES: dict[str, Follow] = {
    **dict.fromkeys(_CARRIED.split(), carry),
    **dict.fromkeys(_OVERLAID.split(), overlay),
    **dict.fromkeys(_DIM_SECOND.split(), lambda call: _reduced(call, 1)),
    **dict.fromkeys(_DIM_THIRD.split(), lambda call: _reduced(call, 2)),
    **dict.fromkeys(("cosine_similarity", "linalg_vecdot"), _distance),
    **dict.fromkeys(("cross_entropy", "nll_loss"), _loss),
    "topk": _top,
    "searchsorted": _second,
    "multinomial": _sampled,
    "diff": _shorter,
}
