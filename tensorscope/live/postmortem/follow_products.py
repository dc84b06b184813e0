"""Axes through matrix products and everything built on them: linear layers, attention, recurrent layers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from tensorscope.live.postmortem.axes import Axes, Axis, preferred
from tensorscope.live.postmortem.follow_elementwise import broadcast
from tensorscope.live.postmortem.follow_operation import OddOperationError, Operation, position, without

if TYPE_CHECKING:
    from tensorscope.live.postmortem.follow_operation import Follow


def _linear(call: Operation) -> list[Axes]:
    axes, weight = call.operand(0, "input"), call.operand(1, "weight")
    if len(axes) == 2:
        call.known.name_inputs(axes, ("batch", "features"))
    return [(*axes[:-1], *weight[:-1])]


def _bilinear(call: Operation) -> list[Axes]:
    one, other, weight = call.operand(0, "input1"), call.operand(1, "input2"), call.operand(2, "weight")
    return [(*broadcast(call, one[:-1], other[:-1]), weight[0])]


def _matmul(call: Operation) -> list[Axes]:
    one, other = call.operands()[:2]
    return [multiplied(call, one, other)]


def multiplied(call: Operation, one: Axes, other: Axes) -> Axes:
    """Axes of a matrix product; a vector counts as a row on the left and as a column on the right."""
    if not one or not other:
        raise OddOperationError("product with a number")
    rows, columns = one[-2:-1], other[-1:] if len(other) > 1 else ()
    return (*broadcast(call, one[:-2], other[:-2]), *rows, *columns)


def _added_product(call: Operation) -> list[Axes]:
    _, one, other = call.operands()[:3]
    if call.op == "addbmm":
        one, other = one[1:], other[1:]
    return [(*one, *other)] if call.op == "addr" else [multiplied(call, one, other)]


def _outer(call: Operation) -> list[Axes]:
    one, other = call.operands()[:2]
    return [(*one, *other)]


def _inner(call: Operation) -> list[Axes]:
    one, other = call.operands()[:2]
    return [(*one[:-1], *other[:-1])]


def _chain(call: Operation) -> list[Axes]:
    operands = call.operands()
    return [(*operands[0][:-1], *operands[-1][1:])]


def _distances(call: Operation) -> list[Axes]:
    one, other = call.operands()[:2]
    return [(*broadcast(call, one[:-2], other[:-2]), one[-2], other[-2])]


def _tensordot(call: Operation) -> list[Axes]:
    one, other = call.operands()[:2]
    dims = call.value(2, "dims", 2)
    if isinstance(dims, torch.Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        left, right = list(range(len(one) - dims, len(one))), list(range(dims))
    else:
        left, right = ([entry] if isinstance(entry, int) else list(entry) for entry in dims)
    left, right = [position(d, len(one)) for d in left], [position(d, len(other)) for d in right]
    return [(*without(one, *left), *without(other, *right))]


# -- einsum ----------------------------------------------------------------------------------------------------------


def _einsum(call: Operation) -> list[Axes]:
    equation, operands = call.args[0], call.operands()
    if not isinstance(equation, str):
        raise OddOperationError("einsum by numbers")
    given, arrow, result = equation.replace(" ", "").partition("->")
    found: dict[str, list[Axis]] = {}
    spread: list[Axes] = []
    for letters, axes in zip(given.split(","), operands, strict=True):
        spread.append(_bind(letters, axes, found))
    if not arrow:
        once = sorted(letter for letter in set(re.sub(r"\W", "", given)) if given.count(letter) == 1)
        result = ("..." if "..." in given else "") + "".join(once)
    before, dots, after = result.partition("...")
    middle = broadcast(call, *spread) if dots else ()
    return [(*(_bound(found, a) for a in before), *middle, *(_bound(found, a) for a in after))]


def _bind(letters: str, axes: Axes, found: dict[str, list[Axis]]) -> Axes:
    before, dots, after = letters.partition("...")
    if not dots and len(before) != len(axes):
        raise OddOperationError(f"einsum {letters}")
    stop = len(axes) - len(after)
    for letter, axis in [*zip(before, axes, strict=False), *zip(after, axes[stop:] if after else (), strict=True)]:
        found.setdefault(letter, []).append(axis)
    return axes[len(before) : stop] if dots else ()


def _bound(found: dict[str, list[Axis]], letter: str) -> Axis:
    axes = found[letter]
    return preferred([axis for axis in axes if axis.size != 1] or axes)


# -- attention -------------------------------------------------------------------------------------------------------

_HEADS = {4: ("batch", "heads", "seq", "head_dim"), 3: ("batch", "seq", "dim")}


def _attended(call: Operation) -> list[Axes]:
    query, key, value = call.operand(0, "query"), call.operand(1, "key"), call.operand(2, "value")
    for axes in (query, key, value):
        call.known.name_inputs(axes, _HEADS.get(len(axes), ()))
    return [(*broadcast(call, query[:-2], key[:-2], value[:-2]), query[-2], value[-1])]


def _multi_head(call: Operation) -> list[Axes]:
    query, key = call.operand(0, "query"), call.operand(1, "key")
    projection = call.operand(11, "out_proj_weight")
    for axes in (query, key):
        call.known.name_inputs(axes, ("seq", "batch", "dim") if len(axes) == 3 else ("seq", "dim"))
    attended = (*query[:-1], projection[0])
    if len(call.shapes) == 1:
        return [attended]
    more = int(call.value(7, "bias_k") is not None) + int(bool(call.value(9, "add_zero_attn")))
    heads = () if call.value(23, "average_attn_weights", True) else (call.fixed(call.value(4, "num_heads"), "heads"),)
    return [attended, (*query[1:-1], *heads, query[0], call.longer(key[0], more))]


# -- recurrent layers ------------------------------------------------------------------------------------------------


def _recurrent(call: Operation) -> list[Axes]:
    """Outputs of all steps, then the last hidden state and, of an LSTM, the last cell state."""
    packed = isinstance(call.args[3], list | tuple)  # (data, sizes of its batches, state, weights, …)
    state, weights = call.args[2:4] if packed else call.args[1:3]
    layers, both = (call.args[5], call.args[8]) if packed else (call.args[4], call.args[7])
    axes = call.operand()
    hidden = call.axes(weights[1])[1]  # weights from the hidden state: (gates · cell, hidden)
    width = call.product([call.fixed(2, "directions"), hidden]) if both else hidden
    depth = call.fixed(layers * (1 + bool(both)), "layers and directions" if both else "layers")
    batch = call.axes(state[0] if call.op == "lstm" else state)[1] if packed else _batch(call, axes)
    last = [(depth, batch, hidden), (depth, batch, _cell_width(call, call.axes(weights[0])[0], hidden))]
    return [(*axes[:-1], width), *last[: len(call.shapes) - 1]]


def _batch(call: Operation, axes: Axes) -> Axis:
    first = bool(call.args[8])
    call.known.name_inputs(axes, ("batch", "seq", "dim") if first else ("seq", "batch", "dim"))
    return axes[0 if first else 1]


def _cell_width(call: Operation, gates: Axis, hidden: Axis) -> Axis:
    """An LSTM whose output is projected has cells of another size."""
    return hidden if call.shapes[-1][-1] == hidden.size or not gates.parts else gates.parts[-1]


def _cell(call: Operation) -> list[Axes]:
    axes = call.operand()
    hidden = call.axes(call.args[3])[1]  # weights from the hidden state: (gates · hidden, hidden)
    return [(*axes[:-1], hidden)] * len(call.shapes)


RULES: dict[str, Follow] = {
    "linear": _linear,
    "bilinear": _bilinear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot", "vdot", "linalg_matmul"), _matmul),
    **dict.fromkeys(("addmm", "baddbmm", "addmv", "addbmm", "addr"), _added_product),
    **dict.fromkeys(("outer", "ger"), _outer),
    "inner": _inner,
    **dict.fromkeys(("linalg_multi_dot", "chain_matmul"), _chain),
    "cdist": _distances,
    "tensordot": _tensordot,
    "einsum": _einsum,
    "scaled_dot_product_attention": _attended,
    "multi_head_attention_forward": _multi_head,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _cell),
}
