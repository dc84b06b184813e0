"""The cheap look that every step gets: are its gradients, and what the model returned, finite?

On a CPU the answer is there at once. On a CUDA device it is copied without waiting, and known a step or so later.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

import torch

from tensorscope.live.kernel import KERNEL
from tensorscope.live.stats import has_data, stored_values

if TYPE_CHECKING:
    from collections.abc import Iterable


GLANCE = 4096  # elements of a tensor that are looked at if it is not done thoroughly
_FLOAT, _STRIDED = torch.float32, torch.strided


class _Asked(NamedTuple):
    step: int
    fine: torch.Tensor  # 0-d bool on the host, once `copied` has happened
    copied: torch.cuda.Event


class Sentinel:
    """Finds the first step at which something was not finite."""

    def __init__(self) -> None:
        self._asked: list[_Asked] = []

    @torch.no_grad()
    def are_bad(self, tensors: Iterable[torch.Tensor], step: int, *, thoroughly: bool = True) -> bool:
        """Whether one of some tensors is known to hold NaN or Inf; what is on a CUDA device is asked for.

        Args:
            tensors: which the caller keeps meanwhile.
            step: the step under way.
            thoroughly: whether to look at all of a float tensor on the CPU, and not at its first elements alone.
        """
        addresses, sizes, others = array("Q"), array("q"), []
        for tensor in tensors:
            # Spelt out, since every parameter of every step comes by here.
            if (
                tensor.dtype is _FLOAT
                and type(tensor) is torch.Tensor
                and tensor.is_cpu
                and tensor.layout is _STRIDED
                and tensor.is_contiguous()
                and KERNEL is not None
            ):
                addresses.append(tensor.data_ptr())
                sizes.append(tensor.numel() if thoroughly else min(tensor.numel(), GLANCE))
            else:
                others.append(tensor)
        if addresses and KERNEL is not None:
            bad = KERNEL.first_bad(addresses.buffer_info()[0], sizes.buffer_info()[0], len(sizes))
            if bad >= 0:
                return True
        return bool(others) and self._others_are_bad(others, step)

    def bad_step(self) -> int | None:
        """The first of the steps asked about whose answer has come by now, and says that something was not finite."""
        while self._asked and self._asked[0].copied.query():  # type: ignore[no-untyped-call]
            asked = self._asked.pop(0)
            if not asked.fine:
                self._asked.clear()
                return asked.step
        return None

    def _others_are_bad(self, tensors: list[torch.Tensor], step: int) -> bool:
        values = [stored_values(tensor)[0] for tensor in tensors if has_data(tensor)]
        numbers = [x for x in values if x.is_floating_point()]
        if any(not bool(torch.isfinite(x).all()) for x in numbers if x.is_cpu):
            return True
        on_cuda = [x for x in numbers if x.is_cuda and x.numel()]
        if on_cuda:
            # The largest magnitude is NaN or Inf where one element is; a norm of squares may be so without.
            largest = [x.to(on_cuda[0].device, torch.float64) for x in torch._foreach_norm(on_cuda, torch.inf)]
            fine = torch.stack(largest).isfinite().all()
            host = torch.empty((), dtype=torch.bool, pin_memory=True)
            host.copy_(fine, non_blocking=True)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(torch.cuda.current_stream(on_cuda[0].device))
            self._asked.append(_Asked(step, host, copied))
        return False
