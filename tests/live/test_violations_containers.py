"""What the shape decorator says about tensors in containers, dtypes, and what is no tensor at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypedDict

import numpy as np
import pytest
import torch
from torch import Tensor

from tensorscope import ShapeError, shapes

zeros = torch.zeros


@dataclass
class Batch:
    ids: Annotated[Tensor, "int64[batch seq]"]
    mask: Annotated[Tensor | None, "bool[batch seq]"] = None


class Scores(TypedDict):
    logits: Annotated[Tensor, "batch classes"]
    loss: Annotated[Tensor, ""]


@shapes
def scored(
    batch: Batch, *more: Annotated[Tensor, "float[batch 2*seq]"], table: Annotated[Tensor, "rows"] | None = None
) -> Scores:
    return {"logits": zeros(len(batch.ids), 5), "loss": zeros(1)}


@shapes("x: batch seq, (layers batch, layers batch) -> (batch, seq), batch")
def recurrent(x, state, give=lambda: None):
    return give()


@shapes("float[batch dim], labels: int[batch], weight: float16[dim], keep: bool[batch] -> complex64[]")
def loss(x, labels, weight=None, keep=None):
    return x.sum()


IDS = torch.zeros(2, 3, dtype=torch.int64)

SAID = {
    "fields disagree": (
        lambda: scored(Batch(IDS, zeros(2, 4) > 0)),
        """\
`scored`: axis 1 of `batch.mask` is 4 and takes `seq` = 3 (from `batch.ids`)
  expected  bool[batch seq]
  got       (2, 4) bool
  bound     batch = 2, seq = 3 from `batch.ids`

hint: pass `batch.mask` with shape (2, 3), or `batch.ids` with `seq` = 4""",
    ),
    "axes of one of many are in another order": (
        lambda: scored(Batch(IDS), zeros(2, 6), zeros(6, 2)),
        """\
`scored`: axis 0 of `more[1]` is 6 and takes `batch` = 2 (from `batch.ids`)
  expected  float[batch 2*seq]
  got       (6, 2) float32
  bound     batch = 2, seq = 3 from `batch.ids`

hint: `more[1].transpose(0, 1)` fits""",
    ),
    "another dtype in a container": (
        lambda: scored(Batch(IDS.int())),
        """\
`scored`: `batch.ids` is int32 and takes int64
  expected  int64[batch seq]
  got       (2, 3) int32
  bound     nothing yet

hint: `batch.ids.long()` is int64""",
    ),
    "a field that is None": (
        lambda: scored(Batch(None)),
        """\
`scored`: `batch.ids` is None and takes a tensor
  expected  int64[batch seq]
  got       None
  bound     nothing yet

hint: pass a tensor, or declare `batch.ids` so that it may be None""",
    ),
    "a container that is another thing": (
        lambda: scored("batch"),
        """\
`scored`: `batch` is a str and takes an object with `ids` and `mask`
  expected  ids: int64[batch seq], mask: bool[batch seq]
  got       a str
  bound     nothing yet

hint: pass an object with `ids` and `mask`""",
    ),
    "a part of the result": (
        lambda: scored(Batch(IDS)),
        """\
`scored`: the returned tensor ["loss"] has 1 axis and should have 0
  expected  no axes (a 0-d tensor)
  got       (1,) float32
  bound     batch = 2, seq = 3 from `batch.ids`
            classes = 5 from the returned tensor ["logits"]

hint: return a tensor of shape (), or change what is declared""",
    ),
    "a tensor for a tuple": (
        lambda: shapes("(batch, seq)")(lambda x: x)(zeros(2, 3)),
        """\
`<lambda>`: `x` is a tensor and takes a tuple of 2
  expected  (batch, seq)
  got       a tensor of shape (2, 3)
  bound     nothing yet

hint: commas separate tensors, spaces axes: one tensor is `batch seq`""",
    ),
    "a tuple that is too short": (
        lambda: recurrent(zeros(2, 3), (zeros(1, 2),)),
        """\
`recurrent`: `state` is a tuple of 1 and takes a tuple of 2
  expected  (layers batch, layers batch)
  got       a tuple of 1
  bound     batch = 2, seq = 3 from `x`

hint: pass a tuple of 2""",
    ),
    "a tuple in the result is missing": (
        lambda: recurrent(zeros(2, 3), None, lambda: zeros(2)),
        """\
`recurrent`: the returned value is a tensor and should be a tuple of 2
  expected  ((batch, seq), batch)
  got       a tensor of shape (2,)
  bound     batch = 2, seq = 3 from `x`

hint: return a tuple of 2 there, or change what is declared""",
    ),
    "integers where real numbers are declared": (
        lambda: loss(zeros(2, 3, dtype=torch.uint8), zeros(2)),
        """\
`loss`: `x` is uint8 and takes float
  expected  float[batch dim]
  got       (2, 3) uint8
  bound     nothing yet

hint: `x.float()` is float32""",
    ),
    "real numbers where indices are declared": (
        lambda: loss(zeros(2, 3), zeros(2)),
        """\
`loss`: `labels` is float32 and takes int
  expected  int[batch]
  got       (2,) float32
  bound     batch = 2, dim = 3 from `x`

hint: `labels.long()` is int64""",
    ),
    "a dtype without a word of its own": (
        lambda: loss(zeros(2, 3), None, zeros(3)),
        """\
`loss`: `weight` is float32 and takes float16
  expected  float16[dim]
  got       (3,) float32
  bound     batch = 2, dim = 3 from `x`

hint: `weight.half()` is float16""",
    ),
    "the result has another dtype": (
        lambda: loss(zeros(2, 3), None, None, zeros(2) > 0),
        """\
`loss`: the returned tensor is float32 and should be complex64
  expected  complex64[]
  got       () float32
  bound     batch = 2, dim = 3 from `x`

hint: return it as `.to(torch.complex64)`, or change the declared `complex64`""",
    ),
    "an array for a tensor": (
        lambda: scored(Batch(IDS), table=np.zeros(3)),
        """\
`scored`: `table` is a numpy array and takes a tensor
  expected  rows
  got       a numpy array
  bound     batch = 2, seq = 3 from `batch.ids`

hint: `torch.as_tensor(table)` makes it one""",
    ),
    "a list of tensors for a tensor": (
        lambda: scored(Batch(IDS), table=[zeros(()), zeros(())]),
        """\
`scored`: `table` is a list of 2 and takes a tensor
  expected  rows
  got       a list of 2
  bound     batch = 2, seq = 3 from `batch.ids`

hint: `torch.stack(tuple(table))` makes one tensor of tensors of one shape""",
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_a_violation_is_explained(case):
    call, text = SAID[case]
    with pytest.raises(ShapeError) as caught:
        call()
    assert str(caught.value) == text
