"""What the tests of the trace train, and how they look for hooks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module
from torch.optim import optimizer as optim
from torch.utils.checkpoint import checkpoint

import tensorscope
from tensorscope import Run, open_run


class Small(nn.Module):
    """Convolution, batch norm, dropout: everything that random state and buffers can break."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.relu(self.norm(self.conv(x)))).flatten(1))


class Recurrent(nn.Module):
    """An LSTM, a cell called in a loop, and a shared layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.cell = nn.GRUCell(5, 5)
        self.head = nn.Linear(5, 3)
        self.tied = self.head

    def forward(self, x: Tensor) -> Tensor:
        out, (h, _) = self.lstm(x.flatten(1)[:, :36].reshape(-1, 6, 6))
        state = h[0]
        for step in range(12):
            state = self.cell(out[:, step % 6], state)
        return self.head(state) + self.tied(out[:, -1])


class Transformer(nn.Module):
    """Attention with a -inf mask, layer norm, residuals and checkpointing."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.again = nn.Sequential(nn.Linear(16, 16), nn.GELU())
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(8)
        h = self.layer(self.embed(x[:, 0]), src_mask=mask, is_causal=True)
        h = checkpoint(self.again, h, use_reentrant=False)
        return self.head(h.mean(1))


MODELS: list[Callable[[], nn.Module]] = [Small, Recurrent, Transformer]


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(16, 1, 8, 8, generator=generator), torch.randint(0, 3, (16,), generator=generator)


def train(model: nn.Module, steps: int = 6, on_step: Callable[[int, Tensor], None] | None = None) -> list[Tensor]:
    """A plain loop with an evaluation pass; every loss and gradient that came up."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    x, y = data()
    seen = []
    for step in range(steps):
        model.train()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        seen += [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
        model.eval()
        with torch.no_grad():
            seen.append(model(x))
        if on_step:
            on_step(step, loss)
    return seen


def traced(model: nn.Module, folder: Path, steps: int = 6, **options: Any) -> Run:
    with tensorscope.trace(model, folder / "run", every=1, **options) as trace:
        train(model, steps, lambda _, loss: trace.log(loss=loss))
    return open_run(folder / "run")


def hooks_of(model: nn.Module) -> list[Any]:
    """Everything that torch keeps of hooks, on the model, its tensors and globally."""
    found: list[Any] = [len(nn_module._global_forward_hooks), len(nn_module._global_forward_pre_hooks)]
    found += [len(nn_module._global_forward_hooks_with_kwargs), len(nn_module._global_forward_hooks_always_called)]
    found += [len(optim._global_optimizer_pre_hooks), len(optim._global_optimizer_post_hooks)]
    for module in model.modules():
        found += [len(value) for name, value in vars(module).items() if name.endswith("_hooks")]
    for parameter in model.parameters():
        found += [bool(parameter._backward_hooks), bool(parameter._post_accumulate_grad_hooks)]
    return found
