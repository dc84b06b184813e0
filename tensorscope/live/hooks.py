"""Hears what happens to one model: passes, module outputs, optimizers that step.

The hooks are torch's global ones, filtered by identity, so that nothing is stored on the model: it pickles, copies and
compares as before, and a copy of it is not heard.
"""

from __future__ import annotations

import functools
import gc
import sys
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.modules import module as nn_module
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType


class Listener(Protocol):
    """What is told.

    Attributes:
        measuring: whether it wants to hear of every module, and not of passes alone.
    """

    measuring: bool

    def pass_begins(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        """A pass through the model, or through a part of it on its own, begins."""

    def entered(self, path: str) -> None:
        """A module begins; only told while `measuring`."""

    def returned(self, path: str, module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        """A module has returned, or raised: then the output is None; only told while `measuring`."""

    def recomputed(self, path: str, output: Any) -> None:
        """A module has returned during backward, because its activations were checkpointed."""

    def pass_ends(self, output: Any) -> None:
        """The outermost module has returned this."""

    def optimizer_steps(self, optimizer: Optimizer) -> None:
        """An optimizer of this model is about to step: its gradients are final."""

    def optimizer_stepped(self, optimizer: Optimizer) -> None:
        """It has stepped."""

    def failed(self, error: Exception) -> None:
        """One of the others raised."""


def _descendants(kind: type) -> set[type]:
    """A class, and all that descend from it."""
    children: list[type] = type.__subclasses__(kind)
    return {kind}.union(*map(_descendants, children))


class ModelHooks:
    """Global hooks that tell a listener about one model.

    While the listener measures nothing, only the modules that passes begin at are looked at, as briefly as can be.

    Args:
        model: the model.
        listener: is told; what it raises goes to its `failed` and nowhere else.
    """

    def __init__(self, model: nn.Module, listener: Listener) -> None:
        self._model = model
        self._listener = listener
        self._paths: dict[int, str] = {}
        self._parameters: set[int] = set()
        self._owns: WeakKeyDictionary[Optimizer, tuple[int, bool]] = WeakKeyDictionary()
        self._entries = {id(model)}  # modules that passes were seen to begin at
        self._depth = 0
        self._outdated = True
        guard = functools.partial(guarded, listener)
        self._safe = {hook.__name__: guard(hook) for hook in (self._before, self._after)}
        self._optimizer_handles = [
            register_optimizer_step_pre_hook(guard(self._before_step)),
            register_optimizer_step_post_hook(guard(self._after_step)),
        ]
        self._module_handles: list[Any] = []
        self._fully: bool | None = None
        self._listen(fully=True)
        self._look()

    def remove(self) -> None:
        """Stop listening."""
        self._drop_module_hooks()
        for handle in self._optimizer_handles:
            handle.remove()
        self._optimizer_handles = []

    def _listen(self, *, fully: bool) -> None:
        """Look at every module, or only at those that passes begin at."""
        if fully == self._fully:
            return
        self._drop_module_hooks()
        before, after = (self._safe["_before"], self._safe["_after"]) if fully else self._brief()
        self._fully = fully
        self._module_handles = [
            nn_module.register_module_forward_pre_hook(before),
            nn_module.register_module_forward_hook(after, with_kwargs=fully, always_call=fully),
        ]

    def _brief(self) -> tuple[Callable[..., None], Callable[..., None]]:
        entries, before, after = self._entries, self._safe["_before"], self._safe["_after"]

        def briefly_before(module: nn.Module, args: Any) -> None:
            if id(module) in entries:
                before(module, args)

        def briefly_after(module: nn.Module, args: Any, output: Any) -> None:
            if id(module) in entries:
                after(module, args, output)

        return briefly_before, briefly_after

    def _drop_module_hooks(self) -> None:
        for handle in self._module_handles:
            handle.remove()
            nn_module._global_forward_hooks_with_kwargs.pop(handle.id, None)  # which torch forgets
        self._module_handles = []

    def owned_parameters(self) -> set[int]:
        """Ids of the model's parameters that some optimizer owns which exists now."""
        # `type`, since isinstance would wake objects that answer for their class themselves.
        kinds = _descendants(Optimizer)
        optimizers = [thing for thing in gc.get_objects() if type(thing) in kinds]
        groups = (group for optimizer in optimizers for group in optimizer.param_groups)
        return {id(p) for group in groups for p in group["params"]} & self._parameters

    def _look(self) -> None:
        self._paths = {id(module): path for path, module in self._model.named_modules()}
        self._parameters = {id(parameter) for parameter in self._model.parameters()}
        self._owns.clear()
        self._outdated = False

    def _before(self, module: nn.Module, args: Any) -> None:
        path = self._paths.get(id(module))
        if path is None:
            self._outdated |= self._depth > 0  # a stranger within a pass: the model may have got a new part
            return
        if _in_backward():
            return
        if module is self._model:
            self._depth = 0  # an earlier pass that raised may not have ended
        if self._depth == 0:
            if self._outdated:
                self._look()
            self._entries.add(id(module))
            self._listener.pass_begins(module, args, _keywords(sys._getframe()))
            self._listen(fully=self._listener.measuring)
        self._depth += 1
        if self._listener.measuring:
            self._listener.entered(path)

    def _after(self, module: nn.Module, args: Any, *rest: Any) -> None:
        """Rest: the keyword arguments, which torch leaves out if the forward raised, and the output."""
        path = self._paths.get(id(module))
        if path is None:
            return
        kwargs, output = rest if len(rest) == 2 else ({}, rest[0])
        if _in_backward():
            if self._listener.measuring:
                self._listener.recomputed(path, output)
            return
        if self._listener.measuring:
            self._listener.returned(path, module, args, kwargs, output)
        self._depth = max(0, self._depth - 1)
        if self._depth == 0:
            self._listener.pass_ends(output)

    def _before_step(self, optimizer: Optimizer, *_: Any) -> None:
        if self._belongs(optimizer):
            self._listener.optimizer_steps(optimizer)

    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        if self._belongs(optimizer):
            self._depth = 0
            self._listener.optimizer_stepped(optimizer)

    def _belongs(self, optimizer: Optimizer) -> bool:
        groups = len(optimizer.param_groups)
        seen = self._owns.get(optimizer)
        if seen is None or seen[0] != groups:
            owned = any(id(p) in self._parameters for group in optimizer.param_groups for p in group["params"])
            seen = self._owns[optimizer] = (groups, owned)
        return seen[1]


def guarded(listener: Listener, hook: Callable[..., None]) -> Callable[..., None]:
    """A hook that never raises and never returns anything, since a value would replace the module's output."""

    @functools.wraps(hook)
    def safe(*args: Any) -> None:
        try:
            hook(*args)
        except Exception as error:  # noqa: BLE001  (the one place where a failure to measure becomes an event)
            listener.failed(error)

    return safe


def _keywords(frame: FrameType | None) -> Mapping[str, Any]:
    """The keyword arguments of the module call under way, which torch's global pre-hooks are not told."""
    while frame is not None and frame.f_code.co_name != "_call_impl":
        frame = frame.f_back
    found = frame.f_locals.get("kwargs") if frame is not None else None
    return found if isinstance(found, dict) else {}


def _in_backward() -> bool:
    """Whether autograd is running backward: then a forward is the recomputation of a checkpoint."""
    return torch._C._current_graph_task_id() != -1
