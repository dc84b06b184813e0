"""Which errors are about shapes, dtypes, devices and ranges of tensors, and which are left alone."""

from __future__ import annotations

import json
import linecache
import random
import textwrap
from typing import Any

import pytest
import torch
from crashes import caught
from torch import nn
from torch.nn import functional as F

from tensorscope.errors import ShapeError
from tensorscope.live.postmortem.crash import Crash, read_crash
from tensorscope.live.postmortem.relevance import is_about_tensors

X, IDS, ROWS = torch.zeros(2, 3), torch.tensor([0, 5]), nn.Embedding(4, 2)


def about(program: str) -> bool:
    """Whether the error of a few lines is about tensors."""
    space: dict[str, Any] = {
        "torch": torch,
        "nn": nn,
        "F": F,
        "x": X,
        "ids": IDS,
        "rows": ROWS,
        "json": json,
        "random": random,
    }
    lines = "def run():\n" + textwrap.indent(program, "    ") + "\n"
    file = f"<{program}>"
    linecache.cache[file] = (len(lines), None, lines.splitlines(keepends=True), file)
    exec(compile(lines, file, "exec"), space)
    return is_about_tensors(read_crash(caught(space["run"])))


YES = [
    "x @ x",
    "x + torch.zeros(4)",
    "x.view(7)",
    "x.t().view(-1)",
    "torch.cat([x, x.t()])",
    "torch.stack([x, x.t()])",
    "nn.Linear(4, 2)(x)",
    "nn.Conv2d(3, 2, 3)(x)",
    "nn.MaxPool2d(9)(torch.zeros(1, 1, 4, 4))",
    "nn.BatchNorm1d(4)(x)",
    "nn.BatchNorm1d(3)(torch.zeros(1, 3))",
    "nn.LayerNorm(4)(x)",
    "rows(ids)",
    "rows(ids.float())",
    "x[2]",
    "x[0, 0, 0]",
    "x[ids]",
    "x[torch.zeros(5) > 0]",
    "x.gather(1, ids)",
    "x.gather(2, ids[:, None])",
    "x.expand(5, 3)",
    "x.permute(0, 1, 2)",
    "x.transpose(0, 2)",
    "x.squeeze(4)",
    "x.split([1, 5], dim=1)",
    "x.unflatten(1, (2, 2))",
    "torch.einsum('ij,jk->ik', x, x)",
    "torch.einsum('ijk->i', x)",
    "torch.bmm(x, x)",
    "nn.LSTM(4, 2)(x)",
    "nn.MultiheadAttention(8, 3)",
    "nn.MultiheadAttention(4, 2)(x, x, x)",
    "F.cross_entropy(x, ids)",
    "F.cross_entropy(x, x[:, :2])",
    "F.nll_loss(x, ids[:1])",
    "F.one_hot(ids, 3)",
    "y = x\na, b, c = y",
    "a, b, c = x.shape",
    "a, b = x.chunk(3, dim=1)",
    "n = x.shape[2]",
    "x.long() @ x.t()",
    "nn.Linear(3, 2)(x.double())",
    "nn.Linear(3, 2)(x.long())",
    "x.to('meta') + x",
    "if x: pass",
    "x.requires_grad_().exp().backward()",
    "torch.linalg.inv(x)",
    "torch.zeros(2, 3).copy_(torch.zeros(4))",
    "x.clone()[0] = torch.zeros(5)",
    "torch.arange(4).long().mean()",
]
NO = [
    "raise ValueError('width and height must be the same size')",
    "raise RuntimeError('shape mismatch in my own bookkeeping')",
    "assert x.shape == (4, 4), 'wrong shape'",
    "[1, 2, 3][7]",
    "(1, 2)[7]",
    "a, b = [1, 2, 3]",
    "{'shape': 1}['size']",
    "int('3d')",
    "json.loads('{dim}')",
    "open('/no/such/size')",
    "None.shape",
    "x.no_such_method()",
    "1 / 0",
    "random.sample([1], 2)",
    "random.choice([])",
    "torch.zeros(2).backward()",
    "y = x.clone().requires_grad_().exp()\ny.sum().backward()\ny.sum().backward()",
    "y = torch.zeros(3, requires_grad=True)\ny += 1",
    "nn.Linear(3)",
    "nn.Linear(3, 2).no_such_layer(x)",
    "nn.Linear(3, 2)(x, x)",
    "torch.load('/no/such/shape.pt')",
    "nn.Linear(3, 2).load_state_dict({'weight': torch.zeros(2, 3)})",
    "torch.multinomial(torch.tensor([-1.0, 2.0]), 1)",
    "sum([1, 'a'])",
    "''.join(range(3))",
]


FALSE_ALARMS = [
    "torch.linalg.inv(torch.zeros(2, 2))",
    "torch.linalg.solve(torch.zeros(2, 2), torch.zeros(2, 2))",
    "torch.distributions.Categorical(logits=torch.full((2, 3), float('nan')), validate_args=True)",
    "torch.hub.load('name', 'model')",
    "nn.Conv2d(1, 1, 3)(None)",
    "torch.tensor([x, 'a'])",
    "nn.Linear('3', 2)",
    "torch.utils.data.DataLoader([1], batch_size=-1)",
]
MISSED = [
    "a, b, c = x",
    "a, b, c = torch.zeros(2, 3)",
    "a, b, c = x.mean(1)",
    "for a, b in x:\n    pass",
    "out, h, c = nn.LSTM(3, 4)(x)",
]


@pytest.mark.parametrize("program", FALSE_ALARMS)
def test_errors_about_values_and_python_types_are_not(program: str) -> None:
    assert not about(program)


@pytest.mark.parametrize("program", MISSED)
def test_errors_of_unpacking_whatever_is_a_tensor_are(program: str) -> None:
    assert about(program)


@pytest.mark.parametrize("program", YES)
def test_errors_of_tensors_are(program: str) -> None:
    assert about(program)


@pytest.mark.parametrize("program", NO)
def test_errors_about_something_else_are_not(program: str) -> None:
    assert not about(program)


def test_a_state_dict_of_other_shapes_is() -> None:
    assert about("nn.Linear(3, 2).load_state_dict(nn.Linear(4, 2).state_dict())")


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt("shape"), SystemExit("shape"), RecursionError("shape"), MemoryError("tensor shape"),
     UnicodeDecodeError("utf-8", b"", 0, 1, "shape"), OSError("device"), KeyError("shape"), ZeroDivisionError("dim")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_other_kinds_of_errors_are_not_whatever_they_say(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised:
        raise error
    assert not is_about_tensors(read_crash(raised.value))


def test_an_error_without_a_traceback_is_not() -> None:
    assert not is_about_tensors(Crash(RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)"), ()))


def test_an_error_of_a_shape_contract_is_whatever_it_says() -> None:
    assert is_about_tensors(Crash(ShapeError("no"), ()))


def test_a_librarys_own_words_are_its_own() -> None:
    def refuse(array: Any) -> None:
        raise ValueError(f"bad shape {array.shape}")

    assert not is_about_tensors(read_crash(caught(refuse, X)))
