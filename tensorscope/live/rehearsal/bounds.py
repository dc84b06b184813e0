"""Which whole numbers a tensor without data can hold: positions from `arange`, and what is made of them.

Looking up position `seq - 1` in a table of 256 rows is what limits `seq`, and no shape says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.weak import WeakTensorKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Sequence

_aten = torch.ops.aten
_smaller: Any = torch.sym_min
_larger: Any = torch.sym_max
_KEEPING = {
    _aten.expand, _aten.view, _aten._unsafe_view, _aten.reshape, _aten.unsqueeze, _aten.squeeze, _aten.permute,
    _aten.transpose, _aten.t, _aten.slice, _aten.select, _aten.clone, _aten._to_copy, _aten.alias, _aten.detach,
    _aten.repeat, _aten.flip, _aten.contiguous, _aten.index_select, _aten.as_strided, _aten.roll, _aten.lift_fresh,
    _aten.index, _aten.gather,
}  # fmt: skip


class Bounds:
    """Remembers the smallest and the largest number of tensors; either may be a symbol."""

    def __init__(self) -> None:
        self._known: Any = WeakTensorKeyDictionary()

    def tell(self, tensor: torch.Tensor, low: Any, high: Any) -> None:
        """What a tensor holds."""
        self._known[tensor] = (low, high)

    def check(self, func: Any, args: Sequence[Any]) -> None:
        """Look whether an operation about to run looks something up that is not there.

        Raises:
            IndexError: it does, in torch's words.
        """
        kind = func.overloadpacket
        if kind is _aten.embedding:
            self._require(args[1], args[0].shape[0], "index out of range in self", signed=False)
        elif kind in (_aten.gather, _aten.index_select) and args[0].ndim:
            size = args[0].shape[args[1]]
            said = f"index out of range in self: axis {args[1]} has {size} entries"
            self._require(args[2], size, said, signed=False)
        elif kind is _aten.index:
            for axis, index in enumerate(args[1]):
                if index is not None and index.dtype is torch.bool:
                    break  # takes as many axes as it has
                if index is not None:
                    size = args[0].shape[axis]
                    self._require(index, size, f"index out of bounds for dimension {axis} with size {size}")

    def follow(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        """Work out what the result of an operation holds."""
        if not isinstance(result, torch.Tensor) or result.is_floating_point() or result.is_complex():
            return
        bounds = self._after(func, args, kwargs)
        if bounds is not None:
            self._known[result] = bounds

    def _after(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        kind = func.overloadpacket
        if kind is _aten.arange:
            return _arange(args, kwargs)
        if kind in _KEEPING and isinstance(args[0], torch.Tensor):
            return self._of(args[0])
        if kind in (_aten.add, _aten.sub) and kwargs.get("alpha", 1) == 1:
            return self._shifted(args[0], args[1], -1 if kind is _aten.sub else 1)
        if kind is _aten.cat:
            return self._joined(args[0])
        return None

    def _shifted(self, left: Any, right: Any, sign: int) -> tuple[Any, Any] | None:
        first, second = self._of(left), self._of(right)
        if first is None or second is None:
            return None
        low, high = second if sign > 0 else second[::-1]
        return first[0] + sign * low, first[1] + sign * high

    def _joined(self, tensors: Sequence[torch.Tensor]) -> tuple[Any, Any] | None:
        known = [self._of(tensor) for tensor in tensors]
        if None in known or not known:
            return None
        low, high = known[0]  # type: ignore[misc]
        for each in known[1:]:
            assert each is not None
            low, high = _smaller(low, each[0]), _larger(high, each[1])
        return low, high

    def _of(self, value: Any) -> tuple[Any, Any] | None:
        if isinstance(value, torch.Tensor):
            known: tuple[Any, Any] | None = self._known.get(value)
            return known
        return (value, value) if isinstance(value, int | torch.SymInt) else None

    def _require(self, index: Any, size: Any, said: str, *, signed: bool = True) -> None:
        known = self._known.get(index) if isinstance(index, torch.Tensor) else None
        if known is not None and (known[1] >= size or (known[0] < 0 if not signed else known[0] < -size)):
            raise IndexError(said)


def _arange(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
    start, end, step = (0, args[0], 1) if len(args) == 1 else (*args[:2], args[2] if len(args) > 2 else 1)
    step = kwargs.get("step", step)
    whole = all(isinstance(value, int | torch.SymInt) for value in (start, end, step))
    if not whole or not isinstance(step, int) or step < 1:
        return None
    return start, start + (end - start - 1) // step * step
