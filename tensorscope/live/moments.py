"""The statistics of one phase of a step: a row of moments per site, filled while hooks see tensors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from tensorscope.events import STORED
from tensorscope.live.kernel import BAD, COUNT, HIGH, KERNEL, KINDS, LARGE, LOW, M2, MEAN, OWN, WIDTH, ZEROS
from tensorscope.live.stats import (
    Row,
    has_data,
    is_dense,
    moments,
    sample,
    sample_stride,
    stored_values,
    torch_moments,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FEWEST = 64  # sites that there is room for at first
ROW_BYTES = WIDTH * 8
_PLAIN = (torch.Tensor, torch.nn.Parameter)
FLOAT32 = float(np.finfo(np.float32).max)


class Moments:
    """Rows of moments by site; a site that is seen again gains what it is then, so that passes add up.

    On a CPU the kernel writes straight into the rows. What is on a device stays there until it is fetched.
    """

    def __init__(self, sites: int = FEWEST) -> None:
        self._rows = np.full((max(sites, FEWEST), WIDTH), math.nan)
        self._base = self._rows.ctypes.data
        self._alone = np.full(WIDTH, math.nan)
        self._alone_at = self._alone.ctypes.data
        self._last: torch.Tensor | None = None  # the moments of the tensor seen last, if they are on a device
        self._waiting: list[tuple[int, torch.Tensor]] = []
        self._samples: dict[int, Row | torch.Tensor] = {}
        self.seen = 0  # one more than the largest site that was seen

    def add(self, site: int, tensor: torch.Tensor) -> None:
        """See a tensor at a site."""
        at = self._at(site)
        kind = KINDS.get(tensor.dtype)
        if KERNEL is None or kind is None or not is_readable(tensor):
            self._add_slowly(site, tensor)
            return
        count = tensor.numel()
        run = KERNEL.measure if count < LARGE else KERNEL.measure_large
        run(tensor.data_ptr(), count, kind, False, self._alone_at, at)
        self._last = None

    def repeat(self, site: int) -> None:
        """See the tensor that was seen last at one more site."""
        at = self._at(site)
        if self._last is not None:
            self._waiting.append((site, self._last))
        elif KERNEL is not None:
            KERNEL.join(at, self._alone_at)
        else:
            join(self._rows[site], self._alone)

    def set_own(self, site: int, number: float | torch.Tensor) -> None:
        """Keep the one number of a site that is not measured here."""
        if isinstance(number, torch.Tensor):
            row = torch.full((WIDTH,), math.nan, device=number.device)
            row[OWN] = number
            self._waiting.append((site, row))
        else:
            self._rows[site, OWN] = number

    @property
    def has_samples(self) -> bool:
        """Whether samples were kept."""
        return bool(self._samples)

    @property
    def last_is_bad(self) -> bool:
        """Whether the tensor seen last held NaN or Inf; false on a device, where nobody looks."""
        return self._last is None and bool(self._alone[BAD] > 0)

    def keep_sample(self, site: int, tensor: torch.Tensor) -> None:
        """Keep a few elements, for a histogram."""
        few = take_before(tensor).sample
        if few is not None:
            self._samples[site] = few.numpy() if isinstance(few, torch.Tensor) and few.is_cpu else few

    def change(self, site: int, before: Before, parameter: torch.Tensor) -> None:
        """See what was added to a parameter since its sample was taken."""
        at = self._at(site)
        if KERNEL is not None and isinstance(before.sample, np.ndarray):
            kind = KINDS.get(parameter.dtype)
            if kind is None or parameter.numel() != before.count or not is_readable(parameter):
                return  # it was given other memory meanwhile
            KERNEL.change(parameter.data_ptr(), before.count, before.stride, kind, before.address, self._alone_at, at)
            self._last = None
        else:
            now = sample(parameter)
            was = before.sample
            if now is not None and isinstance(was, torch.Tensor) and (now.shape, now.device) == (was.shape, was.device):
                self._add_slowly(site, now - was)

    def rows(self) -> Callable[[], Row]:
        """A function that waits for the devices and gives the rows, (seen, 8)."""
        rows, waiting = self._rows[: self.seen], self._waiting
        stacks = _by_device([row for _, row in waiting])

        def fetch() -> Row:
            for (site, _), row in zip(waiting, stacks(), strict=True):
                join(rows[site], row)
            return rows

        return fetch

    def samples(self) -> tuple[tuple[int, ...], Callable[[], list[Row]]]:
        """The sites of which a sample was kept, and a function that waits for those."""
        kept = list(self._samples.values())
        ready = _waiting([few for few in kept if isinstance(few, torch.Tensor)])

        def fetch() -> list[Row]:
            ready()
            return [few.cpu().numpy() if isinstance(few, torch.Tensor) else few for few in kept]

        return tuple(self._samples), fetch

    def _at(self, site: int) -> int:
        """The address of a site's row."""
        if site >= self.seen:
            self.seen = site + 1
            if site >= len(self._rows):
                more = np.full((max(site + 1 - len(self._rows), len(self._rows)), WIDTH), math.nan)
                self._rows = np.concatenate([self._rows, more])
                self._base = self._rows.ctypes.data
        return self._base + site * ROW_BYTES

    @torch.no_grad()
    def _add_slowly(self, site: int, tensor: torch.Tensor) -> None:
        self._last = None
        if not has_data(tensor):
            self._alone[:] = math.nan
            self._alone[[COUNT, BAD]] = tensor.numel(), 0
            join(self._rows[site], self._alone)
            return
        values, absent = stored_values(tensor)
        if values.is_cpu:
            self._alone[:] = moments(values, absent)
            join(self._rows[site], self._alone)
        else:
            self._last = torch_moments(values, absent)
            self._waiting.append((site, self._last))


class Before:
    """A few elements of a tensor, such as a parameter before an optimizer's step."""

    __slots__ = ("address", "count", "sample", "stride")

    def __init__(self, parameter: torch.Tensor, stride: int) -> None:
        self.count, self.stride = parameter.numel(), stride
        kind = KINDS.get(parameter.dtype)
        self.sample: Row | torch.Tensor | None
        if KERNEL is None or kind is None or not is_readable(parameter):
            self.sample = sample(parameter)
            return
        self.sample = np.empty((self.count - 1) // stride + 1 if self.count else 0)
        self.address = self.sample.ctypes.data
        KERNEL.sample(parameter.data_ptr(), self.count, stride, kind, self.address)


def take_before(parameter: torch.Tensor) -> Before:
    """Keep a few elements of a tensor, evenly spread; `sample` is None if it has no data."""
    return Before(parameter, sample_stride(parameter.numel()))


def is_readable(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a plain one on the CPU, with its elements side by side."""
    return (
        type(tensor) in _PLAIN
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and (tensor.is_contiguous() or is_dense(tensor))
        and not tensor.is_neg()
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


def join(into: Row, other: Row) -> None:
    """Add the moments of one row to another; by Chan, Golub and LeVeque (1979), as in `kernel.cpp`."""
    if not math.isnan(other[OWN]):
        into[OWN] = other[OWN]
    if math.isnan(other[ZEROS]) and not math.isnan(into[COUNT]):
        return
    if not (into[COUNT] > 0 and into[ZEROS] >= 0):
        into[:OWN] = other[:OWN]
        return
    a, b = into[COUNT] - into[BAD], other[COUNT] - other[BAD]
    if b > 0 and a > 0:
        delta = other[MEAN] - into[MEAN]
        into[M2] += other[M2] + delta * delta * (a * b / (a + b))
        into[MEAN] += delta * (b / (a + b))
        into[LOW], into[HIGH] = min(into[LOW], other[LOW]), max(into[HIGH], other[HIGH])
    elif b > 0:
        into[MEAN : HIGH + 1] = other[MEAN : HIGH + 1]
    into[[COUNT, ZEROS, BAD]] += other[[COUNT, ZEROS, BAD]]


def statistics(phases: Sequence[Moments]) -> tuple[tuple[int, ...], Callable[[], Row]]:
    """The sites of a step's frame, and a function that waits for its rows of `STORED`, NaN where nothing was seen."""
    ready = [phase.rows() for phase in phases]
    sites = max((phase.seen for phase in phases), default=0)

    def fetch() -> Row:
        fetched = [rows() for rows in ready]
        if len(fetched) == 1:
            return _stored(fetched[0])
        rows = np.full((sites, WIDTH), math.nan)
        for of_phase in fetched:
            for site, row in enumerate(of_phase):
                join(rows[site], row)
        return _stored(rows)

    return tuple(range(sites)), fetch


def _stored(rows: Row) -> Row:
    """Rows of `STORED`, within float32's range, since that is what is written."""
    count, mean, squares, low, high, zeros, bad, own = rows.T
    with np.errstate(all="ignore"):
        # std is the root of M2 over the finite elements' count.
        columns = {
            "count": count, "mean": mean, "std": np.sqrt(squares / (count - bad)), "min": low, "max": high,
            "zero_fraction": zeros / count, "nonfinite": bad, "dead_fraction": own,
        }  # fmt: skip
    return np.asarray(np.clip(np.stack([columns[name] for name in STORED], 1), -FLOAT32, FLOAT32))


def _by_device(rows: Sequence[torch.Tensor]) -> Callable[[], list[Row]]:
    """Rows that are on devices: one transfer each, by a later call."""
    places: dict[torch.device, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row.device, []).append(place)
    stacks = [torch.stack([rows[place] for place in chosen]) for chosen in places.values()]
    ready = _waiting(stacks)

    def fetch() -> list[Row]:
        found: dict[int, Row] = {}
        ready()
        for chosen, stack in zip(places.values(), stacks, strict=True):
            found |= dict(zip(chosen, stack.cpu().double().numpy(), strict=True))
        return [found[place] for place in range(len(rows))]

    return fetch


def _waiting(tensors: Sequence[torch.Tensor]) -> Callable[[], None]:
    """Waits until what CUDA streams have been asked so far is done; elsewhere a copy waits by itself."""
    devices = {tensor.device for tensor in tensors if tensor.is_cuda}
    events = [torch.cuda.current_stream(device).record_event() for device in devices]

    def wait() -> None:
        for event in events:
            event.synchronize()

    return wait
