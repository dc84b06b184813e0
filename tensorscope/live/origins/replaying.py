"""Runs a pass again, forward and backward, and says where its numbers stop being finite."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from tensorscope.live.capture import _arguments
from tensorscope.live.origins.backward import Fault, backward_fault, bad_gradients, last_bad_module
from tensorscope.live.origins.generators import kept_generators, set_generator_state
from tensorscope.live.origins.ledger import Operands
from tensorscope.live.origins.numbers import described, state_of
from tensorscope.live.origins.watcher import ReachedError, Watcher
from tensorscope.live.sandbox import duplicated, kept_random_state, quiet, swapped
from tensorscope.live.tensors import leaves
from tensorscope.run.origin import Direction, Origin

if TYPE_CHECKING:
    from collections.abc import Iterator

    Found = Origin | Fault

    from tensorscope.live.origin import Pass
    from tensorscope.live.origins.ledger import Root

_WRAPPERS = (nn.parallel.DistributedDataParallel, nn.parallel.DataParallel)


class Replay:
    """A pass that is run again on copies; nothing that it does lasts.

    Args:
        pass_: what to run.
        model: the traced model, with the step's gradients.
        loss_ops: names of the operations that the loss consists of.
        passes: how many passes the step had.
        shares: whether the parameters' memory is the user's, which the pass may then not write to.
    """

    def __init__(self, pass_: Pass, model: nn.Module, loss_ops: tuple[str, ...], passes: int, *, shares: bool) -> None:
        self.pass_ = pass_
        self.model = model
        self.loss_ops = loss_ops
        self.passes = passes
        self.real = bad_gradients(model)
        self.doubts: list[str] = list(_doubts(pass_, model, passes))
        self._shared = {id(parameter) for parameter in model.parameters()} if shares else set()
        self._twins: dict[int, torch.Tensor] = {}

    def origin(self) -> Origin:
        """Run it, and say what was seen.

        Raises:
            WritesError: it is about to write to a parameter that it shares with the user's model.
            Exception: whatever the model's forward raises.
        """
        found = self._watched()
        if isinstance(found, Origin):
            return found
        operands = found.operands
        if operands is None and found.made is not None:  # in the first run it was not known that they would matter
            try:
                self._watched(until=found.made.number)
            except ReachedError as reached:
                operands = reached.operands
        return found.origin(operands or Operands())

    def _watched(self, until: int | None = None) -> Found:
        """Run the pass under watch; until a function is reached, if one is asked for."""
        self._twins.clear()
        module = self.pass_.module
        module = module.module if isinstance(module, _WRAPPERS) else module
        paths = {id(module): path for path, module in self.model.named_modules()}
        watcher = Watcher(paths, list(self.model.parameters()) if self._shared else [], until)
        devices = [device for device, _ in self.pass_.rng if device is not None]
        with quiet(), swapped(self.model, self._twin), kept_random_state(), kept_generators(devices):
            args, kwargs = duplicated((self.pass_.args, dict(self.pass_.kwargs)), self._twin)
            self._introduce(watcher, module, args, kwargs)
            with watcher.watching(), self._surroundings():
                drawn = _draws()
                outputs = list(leaves(watcher.run(lambda: module(*args, **kwargs))))
                if _draws() != drawn:
                    self.doubts.append(
                        "the forward draws random numbers of Python's or numpy's, which differ each time"
                    )
                return self._seen(watcher, outputs)

    def _seen(self, watcher: Watcher, outputs: list[torch.Tensor]) -> Found:
        """What the pass has shown: forward, then backward, then what is left."""
        with torch._C.DisableTorchFunction():
            kept = [t for m in self.model.modules() for t in leaves(dict(vars(m))) if t.grad_fn is not None]
            found = watcher.ledger.roots(outputs) or watcher.ledger.roots(kept)
        return self._forward(found) or self._backward(watcher, (outputs, kept)) or self._left(watcher, outputs)

    @contextlib.contextmanager
    def _surroundings(self) -> Iterator[None]:
        """What was switched on around the pass."""
        with contextlib.ExitStack() as modes:
            modes.enter_context(torch.set_grad_enabled(self.pass_.gradients))
            for device, on, dtype in self.pass_.autocast:
                modes.enter_context(torch.autocast(device, dtype, enabled=on, cache_enabled=False))
            for place, state in self.pass_.rng:
                set_generator_state(place, state)
            yield

    def _twin(self, tensor: torch.Tensor) -> torch.Tensor:
        """What stands for a tensor of the user's: of a parameter another one that looks at the same memory."""
        if id(tensor) not in self._twins:
            plain = tensor.detach() if id(tensor) in self._shared else tensor.detach().clone()
            twin = nn.Parameter(plain, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else plain
            self._twins[id(tensor)] = twin.requires_grad_(tensor.requires_grad)
        return self._twins[id(tensor)]

    def _introduce(self, watcher: Watcher, module: nn.Module, args: Any, kwargs: Any) -> None:
        for path, tensor in (*self.model.named_parameters(), *self.model.named_buffers()):
            watcher.ledger.give(Direction.PARAMETER, path, tensor)
        for name, tensor in _arguments(module, args, kwargs):
            watcher.ledger.give(Direction.INPUT, name, tensor)

    def _forward(self, found: list[Root]) -> Origin | None:
        """Where the first number that is not finite came from, if any has reached the output."""
        if found and found[0].meant:
            how = str(found[0].origin()) if found[0].inner or found[0].given else "the program writes them down"
            self.doubts.append(f"the output holds infinities: {how}")
            return None
        return found[0].origin() if found else None

    def _backward(self, watcher: Watcher, ends: tuple[list[torch.Tensor], ...]) -> Fault | None:
        """Where a finite gradient became another."""
        try:
            found = (backward_fault(watcher, self.model, tensors, self.real) for tensors in ends)
            return next((fault for fault in found if fault is not None), None)
        except RuntimeError as error:
            self.doubts.append(f"its backward could not be run again: {_said(error)}")
            return None

    def _left(self, watcher: Watcher, outputs: list[torch.Tensor]) -> Origin:
        """Forward and backward are finite when they are run again."""
        note = "; ".join(self.doubts)
        behind = last_bad_module(self.model, self.real, watcher.called)
        if behind is not None:
            note = "; ".join([*self.doubts, "it is finite for other gradients of the output"])
            return Origin(Direction.BACKWARD, behind, sure=False, note=note)
        names = ["output"] if len(outputs) == 1 else [f"output[{number}]" for number in range(len(outputs))]
        culprits = tuple(described(name, tensor) for name, tensor in zip(names, outputs, strict=True))
        sure = not self.doubts and bool(outputs)
        return Origin(Direction.LOSS, culprits=culprits, ops=self.loss_ops, sure=sure, note=note)


def by_values(pass_: Pass, model: nn.Module, reason: str) -> Origin:
    """What the tensors say that a pass was given, where it cannot be run again.

    Args:
        pass_: the pass.
        model: the traced model.
        reason: why it cannot be.
    """
    given = [(Direction.INPUT, *pair) for pair in _arguments(pass_.module, pass_.args, pass_.kwargs)]
    given += [(Direction.PARAMETER, *pair) for pair in model.named_parameters()]
    for direction, name, tensor in given:
        state = state_of(tensor)
        if state.nan or state.plus:
            module = name.rpartition(".")[0] if direction is Direction.PARAMETER else ""
            return Origin(direction, module, culprits=(described(name, tensor),), sure=False, note=reason)
    return Origin(Direction.UNKNOWN, sure=False, note=reason)


def unrepeatable(model: nn.Module) -> str:
    """Why a model's forward must not be run by one process alone, empty if it may."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return ""
    spread = [type(part).__name__ for part in (*model.modules(), *model.parameters())]
    names = [name for name in spread if name in {"FullyShardedDataParallel", "DTensor", "SyncBatchNorm"}]
    names += ["FSDP"] * any(name.startswith("FSDP") for name in spread)
    return f"{names[0]} needs all processes at once" if names else ""


def _doubts(pass_: Pass, model: nn.Module, passes: int) -> Iterator[str]:
    """Why what is not found in this pass may have happened all the same."""
    now = [-1 if tensor.is_inference() else tensor._version for tensor in leaves((pass_.args, pass_.kwargs))]
    if now != list(pass_.versions):
        yield "the pass's input was written to afterwards"
    if passes > 1:
        yield f"it was looked for in the last of {passes} passes"
    if pass_.module is not model:
        yield f"only the last part that was called, a {type(pass_.module).__name__}, was run again"
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if distributed and torch.distributed.get_world_size() > 1:
        yield "it may have come from another process"


def _draws() -> tuple[object, ...]:
    """The state of the generators that a pass does not remember."""
    _, numbers, place, *rest = np.random.get_state()
    return random.getstate(), np.asarray(numbers).tobytes(), place, *rest


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
