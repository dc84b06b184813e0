"""Models whose graphs are captured, folded and drawn in the tests."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Two convolutions, two linears."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(1600, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = x.flatten(1)
        return self.fc2(F.relu(self.fc1(x)))


class Attention(nn.Module):
    """Causal self-attention, written out."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        batch, seq, dim = x.shape
        q = self.q(x).view(batch, seq, self.heads, -1).transpose(1, 2)
        k = self.k(x).view(batch, seq, self.heads, -1).transpose(1, 2)
        v = self.v(x).view(batch, seq, self.heads, -1).transpose(1, 2)
        scores = q @ k.transpose(-2, -1) / (dim // self.heads) ** 0.5
        mask = torch.ones(seq, seq, dtype=torch.bool, device=x.device).triu(1)
        weights = self.drop(scores.masked_fill(mask, float("-inf")).softmax(-1))
        return self.out((weights @ v).transpose(1, 2).reshape(batch, seq, dim))


class MLP(nn.Module):
    """The feed-forward half of a block."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.up, self.act, self.down, self.drop = (
            nn.Linear(dim, 4 * dim),
            nn.GELU(),
            nn.Linear(4 * dim, dim),
            nn.Dropout(0.1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.down(self.act(self.up(x))))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = (
            nn.LayerNorm(dim),
            Attention(dim, heads),
            nn.LayerNorm(dim),
            MLP(dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """A GPT-2: token and position embedding, blocks, head tied to the embedding."""

    def __init__(self, layers: int = 12, dim: int = 768, heads: int = 12, vocab: int = 50257) -> None:
        super().__init__()
        self.wte, self.wpe, self.drop = nn.Embedding(vocab, dim), nn.Embedding(1024, dim), nn.Dropout(0.1)
        self.h = nn.ModuleList(Block(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, vocab, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.drop(self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device)))
        for block in self.h:
            x = block(x)
        return self.head(self.norm(x))


class Residual(nn.Module):
    """Basic block of a residual network."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.short = (
            nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)) if stride > 1 else None
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.short is None else self.short(x)
        return self.relu(out)


class ResNet(nn.Module):
    """Four stages of residual blocks."""

    def __init__(self, blocks: tuple[int, ...] = (3, 4, 6, 3), width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        channels = width
        for stage, count in enumerate(blocks):
            out = width * 2**stage
            made = [Residual(channels, out, 1 if stage == 0 else 2), *(Residual(out, out, 1) for _ in range(count - 1))]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*made))
            channels = out
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return self.fc(self.pool(x).flatten(1))


class Tagger(nn.Module):
    """Embedding, two-layer LSTM, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm, self.fc = nn.Embedding(100, 32), nn.LSTM(32, 64, 2, batch_first=True), nn.Linear(64, 7)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.embed(tokens))
        return self.fc(hidden)


class Unrolled(nn.Module):
    """An RNN cell called once a step."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.cell, self.fc = nn.RNNCell(8, width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(x.shape[0], self.cell.hidden_size)
        outs = []
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
            outs.append(state)
        return self.fc(torch.stack(outs, 1))


def deep(layers: int, width: int = 16) -> nn.Sequential:
    """Linear and ReLU in turn."""
    return nn.Sequential(*(nn.Linear(width, width) if i % 2 == 0 else nn.ReLU() for i in range(layers)))
