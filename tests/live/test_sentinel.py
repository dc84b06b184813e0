"""The look that every step gets: NaN and Inf anywhere are seen, and nothing else is."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from measuring import LAYOUTS, WAYS, arrays, measured_by
from strategies import shapes

from tensorscope.live.sentinel import Sentinel, _Asked

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
every_way = pytest.mark.parametrize("way", WAYS)
bad_ones = pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])


def is_bad(*tensors: torch.Tensor) -> bool:
    return Sentinel().are_bad(tensors, 0)


@every_way
@given(data=st.data())
def test_it_says_what_torch_says_of_any_tensors(way: str, data: st.DataObject) -> None:
    tensors = []
    for _ in range(data.draw(st.integers(0, 5))):
        x = data.draw(arrays(data.draw(st.sampled_from((*FLOATS, torch.int32, torch.bool)))))
        tensors.append(LAYOUTS[data.draw(st.sampled_from(list(LAYOUTS)))](x) if x.numel() else x)
    expected = any(not bool(x.isfinite().all()) for x in tensors)
    with measured_by(way):
        assert Sentinel().are_bad(iter(tensors), 0) == expected


@every_way
@bad_ones
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@given(shape=shapes(axes=3, side=9, smallest=1), others=st.integers(0, 40), place=st.integers(0, 1 << 20))
def test_one_bad_element_among_many_tensors_is_seen(
    way: str, bad: float, dtype: torch.dtype, shape: tuple[int, ...], others: int, place: int
) -> None:
    x = torch.ones(shape, dtype=dtype)
    tensors = [torch.ones(n + 1) for n in range(others)]
    tensors.insert(place % (others + 1), x)
    with measured_by(way):
        assert not is_bad(*tensors)
        x.view(-1)[place % x.numel()] = bad
        assert is_bad(*tensors)


@every_way
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_large_and_small_numbers_are_no_alarm(way: str, dtype: torch.dtype) -> None:
    ends = torch.finfo(dtype)
    x = torch.tensor([ends.max, ends.min, ends.tiny, ends.smallest_normal / 2, 0.0, -0.0], dtype=dtype).repeat(500)
    with measured_by(way):
        assert not is_bad(x, x[::3], x.reshape(-1, 2).t())


@every_way
@bad_ones
@pytest.mark.filterwarnings("ignore:Sparse", "ignore:.*nested tensors")
def test_what_odd_tensors_hold_is_seen(way: str, bad: float) -> None:
    def odd(number: float) -> Iterator[torch.Tensor]:
        x = torch.tensor([[1.0, 0.0], [0.0, number]])
        yield x.to_sparse()
        yield torch.sparse_coo_tensor(torch.tensor([[1, 1]]), torch.tensor([number, 1.0]), (3,))
        yield x.to_sparse(1)
        yield x.to_sparse_csr()
        yield x.to_sparse_csc()
        yield torch.nested.nested_tensor([x, x[:1]], layout=torch.jagged)
        yield torch.complex(x, torch.zeros(2, 2))
        yield torch.complex(torch.zeros(2, 2), x).conj().imag
        yield x.expand(3, 2, 2)
        yield torch.nn.Parameter(x)
        yield x[1, 1]
        yield x.to(torch.float8_e5m2)

    with measured_by(way):
        for good, wrong in zip(odd(2.0), odd(bad), strict=True):
            assert not is_bad(good), good
            assert is_bad(wrong), wrong


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize(("dtype", "size"), [(torch.complex32, 6e4), (torch.complex64, 3e38)], ids=str)
def test_a_magnitude_beyond_its_parts_range_is_no_alarm(dtype: torch.dtype, size: float) -> None:
    assert not is_bad(torch.tensor([complex(size, size)]).to(dtype))


class Sharded(torch.Tensor):
    """A tensor of which a part is here, as DTensor is."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Sharded:
        return torch.Tensor._make_wrapper_subclass(cls, (100, *inner.shape), dtype=inner.dtype)

    def __init__(self, inner: torch.Tensor) -> None:
        self._local_tensor = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return cls(function(*(a._local_tensor if isinstance(a, Sharded) else a for a in args), **(kwargs or {})))


@every_way
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_of_a_tensor_spread_over_processes_the_part_that_is_here_is_seen(way: str, dtype: torch.dtype) -> None:
    x = torch.ones(7, dtype=dtype)
    with measured_by(way):
        assert not is_bad(Sharded(x))
        x[3] = math.nan
        assert is_bad(Sharded(x))


@every_way
def test_what_holds_no_numbers_is_fine(way: str) -> None:
    given_back = torch.ones(20)
    given_back.untyped_storage().resize_(0)
    with measured_by(way):
        assert not is_bad()
        assert not is_bad(torch.empty(0), torch.empty(3, 0, dtype=torch.float64), torch.empty(4, device="meta"))
        assert not is_bad(given_back, torch.tensor([1, 2]), torch.tensor([True]))


@every_way
def test_real_gradients_that_explode_are_seen_at_that_step(way: str) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Embedding(5, 3, sparse=True))
    found = []
    with measured_by(way):
        for step in range(4):
            model.zero_grad()
            loss = model[0](torch.ones(2, 4)).sum() + model[1](torch.tensor([1, 1, 3])).sum()
            (loss * (math.inf if step == 2 else 1)).backward()
            found.append(Sentinel().are_bad((p.grad for p in model.parameters() if p.grad is not None), step))
    assert found == [False, False, True, False]


class Arrival:
    """The moment when a device's answer has come."""

    def __init__(self) -> None:
        self.has_come = False

    def query(self) -> bool:
        return self.has_come


def test_the_first_bad_step_is_told_once_its_answer_has_come() -> None:
    sentinel, arrivals = Sentinel(), [Arrival() for _ in range(4)]
    for step, (arrival, fine) in enumerate(zip(arrivals, [True, False, False, True], strict=True)):
        sentinel._asked.append(_Asked(step, torch.tensor(fine), arrival))  # type: ignore[arg-type]
    assert sentinel.bad_step() is None
    arrivals[1].has_come = True
    assert sentinel.bad_step() is None  # an earlier one may still be bad
    arrivals[0].has_come = True
    assert sentinel.bad_step() == 1
    assert sentinel.bad_step() is None
    assert not sentinel._asked
