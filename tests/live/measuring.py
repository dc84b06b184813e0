"""What the tests of statistics share: tensors of odd sizes and values, numpy's rows, and every way of measuring."""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from tensorscope.live import kernel, moments, sentinel, stats
from tensorscope.live.kernel import BAD, COUNT, HIGH, LOW, M2, MEAN, WIDTH, ZEROS, Kernel
from tensorscope.live.stats import Row

LIBRARY = Path(kernel.__file__).with_name("_kernel.so")
FLAGS = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
WIDTHS = {"plain": (16, {"flags"}), "avx2": (32, {"avx2", "fma"}), "avx512": (64, {"avx512bw", "avx512dq", "avx512vl"})}
WAYS = [*WIDTHS, "torch"]  # how to measure: by vectors of some width, or without a kernel

ROUNDING = 2048 * 2.0**-52  # of a block's sum in double, in sizes of its numbers
QUICK = (torch.float32, torch.bfloat16, torch.float16)
EXACT = (torch.float64, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
# Around the ends of vectors, of CHAINS vectors, of a block, and of several.
SIZES = sorted({0, *(n + d for n in (1, 4, 8, 16, 32, 64, 2048, 4096, 6144, 20480) for d in (-1, 0, 1)), 2081, 30011})
sizes = st.one_of(st.sampled_from(SIZES), st.integers(0, 5000))


@cache
def kernel_of(width: str) -> Kernel:
    """A kernel of its own that uses vectors of a width; skips where there is no such thing."""
    if not LIBRARY.exists():
        pytest.skip("no kernel was compiled")
    size, needed = WIDTHS[width]
    if not needed <= {*FLAGS, "flags"}:
        pytest.skip(f"this processor has no {width}")
    with tempfile.TemporaryDirectory() as folder:  # a copy is a library of its own, and stays when its file goes
        copy = shutil.copy(LIBRARY, Path(folder, f"{width}.so"))
        own = Kernel(Path(copy))
        own.limit(size)
    return own


@contextlib.contextmanager
def measured_by(way: str) -> Iterator[None]:
    """Everything is measured in one way meanwhile."""
    own = None if way == "torch" else kernel_of(way)
    with contextlib.ExitStack() as stack:
        for module in (moments, stats, sentinel):
            stack.enter_context(mock.patch.object(module, "KERNEL", own))
        yield


def oracle(x: torch.Tensor) -> Row:
    """The row of a dense tensor by numpy, in long double."""
    wide = x.detach().resolve_conj().resolve_neg()
    if wide.is_complex():
        wide = wide.to(torch.complex128).abs()
    numbers = wide.reshape(-1).double().numpy().astype(np.longdouble)
    finite = numbers[np.isfinite(numbers)]
    row = np.full(WIDTH, math.nan)
    row[COUNT], row[ZEROS], row[BAD] = numbers.size, np.sum(numbers == 0), numbers.size - finite.size
    if finite.size:
        with np.errstate(over="ignore", under="ignore"):
            row[M2] = float(np.square(finite - finite.mean()).sum())
        row[MEAN], row[LOW], row[HIGH] = finite.mean(), finite.min(), finite.max()
    return row


def assert_rows_agree(row: Row, expected: Row, *, quick: bool = False) -> None:
    """Counts and extremes to the bit; mean and spread to the rounding of sums in double, or of a block's in float.

    Args:
        row: what was measured.
        expected: numpy's.
        quick: whether blocks were summed up in float.
    """
    assert row[[COUNT, ZEROS, BAD]].tolist() == expected[[COUNT, ZEROS, BAD]].tolist()
    np.testing.assert_array_equal(row[[LOW, HIGH]], expected[[LOW, HIGH]])
    good = expected[COUNT] - expected[BAD]
    if not good:
        assert np.isnan(row[[MEAN, M2]]).all()
        return
    std, size = math.sqrt(expected[M2] / good), float(np.abs(expected[[LOW, HIGH]]).max())
    assert row[MEAN] == pytest.approx(expected[MEAN], rel=1e-13, abs=(1e-6 if quick else 1e-13) * std + ROUNDING * size)
    if math.isinf(std):  # squares leave double's range
        assert math.isinf(row[M2])
        return
    found = math.sqrt(row[M2] / good)
    if math.isinf(found):
        assert size > 1e160
        return
    # Where numbers are all but equal, the rounding of their mean is all that is left.
    assert found == pytest.approx(std, rel=1e-5 if quick else 1e-9, abs=ROUNDING * size + 1e-160)


SPECIAL = (0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40, 1e-45, 1e-30, 1e-8, 1e8, 1e30, 3.4e38, -3.4e38)
BAD_ONES = (math.nan, math.inf, -math.inf)


def _base(kind: str, size: int, random: np.random.Generator) -> np.ndarray:
    x = random.standard_normal(size)
    made = {
        "normal": x,
        "relu": np.maximum(x, 0),
        "constant": np.full(size, x[:1].sum()),
        "narrow": 1000 + 1e-3 * x,
        "alternating": np.where(np.arange(size) % 2, 1.0, -1.0) * np.abs(x),
        "heavy": x / np.where(random.random(size) < 0.5, 1, random.random(size)),
        "rising": np.arange(size) / 7 - 100,
        "sparse": np.where(random.random(size) < 0.01, x, 0),
        "outlier first": np.where(np.arange(size) % 2048 == 0, 1e5 * (1 + x * x), x),
    }
    return made[kind]


KINDS = ("normal", "relu", "constant", "narrow", "alternating", "heavy", "rising", "sparse", "outlier first")
SCALES = {torch.float64: (1e-300, 1e-40, 1.0, 1e38, 1e295), torch.float32: (1e-40, 1e-20, 1.0, 1e20, 1e33)}


@st.composite
def arrays(draw: st.DrawFn, dtype: torch.dtype, *, non_finite: bool = True) -> torch.Tensor:
    """Tensors of one axis that go wrong more often than others.

    Args:
        draw: of Hypothesis.
        dtype: of the elements.
        non_finite: whether NaN and ±Inf may be among them.
    """
    size, kind, seed = draw(sizes), draw(st.sampled_from(KINDS)), draw(st.integers(0, 1000))
    x = _base(kind, size, np.random.default_rng(seed))
    if dtype is torch.bool or not dtype.is_floating_point:
        return _whole(draw, x, dtype)
    wide = dtype if dtype in SCALES else torch.float32
    scale = draw(st.sampled_from(SCALES[wide] if dtype is not torch.float16 else (1e-6, 1e-3, 1.0, 100.0)))
    with np.errstate(over="ignore", under="ignore"):
        values = torch.from_numpy(x * scale).to(dtype)
    values = torch.where(values.isfinite(), values, torch.ones((), dtype=dtype))  # what overflowed by chance
    special = SPECIAL + BAD_ONES * non_finite
    for place, value in draw(st.lists(st.tuples(st.integers(0, 1 << 20), st.sampled_from(special)), max_size=6)):
        if size:
            single = torch.tensor(value, dtype=torch.float64).to(dtype)
            values[place % size] = single if single.isfinite() or non_finite else 1
    return values


def _whole(draw: st.DrawFn, x: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    if dtype is torch.bool:
        return torch.from_numpy(x > draw(st.sampled_from((-10, 0, 10))))
    ends = torch.iinfo(dtype)
    scale = draw(st.sampled_from((1, 30, ends.max / 4)))
    values = torch.from_numpy(np.clip(x * scale, max(ends.min, -(2.0**62)), min(ends.max, 2.0**62))).to(dtype)
    for place, value in draw(st.lists(st.tuples(st.integers(0, 1 << 20), st.sampled_from((0, ends.min, ends.max))))):
        if len(values):
            values[place % len(values)] = value
    return values


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    whole = len(x) // 12 * 12
    return x[:whole].reshape(-1, 3, 2, 2).contiguous(memory_format=torch.channels_last)


LAYOUTS = {
    "plain": lambda x: x,
    "transposed": lambda x: x.unflatten(0, (-1, 3)).t() if len(x) and len(x) % 3 == 0 else x,
    "channels last": _channels_last,
    "expanded": lambda x: x[:, None].expand(len(x), 3),
    "strided": lambda x: x[1::3],
    "corner": lambda x: x[: len(x) // 4 * 4].reshape(4, -1)[1:3, ::2],
    "reversed": lambda x: x.flip(0),
    "square": lambda x: x[:1].reshape(1, 1, -1, 1),
}
