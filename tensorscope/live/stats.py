"""Measures tensors: a row of `events.STORED` each, and a small sample for what a row cannot tell.

On a CPU a row is measured at once, in three passes over memory (sum, squares, extremes) as long as float32 can be
trusted and in float64 otherwise. Elsewhere a row stays on its device, because looking at a number would wait for it.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from tensorscope.events import Histogram, Stats
from tensorscope.run.schema import BINS

SAMPLE = 1024  # elements kept of a tensor for its zero fraction and its histogram
TRUSTED_SHARE = 0.05  # variance below this share of the mean square has lost too many digits in float32
TRUSTED_SIZE = 1e-15  # squares of smaller numbers leave float32's range

Row = tuple[float, ...] | torch.Tensor  # count, mean, std, min, max, nonfinite: on the host, or (6,) float on a device


def measure(tensor: torch.Tensor) -> Stats:
    """Summarise one tensor exactly, over its finite elements.

    Args:
        tensor: any shape, dtype, layout and device; complex numbers count by magnitude, booleans as 0 and 1; a tensor
            without data (meta, fake) has only a count.

    Raises:
        TypeError: `tensor` is not a tensor.
    """
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"`measure` takes a tensor, got {type(tensor).__name__}")
    row = measure_row(tensor)
    count, mean, std, low, high, bad = row.tolist() if isinstance(row, torch.Tensor) else row
    if not count or not has_data(tensor):
        return Stats(int(count), mean, std, low, high, math.nan, int(bad))
    values = real(tensor)
    zeros = int(tensor.numel() - torch.count_nonzero(values).item())
    with np.errstate(all="ignore"):
        counted = count_bins(values.detach().reshape(-1).double().cpu().numpy())
    return Stats(int(count), mean, std, low, high, zeros / count, int(bad), histogram=_histogram(counted))


@torch.no_grad()
def measure_row(tensor: torch.Tensor) -> Row:
    """Count, mean, std, min, max and non-finite elements of a tensor, without waiting for a device."""
    if tensor.is_nested:
        tensor = tensor.values()
    if not has_data(tensor):
        return (float(tensor.numel()), math.nan, math.nan, math.nan, math.nan, 0.0)
    x = real(tensor)
    stored = x.numel()
    if tensor.is_cpu:
        row = _host_row(x) if stored else (0.0, math.nan, math.nan, math.nan, math.nan, 0.0)
        return _with_zeros(row, tensor.numel() - stored) if stored < tensor.numel() else row
    return _device_row(x, tensor.numel() - stored)


@torch.no_grad()
def sample(tensor: torch.Tensor) -> torch.Tensor | None:
    """At most `SAMPLE` elements of a tensor, evenly spread, as a float32 copy on its device; None if it has no data.

    The stride shares no factor with the number of elements, so that no axis is seen at a few of its indices only.
    """
    if not has_data(tensor):
        return None
    flat = real(tensor).reshape(-1)
    stride = max(1, math.ceil(flat.numel() / SAMPLE))
    while stride > 1 and math.gcd(stride, flat.numel()) > 1:
        stride += 1
    return flat[::stride].to(torch.float32, copy=True)


def count_bins(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Low edge, high edge and `BINS` counts between them of the finite values; NaN edges if there is none."""
    finite = values[np.isfinite(values)]
    row = np.full(2 + BINS, np.nan)
    row[2:] = 0
    if not finite.size:
        return row
    row[:2] = low, high = finite.min(), finite.max()
    # Halved before they are subtracted, so that the widest range does not overflow.
    width = high / 2 - low / 2
    place = (finite / 2 - low / 2) / width * BINS if width > 0 else np.zeros_like(finite)
    row[2:] = np.bincount(np.clip(place, 0, BINS - 1).astype(np.int64), minlength=BINS)
    return row


def has_data(tensor: torch.Tensor) -> bool:
    """Whether there are numbers to look at: false for meta, fake and functorch tensors."""
    if type(tensor) in _PLAIN:
        return not tensor.is_meta
    from torch._subclasses.fake_tensor import FakeTensor

    return not (
        tensor.is_meta or isinstance(tensor, FakeTensor) or torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


_PLAIN = (torch.nn.Parameter,)  # a functorch wrapper has the type Tensor, so only a Parameter is surely plain


def real(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's numbers as float32 or float64: stored values of a sparse one, magnitudes of complex ones."""
    x = tensor.detach()
    if x.is_nested:
        x = x.values()
    if x.layout is not torch.strided:
        coo = x if x.layout is torch.sparse_coo else x.to_sparse_coo()  # type: ignore[no-untyped-call]
        x = coo.coalesce().values()
    if x.is_quantized:
        x = x.dequantize()
    if x.is_complex():
        x = x.abs()
    if x.dtype in (torch.float32, torch.float64):
        return x
    exact = x.dtype.is_floating_point or x.device.type == "mps"  # 8- and 16-bit floats fit in float32, integers do not
    return x.to(torch.float32 if exact else torch.float64)


def _host_row(x: torch.Tensor) -> tuple[float, ...]:
    flat = x.reshape(-1)
    low, high = map(float, torch.aminmax(flat))
    count = x.numel()
    mean, square = float(flat.sum()) / count, float(torch.dot(flat, flat)) / count
    variance = square - mean * mean
    trusted = math.isfinite(square) and variance > TRUSTED_SHARE * square and max(-low, high) > TRUSTED_SIZE
    return (float(count), mean, math.sqrt(variance), low, high, 0.0) if trusted else _exact_row(x)


def _exact_row(x: torch.Tensor) -> tuple[float, ...]:
    """In float64 and scaled to 1, so that nothing cancels, overflows or underflows."""
    y = x.double()
    finite = torch.isfinite(y)
    good = int(finite.sum())
    bad = float(x.numel() - good)
    if not good:
        return (float(x.numel()), math.nan, math.nan, math.nan, math.nan, bad)
    if bad:
        y = y[finite]
    low, high = map(float, torch.aminmax(y))
    scale = max(-low, high) or 1.0
    y = y / scale
    mean = y.mean()
    std = (y - mean).square_().mean().sqrt()
    return (float(x.numel()), float(mean) * scale, float(std) * scale, low, high, bad)


def _device_row(x: torch.Tensor, zeros: int = 0) -> torch.Tensor:
    """The same with no number looked at: sums run in float64, so that float32 data neither cancels nor overflows."""
    wide = torch.float32 if x.device.type == "mps" else torch.float64
    finite = torch.isfinite(x)
    stored = finite.sum(dtype=wide)
    good = stored + zeros
    y = torch.where(finite, x, 0)
    mean = y.sum(dtype=wide) / good
    # mean of squares − square of the mean
    variance = torch.linalg.vector_norm(y, dtype=wide).square() / good - mean.square()
    infinity = torch.where(stored > 0, math.inf, math.nan).to(wide)
    if x.numel():
        low = torch.where(finite, x, math.inf).amin().to(wide)
        high = torch.where(finite, x, -math.inf).amax().to(wide)
    else:
        low = high = infinity
    if zeros:
        low, high = low.nan_to_num(nan=0.0).clamp(max=0), high.nan_to_num(nan=0.0).clamp(min=0)
    low, high = (torch.where(edge.isfinite(), edge, math.nan) for edge in (low, high))
    count = torch.full_like(good, x.numel() + zeros)
    return torch.stack((count, mean, variance.clamp(min=0).sqrt(), low, high, x.numel() - stored))


def _with_zeros(row: tuple[float, ...], zeros: int) -> tuple[float, ...]:
    """What the row becomes when `zeros` elements that were not stored are counted in."""
    count, mean, std, low, high, bad = row
    stored = count - bad
    if not stored:
        return (count + zeros, 0.0, 0.0, 0.0, 0.0, bad)
    share = stored / (stored + zeros)
    # Law of total variance, with a second group whose mean and variance are 0.
    variance = share * std * std + share * (1 - share) * mean * mean
    return (count + zeros, share * mean, math.sqrt(variance), min(low, 0.0), max(high, 0.0), bad)


def _histogram(row: npt.NDArray[np.float64]) -> Histogram | None:
    low, high = row[:2]
    if math.isnan(low):
        return None
    share = np.linspace(0, 1, BINS + 1)
    edges = low * (1 - share) + high * share  # exact at both ends, and without a difference that could overflow
    return Histogram(tuple(edges.tolist()), tuple(int(n) for n in row[2:]))
