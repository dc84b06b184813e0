"""The shape decorator: what passes, that it does no harm, and what it tells trace and graph."""

from __future__ import annotations

import inspect
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from tensorscope import DimsError, ShapeError, shapes
from tensorscope.live.shapes import SWITCH, contract_of, named_dims

zeros = torch.zeros


class SimpleCNN(nn.Module):
    @shapes("batch channels height width -> batch classes")
    def forward(self, images):
        return images.flatten(1)[:, :10]


@shapes("batch seq dim, mask: seq seq -> batch seq dim")
def attend(x, scale=1.0, *, mask=None):
    return x * scale


@shapes("batch dim, -> batch dim, batch, 2*dim")
def several(x, how, *, give=lambda x: (x, x[:, 0], x.new_zeros(2 * x.shape[1]))):
    return give(x)


def message(call) -> str:
    with pytest.raises(ShapeError) as caught:
        call()
    return str(caught.value)


# --- what passes -----------------------------------------------------------------------------------------------------


def test_a_contract_that_does_not_fit_the_function_is_refused_when_decorating():
    with pytest.raises(DimsError) as caught:
        shapes("batch, mask: seq")(lambda x, maks: x)
    assert str(caught.value) == (
        "`<lambda>` has no parameter `mask`\n  contract  batch, mask: seq\n  takes     `x`, `maks`\n\n"
        "hint: did you mean `maks`?"
    )
    with pytest.raises(DimsError) as caught:
        shapes("batch, seq, dim")(lambda x: x)
    assert str(caught.value) == (
        "`<lambda>` has no parameter for `seq`\n  contract  batch, seq, dim\n  takes     `x`\n\n"
        "hint: commas separate tensors, spaces the axes of one tensor; `name: dims` points at a parameter"
    )


def test_arguments_are_found_however_they_are_passed():
    assert message(lambda: attend(x=zeros(4, 5))).startswith("`attend`: `x` has 2 axes")
    assert attend(x=zeros(4, 5, 6), mask=zeros(5, 5)).shape == (4, 5, 6)
    assert attend(zeros(4, 5, 6), 2, mask=None).shape == (4, 5, 6)


def test_a_tensor_default_is_checked_like_an_argument():
    ones = torch.ones(3)

    @shapes("batch dim, dim")
    def shifted(x, shift=ones):
        return x + shift

    assert shifted(zeros(2, 3)).sum() == 6
    assert "axis 0 of `shift` is 3 and takes `dim` = 4" in message(lambda: shifted(zeros(2, 4)))


def test_arguments_that_are_no_tensors_are_not_looked_at():
    @shapes("batch, batch, batch -> batch")
    def first(a, b, c):
        return a

    assert first(zeros(2), None, [zeros(3)]).shape == (2,)
    assert "axis 0 of `c` is 3" in message(lambda: first(zeros(2), 7, zeros(3)))


def test_one_of_several_results_may_be_left_out():
    assert several(zeros(2, 3), 0, give=lambda x: [x, None, zeros(6)])[1] is None
    assert "returned a tuple of Tensor, int, Tensor" in message(
        lambda: several(zeros(2, 3), 0, give=lambda x: (x, 1, zeros(6)))
    )


def test_wrong_arguments_are_the_functions_own_error():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        attend()


def test_an_error_of_the_function_passes_unchanged():
    @shapes("batch -> batch")
    def fails(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fails(zeros(2))


def test_methods_static_methods_and_nested_functions_are_named_as_they_are_written():
    class Box:
        @staticmethod
        @shapes("batch")
        def static(x):
            return x

        @classmethod
        @shapes("batch")
        def of_class(cls, x):
            return x

    assert message(lambda: Box.static(zeros(2, 2))).startswith("`Box.static`: `x`")
    assert message(lambda: Box().of_class(zeros(2, 2))).startswith("`Box.of_class`: `x`")


def test_shapes_that_fitted_once_are_checked_again_with_others():
    for n in range(200):
        assert attend(zeros(1, n, 2), mask=zeros(n, n)).shape == (1, n, 2)
        message(lambda n=n: attend(zeros(1, n, 2), mask=zeros(n, n + 1)))


def test_only_so_many_shapes_are_remembered():
    same = shapes("seq -> seq")(lambda x: x)
    for n in range(200):
        same(zeros(n))
    (check,) = (value for value in vars(same).values() if hasattr(value, "contract"))
    assert len(check._start.then) <= 64


@given(st.lists(st.integers(0, 3), min_size=4, max_size=4), st.booleans())
def test_a_call_passes_exactly_if_the_shapes_agree(sizes, once_more):
    rows, inner, inner_too, columns = sizes

    @shapes("rows inner, inner columns -> rows columns")
    def product(x, y):
        return x @ y if inner == inner_too else x

    for _ in range(1 + once_more):
        if inner == inner_too:
            assert product(zeros(rows, inner), zeros(inner_too, columns)).shape == (rows, columns)
        else:
            message(lambda: product(zeros(rows, inner), zeros(inner_too, columns)))


# --- no harm ---------------------------------------------------------------------------------------------------------


def test_a_decorated_function_keeps_its_name_signature_and_docstring():
    def scaled(x: torch.Tensor, by: float = 2.0) -> torch.Tensor:
        """Multiply."""
        return x * by

    checked = shapes("batch -> batch")(scaled)
    assert (checked.__name__, checked.__doc__, checked.__wrapped__) == ("scaled", "Multiply.", scaled)
    assert inspect.signature(checked) == inspect.signature(scaled)


def test_the_environment_can_switch_it_off(monkeypatch):
    monkeypatch.setenv(SWITCH, "off")

    class Net(nn.Module):
        def forward(self, x):
            return x

    plain = Net.forward
    Net.forward = shapes("batch dim -> batch")(Net.forward)
    assert Net.forward is plain
    assert Net()(zeros(3)).shape == (3,)
    assert str(contract_of(Net())) == "batch dim -> batch"


@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_it_does_nothing_while_compiling():
    torch.compiler.reset()
    compiled = torch.compile(attend, backend="eager", fullgraph=True)
    assert compiled(zeros(4, 5, 6), mask=zeros(7, 7)).shape == (4, 5, 6)
    torch.compiler.reset()


def test_it_works_under_vmap_and_sees_the_shapes_inside():
    square = shapes("dim -> dim")(lambda x: x * x)
    assert torch.vmap(square)(zeros(3, 4)).shape == (3, 4)
    assert torch.func.jacrev(square)(zeros(4)).shape == (4, 4)
    assert "`x` has 2 axes and takes 1" in message(lambda: torch.vmap(square)(zeros(3, 4, 5)))


def test_it_works_on_tensors_without_data():
    with torch.device("meta"):
        assert attend(zeros(4, 5, 6), mask=zeros(5, 5)).shape == (4, 5, 6)
    with FakeTensorMode():
        assert attend(zeros(4, 5, 6), mask=zeros(5, 5)).shape == (4, 5, 6)
        assert "axis 1 of `mask` is 7" in message(lambda: attend(zeros(4, 5, 6), mask=zeros(5, 7)))


def test_it_works_on_parameters_and_other_kinds_of_tensors():
    class Mine(torch.Tensor):
        pass

    assert attend(nn.Parameter(zeros(4, 5, 6)), mask=zeros(5, 5).as_subclass(Mine)).shape == (4, 5, 6)
    assert "axis 0 of `mask` is 7" in message(lambda: attend(zeros(4, 5, 6), mask=nn.Parameter(zeros(7, 7))))


def test_symbolic_sizes_leave_no_guard():
    env = ShapeEnv()
    mode = FakeTensorMode(shape_env=env)
    x, mask = (
        mode.from_tensor(zeros(size), symbolic_context=StatelessSymbolicContext([DimDynamic.DYNAMIC] * len(size)))
        for size in [(4, 5, 6), (8, 9)]
    )
    with mode:
        assert not isinstance(x.shape[0], int)
        result = attend(x, mask=mask)
        assert env.guards == []
        assert result.ndim == 3
        assert "has 2 axes and takes 3" in message(lambda: attend(mask))


def test_symbolic_tracing_passes_through():
    traced = make_fx(lambda x, m: attend(x, mask=m), tracing_mode="symbolic")(zeros(4, 5, 6), zeros(5, 5))
    assert traced(zeros(2, 3, 4), zeros(3, 3)).shape == (2, 3, 4)


def test_jit_tracing_passes_through():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(lambda x: several(x, 0), (zeros(2, 3),))
    assert [tuple(each.shape) for each in traced(zeros(2, 3))] == [(2, 3), (2,), (6,)]


def test_gradients_and_values_are_untouched():
    x = torch.randn(4, 5, 6, requires_grad=True)
    attend(x, 3.0).sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 3.0))


# --- what trace and graph ask ----------------------------------------------------------------------------------------


def test_a_modules_contract_can_be_asked_for():
    assert str(contract_of(SimpleCNN())) == "batch channels height width -> batch classes"
    assert contract_of(nn.Linear(2, 2)) is None
    assert contract_of(nn.Module()) is None


def test_a_subclass_inherits_the_contract_until_it_overrides_forward():
    class Same(SimpleCNN):
        pass

    class Other(SimpleCNN):
        def forward(self, images):
            return super().forward(images)

    assert contract_of(Same()) == contract_of(SimpleCNN())
    assert contract_of(Other()) is None


class Pair(nn.Module):
    @shapes("batch seq dim, mask: seq seq -> batch ... dim, 2*dim")
    def forward(self, x, scale=1, mask=None):
        return x, zeros(2 * x.shape[-1])


def test_axes_are_named_for_arguments_and_results():
    x, mask = zeros(4, 5, 6), zeros(5, 5)
    named = named_dims(Pair(), (x,), {"mask": mask}, (x, zeros(12)))
    assert named.inputs == {"x": ("batch", "seq", "dim"), "mask": ("seq", "seq")}
    assert named.outputs == {"0": ("batch", "", "dim"), "1": ("2*dim",)}
    assert named_dims(SimpleCNN(), (x,), {}, zeros(4, 10)).outputs == {"": ("batch", "classes")}


def test_what_nobody_names_gets_empty_names():
    x = zeros(4, 5, 6)
    named = named_dims(nn.LSTM(6, 7), (x, (zeros(1), zeros(2, 2))), {"extra": x}, (x, {"a": zeros(2)}))
    assert named.inputs == {"input": ("",) * 3, "hx": ("",), "hx.1": ("",) * 2, "extra": ("",) * 3}
    assert list(named.outputs.values()) == [("",) * 3, ("",)]


def test_naming_never_raises():
    for args, output in [((), None), ((1, "a"), 3), ((zeros(2),) * 9, [None, zeros(2)]), ((zeros(()),), zeros(()))]:
        for module in (Pair(), nn.Identity(), nn.Module(), nn.Sequential()):
            names = named_dims(module, args, {"mask": zeros(3)}, output)
            assert names.inputs["mask"] == ("",)
