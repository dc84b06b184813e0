"""Contracts over drawn sizes: sound modules pass, planted mistakes are found with the smallest sizes that show them."""

from __future__ import annotations

import inspect
import re
from textwrap import dedent

import pytest
import torch
from hypothesis import strategies as st
from torch import nn

import tensorscope.testing
from reference_models.activations import ReLU, log_softmax, relu, softmax
from reference_models.cnn import SimpleCNN
from reference_models.convolution import Conv2d, windows
from reference_models.losses import accuracy, cross_entropy
from reference_models.mlp import MLP, Linear
from reference_models.pooling import Flatten, MaxPool2d, max_pool2d
from tensorscope import DimsError, ShapeError, shapes
from tensorscope.live.shapes import SWITCH
from tensorscope.testing import arguments, check_contract, tensors
from tensorscope.testing.checking import telling

images = {"height": st.integers(5, 9), "width": st.integers(5, 9)}


class Block(nn.Module):
    def __init__(self, dim=8, heads=2):
        super().__init__()
        self.qkv, self.heads = nn.Linear(dim, 3 * dim), heads

    @shapes("batch seq dim, mask: bool[seq seq] -> batch seq dim")
    def forward(self, x, mask=None):
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        return nn.functional.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)


@shapes("batch seq dim, seq seq -> batch seq dim")
def attend(x, mask):
    return mask @ x


def broken(*args, **kwargs) -> ShapeError:
    with pytest.raises(ShapeError) as caught:
        check_contract(*args, **{"max_examples": 20, **kwargs})
    return caught.value


# --- sound ones ------------------------------------------------------------------------------------------------------


def labels(sizes):
    batch = " ".join(map(str, sizes["*batch"]))
    return tensors(f"int64[{batch}]", elements=st.integers(0, sizes["classes"] - 1))


SOUND = {
    "relu": lambda: check_contract(relu, max_examples=20),
    "ReLU": lambda: check_contract(ReLU(), max_examples=20),
    "softmax": lambda: check_contract(softmax, max_examples=20),
    "log_softmax": lambda: check_contract(log_softmax, max_examples=20),
    "Linear": lambda: check_contract(Linear(4, 3), sizes={"inputs": 4}, max_examples=20),
    "MLP": lambda: check_contract(MLP(4, 8, 3), sizes={"inputs": 4}, max_examples=20),
    "Flatten": lambda: check_contract(Flatten(), max_examples=20),
    "Conv2d": lambda: check_contract(Conv2d(3, 4, 3), sizes={"channels": 3, **images}, max_examples=15),
    "MaxPool2d": lambda: check_contract(MaxPool2d(), sizes=images, max_examples=15),
    "max_pool2d": lambda: check_contract(max_pool2d, sizes=images, max_examples=15),
    "windows": lambda: check_contract(windows, sizes=images, given={"size": (2, 3)}, max_examples=15),
    "SimpleCNN": lambda: check_contract(
        SimpleCNN.tiny(), sizes={"channels": 1, "height": 8, "width": 8}, max_examples=5
    ),
    "cross_entropy": lambda: check_contract(cross_entropy, given={"labels": labels}, max_examples=20),
    "accuracy": lambda: check_contract(accuracy, given={"labels": labels}, max_examples=20),
    "attention": lambda: check_contract(Block(), sizes={"dim": 8}, max_examples=20),
    "embedding": lambda: check_contract(nn.Embedding(7, 5), "int64[*batch] -> *batch 5", max_examples=20),
}


@pytest.mark.parametrize("case", SOUND)
def test_sound_layers_pass(case):
    assert SOUND[case]() is None


# --- planted mistakes ------------------------------------------------------------------------------------------------


@shapes("batch seq dim -> batch seq dim")
def only_square(x):
    return x.transpose(0, 1)


@shapes("batch width -> batch width//2")
def only_even(x):
    return x.view(len(x), -1, 2).sum(-1)


@shapes("batch dim -> batch dim")
def squeezing(x):
    return x.squeeze(0)


@shapes("batch ... -> batch")
def over_one_axis(x):
    return x.sum(-1)


class Fixed(nn.Module):
    @shapes("*batch inputs -> *batch outputs")
    def forward(self, x):
        raise ValueError(f"{x.shape[-1]} inputs do not go with 40")


SAID = {
    "batch and sequence are mixed up": (
        lambda: check_contract(only_square, max_examples=40),
        """\
`only_square` breaks its contract with batch = 1, seq = 2, dim = 1
  contract  batch seq dim -> batch seq dim
  called    x (1, 2, 1) float32
  raised    `only_square`: axis 0 of the returned tensor is 2 and should be `batch` = 1 (from `x`)
  passed    N of 40 calls, just those with `batch` = `seq`

hint: repair it, or declare what it takes""",
    ),
    "odd widths raise": (
        lambda: check_contract(only_even, max_examples=40),
        """\
`only_even` breaks its contract with batch = 1, width = 1
  contract  batch width -> batch width//2
  called    x (1, 1) float32
  raised    RuntimeError: shape '[1, -1, 2]' is invalid for input of size 1
  passed    N of 40 calls, just those with `width` divisible by 2

hint: repair it, or leave the other sizes out: `sizes={"width": st.integers(1, 9).map(lambda n: 2 * n)}`""",
    ),
    "a batch of one is lost": (
        lambda: check_contract(squeezing, max_examples=40),
        """\
`squeezing` breaks its contract with batch = 1, dim = 1
  contract  batch dim -> batch dim
  called    x (1, 1) float32
  raised    `squeezing`: the returned tensor has 1 axis and should have 2
  passed    N of 40 calls, just those with `batch` ≥ 2

hint: repair it, or leave the other sizes out: `sizes={"batch": st.integers(2, 11)}`""",
    ),
    "the constructor fixed a size": (
        lambda: check_contract(Block(dim=8), max_examples=40),
        """\
`Block.forward` breaks its contract with batch = 1, seq = 1, dim = 1
  contract  batch seq dim, mask: bool[seq seq] -> batch seq dim
  called    x (1, 1, 1) float32
  raised    RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x1 and 8x24)
  passed    N of 40 calls, just those with `dim` = 8

hint: repair it, or leave the other sizes out: `sizes={"dim": 8}`""",
    ),
    "no drawn size is the one that the constructor fixed": (
        lambda: check_contract(Fixed(), max_examples=40),
        """\
`Fixed.forward` breaks its contract with *batch = (), inputs = 1
  contract  *batch inputs -> *batch outputs
  called    x (1,) float32
  raised    ValueError: 1 inputs do not go with 40
  passed    0 of 40 calls

hint: give the sizes that the constructor fixed, some of `sizes={"*batch": …, "inputs": …}`""",
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_a_planted_mistake_is_found_with_its_smallest_sizes(case):
    call, text = SAID[case]
    with pytest.raises(ShapeError) as caught:
        call()
    # How many of the calls pass is Hypothesis's affair.
    assert re.sub(r"passed    [1-9]\d*", "passed    N", str(caught.value)) == text


def test_what_the_target_raised_is_the_cause():
    assert isinstance(broken(only_even).__cause__, RuntimeError)
    assert isinstance(broken(only_square).__cause__, ShapeError)


def test_any_number_of_axes_is_drawn():
    assert broken(over_one_axis).facts["called"] in {"x (1,) float32", "x (1, 1, 1) float32"}


@pytest.mark.parametrize("fixed", [2, 5])
def test_a_size_that_the_program_has_written_down_is_found(fixed):
    @shapes("batch seq -> batch seq")
    def written_down(x):
        return x.reshape(-1, fixed) if len(x) > 1 else x

    error = broken(written_down)
    assert error.title.endswith("breaks its contract with batch = 2, seq = 1")


# --- no harm ---------------------------------------------------------------------------------------------------------


def test_a_module_and_the_random_state_stay_as_they_were():
    norm = nn.BatchNorm1d(3)
    state = torch.get_rng_state()
    check_contract(norm, "batch 3 -> batch 3", sizes={"batch": st.integers(2, 5)}, max_examples=10)
    assert norm.num_batches_tracked == 0
    assert torch.equal(torch.get_rng_state(), state)
    check_contract(nn.Dropout(), "batch -> batch", max_examples=10)
    assert torch.equal(torch.get_rng_state(), state)


def test_arguments_that_the_target_changes_are_told_as_they_were():
    @shapes("batch dim -> batch dim")
    def resizing(x):
        x.resize_(1, 7)
        return x

    assert broken(resizing).facts["called"] == "x (1, 1) float32"


def test_it_checks_where_the_decorator_is_switched_off(monkeypatch):
    monkeypatch.setenv(SWITCH, "off")
    off = shapes("batch dim -> batch dim")(lambda x: x[0])
    assert off(torch.zeros(2, 3)).shape == (3,)
    assert "should have 2" in broken(off).facts["raised"]


REFUSED = {
    "a contract alone": (lambda: check_contract("batch -> batch"), "a contract alone cannot be called"),
    "no contract": (lambda: check_contract(nn.ReLU()), "`ReLU` declares no contract"),
    "no sizes": (
        lambda: check_contract(shapes("seq seq-9")(lambda x: x), sizes=st.just(3)),
        "no sizes fulfil the contract of `<lambda>`",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_checked_is_refused(case):
    call, said = REFUSED[case]
    with pytest.raises(DimsError) as caught:
        call()
    assert caught.value.title == said
    assert caught.value.hint


# --- what calls that passed have in common ---------------------------------------------------------------------------


def told(passed, failed) -> str:
    return " and ".join(map(str, telling([{"a": a, "b": b} for a, b in passed], [{"a": a, "b": b} for a, b in failed])))


def test_the_simplest_relation_that_tells_calls_apart_is_told():
    assert told([(4, 1), (4, 2), (4, 3)], [(3, 1)]) == "`a` = 4"
    assert told([(1, 1), (2, 2), (3, 3)], [(3, 1)]) == "`a` = `b`"
    assert told([(2, 1), (4, 2), (8, 3)], [(3, 1)]) == "`a` divisible by 2"
    assert told([(3, 1), (5, 2), (7, 3)], [(1, 1)]) == "`a` ≥ 3"
    assert told([(3, 1), (9, 3), (5, 5)], [(9, 5), (3, 2)]) == "`a` divisible by `b`"
    assert told([(4, 5), (3, 3), (2, 9), (9, 9)], [(9, 3), (4, 2), (8, 7)]) == "`a` ≤ `b`"
    assert told([(3, 3), (4, 5), (5, 4)], [(2, 4), (4, 2)]) == "`a` ≥ 3 and `b` ≥ 3"


def test_nothing_is_told_of_few_calls_or_of_calls_that_have_nothing_in_common():
    assert told([(4, 1), (4, 2)], [(3, 1)]) == ""
    assert told([(1, 2), (2, 1), (3, 3)], [(1, 2)]) == ""


# --- what the docs show ----------------------------------------------------------------------------------------------

KNOWN = {
    "shapes": shapes,
    "attend": attend,
    "Block": Block,
    "norm": nn.LayerNorm(64),
    "nn": nn,
    "st": st,
    "one_hot": torch.zeros,
    "odd_sizes": tensorscope.testing.odd_sizes,
}


def test_the_examples_of_the_package_run():
    code = "\n".join(re.findall(r"^    .*$|^$", inspect.cleandoc(tensorscope.testing.__doc__), re.MULTILINE))
    names = dict(KNOWN)
    exec(dedent(code), names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 3
    for test in tests:
        test()


@pytest.mark.parametrize("function", [tensors, arguments, check_contract], ids=lambda function: function.__name__)
def test_the_examples_of_a_function_run(function):
    lines = re.findall(rf"^    {function.__name__}\(.*$", inspect.cleandoc(function.__doc__), re.MULTILINE)
    assert len(lines) >= 2
    for line in lines:
        exec(line.strip(), {**KNOWN, function.__name__: function})
