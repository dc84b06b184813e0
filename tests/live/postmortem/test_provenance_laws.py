"""The law of provenance, for chains of random operations: sizes that it foretells are those that torch makes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from provenance_programs import assert_law
from torch import Tensor
from torch.nn import functional as F

# The same chains every time: two sizes that are equal by chance can make a program ambiguous, which no rule can tell.
LAW = settings(
    max_examples=150, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def axis(draw: Any, x: Tensor) -> int:
    return draw(st.integers(-x.ndim, x.ndim - 1))


def choice(draw: Any, *options: Any) -> Any:
    return draw(st.sampled_from(options))


def elementwise(draw: Any, x: Tensor) -> Any:
    dim = axis(draw, x)
    return choice(
        draw,
        lambda x: x + 1,
        lambda x: F.relu(x.clone(), inplace=True),
        lambda x: x * x.mean(dim, keepdim=True),
        lambda x: x.sum(dim, keepdim=True) - x,
        lambda x: torch.where(x > 0, x, 0.0),
        lambda x: x.unsqueeze(dim) - x.unsqueeze(dim - 1 if dim < 0 else dim),
        lambda x: x.clone().add_(1.0),
        lambda x: torch.mul(x, 2.0, out=torch.empty_like(x)),
        lambda x: x.masked_fill(x > 1, 0.0).softmax(dim).cumsum(dim).clone(),
        lambda x: torch.tril(x[None, None] * 2),
        lambda x: 2.0 / (1.0 + x.float().exp()),
        lambda x: F.dropout(F.layer_norm(x, x.shape[-1:]), training=False),
    )


def reduction(draw: Any, x: Tensor) -> Any:
    dim, keep = axis(draw, x), draw(st.booleans())
    dims = draw(st.lists(st.integers(0, x.ndim - 1), min_size=1, max_size=x.ndim, unique=True))
    return choice(
        draw,
        lambda x: x.mean(dims, keepdim=keep),
        lambda x: x.sum(dim=dim, keepdim=keep),
        lambda x: torch.amax(x, dim, keep),
        lambda x: x.max(dim)[0],
        lambda x: torch.max(x, dim=dim, keepdim=keep).values,
        lambda x: x.argmax(dim, keepdim=keep).float(),
        lambda x: torch.logsumexp(x, dims, keepdim=keep),
        lambda x: x.norm(dim=dim, keepdim=keep),
        lambda x: torch.norm(x, 2, dim),
        lambda x: torch.linalg.vector_norm(x, 2, dims, keep),
        lambda x: torch.var_mean(x, dim, correction=0, keepdim=keep)[1],
        lambda x: x.topk(1, dim).values,
        lambda x: x.sort(dim).values.flip(dim),
        lambda x: F.cosine_similarity(x, x * 2, dim=dim),
        lambda x: torch.diff(torch.cat([x, x], dim), dim=dim),
        lambda x: torch.sum(x, axis=dim, keepdims=keep),
    )


def product(draw: Any, x: Tensor) -> Any:
    dim = axis(draw, x)
    if x.ndim < 2:
        return choice(
            draw, lambda x: torch.outer(x, x), lambda x: x[None] * (x @ x), lambda x: torch.tensordot(x, x, 0)
        )
    return choice(
        draw,
        lambda x: x @ x.mT,
        lambda x: x.mT @ x,
        lambda x: torch.einsum("...ij,...kj->...ik", x, x),
        lambda x: torch.einsum("...i,...i", x, x),
        lambda x: torch.tensordot(x, x, ([dim], [dim])),
        lambda x: torch.cdist(x, x),
        lambda x: torch.inner(x, x),
        lambda x: F.scaled_dot_product_attention(x, x, x),
        lambda x: x @ x[..., 0, :, None],
        lambda x: torch.matmul(x.flatten(0, -2)[0], x.mT),
        lambda x: F.linear(x, x.flatten(0, -2)),
        lambda x: torch.baddbmm(torch.zeros(()), x.flatten(0, -2)[None], x.flatten(0, -2)[None].mT),
    )


def order(draw: Any, x: Tensor) -> Any:
    one, other = axis(draw, x), axis(draw, x)
    dims = draw(st.permutations(range(x.ndim)))
    return choice(
        draw,
        lambda x: x.permute(*dims),
        lambda x: torch.permute(x, dims),
        lambda x: x.transpose(one, other),
        lambda x: x.swapaxes(one, other).contiguous(),
        lambda x: torch.movedim(x, one, other),
        lambda x: x.mT if x.ndim > 1 else x,
        lambda x: x.clone().transpose_(one, other),
        lambda x: torch.rot90(x, 1, (one, other)) if one % x.ndim != other % x.ndim else x,
    )


def view(draw: Any, x: Tensor) -> Any:
    dim, end = axis(draw, x) % x.ndim, axis(draw, x) % x.ndim
    dim, end = min(dim, end), max(dim, end)
    return choice(
        draw,
        lambda x: x.flatten(dim, end),
        lambda x: x.reshape(-1),
        lambda x: x.reshape(*x.shape[:dim], -1),
        lambda x: x.reshape(*x.shape[:dim], -1, *x.shape[end + 1 :]),
        lambda x: x.flatten(dim, end).unflatten(dim, x.shape[dim : end + 1]),
        lambda x: torch.cat([x, x], dim).unflatten(dim, (-1, 2)),
        lambda x: torch.cat([x, x], dim).unflatten(dim, (2, -1)),
        lambda x: x.unsqueeze(dim).squeeze(dim),
        lambda x: x.clone().unsqueeze_(dim),
        lambda x: x[None].expand(3, *[-1] * x.ndim),
        lambda x: x.unsqueeze(dim).expand(*x.shape[:dim], 11, *x.shape[dim:]),
        lambda x: x.repeat(2, *[1] * x.ndim).flatten(0, 1),
        lambda x: x.tile(3),
        lambda x: x.repeat_interleave(2, dim),
        lambda x: x.reshape(x.shape).view_as(x) if x.is_contiguous() else x.ravel(),
        lambda x: torch.broadcast_tensors(x, x.mean(dim, keepdim=True))[1],
    )


def join(draw: Any, x: Tensor) -> Any:
    dim, count = axis(draw, x), draw(st.integers(1, 4))
    size = draw(st.integers(1, 5))
    return choice(
        draw,
        lambda x: torch.cat([x, x * 2], dim),
        lambda x: torch.cat([x, torch.zeros_like(x), x.mean(dim, keepdim=True)], dim=dim),
        lambda x: torch.stack([x] * 3, dim),
        lambda x: torch.hstack([x, x]),
        lambda x: torch.vstack((x, x)),
        lambda x: torch.dstack((x, x)),
        lambda x: torch.column_stack((x, x)),
        lambda x: x.chunk(count, dim)[0],
        lambda x: torch.split(x, size, dim)[0],
        lambda x: torch.cat(x.split(size, dim=dim), dim),
        lambda x: torch.cat(x.tensor_split(count, dim)[1:] or [x], dim),
        lambda x: x.unbind(dim)[0],
        lambda x: torch.cat([x, x[:0]], 0),
        lambda x: torch.block_diag(x, x) if x.ndim < 3 else x,
    )


def index(draw: Any, x: Tensor) -> Any:
    dim = axis(draw, x)
    bounds = st.one_of(st.none(), st.integers(-6, 8))
    cut = slice(draw(bounds), draw(bounds), draw(st.sampled_from([None, 1, 2, 3])))
    return choice(
        draw,
        lambda x: x[cut],
        lambda x: x[..., cut],
        lambda x: x[None, ..., None],
        lambda x: x[..., 0],
        lambda x: x[[0, 0, 0]],
        lambda x: x[..., torch.zeros(2, 3, dtype=torch.long)],
        lambda x: x[torch.zeros(4, dtype=torch.long), ..., torch.zeros(4, dtype=torch.long)] if x.ndim > 1 else x,
        lambda x: x[torch.tensor(0), :, None] if x.ndim > 1 else x,
        lambda x: x[:, torch.zeros(5, dtype=torch.long), 0] if x.ndim > 2 else x,
        lambda x: x[0, :, torch.zeros(5, dtype=torch.long)] if x.ndim > 2 else x,
        lambda x: x.select(dim, 0),
        lambda x: x.narrow(dim, 0, 1),
        lambda x: x.index_select(dim, torch.tensor([0, 0])),
        lambda x: torch.gather(x, dim, torch.zeros_like(x, dtype=torch.long)),
        lambda x: torch.take_along_dim(x, x.argsort(dim), dim),
        lambda x: x[x > -1e9],
        lambda x: x.diagonal(0, 0, 1) if x.ndim > 1 else torch.diag(x),
        lambda x: F.one_hot(x.argmax(dim), 40),
        lambda x: torch.zeros(*x.shape, 11).new_ones(x.size(dim)) * torch.arange(x.size(dim)),
        lambda x: torch.arange(70)[: x.size(dim)].float(),
    )


def window(draw: Any, x: Tensor) -> Any:
    dim = axis(draw, x)
    pads = draw(st.lists(st.integers(-1, 3), min_size=2, max_size=2))
    return choice(
        draw,
        lambda x: F.pad(x, tuple(pads)),
        lambda x: x.unfold(dim, 2, 2),
        lambda x: torch.cat([x] * 2, dim).unfold(dim, 2, 1),
        lambda x: F.avg_pool1d(x[None] if x.ndim == 1 else x.flatten(0, -2), 2),
        lambda x: F.interpolate(x.flatten(0, -2)[None] if x.ndim > 1 else x[None, None], scale_factor=1.5),
    )


STEPS = (elementwise, reduction, product, order, view, join, index, window)


@st.composite
def chains(draw: st.DrawFn) -> tuple[list[Any], tuple[int, ...], tuple[int, ...]]:
    """Operations one after the other, sizes on which they run, and other sizes."""
    rank = draw(st.integers(1, 4))
    shape = tuple(draw(st.lists(st.integers(2, 7), min_size=rank, max_size=rank, unique=True)))
    x = torch.randn(shape)
    steps: list[Any] = []
    for _ in range(draw(st.integers(1, 5))):
        step = draw(st.sampled_from(STEPS))(draw, x)
        try:
            made = step(x.clone()).float()
        except (RuntimeError, IndexError, ValueError):
            continue
        if not made.ndim or made.ndim > 6 or made.numel() > 20_000:
            continue
        steps, x = [*steps, step], made
    other = tuple(draw(st.one_of(st.just(n), st.integers(1, 9))) for n in shape)
    return steps, shape, other


@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
@LAW
@given(chains())
def test_sizes_of_a_chain_follow_from_the_input(chain: tuple[list[Any], tuple[int, ...], tuple[int, ...]]) -> None:
    steps, shape, other = chain

    def program(watched: Any, x: Tensor) -> Tensor:
        for number, step in enumerate(steps):
            watched.module = f"step{number}"  # numbers that the program asks for are known where it asked for them
            x = step(x).float()
        return x

    assert_law(program, {"x": torch.randn(shape)}, {"x": torch.randn(other)}, unknown=True)
