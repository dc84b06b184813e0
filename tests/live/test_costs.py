"""What calls of torch functions cost, against torch's own counter and by hand; and bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from graph_models import GPT, ResNet, Tagger
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from tensorscope.events import Shape
from tensorscope.live.costs import call_flops
from tensorscope.live.transcript import name_of

if TYPE_CHECKING:
    from collections.abc import Callable


class Tally(TorchFunctionMode):
    """Adds up what the calls cost that are made while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_function__(self, func, types, args=(), kwargs=None) -> Any:
        result = func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            self.total += call_flops(name_of(func), args, kwargs or {}, result)
        return result


def tallied(program: Callable[[], object]) -> int:
    with Tally() as tally:
        program()
    return tally.total


def counted(program: Callable[[], object]) -> int:
    """By torch's own counter, which sees the aten operations."""
    with FlopCounterMode(display=False) as counter, nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        program()
    return int(counter.get_total_flops())


def r(*sizes: int) -> Tensor:
    return torch.randn(sizes)


A, B, C = r(3, 4), r(4, 5), r(3, 5)
P, Q = r(2, 3, 4), r(2, 4, 5)
LIKE_TORCH = {
    "linear": lambda: F.linear(r(7, 4), r(5, 4), r(5)),
    "linear of a sequence, by keyword": lambda: F.linear(input=r(2, 7, 4), weight=r(5, 4)),
    "matmul": lambda: A @ B,
    "matmul that broadcasts": lambda: r(6, 1, 3, 4) @ r(2, 4, 5),
    "matmul by a matrix": lambda: torch.matmul(P, other=B),
    "linalg.matmul": lambda: torch.linalg.matmul(A, B),
    "mm": lambda: A.mm(B),
    "bmm": lambda: torch.bmm(P, Q),
    "addmm": lambda: torch.addmm(C, A, B),
    "baddbmm": lambda: torch.baddbmm(r(2, 3, 5), P, Q),
    "into what is there": lambda: torch.mm(A, B, out=torch.empty(3, 5)),
    "inner": lambda: torch.inner(A, r(6, 4)),
    "tensordot": lambda: torch.tensordot(r(2, 3, 4), r(3, 4, 5), dims=2),
    "tensordot over far axes": lambda: torch.tensordot(r(2, 3, 4), r(4, 5, 2), dims=([0, 2], [2, 0])),
    "einsum": lambda: torch.einsum("bik, bkj -> bij", P, Q),
    "einsum without an arrow": lambda: torch.einsum("ij,jk", A, B),
    "einsum with an ellipsis": lambda: torch.einsum("...ij,...jk->...ik", r(6, 1, 3, 4), r(2, 4, 5)),
    "einsum of heads": lambda: torch.einsum("bqhd,bkhd->bhqk", r(2, 5, 3, 4), r(2, 6, 3, 4)),
    "einsum of three": lambda: torch.einsum("ab,bc,cd->ad", A, B, r(5, 6)),
    "einsum of lists": lambda: torch.einsum(A, [0, 1], B, [1, 2], [0, 2]),
    "einsum of a list": lambda: torch.einsum("ij,jk->ik", [A, B]),
    "einsum that sums one alone": lambda: torch.einsum("ijm,jk->ik", r(3, 4, 7), B),
    "einsum of one": lambda: torch.einsum("ij->ji", A),
    "einsum with nothing summed": lambda: torch.einsum("i,j->ij", r(3), r(4)),
    "einsum of a diagonal": lambda: torch.einsum("ii,ij->ij", r(4, 4), B),
    "einsum over an axis of one": lambda: torch.einsum("ij,jk->ik", r(3, 1), B),
    "conv1d": lambda: F.conv1d(r(2, 4, 12), r(8, 4, 3)),
    "conv2d": lambda: F.conv2d(r(2, 3, 12, 14), weight=r(8, 3, 5, 5), bias=r(8)),
    "conv2d of one image": lambda: F.conv2d(r(3, 12, 14), r(8, 3, 5, 5)),
    "conv2d, strided, in groups": lambda: F.conv2d(r(2, 4, 12, 12), r(8, 2, 3, 3), None, 2, 1, groups=2),
    "conv2d, depthwise, dilated": lambda: F.conv2d(r(2, 4, 12, 12), r(4, 1, 3, 3), dilation=2, groups=4),
    "conv3d": lambda: F.conv3d(r(2, 3, 5, 6, 7), r(4, 3, 2, 2, 2)),
    "transposed": lambda: F.conv_transpose2d(r(2, 4, 6, 6), r(4, 8, 2, 2), stride=2),
    "transposed, in groups": lambda: F.conv_transpose1d(r(2, 4, 6), r(4, 3, 5), stride=2, groups=2),
    "transposed volumes": lambda: F.conv_transpose3d(r(1, 2, 3, 3, 3), r(2, 3, 2, 2, 2), padding=1),
    "convolution": lambda: torch.convolution(r(2, 4, 9), r(8, 4, 3), None, [1], [0], [1], False, [0], 1),
    "convolution, transposed": lambda: torch.convolution(r(2, 4, 9), r(4, 8, 3), None, [2], [0], [1], True, [0], 1),
    "attention": lambda: F.scaled_dot_product_attention(r(2, 3, 5, 8), r(2, 3, 7, 8), value=r(2, 3, 7, 6)),
    "attention, causal": lambda: F.scaled_dot_product_attention(*[r(2, 3, 5, 8)] * 3, is_causal=True),
    "attention, grouped": lambda: F.scaled_dot_product_attention(
        r(2, 4, 5, 8), r(2, 2, 7, 8), r(2, 2, 7, 8), enable_gqa=True
    ),
    "element by element": lambda: F.gelu(A * 2 + A).softmax(-1).sum(),
    "nothing at all": lambda: torch.mm(torch.empty(0, 4), B),
}


@pytest.mark.parametrize("program", LIKE_TORCH.values(), ids=LIKE_TORCH.keys())
def test_a_call_costs_what_torch_counts(program: Callable[[], object]) -> None:
    assert tallied(program) == counted(program)


BY_HAND = {
    "addmm in place": (lambda: C.clone().addmm_(A, B), 2 * 3 * 4 * 5),  # which torch's counter leaves out
    "mv": (lambda: torch.mv(A, r(4)), 2 * 12),
    "matmul by a vector": (lambda: A @ r(4), 2 * 12),
    "a vector by a matrix": (lambda: r(4) @ B, 2 * 20),
    "dot": (lambda: torch.dot(r(4), r(4)), 2 * 4),
    "addmv": (lambda: torch.addmv(r(3), A, r(4)), 2 * 12),
    "addbmm": (lambda: torch.addbmm(C, P, Q), 2 * 2 * 3 * 4 * 5),
    "bilinear": (lambda: F.bilinear(r(6, 3), r(6, 4), r(5, 3, 4)), 2 * 6 * 5 * 3 * (4 + 1)),
    "a sparse matrix": (lambda: torch.sparse.mm(torch.eye(4).to_sparse(), B), 2 * 4 * 5),
    "lstm": (lambda: nn.LSTM(3, 4)(r(7, 2, 3)), 2 * 14 * 16 * (3 + 4)),
    "lstm, two ways, two layers": (
        lambda: nn.LSTM(3, 4, 2, bidirectional=True, batch_first=True)(r(2, 7, 3)),
        2 * 14 * 2 * (16 * 7 + 16 * (8 + 4)),
    ),
    "lstm that projects": (lambda: nn.LSTM(3, 4, proj_size=2)(r(7, 2, 3)), 2 * 14 * (16 * (3 + 2) + 4 * 2)),
    "lstm of sequences of several lengths": (
        lambda: nn.LSTM(3, 4)(pack_padded_sequence(r(7, 2, 3), [7, 4])),
        2 * 11 * 16 * (3 + 4),
    ),
    "gru": (lambda: nn.GRU(3, 4)(r(7, 2, 3)), 2 * 14 * 12 * 7),
    "rnn": (lambda: nn.RNN(3, 4)(r(7, 2, 3)), 2 * 14 * 4 * 7),
    "rnn of rectifiers": (lambda: nn.RNN(3, 4, nonlinearity="relu")(r(7, 3)), 2 * 7 * 4 * 7),
    "lstm cell": (lambda: nn.LSTMCell(3, 4)(r(2, 3)), 2 * 2 * 16 * 7),
    "gru cell": (lambda: nn.GRUCell(3, 4)(r(3)), 2 * 12 * 7),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(("program", "flops"), BY_HAND.values(), ids=BY_HAND.keys())
def test_a_call_costs_what_is_worked_out_by_hand(program: Callable[[], object], flops: int) -> None:
    assert tallied(program) == flops


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("options", [{}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": 6, "vdim": 10}])
def test_an_attention_layer_costs_what_torch_counts(need_weights: bool, options: dict[str, Any]) -> None:
    layer = nn.MultiheadAttention(16, 4, **options)
    key, value = r(7, 2, options.get("kdim", 16)), r(7, 2, options.get("vdim", 16))
    query = r(5, 2, 16)
    assert tallied(lambda: layer(query, key, value, need_weights=need_weights)) == counted(
        lambda: layer(query, key, value, need_weights=need_weights)
    )


MODELS = {
    "mlp": (nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)), (r(5, 8),)),
    "resnet": (ResNet((1, 1, 1, 1), 4), (r(2, 3, 64, 64),)),
    "gpt": (GPT(2, 16, 2, 50), (torch.randint(50, (2, 6)),)),
    "encoder and decoder": (nn.Transformer(16, 2, 1, 1, 32, batch_first=True), (r(2, 5, 16), r(2, 4, 16))),
    "encoder, batch first": (nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), (r(2, 5, 16),)),
}


@pytest.mark.parametrize("way", ["train", "eval"])
@pytest.mark.parametrize(("model", "inputs"), MODELS.values(), ids=MODELS.keys())
def test_a_model_costs_what_torch_counts(model: nn.Module, inputs: tuple[Tensor, ...], way: str) -> None:
    getattr(model, way)()
    total = tallied(lambda: model(*inputs))
    assert total == counted(lambda: model(*inputs)) > 0


def test_a_tagger_costs_its_recurrent_layer_and_its_head() -> None:
    model = Tagger()
    tokens = torch.randint(10, (2, 6))
    recurrent = sum(
        2 * 12 * w.numel() for m in model.modules() if isinstance(m, nn.RNNBase) for w in m.parameters() if w.ndim == 2
    )
    heads = sum(2 * 12 * m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    assert tallied(lambda: model(tokens)) == recurrent + heads > 0


Labels = st.lists(st.sampled_from("abcd"), max_size=4, unique=True)


@given(Labels, Labels, st.data())
def test_any_product_of_two_by_einsum_costs_what_torch_counts(
    left: list[str], right: list[str], data: st.DataObject
) -> None:
    sizes = {label: data.draw(st.integers(1, 3)) for label in "abcd"}
    out = data.draw(
        st.permutations(sorted({*left, *right})).flatmap(lambda a: st.integers(0, len(a)).map(lambda n: a[:n]))
    )
    equation = f"{''.join(left)},{''.join(right)}->{''.join(out)}"
    operands = [r(*(sizes[label] for label in labels)) for labels in (left, right)]
    assert tallied(lambda: torch.einsum(equation, *operands)) == counted(lambda: torch.einsum(equation, *operands))


@pytest.mark.parametrize("name", ["linear", "einsum", "lstm", "convolution", "matmul", "multi_head_attention_forward"])
@pytest.mark.parametrize(
    "args", [(), (None,) * 8, (r(3), 4, "x"), (r(0), r(0), [r(0)], [1])], ids=["none", "Nones", "odd", "empty"]
)
def test_arguments_that_nobody_expects_cost_nothing_and_raise_nothing(name: str, args: tuple[Any, ...]) -> None:
    assert call_flops(name, args, {}, None) == 0
    assert call_flops(name, args, {"weight": 3}, r(2)) >= 0


DTYPES = sorted({str(dtype) for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)})


@pytest.mark.parametrize("name", DTYPES)
def test_a_shape_takes_the_bytes_that_its_tensor_would(name: str) -> None:
    dtype = getattr(torch, name.removeprefix("torch."))
    assert Shape(0, (3, 5), dtype=name.removeprefix("torch.")).nbytes == 15 * dtype.itemsize


@pytest.mark.parametrize(
    "shape", [Shape(0, (2, -1), dtype="float32"), Shape(0, (2,)), Shape(0, (2,), dtype="odd")], ids=str
)
def test_a_shape_whose_bytes_are_not_known_takes_none(shape: Shape) -> None:
    assert shape.nbytes == 0


def test_a_scalar_takes_one_element_and_an_empty_tensor_nothing() -> None:
    assert (Shape(0, (), dtype="bfloat16").nbytes, Shape(0, (0, 3), dtype="int64").nbytes) == (2, 0)
