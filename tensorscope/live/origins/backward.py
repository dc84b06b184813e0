"""Runs the backward of a pass that was finite forward, and finds where its gradient stops being finite."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch.autograd.graph import _engine_run_backward

from tensorscope.live.origins.calls import plain
from tensorscope.live.origins.ledger import blamed, key_of
from tensorscope.live.origins.numbers import state_of
from tensorscope.run.origin import Direction, Origin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn

    from tensorscope.live.origins.calls import Made
    from tensorscope.live.origins.ledger import Operands
    from tensorscope.live.origins.nodes import Passage
    from tensorscope.live.origins.watcher import Watcher
    from tensorscope.run.origin import Culprit

_HALF = (torch.float16, torch.bfloat16)
_LARGE = 2.0**16  # what a gradient scaler begins with


@dataclass(frozen=True, slots=True)
class Fault:
    """An operation whose backward makes a finite gradient non-finite.

    Attributes:
        found: where it is, without what it was given.
        inner: the operation's own name.
        made: the function's call that it belongs to, None if no function was seen.
        operands: what that was given, None if that is to be looked at in another forward.
        gradient: what came in.
    """

    found: Origin
    inner: str
    made: Made | None
    operands: Operands | None
    gradient: Culprit | None

    def origin(self, operands: Operands) -> Origin:
        """The whole, given what the function was given."""
        if operands.root is not None and not operands.root.meant:
            return operands.root.origin()  # which the forward had hidden
        roles = ["other" if number else "self" for number in range(len(operands.culprits))]
        culprits = blamed(self.inner, list(operands.culprits), roles)
        if not any(one.zeros or one.nonfinite for one in culprits) and self.gradient is not None:
            culprits = (self.gradient, *culprits)
        return replace(self.found, culprits=culprits)


def bad_gradients(model: nn.Module) -> dict[str, bool]:
    """Path of each parameter that has a gradient → whether that is not finite."""
    return {path: state_of(p.grad).bad for path, p in model.named_parameters() if p.grad is not None}


def backward_fault(
    watcher: Watcher, model: nn.Module, outputs: Sequence[torch.Tensor], real: Mapping[str, bool]
) -> Fault | None:
    """The operation whose backward makes a finite gradient non-finite.

    Args:
        watcher: has watched the forward.
        model: as it ran, with parameters that have no gradient yet.
        outputs: what the gradient starts from.
        real: the parameters that have a gradient in the real step, and whether that is not finite.
    """
    roots = [t for t in outputs if t.requires_grad and t.grad_fn is not None and t.numel()]
    parameters = dict(model.named_parameters())
    suspects = [path for path, is_bad in real.items() if is_bad] or list(parameters)
    for seeds in _seeds(roots):
        watcher.nodes.again()
        with torch._C.DisableTorchFunction():
            for parameter in parameters.values():
                parameter.grad = None
        # Not `torch.autograd.backward`: that is a function, within which the watcher would see no other.
        _engine_run_backward(tuple(roots), tuple(seeds), True, False, (), allow_unreachable=True, accumulate_grad=True)
        with torch._C.DisableTorchFunction():
            bad = [path for path in suspects if (g := parameters[path].grad) is not None and state_of(g).bad]
            passage = watcher.nodes.culprit({key for path in bad if (key := key_of(parameters[path])) is not None})
        if passage is not None:
            return _fault(passage, alike=len(roots) == 1 or set(bad) == set(suspects))
    return None


def last_bad_module(model: nn.Module, real: Mapping[str, bool], order: Sequence[str]) -> str | None:
    """The module at which the real gradient stopped being finite, if it was finite behind that.

    Args:
        model: the model.
        real: see `backward_fault`.
        order: paths of modules, in the order in which the forward has called them.
    """
    rank = {path: number for number, path in enumerate(order)}
    owners = [(rank[owner], owner, bad) for path, bad in real.items() if (owner := path.rpartition(".")[0]) in rank]
    worst = max(((number, owner) for number, owner, bad in owners if bad), default=None)
    if worst is None or not any(number > worst[0] for number, _, bad in owners if not bad):
        return None
    return worst[1]


def _seeds(roots: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Gradients to begin with: those of a mean, of a sum, of a loss that weighs, of a loss that was scaled."""
    if not roots:
        return
    yield [torch.full_like(root, 1 / root.numel()) for root in roots]
    yield [torch.ones_like(root) for root in roots]
    yield [torch.randn_like(root) for root in roots]
    if any(root.dtype in _HALF for root in roots):
        yield [torch.full_like(root, _LARGE / root.numel()) for root in roots]


def _fault(passage: Passage, *, alike: bool) -> Fault:
    own = getattr(passage.node, "_forward_cls", None)  # a function of the user's own
    made, inner = passage.made if own is None else None, plain(passage.name)
    op, within = made.titled(inner) if made is not None else (inner if own is None else own.__name__, "")
    note = "" if alike else "other gradients than the real step's went wrong when it was run again"
    origin = Origin(Direction.BACKWARD, passage.path, op, within, passage.where, (), sum(passage.given), alike, note)
    return Fault(origin, inner, made, passage.operands, passage.gradient)
