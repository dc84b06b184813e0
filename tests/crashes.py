"""Programs that raise, and the exceptions they raise with their tracebacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn


def caught(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Exception:
    """What a call raises."""
    try:
        function(*args, **kwargs)
    except Exception as error:
        return error
    raise AssertionError("the program runs through")


def program(source: str, folder: Path, name: str = "program") -> ModuleType:
    """A module made from source in a file, where its lines can be read."""
    file = folder / f"{name}.py"
    file.write_text(source, encoding="utf-8")
    module = ModuleType(name)
    module.__file__ = str(file)
    exec(compile(source, str(file), "exec"), vars(module))
    return module


class Flattened(nn.Module):
    """A linear layer made for another number of features than it is given."""

    def __init__(self, width: int = 9) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Any:
        x = self.norm(self.conv(x))
        return self.fc(x.flatten(1))


def images() -> Tensor:
    """(2, 1, 5, 5): after `Flattened`'s convolution 36 features."""
    return torch.randn(2, 1, 5, 5)
