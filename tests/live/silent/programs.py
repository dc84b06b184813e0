"""How the programs in this folder are written down, and run under a trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tensorscope import trace
from tensorscope.events import Finding
from tensorscope.live.silent import mistakes

RULES = {
    *("silent_broadcast", "axis_order", "mask_ineffective", "future_leak"),
    *("loss_broadcasting", "batch_mixing", "softmax_wrong_dim"),
}


class From(nn.Module):
    """A model from a function of itself and its inputs."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


class Named(nn.Sequential):
    """A sequence with names."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


class Wrap(nn.Module):
    """Calls its only part."""

    def __init__(self, **part: nn.Module) -> None:
        super().__init__()
        for name, module in part.items():
            self.add_module(name, module)

    def forward(self, *args: Tensor) -> Tensor:
        (module,) = self.children()
        return module(*args)  # type: ignore[no-any-return]


@dataclass
class Program:
    """A model with its inputs, and perhaps a loss outside of it."""

    model: nn.Module
    args: tuple[Any, ...]
    loss: Callable[[Any], Tensor] | None = None


Sick = dict[str, tuple[str, str | None, Callable[[bool], Program]]]
Builder = Callable[[bool], Program]


def registry() -> tuple[Sick, Callable[[str, str | None], Callable[[Builder], Builder]]]:
    """A table of sick programs, and the decorator that says which rule finds one, and where."""
    table: Sick = {}

    def sick(rule: str, site: str | None) -> Callable[[Builder], Builder]:
        def keep(build: Builder) -> Builder:
            table[build.__name__] = (rule, site, build)
            return build

        return keep

    return table, sick


def silent_findings(program: Program, folder: Path) -> list[Finding]:
    """What is found: without a loss from the forward alone, with one while a step is traced."""
    if program.loss is None:
        return mistakes(program.model, program.args, {})
    optimizer = torch.optim.SGD(program.model.parameters(), lr=1e-3)
    with trace(program.model, folder / "run", every=1, histograms=False) as session:
        for _ in range(2):
            optimizer.zero_grad()
            program.loss(program.model(*program.args)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        found = session.findings()
    return [finding for finding in found if finding.rule in RULES]
