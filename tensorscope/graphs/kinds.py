"""What kind of thing an operation does, and how that looks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class OpKind(StrEnum):
    """Families of operations, told apart by colour and outline."""

    INPUT = "input"
    OUTPUT = "output"
    WEIGHTED = "weighted"  # products of matrices: linear, convolution, attention, embedding, recurrence
    ACTIVATION = "activation"
    NORM = "norm"
    REDUCTION = "reduction"
    SHAPE = "shape"  # moves elements, computes nothing
    MADE = "made"  # out of nothing: constants, noise
    RANDOM = "random"
    ARITHMETIC = "arithmetic"
    MODULE = "module"


@dataclass(frozen=True, slots=True)
class Look:
    """Fill, outline and style of a node."""

    fill: str
    line: str
    style: str = "filled"
    text: str = "#1f2328"


# Tints of hues that stay apart for colour-blind eyes (after Okabe and Ito), pale enough for black text.
LOOKS = {
    OpKind.INPUT: Look("#3d4550", "#3d4550", "filled,rounded", "#ffffff"),
    OpKind.OUTPUT: Look("#3d4550", "#3d4550", "filled,rounded", "#ffffff"),
    OpKind.WEIGHTED: Look("#d6e6f5", "#2f6ea5"),
    OpKind.ACTIVATION: Look("#fde6c8", "#c77f1a", "filled,rounded"),
    OpKind.NORM: Look("#eadff0", "#8a5fa8"),
    OpKind.REDUCTION: Look("#d5efe3", "#2b8a64"),
    OpKind.SHAPE: Look("#ffffff", "#b6bcc4", "filled", "#57606a"),
    OpKind.MADE: Look("#ffffff", "#8a929c", "filled,dashed"),
    OpKind.RANDOM: Look("#ffffff", "#8a929c", "filled,dotted", "#57606a"),
    OpKind.ARITHMETIC: Look("#eef0f2", "#7a828c"),
    OpKind.MODULE: Look("#e6eef6", "#57606a", "filled,bold"),
}

SYMBOLS = {
    "add": "+",
    "add_": "+",
    "sub": "−",
    "mul": "×",
    "mul_": "×",
    "div": "÷",
    "matmul": "@",
    "bmm": "@",
    "mm": "@",
}

_NAMES = {
    OpKind.WEIGHTED: """
        addmm baddbmm bilinear bmm dot einsum embedding embedding_bag gru gru_cell linear lstm lstm_cell
        matmul mm multi_head_attention_forward outer rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell
        scaled_dot_product_attention
    """,
    OpKind.ACTIVATION: """
        celu elu gelu glu hardsigmoid hardswish hardtanh leaky_relu log_softmax logsigmoid mish prelu relu
        relu6 relu_ rrelu selu sigmoid sigmoid_ silu softmax softmin softplus softsign tanh tanh_ tanhshrink
        threshold
    """,
    OpKind.NORM: """
        batch_norm group_norm instance_norm layer_norm local_response_norm normalize rms_norm
    """,
    OpKind.REDUCTION: """
        all amax amin any argmax argmin binary_cross_entropy_with_logits cdist count_nonzero cross_entropy
        cumsum kl_div l1_loss logsumexp max mean median min mode mse_loss nll_loss norm prod std sum topk var
    """,
    OpKind.SHAPE: """
        H T bfloat16 cat chunk clone concat contiguous data detach double expand expand_as flatten flip float
        gather getitem half hsplit index_select mH mT movedim narrow pad permute repeat repeat_interleave
        reshape reshape_as roll select split squeeze stack swapaxes t tile to transpose type_as unbind
        unflatten unfold unsqueeze view view_as
    """,
    OpKind.MADE: """
        arange as_tensor empty empty_like eye full full_like linspace new_empty new_full new_ones new_tensor
        new_zeros normal ones ones_like rand rand_like randint randn randn_like tensor zeros zeros_like
    """,
    OpKind.RANDOM: """
        alpha_dropout bernoulli dropout dropout1d dropout2d dropout3d feature_alpha_dropout multinomial
    """,
}
_KINDS = {name: kind for kind, names in _NAMES.items() for name in names.split()}


def kind_of(name: str) -> OpKind:
    """The kind of an operation, by its name."""
    if "conv" in name:
        return OpKind.WEIGHTED
    if "pool" in name:
        return OpKind.REDUCTION
    return _KINDS.get(name, OpKind.ARITHMETIC)
