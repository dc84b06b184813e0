"""What a check is given: dims and tensors, alone and in containers."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from reference_models import SimpleCNN
from tensorscope.errors import DimsError
from tensorscope.live.rehearsal.inputs import given, split_dtype


class Taking(nn.Module):
    """A forward with several parameters."""

    def forward(self, x, y=None, *rest, mode: str = "mean", mask=None):
        return x


@dataclass
class Batch:
    """Inputs in a dataclass."""

    images: Tensor
    scale: int = 2


def test_names_are_sizes_that_may_vary_and_numbers_are_not() -> None:
    taken = given(Taking(), ("batch=4 3 height=28 width",), {})
    assert taken.sizes == {"batch": 4, "height": 28, "width": None}
    assert taken.open == ("width",)
    assert taken.slots[0].shape({"batch": 4, "height": 28, "width": 5}) == [4, 3, 28, 5]


def test_a_name_means_the_same_size_in_every_input() -> None:
    taken = given(Taking(), ("batch=4 seq", "batch seq+1"), {})
    assert taken.sizes == {"batch": 4, "seq": None}
    assert taken.slots[1].shape({"batch": 4, "seq": 9}) == [4, 10]


@pytest.mark.parametrize(
    ("text", "dims", "dtype"),
    [
        ("batch seq", "batch seq", None),
        ("int64 batch seq", "batch seq", torch.int64),
        ("int64[batch seq]", "batch seq", torch.int64),
        ("Int[batch seq]", "batch seq", torch.int64),
        ("bool[4 4]", "4 4", torch.bool),
        ("float16 2 2", "2 2", torch.float16),
        ("int64", "", torch.int64),
    ],
)
def test_a_dtype_stands_in_front(text: str, dims: str, dtype: torch.dtype | None) -> None:
    found, kind = split_dtype(text)
    assert (found.strip(), kind) == (dims, dtype)


def test_tensors_get_a_symbol_for_every_axis_named_by_the_contract() -> None:
    taken = given(SimpleCNN(), (torch.zeros(2, 1, 28, 28),), {})
    assert taken.sizes == {"batch": 2, "channels": 1, "height": 28, "width": 28}
    assert taken.slots[0].name == "images"


def test_tensors_without_a_contract_are_named_by_their_rank() -> None:
    taken = given(Taking(), (torch.zeros(2, 3), torch.zeros(2, 3)), {"mask": torch.zeros(6, 1, 1, 1, 1, 1)})
    assert taken.slots[0].axes == ("batch", "features")
    assert taken.slots[1].axes == ("y.batch", "y.features")
    assert taken.slots[2].axes == tuple(f"mask.{axis}" for axis in range(6))


def test_whole_numbers_keep_their_range() -> None:
    slot = given(Taking(), (torch.tensor([[3, 7], [1, 2]]),), {}).slots[0]
    assert (slot.axes, slot.range) == (("batch", "seq"), (1, 7))
    assert given(Taking(), (torch.zeros(0, 2, dtype=torch.int64),), {}).slots[0].range is None


def test_containers_and_dataclasses_are_looked_into_and_made_again() -> None:
    taken = given(Taking(), ({"a": "batch 3", "b": [torch.zeros(2, 2), 5]}, Batch(torch.ones(2, 4))), {})
    args, kwargs, tensors = taken.made(taken.sizes | {"batch": 6})
    assert args[0]["a"].shape == (6, 3)
    assert args[0]["b"][1] == 5
    assert isinstance(args[1], Batch)
    assert args[1].images.shape == (2, 4)
    assert len(tensors) == 3
    assert kwargs == {}


def test_a_text_parameter_takes_texts_that_are_no_dims() -> None:
    taken = given(Taking(), ("batch",), {"mode": "sum"})
    assert taken.kwargs["mode"] == "sum"
    assert [slot.name for slot in taken.slots] == ["x"]


def test_a_tensor_keeps_the_order_of_its_strides() -> None:
    x = torch.zeros(2, 3, 4).transpose(1, 2)
    taken = given(Taking(), (x,), {})
    assert taken.made(taken.sizes)[2][0].stride() == x.stride()


@pytest.mark.parametrize(
    ("dims", "text"),
    [
        (("batch ...",), "`...` in `batch ...` leaves the number of axes open"),
        (("batch=3 seq", "batch=4"), "`batch` is 3 and 4\n  in  batch=4\n\nhint: one name has one size"),
        (("flot32[batch]",), "`flot32` in `flot32[batch]` is no dtype\n\nhint: write `int64[batch seq]`"),
        (("batch 2*k",), "`2*k` needs the size of `k`\n\nhint: name an axis `k`"),
    ],
)
def test_what_cannot_be_read_is_said(dims: tuple[str, ...], text: str) -> None:
    with pytest.raises(DimsError) as error:
        given(Taking(), dims, {})
    assert text in str(error.value)
