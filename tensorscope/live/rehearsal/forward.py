"""A forward pass on tensors without data, for sizes that are numbers or symbols."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils._python_dispatch import TorchDispatchMode

from tensorscope.live.rehearsal.bounds import Bounds
from tensorscope.live.rehearsal.flops import flops_of
from tensorscope.live.rehearsal.ledger import Ledger
from tensorscope.live.rehearsal.standins import StandIns, divisible_symbols
from tensorscope.live.rehearsal.symbols import Symbols
from tensorscope.live.sandbox import copied, imagined_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

    from tensorscope.live.rehearsal.inputs import Given

_LONGEST = 20_000  # operations on symbols, which take about a thousand times as long as those on numbers

# What torch raises where it would have to know a value, or has no rule for an operation.
_UNIMAGINABLE = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
    GuardOnDataDependentSymNode,
    NotImplementedError,
)


@dataclass
class Rehearsal:
    """How it went.

    Attributes:
        sizes: of all names.
        ledger: what the modules did.
        symbols: the symbols and the conditions that were decided on the way; None without any.
        error: what it raised, None if it ran through.
        operations: how many operations ran.
        real: whether it had data.
    """

    sizes: dict[str, int]
    ledger: Ledger
    symbols: Symbols | None = None
    error: Exception | None = None
    operations: int = 0
    real: bool = False

    @property
    def runs(self) -> bool:
        """Whether it ran through."""
        return self.error is None

    @property
    def imaginable(self) -> bool:
        """Whether it ran through, or failed on its own account and not for want of data."""
        return not isinstance(self.error, _UNIMAGINABLE)


def rehearse(model: nn.Module, given: Given, sizes: Mapping[str, int], symbolic: Iterable[str] = ()) -> Rehearsal:
    """Run the forward without data; nothing of it lasts, and what it raises is kept.

    Args:
        model: the model.
        given: its arguments.
        sizes: name → size, for all names.
        symbolic: names whose size is to be a symbol, for which `sizes` has an example.
    """
    names = tuple(symbolic)
    symbols = Symbols() if names else None
    ledger = Ledger(model)
    watch = _Watch(ledger, most=_LONGEST if symbols else None)
    done = Rehearsal(dict(sizes), ledger, symbols)
    mode = FakeTensorMode(
        allow_non_fake_inputs=True, static_shapes=True, shape_env=symbols.environment if symbols else None
    )
    mode.cache_enabled = symbols is None  # remembering results for symbols costs more than working them out
    try:
        with imagined_in(model, mode), ExitStack() as stage:
            known = dict(sizes) | {name: symbols.size(name, sizes[name]) for name in names if symbols}
            args, kwargs, tensors = given.made(known)
            for slot, tensor in zip(given.slots, tensors, strict=True):
                if slot.range is not None:
                    watch.bounds.tell(tensor, *slot.range)
            stage.enter_context(divisible_symbols() if symbols else nullcontext())
            stage.enter_context(enable_python_dispatcher() if symbols else nullcontext())
            for part in (ledger, watch, StandIns(ledger.count)):
                stage.enter_context(part)
            model(*args, **kwargs)
    except Exception as error:  # noqa: BLE001  (whatever the user's forward raises is what is asked for)
        done.error = error
    done.operations = watch.operations
    return done


def perform(model: nn.Module, given: Given, sizes: Mapping[str, int], *, watched: bool = True) -> Rehearsal:
    """Run the forward for real, on copies of the weights and with inputs that mean nothing.

    Unwatched, an error's traceback has nothing of ours below the model.
    """
    ledger = Ledger(model)
    watch = _Watch(ledger)
    done = Rehearsal(dict(sizes), ledger, real=True)
    try:
        with copied(model), ledger, watch if watched else nullcontext():
            torch.manual_seed(0)
            args, kwargs, _ = given.made(sizes)
            model(*args, **kwargs)
    except Exception as error:  # noqa: BLE001  (as above)
        done.error = error
    done.operations = watch.operations
    return done


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has left it without types
    """Counts what runs, and refuses to look up what is not there.

    Args:
        ledger: where operations are booked.
        most: operations that may run, None for any number.
    """

    def __init__(self, ledger: Ledger, most: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ledger, self.most = ledger, most
        self.bounds = Bounds()
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and book it."""
        kwargs = kwargs or {}
        self.operations += 1
        if self.most is not None and self.operations > self.most:
            raise NotImplementedError(f"more than {self.most} operations on symbols")
        self.bounds.check(func, args)
        result = func(*args, **kwargs)
        self.bounds.follow(func, args, kwargs, result)
        if flops := _counted(func, args, kwargs, result):
            self.ledger.count(flops)
        return result


def _counted(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    if any(isinstance(size, torch.SymInt) for arg in args if isinstance(arg, torch.Tensor) for size in arg.shape):
        return 0
    return flops_of(func, args, kwargs, result)
