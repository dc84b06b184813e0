"""Correct models that cut and join neighbouring axes whose sizes happen to be those of a transposition."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from programs import From, Program
from torch import Tensor, nn

SPLITS: dict[str, Callable[[], Program]] = {}


def split(build: Callable[[], Program]) -> Callable[[], Program]:
    SPLITS[build.__name__] = build
    return build


def _time_first_heads(steps: int, batch: int, width: int, heads: int) -> Program:
    """Attention on (seq, batch, features) that folds heads into the batch."""

    def forward(self: From, x: Tensor) -> Any:
        t, b, c = x.shape
        q, k, v = (y.contiguous().view(t, b * heads, c // heads).transpose(0, 1) for y in self.qkv(x).chunk(3, -1))
        out = (q @ k.transpose(1, 2)).softmax(-1) @ v
        return self.o(out.transpose(0, 1).reshape(t, b, c))

    parts = {"qkv": nn.Linear(width, 3 * width), "o": nn.Linear(width, width)}
    return Program(From(forward, **parts), (torch.randn(steps, batch, width),))


SPLITS["as_many_samples_as_features_of_a_head"] = partial(_time_first_heads, 10, 64, 512, 8)
SPLITS["as_many_samples_and_steps_as_heads"] = partial(_time_first_heads, 4, 4, 16, 4)
SPLITS["two_heads_of_as_many_features_as_samples"] = partial(_time_first_heads, 3, 5, 10, 2)


@split
def logits_of_several_heads_as_rows() -> Program:
    return Program(From(lambda m, x: m.l(x).view(-1, 5).log_softmax(-1), l=nn.Linear(8, 20)), (torch.randn(5, 8),))


@split
def features_as_rows() -> Program:
    return Program(From(lambda m, x: F.relu(m.l(x).view(-1, 8)), l=nn.Linear(4, 16)), (torch.randn(8, 4),))


@split
def repeated_samples_as_candidates() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        return self.l(x.repeat_interleave(3, 0)).view(len(x), -1)

    return Program(From(forward, l=nn.Linear(8, 4)), (torch.randn(4, 8),))


@split
def beams_by_index() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        h = torch.tanh(self.a(x))
        beams = h[torch.arange(4).repeat_interleave(3)]
        return self.b(beams).view(4, -1).topk(3).indices

    return Program(From(forward, a=nn.Linear(5, 8), b=nn.Linear(8, 4)), (torch.randn(4, 5),))


@split
def two_tokens_of_one() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        return self.o(self.l(x).reshape(x.shape[0], -1, 8))

    return Program(From(forward, l=nn.Linear(4, 16), o=nn.Linear(8, 2)), (torch.randn(3, 8, 4),))


@split
def one_token_of_two() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        return self.o(self.l(x).reshape(x.shape[0], -1, 16))

    return Program(From(forward, l=nn.Linear(4, 8), o=nn.Linear(16, 2)), (torch.randn(3, 16, 4),))


@split
def blocks_of_as_many_steps_as_samples() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        blocks = self.a(x).view(8, 4, 6)
        return self.att(blocks, blocks, blocks)[0].reshape(4, 8, 6)

    parts = {"a": nn.Linear(6, 6), "att": nn.MultiheadAttention(6, 2, batch_first=True)}
    return Program(From(forward, **parts), (torch.randn(4, 8, 6),))


@split
def weights_masked_before_and_after_the_softmax() -> Program:
    def forward(self: From, x: Tensor, visible: Tensor) -> Any:
        visible = visible[:, None]
        weights = (self.q(x) @ x.mT).masked_fill(~visible, -1e9).softmax(-1)
        return (weights * visible) @ x, weights.masked_fill(~visible, 0.0) @ x

    visible = torch.arange(6)[None] < torch.tensor([6, 4, 2])[:, None]
    return Program(From(forward, q=nn.Linear(8, 8)), (torch.randn(3, 6, 8), visible))


@split
def weights_masked_and_normalised_again() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        weights = (self.q(x) @ x.mT).softmax(-1) * torch.ones(6, 6).tril()
        again = F.dropout((self.q(x) @ x.mT).softmax(-1) * torch.ones(6, 6).tril(), 0.0)
        return (weights / (weights.sum(-1, keepdim=True) + 1e-9)) @ x, F.normalize(again, p=1, dim=-1) @ x

    return Program(From(forward, q=nn.Linear(8, 8)), (torch.randn(3, 6, 8),))


@split
def weights_dropped_by_hand() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        weights = (self.q(x) @ x.mT).softmax(-1)
        return (weights * (torch.rand(6, 6) > 0.3)) @ x + (weights * (torch.rand(3, 6, 1) > 0.3)) @ x

    return Program(From(forward, q=nn.Linear(8, 8)), (torch.randn(3, 6, 8),))
