"""Sees what happens to gradients between backward and the optimizer: clipping, scaling, unscaling.

Nothing is patched. On a measured step a few numbers of a few gradients are kept when they have been accumulated, and
compared with what the optimizer is given.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch.amp import GradScaler

from tensorscope.live.stats import is_dense, sample_stride

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch.optim import Optimizer

PARAMETERS = 4  # parameters whose gradients are looked at
ELEMENTS = 128  # numbers kept of each
_DEEPEST = 16  # frames around an optimizer's step in which a scaler is looked for
_ROUNDINGS = 4  # roundings to the gradient's precision that a product may have gone through

_SCALED_STEP = inspect.unwrap(GradScaler.step).__code__

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Clipping:
    """What was done to the gradients, by a sample of them.

    Attributes:
        factor: their norm in units of what it was: 1.0 exactly if they are untouched, 0.37 if scaled by that.
        limit: the largest size that was let through, where elements were clamped one by one; None otherwise.
        unscale: what a gradient scaler had multiplied them by in addition, 1/scale; 1.0 without one.
    """

    factor: float
    limit: float | None = None
    unscale: float = 1.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Gradients before and after, still where they were measured: reading them waits for an accelerator.

    Attributes:
        before: (elements,) as accumulated.
        after: (elements,) as the optimizer is given them.
        scale: what the loss was multiplied by, if a scaler has divided by it since; None if that is not known.
        precision: relative, of the gradients' dtype.
        smallest: its smallest number above 0.
    """

    before: torch.Tensor
    after: torch.Tensor
    scale: torch.Tensor | None
    precision: float
    smallest: float

    def read(self) -> Clipping | None:
        """What was done; None if the sample does not tell (nothing but zeros, noise added, averaged over ranks)."""
        before, after = (part.cpu().double().numpy() for part in (self.before, self.after))
        kept = np.isfinite(before)
        if not np.isfinite(after[kept]).all() or not before[kept].any():
            return None
        # Without a scaler known, an exact power of two is one's that is not torch's: clipping hits none.
        scale = float(self.scale) if self.scale is not None else 0.0  # 0: one that has shrunk until nothing was left
        unscale = 1 / scale if scale else _power_of_two(before[kept], after[kept])
        unscaled = before[kept] * unscale
        return self._scaled(unscaled, after[kept], unscale) or self._clamped(unscaled, after[kept], unscale)

    def factor(self) -> float:
        """The factor of `read`, NaN if the sample does not tell."""
        done = self.read()
        return math.nan if done is None else done.factor

    def _scaled(self, before: Array, after: Array, unscale: float) -> Clipping | None:
        if np.array_equal(before, after):
            return Clipping(1.0, unscale=unscale)
        # least squares: r = Σ after·before / Σ before², both in units of the largest, so that no square underflows
        largest = np.abs(before).max()
        share = before / largest
        ratio = float(np.dot(after / largest, share) / np.dot(share, share))
        if ratio <= 0 or not self._equal(after, ratio * before).all():
            return None
        untouched = self._equal(after, before).all()  # but for the roundings of an unscale
        return Clipping(1.0 if untouched else ratio, unscale=unscale)

    def _clamped(self, before: Array, after: Array, unscale: float) -> Clipping | None:
        limit = float(np.abs(after).max())
        if not limit or not self._equal(after, np.clip(before, -limit, limit)).all():
            return None
        norms = np.linalg.norm(after / limit), np.linalg.norm(before / limit)
        return Clipping(float(norms[0] / norms[1]), limit, unscale)

    def _equal(self, left: Array, right: Array) -> npt.NDArray[np.bool_]:
        slack = _ROUNDINGS * (self.precision * np.abs(right) + self.smallest)
        return np.asarray(np.abs(left - right) <= slack)


class ClipWatch:
    """Keeps a sample of gradients as they are accumulated, during one measured step.

    Args:
        guard: makes of the hook one that never raises, such as `hooks.guarded` for a listener: it runs within backward.
    """

    def __init__(self, guard: Callable[[Callable[..., None]], Callable[..., None]] = lambda hook: hook) -> None:
        self._guard = guard
        self._handles: list[Any] = []
        self._hooked: list[Any] = []
        self._before: dict[int, torch.Tensor] = {}  # id of the parameter → sample
        self._chosen: list[weakref.ref[torch.Tensor]] = []
        self._owned: WeakKeyDictionary[Optimizer, tuple[list[int], set[int]]] = WeakKeyDictionary()

    def watch(self, parameters: Iterable[torch.Tensor]) -> None:
        """Begin with a step, at its first pass; each further backward of the step replaces the sample.

        Args:
            parameters: the model's; at most `PARAMETERS` of them, evenly spread, get a hook. They are gone through at
                the first call, and again when one of those is frozen or gone.
        """
        self.end()
        chosen: list[Any] = [parameter() for parameter in self._chosen]
        if not chosen or not all(_is_trained(parameter) for parameter in chosen):
            chosen = _spread(parameters)
            self._chosen = [weakref.ref(parameter) for parameter in chosen]
        me = weakref.ref(self)

        def accumulated(parameter: torch.Tensor) -> None:
            watch = me()
            if watch is not None:
                watch._keep(parameter)

        self._hooked = chosen
        hook = self._guard(accumulated)
        self._handles = [parameter.register_post_accumulate_grad_hook(hook) for parameter in self._hooked]

    def compare(self, optimizer: Optimizer) -> Comparison | None:
        """Before an optimizer steps: its gradients against those that were accumulated, nothing looked at.

        Args:
            optimizer: the one that is about to step; to be called from its pre-step hook.

        Returns:
            The samples, to be read when they have been moved; None if there are none (no backward was seen, sparse
            gradients, distributed ones).
        """
        owned = self._parameters_of(optimizer)
        pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        dtypes: list[torch.finfo] = []
        for parameter in self._hooked:
            before = self._before.get(id(parameter)) if id(parameter) in owned else None
            after = _sample(parameter.grad) if before is not None else None
            if before is not None and after is not None and _fit(before, after, pairs):
                pairs.append((before, after))
                dtypes.append(torch.finfo(before.dtype))
        if not pairs:
            return None
        return Comparison(
            torch.cat([before for before, _ in pairs]),
            torch.cat([after for _, after in pairs]),
            _scale_of(optimizer),
            max(dtype.eps for dtype in dtypes),
            max(dtype.smallest_normal * dtype.eps for dtype in dtypes),
        )

    def end(self) -> None:
        """Take the hooks off and let go of the samples; harmless if there are none."""
        for handle in self._handles:
            handle.remove()
        for parameter in self._hooked:
            # Torch leaves an empty dict, through which every later backward would go.
            if parameter._post_accumulate_grad_hooks is not None and not parameter._post_accumulate_grad_hooks:
                parameter._post_accumulate_grad_hooks = None
        self._handles, self._hooked, self._before = [], [], {}

    def _keep(self, parameter: torch.Tensor) -> None:
        with torch._C.DisableTorchFunction():
            sample = _sample(parameter.grad)
        if sample is not None:
            self._before[id(parameter)] = sample

    def _parameters_of(self, optimizer: Optimizer) -> set[int]:
        sizes = [len(group["params"]) for group in optimizer.param_groups]
        known = self._owned.get(optimizer)
        if known is None or known[0] != sizes:
            own = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
            known = self._owned[optimizer] = (sizes, own)
        return known[1]


def _spread(parameters: Iterable[torch.Tensor]) -> list[Any]:
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    stride = max(1, math.ceil(len(trained) / PARAMETERS))
    return [parameter for parameter in trained[::stride] if _is_trained(parameter)]


def _is_trained(parameter: torch.Tensor | None) -> bool:
    if parameter is None or not parameter.requires_grad or not parameter.is_leaf:
        return False
    return not torch.nn.parameter.is_lazy(parameter)


def _sample(gradient: torch.Tensor | None) -> torch.Tensor | None:
    """At most `ELEMENTS` elements, evenly spread in memory, as a copy; None of what is sparse, distributed or empty."""
    if type(gradient) is not torch.Tensor or gradient.layout is not torch.strided or not gradient.numel():
        return None
    if gradient.is_meta or not gradient.is_floating_point():
        return None
    x = gradient.detach()
    if not is_dense(x):
        x = x.reshape(-1)
    return x.as_strided(*_places(x.numel())).clone()


@functools.cache
def _places(count: int) -> tuple[tuple[int], tuple[int]]:
    """How many of so many elements are taken, and how far apart."""
    stride = sample_stride(count, ELEMENTS)
    return (-(-count // stride),), (stride,)


def _fit(before: torch.Tensor, after: torch.Tensor, pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> bool:
    """Whether two samples can be compared, on the device of those that are there already."""
    alike = before.shape == after.shape and before.dtype == after.dtype and before.device == after.device
    return alike and (not pairs or pairs[0][0].device == before.device)


def _scale_of(optimizer: Optimizer) -> torch.Tensor | None:
    """The scale that a `GradScaler` has divided this optimizer's gradients by, if one is stepping it now.

    A fused optimizer is given scaled gradients and the scale as `grad_scale`: then nothing was divided yet.
    """
    if getattr(optimizer, "grad_scale", None) is not None:
        return None
    frame = sys._getframe(1)
    for _ in range(_DEEPEST):
        if frame.f_back is None:
            return None
        frame = frame.f_back
        if frame.f_code is _SCALED_STEP:  # of no other frame are the locals asked for: that would keep them alive
            scale = getattr(frame.f_locals["self"], "_scale", None)  # none if it is switched off
            return scale.detach().clone() if scale is not None else None
    return None


def _power_of_two(before: Array, after: Array) -> float:
    """The power of two below 1 that every element was multiplied by; 1.0 if there is none."""
    first = int(np.flatnonzero(before)[0])
    mantissa, exponent = math.frexp(after[first] / before[first])
    factor = math.ldexp(1.0, exponent - 1)
    return factor if mantissa == 0.5 and factor < 1 and np.array_equal(after, factor * before) else 1.0
