"""What is asked of a tensor's numbers: whether they are finite, and which extremes they have."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from tensorscope.run.origin import Culprit

_FLOAT8 = tuple(
    kind for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
    if (kind := getattr(torch, name, None)) is not None
)  # fmt: skip


class State(NamedTuple):
    """Which kinds of non-finite numbers a tensor holds."""

    nan: bool = False
    plus: bool = False
    minus: bool = False

    @property
    def inf(self) -> bool:
        """Whether it holds an infinity of either sign."""
        return self.plus or self.minus

    @property
    def bad(self) -> bool:
        """Whether it holds anything that is not finite."""
        return self.nan or self.plus or self.minus


FINE = State()


def state_of(tensor: torch.Tensor) -> State:
    """Which non-finite numbers a tensor holds; of integers none. Waits for an accelerator."""
    values = _numbers(tensor)
    if values is None or not values.numel() or not values.is_floating_point() or _adds_up(values):
        return FINE
    return State(bool(values.isnan().any()), bool((values == torch.inf).any()), bool((values == -torch.inf).any()))


def _adds_up(values: torch.Tensor) -> bool:
    """Whether the sum is finite, as it is not if any number is not: the cheapest test there is."""
    kind = torch.float32 if values.dtype in (torch.float16, torch.bfloat16) else None
    return math.isfinite(values.sum(dtype=kind).item())


def count_bad(tensor: torch.Tensor) -> int:
    """How many elements are not finite."""
    values = _numbers(tensor)
    return 0 if values is None or _adds_up(values) else values.numel() - int(torch.isfinite(values).sum())


def is_mask(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds nothing but 0 and −Inf, to be added to scores."""
    values = _numbers(tensor)
    return values is not None and bool(((values == 0) | (values == -torch.inf)).all())


def described(name: str, tensor: torch.Tensor) -> Culprit:
    """The extremes of a tensor under a name."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    shape = () if tensor.is_nested else tuple(int(size) for size in tensor.shape)
    values = _numbers(tensor)
    if values is None or not values.numel():
        return Culprit(name, shape, dtype, None, None, 0, 0)
    if values.dtype is torch.bool:
        values = values.to(torch.uint8)
    kept = values if not values.is_floating_point() or _adds_up(values) else values[torch.isfinite(values)]
    low, high = kept.aminmax() if kept.numel() else (None, None)
    return Culprit(
        name,
        shape,
        dtype,
        float(low) if low is not None else None,
        float(high) if high is not None else None,
        values.numel() - int(values.count_nonzero()),
        values.numel() - kept.numel(),
    )


def _numbers(tensor: torch.Tensor) -> torch.Tensor | None:
    """The stored numbers of a tensor as real ones; None if it has none that can be looked at."""
    if tensor.is_meta or tensor.is_quantized:
        return None
    values = tensor.detach()
    if values.is_nested:
        values = values.values()
    elif values.layout is not torch.strided:
        values = values._values() if values.layout is torch.sparse_coo else values.values()
    if values.is_complex():
        values = torch.view_as_real(values.resolve_conj())
    return values.float() if values.dtype in _FLOAT8 else values
