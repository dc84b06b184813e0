"""What becomes of numbers that are not finite: every step is looked at, and the first time their origin is searched."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any

import torch

from tensorscope.live.origin import Pass, find_origin, remember
from tensorscope.live.sentinel import Sentinel
from tensorscope.live.stats import has_data
from tensorscope.live.tensors import leaves
from tensorscope.run.origin import Direction, Origin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from tensorscope.run.writer import Writer

SHARE = 0.005  # of a step's time that may go into looking at every element of every gradient
SEARCHES = 3  # times that an origin is looked for, as long as it is not found
_NOT_AGAIN = "the model returned NaN, and did not when it was run again"


class Troubles:
    """Looks at every step, keeps what it takes to run the newest pass again, and does so once it went wrong.

    Args:
        model: the model.
        writer: takes the origin, and the steps that went wrong.
    """

    def __init__(self, model: nn.Module, writer: Writer) -> None:
        self._model, self._writer = model, writer
        self._sentinel = Sentinel()
        self._pass: Pass | None = None
        self._passes = self._glances = 0
        self._outputs: list[weakref.ref[torch.Tensor]] = []
        self._searches = SEARCHES
        self._first = self._last = -1
        self._count = 0

    @property
    def are_new(self) -> bool:
        """Whether nothing has been wrong so far."""
        return self._count == 0

    def pass_begins(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any], step: int) -> None:
        """Keep what it takes to run the pass again, until the optimizer has stepped.

        If it has not stepped since the last pass, look what became of that one: its step may have been left out
        because the loss was NaN.
        """
        if self._pass is not None:
            self._look_at_output(step)
        if self._searches:
            self._pass = remember(module, args, kwargs)
            self._passes += 1
        bad = self._sentinel.bad_step()
        if bad is not None:  # an accelerator's answer comes when the parameters have changed already
            self._searches = 0
            self._note(bad)

    def pass_ends(self, output: Any) -> None:
        """Remember where the output is, as long as the user keeps it."""
        tensors = (output,) if type(output) is torch.Tensor else leaves(output)
        self._outputs = [weakref.ref(tensor) for tensor in tensors]

    def forget(self) -> None:
        """The parameters have changed: the pass can't be run again."""
        self._pass, self._passes, self._outputs = None, 0, []

    def _look_at_output(self, step: int) -> None:
        """Look whether the model has returned NaN; Inf may be meant, as in a mask."""
        kept = [tensor for output in self._outputs if (tensor := output()) is not None]
        tensors = [t for t in kept if t.is_cpu and t.is_floating_point() and has_data(t)]
        bad = step != self._last and self._sentinel.are_bad(tensors, step)
        if bad and any(bool(torch.isnan(tensor).any()) for tensor in tensors):
            self.went_bad(step, returned=True)

    def look_at_gradients(self, parameters: list[torch.Tensor], step: int, seconds: float) -> bool:
        """Whether a gradient is known to hold NaN or Inf.

        Of large gradients a part is looked at, and all of them as often as takes `SHARE` of the time: what is wrong in
        the gradient of one output spreads over all of the bias and over whole rows of every weight before it.

        Args:
            parameters: what the optimizer holds.
            step: the step under way.
            seconds: what a step takes.
        """
        thoroughly = self._glances <= 0
        began = time.perf_counter()
        bad = self._sentinel.are_bad([p.grad for p in parameters if p.grad is not None], step, thoroughly=thoroughly)
        self._glances -= 1
        if thoroughly and seconds:
            self._glances = int((time.perf_counter() - began) / (SHARE * seconds))
        return bad

    def went_bad(self, step: int, *, returned: bool = False) -> None:
        """Something was not finite in a step, maybe what the model returned: note it, and search its origin."""
        if step == self._last:
            return
        self._note(step)
        if self._searches and self._pass is not None:
            self._searches -= 1
            origin = find_origin(self._pass, self._model, passes=self._passes, step=step)
            if returned and origin.direction is Direction.LOSS:
                origin = Origin(Direction.UNKNOWN, sure=False, note=_NOT_AGAIN, step=step)
            if origin.sure:
                self._searches = 0
            # A parameter that an earlier bad step has spoiled is a consequence: what was found then stays.
            if self._count == 1 or origin.direction is not Direction.PARAMETER:
                self._writer.document("origin", origin.to_json())

    def close(self, step: int) -> None:
        """Record what there is to say; of a last pass, too, that no optimizer has followed."""
        if self._pass is not None:
            self._look_at_output(step)
        self.forget()
        if self._count:
            self._say()

    def _note(self, step: int) -> None:
        self._count += 1
        self._last = step
        if self._first < 0:
            self._first = step
        if self._count & (self._count - 1) == 0:  # a power of two: training goes on, and so may this
            self._say()

    def _say(self) -> None:
        self._writer.meta(nonfinite={"first": self._first, "last": self._last, "steps": self._count})
