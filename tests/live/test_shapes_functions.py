"""What the shape decorator can stand above: methods, coroutines, generators, classes, partial functions."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import inspect
import pickle
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

import pytest
import torch
from torch import Tensor, fx, nn

from tensorscope import DimsError, ShapeError, shapes
from tensorscope.live.shapes import SWITCH, contract_of

zeros = torch.zeros


def title(call) -> str:
    with pytest.raises(ShapeError) as caught:
        call()
    return str(caught.value).partition("\n")[0]


@shapes("batch dim -> batch")
class Net(nn.Module):
    def forward(self, x):
        return x[:, 0]


@shapes("batch -> batch")
def plain(x):
    return x


# --- classes of modules ----------------------------------------------------------------------------------------------


def test_a_class_of_modules_stays_itself_and_its_forward_is_checked():
    assert isinstance(Net, type)
    assert Net()(zeros(2, 3)).shape == (2,)
    assert title(lambda: Net()(zeros(2))) == "`Net.forward`: `x` has 1 axis and takes 2"
    assert str(contract_of(Net())) == "batch dim -> batch"


def test_a_class_that_inherits_its_forward_leaves_the_other_class_alone():
    class Parent(nn.Module):
        def forward(self, x):
            return x

    child = shapes("batch -> batch")(type("Child", (Parent,), {}))
    assert child()(zeros(2)).shape == (2,)
    assert "`x` has 2 axes" in title(lambda: child()(zeros(2, 2)))
    assert Parent()(zeros(2, 2)).shape == (2, 2)
    assert contract_of(Parent()) is None


def test_modules_and_functions_pickle_and_copy():
    for net in (pickle.loads(pickle.dumps(Net())), copy.deepcopy(Net())):
        assert "has 1 axis" in title(lambda net=net: net(zeros(2)))
    assert pickle.loads(pickle.dumps(plain)) is plain


@pytest.mark.slow
def test_a_class_is_compiled_and_exported_as_without():
    torch.compiler.reset()
    assert torch.compile(Net(), backend="eager", fullgraph=True)(zeros(2, 3)).shape == (2,)
    assert torch.export.export(Net(), (zeros(2, 3),)).module()(zeros(2, 3)).shape == (2,)
    torch.compiler.reset()


def test_symbolic_traces_by_proxies_pass_through():
    assert fx.symbolic_trace(Net())(zeros(2, 3)).shape == (2,)


def test_the_environment_can_switch_it_off(monkeypatch):
    monkeypatch.setenv(SWITCH, "off")

    class Box(nn.Module):
        def forward(self, x):
            return x

        def method(self, x):
            return x

    before = Box.forward
    assert shapes("batch")(Box).forward is before
    assert str(contract_of(Box())) == "batch"
    method = Box().method
    assert shapes("batch")(method) is method


REFUSED = {
    "another class": (
        lambda: shapes("batch")(int),
        "shapes are declared of functions and of classes of modules, not of another class",
    ),
    "an instance": (
        lambda: shapes(nn.Linear(2, 2)),
        "shapes are declared of functions and of classes of modules, not of an object",
    ),
    "a number": (lambda: shapes(3), "shapes are declared of functions and of classes of modules, not of an object"),
    "no forward": (lambda: shapes("batch")(type("Empty", (nn.Module,), {})), "`Empty` has no `forward`"),
    "no signature": (lambda: shapes("a, b")(torch.add), "`_VariableFunctionsClass.add` does not tell its parameters"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_takes_no_tensors_is_refused(case):
    decorate, said = REFUSED[case]
    with pytest.raises(DimsError) as caught:
        decorate()
    assert caught.value.title == said
    assert caught.value.hint


# --- methods and the like --------------------------------------------------------------------------------------------


def test_it_stands_above_static_and_class_methods_too():
    class Box:
        @shapes("batch")
        @staticmethod
        def static(x):
            return x

        @shapes
        @classmethod
        def of_class(cls, x: Annotated[Tensor, "batch"]):
            return cls

    assert Box.of_class(zeros(2)) is Box
    assert title(lambda: Box().static(zeros(2, 2))).startswith("`Box.static`: `x`")
    assert title(lambda: Box.of_class(zeros(2, 2))).startswith("`Box.of_class`: `x`")


def test_it_works_on_partial_functions():
    def scaled(x: Annotated[Tensor, "batch dim"], by, shift: Annotated[Tensor, "dim"] | None = None):
        return x * by

    for made in (
        shapes(functools.partial(scaled, by=2)),
        shapes("x: batch dim, shift: dim")(functools.partial(scaled, by=2)),
    ):
        assert made(zeros(2, 3)).shape == (2, 3)
        assert title(lambda made=made: made(zeros(2, 3), shift=zeros(4))).endswith(
            "scaled`: axis 0 of `shift` is 4 and takes `dim` = 3 (from `x`)"
        )


def test_it_works_on_bound_methods():
    class Box:
        def double(self, x):
            return 2 * x

    double = shapes("batch -> batch")(Box().double)
    assert double(zeros(2)).shape == (2,)
    assert title(lambda: double(zeros(2, 2))) == "`Box.double`: `x` has 2 axes and takes 1"


# --- coroutines and generators ---------------------------------------------------------------------------------------


def test_what_a_coroutine_returns_is_checked():
    @shapes("batch dim -> batch")
    async def fetch(x):
        await asyncio.sleep(0)
        return x[0]

    assert inspect.iscoroutinefunction(fetch)
    assert asyncio.run(fetch(zeros(2, 2))).shape == (2,)
    assert "axis 0 of the returned tensor is 3" in title(lambda: asyncio.run(fetch(zeros(2, 3))))
    assert "`x` has 1 axis" in title(lambda: asyncio.run(fetch(zeros(2))))


def test_every_value_that_a_generator_yields_is_checked():
    @shapes
    def batches(x: Annotated[Tensor, "rows dim"], last) -> Iterator[Annotated[Tensor, "dim"]]:
        yield from x
        yield last

    assert inspect.isgeneratorfunction(batches)
    assert len(list(batches(zeros(2, 3), zeros(3)))) == 3
    assert "axis 0 of the returned tensor is 4 and should be `dim` = 3" in title(
        lambda: list(batches(zeros(2, 3), zeros(4)))
    )


def test_a_generator_is_driven_as_without():
    heard = []

    def talk(x):
        try:
            heard.append((yield x))
            try:
                yield x
            except KeyError as error:
                heard.append(error.args[0])
            yield x
        finally:
            heard.append("closed")
        return "done"

    def drive(function):
        heard.clear()
        generator = function(zeros(2))
        outcome = [next(generator).shape, generator.send("sent").shape, generator.throw(KeyError("thrown")).shape]
        with pytest.raises(StopIteration) as stopped:
            next(generator)
        left = function(zeros(2))
        next(left)
        left.close()
        return outcome, stopped.value.value, list(heard)

    assert drive(shapes("batch -> batch")(talk)) == drive(talk)


def test_a_context_manager_is_entered_and_left_as_without():
    @contextlib.contextmanager
    @shapes("batch -> batch")
    def swallowing(x):
        with contextlib.suppress(KeyError):
            yield x

    with swallowing(zeros(2)) as x:
        assert x.shape == (2,)
        raise KeyError
    with pytest.raises(ShapeError), swallowing(zeros(2, 2)):
        pass


def test_arguments_of_an_asynchronous_generator_are_checked():
    @shapes
    async def stream(x: Annotated[Tensor, "rows dim"]) -> AsyncIterator[Annotated[Tensor, "dim"]]:
        for row in x:
            yield row

    async def collect():
        return [row async for row in stream(zeros(2, 3))]

    assert len(asyncio.run(collect())) == 2
    assert "`x` has 1 axis" in title(lambda: stream(zeros(2)))


# --- odd tensors -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors_without_a_shape_are_not_checked():
    ragged = torch.nested.nested_tensor([zeros(2, 3), zeros(4, 3)])
    assert shapes("batch dim -> batch dim")(lambda x: x)(ragged) is ragged
    assert shapes("x: batch -> batch")(lambda x, y: y)(zeros(2), ragged) is ragged
