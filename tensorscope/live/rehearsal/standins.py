"""Operations that torch can only imagine for sizes that are numbers, done here for symbols too.

A recurrent layer would be unrolled, step by step; `unfold` and `divmod` would not take a symbol.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from tensorscope.live.rehearsal.flops import recurrent_flops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

_PACKED = 2  # place of the weights among a recurrent function's arguments; with packed sequences one further


class StandIns(TorchFunctionMode):
    """Replaces those operations.

    Args:
        count: is told how many floating-point operations a replaced one would have been.
    """

    def __init__(self, count: Callable[[int], None]) -> None:
        super().__init__()
        self.count = count

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function or what stands in for it."""
        kwargs = kwargs or {}
        stand_in = _STAND_INS.get(func)
        if stand_in is None:
            return func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            result = stand_in(self, *args, **kwargs)
        return func(*args, **kwargs) if result is None else result

    def recur(self, gates: int, args: tuple[Any, ...]) -> Any:
        """Run a recurrent layer; None if it would fail, which torch itself then says best."""
        packed = isinstance(args[3], tuple | list)
        data, weights = args[0], list(args[3] if packed else args[2])
        _, layers, _, _, two_way, *rest = args[4:] if packed else args[3:]
        states = args[2] if packed else args[1]
        hidden = tuple(states) if isinstance(states, tuple | list) else (states,)
        directions, width = (2 if two_way else 1), weights[1].shape[0] // gates
        projected = weights[1].shape[1]
        if data.shape[-1] != weights[0].shape[1] or any(state.dtype != data.dtype for state in hidden):
            return None
        batch_first = bool(rest[0]) if rest else False
        if not packed and not _fits(data, hidden, (layers * directions, width, projected), batch_first):
            return None
        self.count_recurrent(data, weights)
        output = data.new_empty([*data.shape[:-1], projected * directions])
        # With gradients or without, a new tensor per state.
        return (output, *(state.new_empty(list(state.shape)) for state in hidden))

    def count_recurrent(self, data: Tensor, weights: list[Tensor]) -> None:
        """Book what the weights of a layer cost for every step of every sequence."""
        if all(type(size) is int for size in data.shape):
            self.count(recurrent_flops(data.shape[:-1].numel(), weights))


def _fits(data: Tensor, hidden: tuple[Tensor, ...], sizes: tuple[int, int, int], batch_first: bool) -> bool:
    stacked, width, projected = sizes
    batch = data.shape[0 if batch_first else 1]
    wanted = [projected, width][: len(hidden)]
    return all(
        state.ndim == 3 and state.shape[0] == stacked and state.shape[1] == batch and state.shape[2] == size
        for state, size in zip(hidden, wanted, strict=True)
    )


def _unfolded(mode: StandIns, tensor: Tensor, dimension: int, size: Any, step: Any) -> Tensor | None:
    if not tensor.ndim or isinstance(size, torch.SymInt) or isinstance(step, torch.SymInt):
        return None
    axis = dimension % tensor.ndim
    if size < 0 or step < 1 or tensor.shape[axis] < size:
        return None
    shape, stride = list(tensor.shape), list(tensor.stride())
    shape[axis] = (shape[axis] - size) // step + 1
    stride.append(stride[axis])
    stride[axis] = stride[axis] * step
    return torch.as_strided(tensor, [*shape, size], stride, tensor.storage_offset())


def _recurrent(gates: int) -> Callable[..., Any]:
    return lambda mode, *args: mode.recur(gates, args)


_STAND_INS: dict[Any, Callable[..., Any]] = {
    torch._VF.lstm: _recurrent(4),
    torch._VF.gru: _recurrent(3),
    torch._VF.rnn_tanh: _recurrent(1),
    torch._VF.rnn_relu: _recurrent(1),
    torch.Tensor.unfold: _unfolded,
}


@contextmanager
def divisible_symbols() -> Iterator[None]:
    """Let `divmod` take a symbol, which torch has left out; only while a forward is imagined."""
    if hasattr(torch.SymInt, "__divmod__"):
        yield
        return
    kind: Any = torch.SymInt
    kind.__divmod__ = lambda left, right: (left // right, left % right)
    kind.__rdivmod__ = lambda right, left: (left // right, left % right)
    try:
        yield
    finally:
        del kind.__divmod__, kind.__rdivmod__
