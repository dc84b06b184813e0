"""Watches a pass that is run again: its functions, the operations below them, and the nodes that autograd makes."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules import module as nn_module
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tensorscope.live.origins.calls import Made, called_from
from tensorscope.live.origins.ledger import Ledger, key_of, written
from tensorscope.live.origins.nodes import Nodes
from tensorscope.live.postmortem.crash import running_place
from tensorscope.live.tensors import leaves
from tensorscope.live.transcript import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from tensorscope.live.origins.ledger import Operands


class WritesError(BaseException):
    """The pass is about to write to a tensor that is the user's; no `except Exception` of theirs may hold it up."""


class ReachedError(BaseException):
    """The function that was asked for is about to run.

    Attributes:
        operands: what it is given.
    """

    def __init__(self, operands: Operands) -> None:
        super().__init__()
        self.operands = operands


class Watcher(TorchFunctionMode):
    """Sees every function and every operation of a pass.

    Args:
        paths: id of a module → its dotted path.
        protected: tensors of the user's that the pass shares and may not write to.
        until: number of the function at which to raise `ReachedError`, None to run to the end.

    Attributes:
        ledger: where non-finite numbers of the forward came from.
        nodes: what autograd will run, and what came of it.
        over: whether the forward is over.
        called: paths of the modules in the order in which the forward has called them.
    """

    def __init__(self, paths: dict[int, str], protected: list[torch.Tensor], until: int | None = None) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.nodes = Nodes()
        self.over = False
        self.called: list[str] = []
        self._paths = paths
        self._protected = {key for tensor in protected if (key := key_of(tensor)) is not None}
        self._open: list[str] = []
        self._until = until
        self._calls = 0
        self._current: Made | None = None
        self._generators: dict[torch.Generator, torch.Tensor] = {}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what is run within."""
        hooks = (
            nn_module.register_module_forward_pre_hook(self._enter),
            nn_module.register_module_forward_hook(self._leave, always_call=True),
        )
        try:
            with _Operations(self), self:
                yield
        finally:
            for hook in hooks:
                hook.remove()
                nn_module._global_forward_hooks_always_called.pop(hook.id, None)  # which torch forgets
            for generator, state in self._generators.items():
                generator.set_state(state)
            self.nodes.forget()

    def run(self, start: Callable[[], Any]) -> Any:
        """Run the forward; lines of the user's are looked for no further out than here."""
        result = start()
        self.over = True
        return result

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function; what it runs is its own."""
        kwargs = kwargs or {}
        self._keep_generator(kwargs.get("generator"))
        name = name_of(func)
        if name == "set":  # of an attribute
            name = str(getattr(getattr(func, "__self__", None), "__name__", name))
        path = self._open[-1] if self._open else ""
        composed = getattr(func, "__module__", "") == "torch.nn.functional"
        place, caller = running_place(sys._getframe(1), _START), called_from(sys._getframe(1))
        direct = place is not None and caller is not None and caller.f_code is place.code
        made = Made(name, path, place, direct, composed, self._calls, args=args, kwargs=kwargs, func=func)
        self._calls += 1
        outer, self._current = self._current, made
        try:
            operands = self._about_to(made)
            result = func(*args, **kwargs)
            if torch.is_grad_enabled():
                self.nodes.made(result, made, operands)
        finally:
            self._current = outer
            made.ended()
        return result

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation, unless it writes where it may not, and look at what comes out."""
        if self._protected and any(key_of(tensor) in self._protected for tensor in written(func, args, kwargs)):
            raise WritesError
        with torch._C.DisableTorchFunction():
            if self.over:
                return func(*args, **kwargs)
            made = self._current or self._unseen_call()
            made.operations += not func.is_view
            before = self.ledger.before(func, args, kwargs)
            result = func(*args, **kwargs)
            self.ledger.after(func, args, kwargs, result, before, made)
            return result

    def _unseen_call(self) -> Made:
        """What stands for a function that is not torch's own, such as one of a script."""
        return Made("", self._open[-1] if self._open else "", running_place(sys._getframe(3), _START))

    def _about_to(self, made: Made) -> Operands | None:
        """What a function is given, as far as it must be known now."""
        if torch.is_grad_enabled():
            self.nodes.strangers(leaves((made.args, made.kwargs)), made.path)
        if self._until != made.number and not self.over:
            return None
        with torch._C.DisableTorchFunction(), torch.utils._python_dispatch._disable_current_modes():
            operands = self.ledger.operands(made)
        if self._until == made.number:
            raise ReachedError(operands)
        return operands

    def _keep_generator(self, generator: object) -> None:
        if isinstance(generator, torch.Generator) and generator not in self._generators:
            self._generators[generator] = generator.get_state()

    def _enter(self, module: nn.Module, _: Any) -> None:
        path = self._paths.get(id(module))
        if path is not None:
            self._open.append(path)
            if not self.over:
                self.called.append(path)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        path = self._paths.get(id(module))
        if path is not None and path in self._open:
            self.nodes.strangers(leaves(output), path)
            while self._open.pop() != path:
                pass


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has left it without types
    """Sees the operations below the functions."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watcher = watcher

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch would load its compiler, for seconds, to keep it from compiling this."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Have the watcher run it."""
        return self.watcher.operation(func, args, kwargs or {})


_START = Watcher.run.__code__
