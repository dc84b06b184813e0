"""Looks at single tensors: `measure`, the moments that a row is made of, a small sample, a histogram.

On a CPU the kernel reads a tensor's memory once. Elsewhere, or where no kernel was compiled, torch computes the same
moments in float64, and looks at no number, because that would wait for the device.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from tensorscope.events import Histogram, Stats
from tensorscope.live.kernel import BAD, COUNT, HIGH, KERNEL, KINDS, LARGE, LOW, M2, MEAN, WIDTH, ZEROS
from tensorscope.run.schema import BINS

SAMPLE = 1024  # elements kept of a tensor for its histogram, and of a parameter for its update
SQUARED = (1e-140, 1e150)  # sizes whose squares stay within float64

Row = npt.NDArray[np.float64]


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
    if not has_data(tensor):
        return Stats(tensor.numel(), math.nan, math.nan, math.nan, math.nan, math.nan, 0)
    values, absent = stored_values(tensor)
    row = moments(values, absent)
    scaled, scale, size = row, 1.0, max(-row[LOW], row[HIGH])
    if values.dtype == torch.float64 and size > 0 and not SQUARED[0] < size < SQUARED[1]:
        scaled, scale = moments(values / size, absent), float(size)
    mean, std = float(scaled[MEAN]) * scale, _root(scaled[M2], row[COUNT] - row[BAD]) * scale
    low, high = float(row[LOW]), float(row[HIGH])
    zero = float(row[ZEROS] / row[COUNT]) if row[COUNT] else math.nan
    with np.errstate(all="ignore"):
        counted = count_bins(values.detach().reshape(-1).double().cpu().numpy())
    histogram = _histogram(counted)
    return Stats(int(row[COUNT]), mean, std, low, high, zero, int(row[BAD]), histogram=histogram)


def _root(squares: float, count: float) -> float:
    # std = sqrt(Σ(x − mean)² / n)
    return math.sqrt(squares / count) if count else math.nan


@torch.no_grad()
def moments(values: torch.Tensor, absent: int = 0) -> Row:
    """The moments of a tensor, (8,): see `kernel.cpp`. Waits for its device.

    Args:
        values: a plain strided tensor of numbers.
        absent: further elements, all 0.
    """
    row = np.full(WIDTH, math.nan)
    kind = KINDS.get(values.dtype)
    if KERNEL is None or kind is None or not values.is_cpu:
        row[:] = torch_moments(values, absent).cpu().numpy()
        return row
    x = values if is_dense(values) else values.contiguous()
    alone = np.empty(WIDTH)
    run = KERNEL.measure if x.numel() < LARGE else KERNEL.measure_large
    run(x.data_ptr(), x.numel(), kind, True, alone.ctypes.data, row.ctypes.data)
    if absent:
        KERNEL.join(row.ctypes.data, zero_row(absent).ctypes.data)
    return row


def zero_row(count: int) -> Row:
    """The moments of so many zeros."""
    return np.array([count, 0, 0, 0, 0, count, 0, math.nan], np.float64)


def torch_moments(x: torch.Tensor, absent: int = 0) -> torch.Tensor:
    """The same on the tensor's device, (8,) float64 (float32 on MPS), without looking at a number."""
    wide = torch.float32 if x.device.type == "mps" else torch.float64
    finite = torch.isfinite(x)
    y = torch.where(finite, x, 0).to(wide)
    good = finite.sum(dtype=wide)
    seen = torch.where(good > 0, good, math.nan)
    mean = y.sum() / seen
    # M2 = Σ(x − mean)²
    squares = torch.where(finite, y - mean, 0).square().sum() + 0 * mean
    infinity = torch.full_like(y, math.inf)
    edges = [mean, mean]
    if x.numel():
        edges = [torch.where(finite, y, infinity).amin(), torch.where(finite, y, -infinity).amax()]
    low, high = (torch.where(edge.isfinite(), edge, math.nan) for edge in edges)
    row = [torch.full_like(good, x.numel()), mean, squares, low, high, (x == 0).sum(dtype=wide), x.numel() - good]
    if absent:  # pairwise, with a group whose mean and spread are 0
        n = good + absent
        mean = mean.nan_to_num()
        row = [row[0] + absent, mean * good / n, squares.nan_to_num() + mean.square() * good * absent / n,
               low.nan_to_num().clamp(max=0), high.nan_to_num().clamp(min=0), row[5] + absent, row[6]]  # fmt: skip
    return torch.stack([*row, torch.full_like(good, math.nan)])


def sample_stride(count: int, most: int = SAMPLE) -> int:
    """Every how many elements one is kept, so that at most `most` are.

    It shares no factor with the number of elements, so that no axis is seen at a few of its indices only.
    """
    stride = max(1, math.ceil(count / most))
    while stride > 1 and math.gcd(stride, count) > 1:
        stride += 1
    return stride


@torch.no_grad()
def sample(tensor: torch.Tensor) -> torch.Tensor | None:
    """At most `SAMPLE` elements of a tensor, evenly spread, as a float copy on its device; None if it has no data."""
    if not has_data(tensor):
        return None
    values, _ = stored_values(tensor)
    flat = values.reshape(-1)
    few = flat[:: sample_stride(flat.numel())]
    return few.to(torch.float64 if few.is_cpu else torch.float32, copy=True)


def count_bins(values: npt.NDArray[np.floating]) -> Row:
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


def _histogram(row: Row) -> Histogram | None:
    low, high = row[:2]
    if math.isnan(low):
        return None
    share = np.linspace(0, 1, BINS + 1)
    edges = low * (1 - share) + high * share  # exact at both ends, and without a difference that could overflow
    return Histogram(tuple(edges.tolist()), tuple(int(n) for n in row[2:]))


_PLAIN = (torch.nn.Parameter,)  # a functorch wrapper has the type Tensor, so only a Parameter is surely plain


def has_data(tensor: torch.Tensor) -> bool:
    """Whether there are numbers to look at: false for meta, fake and functorch tensors, and those without memory."""
    if type(tensor) in _PLAIN:
        return not tensor.is_meta
    from torch._subclasses.fake_tensor import FakeTensor

    if tensor.is_meta or isinstance(tensor, FakeTensor) or torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return False
    x = getattr(tensor, "_local_tensor", tensor)
    # Memory may have been given back, and a subclass that wraps others has none of its own.
    return (
        not x.is_cpu
        or x.is_nested
        or x.layout is not torch.strided
        or not x.numel()
        or (x.data_ptr() != 0 and x.untyped_storage().nbytes() > 0)
    )


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether a strided tensor's elements lie side by side in memory, in whatever order."""
    if tensor.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def stored_values(tensor: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The numbers of a tensor as a plain strided one, and how many more it has that are not stored and 0.

    Complex numbers become magnitudes; what is quantised becomes what it stands for.
    """
    x = tensor.detach()
    x = getattr(
        x, "_local_tensor", x
    )  # of what is spread over processes, the part that is here: asking talks to others
    if x.is_nested:
        return stored_values(x.values())[0], 0
    if x.is_mkldnn:
        x = x.to_dense()
    count = x.numel()
    if x.layout is not torch.strided:
        coo = x if x.layout is torch.sparse_coo else x.to_sparse_coo()
        x = coo.coalesce().values()
    if x.is_quantized:
        x = x.dequantize()
    if x.is_complex():  # a magnitude may leave its own parts' range
        x = (x if x.device.type == "mps" else x.to(torch.complex128)).abs()
    elif x.is_neg():
        x = x.resolve_neg()
    if x.dtype not in KINDS:  # 8-bit floats, wide unsigned integers
        x = x.to(torch.float32 if x.dtype.is_floating_point else torch.float64)
    return x, count - x.numel()
