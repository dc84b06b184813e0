"""What the shape decorator says when a tensor contradicts its contract."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tensorscope import ShapeError, shapes

zeros = torch.zeros


class SimpleCNN(nn.Module):
    @shapes("batch channels height width -> batch classes")
    def forward(self, images):
        return images.flatten(1)[:, :10]


class Gray(nn.Module):
    @shapes("batch channels=1 height width -> batch classes")
    def forward(self, images):
        return images.flatten(1)


@shapes("batch seq dim, mask: seq seq -> batch seq dim")
def attend(x, *, mask=None):
    return x


@shapes("batch dim -> batch dim, batch, 2*dim")
def several(x, give=lambda x: (x, x[:, 0], x.new_zeros(2 * x.shape[1]))):
    return give(x)


def message(call) -> str:
    with pytest.raises(ShapeError) as caught:
        call()
    return str(caught.value)


SAID = {
    "an axis is missing": (
        lambda: SimpleCNN()(zeros(4, 28, 28)),
        """\
`SimpleCNN.forward`: `images` has 3 axes and takes 4
  expected  batch channels height width
  got       (4, 28, 28) float32
  bound     nothing yet

hint: `images.unsqueeze(0)` adds `batch`, or `images.unsqueeze(1)` adds `channels`""",
    ),
    "an axis is missing, and its size says which": (
        lambda: Gray()(zeros(4, 28, 28)),
        """\
`Gray.forward`: `images` has 3 axes and takes 4
  expected  batch channels=1 height width
  got       (4, 28, 28) float32
  bound     nothing yet

hint: `images.unsqueeze(1)` adds `channels=1`""",
    ),
    "axes are in another order": (
        lambda: Gray()(zeros(4, 28, 30, 1)),
        """\
`Gray.forward`: axis 1 of `images` is 28 and takes `channels` = 1
  expected  batch channels=1 height width
  got       (4, 28, 30, 1) float32
  bound     nothing yet

hint: `images.permute(0, 3, 1, 2)` fits, or `images.transpose(1, 3)` fits""",
    ),
    "a fixed size is another": (
        lambda: Gray()(zeros(4, 3, 28, 28, dtype=torch.bfloat16)),
        """\
`Gray.forward`: axis 1 of `images` is 3 and takes `channels` = 1
  expected  batch channels=1 height width
  got       (4, 3, 28, 28) bfloat16
  bound     nothing yet

hint: pass `images` with shape (batch, 1, height, width)""",
    ),
    "two tensors disagree": (
        lambda: attend(zeros(4, 5, 6), mask=zeros(7, 7)),
        """\
`attend`: axis 0 of `mask` is 7 and takes `seq` = 5 (from `x`)
  expected  seq seq
  got       (7, 7) float32
  bound     batch = 4, seq = 5, dim = 6 from `x`

hint: pass `mask` with shape (5, 5), or `x` with `seq` = 7""",
    ),
    "a tensor disagrees with itself": (
        lambda: shapes("side side")(lambda image: image)(zeros(5, 7)),
        """\
`<lambda>`: axis 1 of `image` is 7 and takes `side` = 5 (from `image` itself)
  expected  side side
  got       (5, 7) float32
  bound     nothing yet

hint: pass `image` with shape (side, side)""",
    ),
    "an axis too many": (
        lambda: attend(zeros(4, 5, 1, 6)),
        """\
`attend`: `x` has 4 axes and takes 3
  expected  batch seq dim
  got       (4, 5, 1, 6) float32
  bound     nothing yet

hint: `x.squeeze(2)` drops the axis of size 1, or `x.flatten(1, 2)` makes it 3 axes""",
    ),
    "a 0-d tensor is declared": (
        lambda: shapes("x: , y: a ->")(lambda x, y: x)(zeros(3, 2), zeros(1)),
        """\
`<lambda>`: `x` has 2 axes and takes 0
  expected  no axes (a 0-d tensor)
  got       (3, 2) float32
  bound     nothing yet

hint: pass `x` with shape ()""",
    ),
    "arithmetic does not come out": (
        lambda: shapes("batch dim, batch 4*dim")(lambda x, gates: x)(zeros(2, 8), zeros(2, 31)),
        """\
`<lambda>`: axis 1 of `gates` is 31 and takes `4*dim` = 32
  expected  batch 4*dim
  got       (2, 31) float32
  bound     batch = 2, dim = 8 from `x`

hint: pass `gates` with shape (2, 32)""",
    ),
    "starred axes disagree": (
        lambda: shapes("*batch dim, *batch")(lambda x, y: x)(zeros(2, 3, 8), zeros(3)),
        """\
`<lambda>`: `y` has (3,) for `*batch`, which is (2, 3) (from `x`)
  expected  *batch
  got       (3,) float32
  bound     dim = 8, *batch = (2, 3) from `x`

hint: pass `y` with shape (2, 3), or `x` with `*batch` = (3,)""",
    ),
    "broadcasting would not stretch it": (
        lambda: shapes("batch seq, #seq")(lambda x, y: x)(zeros(2, 8), zeros(3)),
        """\
`<lambda>`: axis 0 of `y` is 3 and takes `seq` = 8 or 1 (from `x`)
  expected  #seq
  got       (3,) float32
  bound     batch = 2, seq = 8 from `x`

hint: pass `y` with shape (8,), or `x` with `seq` = 3""",
    ),
    "too few axes for any of the ways out": (
        lambda: shapes("batch ... dim")(lambda x: x)(zeros(2)),
        """\
`<lambda>`: `x` has 1 axis and takes 2 or more
  expected  batch ... dim
  got       (2,) float32
  bound     nothing yet

hint: pass `x` with shape (batch, ..., dim)""",
    ),
    "the result disagrees": (
        lambda: several(zeros(2, 3), give=lambda x: (x, x[0], x)),
        """\
`several`: axis 0 of the returned tensor [1] is 3 and should be `batch` = 2 (from `x`)
  expected  batch
  got       (3,) float32
  bound     batch = 2, dim = 3 from `x`

hint: return a tensor of shape (2,), or change the declared `batch`""",
    ),
    "the result has another size than the argument": (
        lambda: shapes("batch dim -> batch")(lambda x: x[:1, 0])(zeros(2, 3)),
        """\
`<lambda>`: axis 0 of the returned tensor is 1 and should be `batch` = 2 (from `x`)
  expected  batch
  got       (1,) float32
  bound     batch = 2, dim = 3 from `x`

hint: return a tensor of shape (2,), or change the declared `batch`""",
    ),
    "the result has too few axes": (
        lambda: shapes("batch dim -> batch dim")(lambda x: x[0])(zeros(2, 3)),
        """\
`<lambda>`: the returned tensor has 1 axis and should have 2
  expected  batch dim
  got       (3,) float32
  bound     batch = 2, dim = 3 from `x`

hint: return a tensor of shape (2, 3), or change the declared `batch dim`""",
    ),
    "nothing is returned": (
        lambda: shapes("batch -> batch")(lambda x: None)(zeros(2)),
        """\
`<lambda>`: returned None and declares a tensor
  declared  `batch`
  got       None

hint: return a tensor, or change what is right of the arrow""",
    ),
    "too few tensors are returned": (
        lambda: several(zeros(2, 3), give=lambda x: (x, None)),
        """\
`several`: returned a tuple of Tensor, None and declares 3 tensors
  declared  `batch dim`, `batch`, `2*dim`
  got       a tuple of Tensor, None

hint: return 3 tensors as a tuple, or change what is right of the arrow""",
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_a_violation_is_explained(case):
    call, text = SAID[case]
    assert message(call) == text


@pytest.mark.parametrize("case", SAID)
def test_an_explanation_is_the_same_after_calls_that_fitted(case):
    SimpleCNN()(zeros(4, 1, 28, 28))
    attend(zeros(4, 5, 6), mask=zeros(5, 5))
    several(zeros(2, 3))
    call, text = SAID[case]
    assert message(call) == text
