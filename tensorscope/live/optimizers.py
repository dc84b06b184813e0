"""The optimizers of a training: whose parameters they hold, how they are set."""

from __future__ import annotations

import json
import weakref
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from tensorscope.live.settings import describe, numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch.optim import Optimizer

    from tensorscope.live.settings import Number
    from tensorscope.run.writer import Writer

MOST = 16  # optimizers that are described


class Optimizers:
    """Remembers the optimizers of a model, and records how each was set when it was first seen.

    Args:
        writer: takes the settings.
        names: id of a parameter → its name in the model.

    Attributes:
        owned: ids of the model's parameters that some optimizer which has stepped holds.
    """

    def __init__(self, writer: Writer, names: Mapping[int, str]) -> None:
        self._writer, self._names = writer, names
        self._known: WeakKeyDictionary[Optimizer, tuple[int, list[torch.Tensor]]] = WeakKeyDictionary()
        self._places: WeakKeyDictionary[Optimizer, int] = WeakKeyDictionary()
        self._described: list[dict[str, Any]] = []
        self.owned: set[int] = set()
        self._alive: dict[int, weakref.ref[Optimizer]] = {}

    def gone(self) -> set[int]:
        """Ids of optimizers that have stepped and exist no more, each once."""
        gone = {number for number, optimizer in self._alive.items() if optimizer() is None}
        for number in gone:
            del self._alive[number]
        return gone

    def parameters(self, optimizer: Optimizer) -> list[torch.Tensor]:
        """Those of its parameters that are the model's."""
        size = sum(len(group["params"]) for group in optimizer.param_groups)
        known = self._known.get(optimizer)
        if known is None or known[0] != size:
            self._alive[id(optimizer)] = weakref.ref(optimizer)
            own = [p for group in optimizer.param_groups for p in group["params"] if id(p) in self._names]
            known = self._known[optimizer] = (size, own)
            self.owned |= {id(p) for p in own}
            self._describe(optimizer)
        return known[1]

    def numbers(self, optimizer: Optimizer) -> dict[str, Number]:
        """The settings that schedules move: `lr`, of a second optimizer `optimizer2.lr`."""
        place = self._places.get(optimizer, 0)
        prefix = f"optimizer{place + 1}." if place else ""
        return {prefix + name: number for name, number in numbers(optimizer).items()}

    def _describe(self, optimizer: Optimizer) -> None:
        place = self._places.setdefault(optimizer, len(self._described))
        if place < MOST:
            self._described[place:] = [describe(optimizer, self._names), *self._described[place + 1 :]]
            self._writer.document("optimizers", json.dumps(self._described))
