"""What each module of a model was given, returned and cost in one forward."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import torch
from torch.nn.modules import module as nn_module

from tensorscope.live.tensors import tensors_in

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from torch import nn

_MANY = 16  # tensors of one module's arguments or result that are kept


@dataclass(frozen=True, slots=True)
class Seen:
    """A tensor as it was seen: place in its container, sizes (whole numbers or symbols), dtype."""

    place: str
    shape: tuple[Any, ...]
    dtype: str


@dataclass(slots=True)
class Account:
    """The calls of one module.

    Attributes:
        path: dotted path.
        parent: path of the module whose forward called it first.
        number: of calls.
        inputs: tensors of the first call.
        outputs: tensors that the first call returned.
        varying: whether later calls returned other shapes.
        flops: of all calls.
    """

    path: str
    parent: str | None
    number: int = 0
    inputs: tuple[Seen, ...] = ()
    outputs: tuple[Seen, ...] = ()
    varying: bool = False
    flops: int = 0


@dataclass
class Ledger:
    """Listens to the modules of a model while its forward runs, with hooks of torch's own that leave no trace on it.

    Args:
        model: the model.
    """

    model: nn.Module
    accounts: dict[str, Account] = field(default_factory=dict)
    _open: list[Account] = field(default_factory=list)
    _hooks: list[Any] = field(default_factory=list)

    def count(self, flops: int) -> None:
        """Book operations on every module that is running."""
        for account in {account.path: account for account in self._open}.values():
            account.flops += flops

    def __enter__(self) -> Self:
        paths = {id(module): path for path, module in self.model.named_modules()}

        def begin(module: nn.Module, args: Any) -> None:
            if (path := paths.get(id(module))) is not None:
                self._begin(path)

        def end(module: nn.Module, args: Any, *rest: Any) -> None:
            if (path := paths.get(id(module))) is not None:
                # After an exception torch leaves the keyword arguments out.
                self._end(path, (args, rest[0] if len(rest) > 1 else {}), rest[-1])

        self._hooks = [
            nn_module.register_module_forward_pre_hook(begin),
            nn_module.register_module_forward_hook(end, with_kwargs=True, always_call=True),
        ]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()
            nn_module._global_forward_hooks_with_kwargs.pop(hook.id, None)  # which torch forgets
            nn_module._global_forward_hooks_always_called.pop(hook.id, None)

    def _begin(self, path: str) -> None:
        parent = self._open[-1].path if self._open else None
        account = self.accounts.setdefault(path, Account(path, parent))
        account.number += 1
        self._open.append(account)

    def _end(self, path: str, given: tuple[Any, Mapping[str, Any]], output: Any) -> None:
        if all(account.path != path for account in self._open):
            return
        while self._open.pop().path != path:
            pass
        account = self.accounts[path]
        seen = _seen(output)
        if account.number == 1:
            account.inputs, account.outputs = _seen(given), seen
        elif not account.varying:
            account.varying = _differ(seen, account.outputs)


def _seen(value: Any) -> tuple[Seen, ...]:
    with torch._C.DisableTorchFunction():
        found = list(tensors_in(value))[:_MANY]
        return tuple(
            Seen(place, () if tensor.is_nested else tuple(map(_plain, tensor.shape)), _dtype(tensor))
            for place, tensor in found
        )


def _plain(size: Any) -> Any:
    """A size that outlives the tensor: a number, or the formula of a symbol."""
    return size.node.expr if isinstance(size, torch.SymInt) else int(size)


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _differ(left: tuple[Seen, ...], right: tuple[Seen, ...]) -> bool:
    return [seen.shape for seen in left] != [seen.shape for seen in right]


Count = "Callable[[int], None]"
