"""Programs that mask too late, or along the heads, and what they should have been."""

from __future__ import annotations

from typing import Any

import torch
from programs import From, Named, Program, Wrap, registry
from torch import Tensor, nn

MASKS, sick = registry()


def _heads(self: From, x: Tensor) -> tuple[Tensor, ...]:
    return tuple(y.unflatten(-1, (4, 4)).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))


def _visible(batch: int) -> Tensor:
    return torch.arange(6)[None] < torch.tensor([6, 4, 2, 5])[:batch, None]


@sick("future_leak", "attn")
def triangle_after_the_softmax(right: bool) -> Program:
    def forward(self: From, x: Tensor) -> Any:
        causal = torch.ones(x.shape[1], x.shape[1]).tril()
        scores = self.q(x) @ x.mT
        weights = scores.masked_fill(causal == 0, -torch.inf).softmax(-1) if right else scores.softmax(-1) * causal
        return weights @ x

    return Program(Named(attn=From(forward, q=nn.Linear(8, 8)), fc=nn.Linear(8, 3)), (torch.randn(3, 6, 8),))


@sick("mask_ineffective", "attn")
def padding_after_the_softmax(right: bool) -> Program:
    def forward(self: From, x: Tensor, visible: Tensor) -> Any:
        q, k, v = _heads(self, x)
        visible, scores = visible[:, None, None], q @ k.mT
        weights = scores.masked_fill(~visible, -1e9).softmax(-1) if right else scores.softmax(-1) * visible
        return (weights @ v).transpose(1, 2).flatten(2)

    return Program(Wrap(attn=From(forward, qkv=nn.Linear(16, 48))), (torch.randn(3, 6, 16), _visible(3)))


@sick("mask_ineffective", "attn")
def padding_filled_after_the_softmax(right: bool) -> Program:
    def forward(self: From, x: Tensor, visible: Tensor) -> Any:
        weights = (self.q(x) @ x.mT).softmax(-1).masked_fill(~visible[:, None], 0.0)
        if right:
            weights = weights / weights.sum(-1, keepdim=True)
        return torch.einsum("bqk,bkd->bqd", weights, x)

    return Program(Wrap(attn=From(forward, q=nn.Linear(16, 16))), (torch.randn(4, 6, 16), _visible(4)))


@sick("silent_broadcast", "attn")
def padding_along_the_heads(right: bool) -> Program:
    def forward(self: From, x: Tensor, visible: Tensor) -> Any:
        q, k, v = _heads(self, x)
        hidden = ~(visible[:, None, None] if right else visible[:, None])
        return ((q @ k.mT).masked_fill(hidden, -1e9).softmax(-1) @ v).transpose(1, 2).flatten(2)

    return Program(Wrap(attn=From(forward, qkv=nn.Linear(16, 48))), (torch.randn(4, 6, 16), _visible(4)))
