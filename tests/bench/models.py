"""The models that are measured: small enough for two cores, of the kinds that people train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """A training to measure: a model, what it is given, and the loss of what it makes of that."""

    name: str
    model: nn.Module
    x: Tensor
    loss: Callable[[Tensor], Tensor]


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


def mlp() -> Case:
    layers = [nn.Linear(256, 512), nn.ReLU(), *(m for _ in range(6) for m in (nn.Linear(512, 512), nn.ReLU()))]
    x, y = torch.randn(128, 256), torch.randint(0, 10, (128,))
    model = nn.Sequential(*layers, nn.Linear(512, 10))
    return Case("MLP", model, x, lambda out: nn.functional.cross_entropy(out, y))


def cnn() -> Case:
    stages = [(3, 32), (32, 64), (64, 128)]
    layers = [
        m for i, o in stages for m in (nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2))
    ]
    x, y = torch.randn(32, 3, 32, 32), torch.randint(0, 10, (32,))
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, 10))
    return Case("CNN", model, x, lambda out: nn.functional.cross_entropy(out, y))


def gpt() -> Case:
    model = nn.Sequential(
        nn.Embedding(256, 192), *(Block(192, 6) for _ in range(6)), nn.LayerNorm(192), nn.Linear(192, 256)
    )
    tokens = torch.randint(0, 256, (4, 129))
    y = tokens[:, 1:].flatten()
    return Case("GPT", model, tokens[:, :-1], lambda out: nn.functional.cross_entropy(out.flatten(0, 1), y))


def thousand() -> Case:
    """A thousand small layers: what a hook costs shows most where a layer costs little."""
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(1000)))
    return Case("1 000 layers", model, torch.randn(32, 64), lambda out: out.square().mean())


CASES = (mlp, cnn, gpt, thousand)
