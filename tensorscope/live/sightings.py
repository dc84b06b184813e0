"""Sees the tensors of a measured step: module outputs, their gradients, inputs, parameters and what changes them."""

from __future__ import annotations

import json
import time
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tensorscope.events import MAX_CALLS, Kind, Shape, Site
from tensorscope.live.hooks import guarded
from tensorscope.live.moments import Before, Moments, take_before
from tensorscope.live.rectifiers import Rectifiers
from tensorscope.live.shapes import named_dims
from tensorscope.live.tensors import tensors_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tensorscope.live.hooks import Listener
    from tensorscope.live.stopwatch import Stopwatch
    from tensorscope.run.writer import Writer

Names = list[tuple[str, ...]]


@dataclass(slots=True, eq=False)
class _Spot:
    """A site, its number, that of its gradient, and what its tensor was like when it was seen last."""

    site: Site
    number: int
    gradient: int = -1
    seen: tuple[torch.Size, torch.dtype, torch.device] | None = None


@dataclass(slots=True, eq=False)
class _Last:
    """The output that was seen last: a container may return it again."""

    tensor: weakref.ref[torch.Tensor]
    version: int
    gradients: list[int] = field(default_factory=list)


class Sightings:
    """Writes what is seen of a model into the moments of the phase under way.

    Args:
        model: the model.
        writer: numbers the sites and takes their shapes.
        stopwatch: is told when gradients come, and what time was ours.
        listener: is told of failures in gradient hooks.
    """

    def __init__(self, model: nn.Module, writer: Writer, stopwatch: Stopwatch, listener: Listener) -> None:
        self.moments: Moments | None = None
        self.with_samples = False
        self.step = 0
        self._model, self._writer, self._stopwatch = model, writer, stopwatch
        self._modules = {path: number for number, (path, _) in enumerate(model.named_modules())}
        self._names = {id(p): name for name, p in model.named_parameters()}
        self._spots: dict[tuple[str, int, str], _Spot] = {}
        self._leaves: dict[str, _Spot] = {}
        self._updates: dict[str, int] = {}
        self._calls: dict[str, int] = {}
        self._rectifiers = Rectifiers()
        self._last: _Last | None = None
        self._backward = -1
        self._leaf_handles: list[Any] = []
        self._handed: dict[str, int] = {}
        self._gradient_came = guarded(listener, self._see_gradient)
        self._backward_ended = guarded(listener, self._end_backward)

    def begin_pass(self) -> None:
        """Forget the calls of the pass before, and take the hooks off that it put on parameters."""
        self._calls.clear()
        self._last = None
        for handle in self._leaf_handles:
            handle.remove()
        self._leaf_handles = []

    def end_pass(self) -> None:
        """Nothing may keep the last output alive between passes."""
        self._last = None

    def own(self, parameters: Iterable[torch.Tensor]) -> list[torch.Tensor]:
        """Those parameters that are the model's."""
        return [p for p in parameters if id(p) in self._names]

    @property
    def names(self) -> Mapping[int, str]:
        """Id of a parameter → its name."""
        return self._names

    # --- outputs and inputs ------------------------------------------------------------------------------------------

    def see_call(self, path: str, module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        """See what a module returned; of the model itself what it was given, too."""
        call = min(self._calls.get(path, 0), MAX_CALLS - 1)
        self._calls[path] = call + 1
        names: Names | None = None
        for nth, (place, tensor) in enumerate(_tensors(output)):
            spot = self._spots.get((path, call, place))
            if spot is None:
                site = Site(path, place=place, call=call)
                spot = self._spots[path, call, place] = _Spot(site, self._writer.site(site))
            if spot.seen != (tensor.shape, tensor.dtype, tensor.device):
                names = names or list(named_dims(module, args, dict(kwargs), output).outputs.values())
                self._record_shape(spot, tensor, names[nth] if nth < len(names) else ())
            self._see_output(spot, path, module, tensor)
            if self._moments.last_is_bad and path not in self._handed:
                self._note_handed(path, args, kwargs)
        if module is self._model:
            self._see_inputs(module, args, kwargs, output, call)

    def _see_output(self, spot: _Spot, path: str, module: nn.Module, tensor: torch.Tensor) -> None:
        last, moments = self._last, self._moments
        if last is not None and last.tensor() is tensor and last.version == tensor._version:
            # A container returns its last child's tensor: what was seen of that holds here too.
            moments.repeat(spot.number)
            if last.gradients:
                last.gradients.append(self._gradient_of(spot))
            return
        moments.add(spot.number, tensor)
        if (dead := self._rectifiers.dead_fraction(spot.site, module, tensor)) is not None:
            moments.set_own(spot.number, dead)
        if self.with_samples:
            moments.keep_sample(spot.number, tensor)
        gradients: list[int] = []
        if tensor.requires_grad and tensor.grad_fn is not None and torch.is_grad_enabled():
            gradients = [self._gradient_of(spot)]
            self._hook_gradient(tensor, gradients, self._modules.get(path, 0))
        self._last = _Last(weakref.ref(tensor), tensor._version, gradients)

    def _gradient_of(self, spot: _Spot) -> int:
        if spot.gradient < 0:
            spot.gradient = self._writer.site(spot.site.grad)
        return spot.gradient

    def _see_inputs(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any, call: int) -> None:
        names: Names | None = None
        given = {str(i): a for i, a in enumerate(args)} | dict(kwargs)
        for nth, (place, tensor) in enumerate(tensors_in(given)):
            spot = self._spots.get((":input", call, place))
            if spot is None:
                site = Site("", Kind.INPUT, place=place, call=call)
                spot = self._spots[":input", call, place] = _Spot(site, self._writer.site(site))
            if spot.seen != (tensor.shape, tensor.dtype, tensor.device):
                names = names or list(named_dims(module, args, dict(kwargs), output).inputs.values())
                self._record_shape(spot, tensor, names[nth] if nth < len(names) else ())
            self._see(spot.number, tensor)

    def _note_handed(self, path: str, args: Any, kwargs: Mapping[str, Any]) -> None:
        """When a module's output first holds non-finite values: were its arguments at fault, or did it make them?"""
        handed = Moments()
        self._handed[path] = -1
        for _, tensor in tensors_in((args, dict(kwargs))):
            handed.add(0, tensor)
            if handed.last_is_bad:
                self._handed[path] = self.step
                said = [{"path": path, "step": step} for path, step in self._handed.items() if step >= 0]
                self._writer.document("handed_nonfinite", json.dumps(said))
                return

    # --- gradients of outputs ----------------------------------------------------------------------------------------

    def recomputed(self, path: str, output: Any) -> None:
        """A checkpointed module ran again: its gradients come through the tensors of this run."""
        for place, tensor in tensors_in(output):
            if tensor.requires_grad:
                number = self._writer.site(Site(path, place=place).grad)
                self._hook_gradient(tensor, [number], self._modules.get(path, 0))

    def _hook_gradient(self, tensor: torch.Tensor, sites: list[int], module: int) -> None:
        """See the gradient of a tensor when it comes.

        The hook is the node's that made the tensor: it costs a quarter of a tensor's own, and keeps no tensor alive.
        """
        me, place, node = weakref.ref(self), tensor.output_nr, tensor.grad_fn

        def came(gradients: Sequence[torch.Tensor | None]) -> None:
            seer, gradient = me(), gradients[place]
            if seer is not None and gradient is not None:
                seer._gradient_came(sites, gradient, module)

        if node is not None:
            node.register_prehook(came)

    def _see_gradient(self, sites: list[int], gradient: torch.Tensor, module: int) -> None:
        if self.moments is None:
            return
        began = time.perf_counter()
        with torch._C.DisableTorchFunction():
            self._stopwatch.gradient_came(module, began)
            self._see(sites[0], gradient)
            for site in sites[1:]:
                self.moments.repeat(site)
            self._await_end_of_backward()
        self._stopwatch.ours += time.perf_counter() - began

    def _await_end_of_backward(self) -> None:
        backward = torch._C._current_graph_task_id()
        if backward not in (self._backward, -1):
            self._backward = backward
            ended = self._backward_ended
            torch.autograd.Variable._execution_engine.queue_callback(ended)

    def _end_backward(self) -> None:
        self._stopwatch.backward_ended(time.perf_counter())

    # --- parameters --------------------------------------------------------------------------------------------------

    def see_parameters(self, parameters: Iterable[torch.Tensor]) -> None:
        """See parameters as they are."""
        for parameter in parameters:
            spot = self._leaf(parameter)
            if spot is not None:
                self._see(spot.number, parameter)

    def see_gradients(self, parameters: Iterable[torch.Tensor]) -> bool:
        """See parameters' gradients; whether one is known to hold NaN or Inf."""
        bad = False
        for parameter in parameters:
            gradient, spot = parameter.grad, self._leaf(parameter)
            if gradient is not None and spot is not None:
                self._see(self._gradient_of(spot), gradient)
                bad |= self._moments.last_is_bad
        return bad

    def before_update(self, parameters: Iterable[torch.Tensor]) -> Callable[[], None]:
        """Keep a little of the parameters; the function that is returned sees what was added to them since."""
        kept: list[tuple[torch.Tensor, Before]] = [
            (p, take_before(p)) for p in parameters if p.requires_grad and p.grad is not None
        ]
        moments = self._moments

        def see() -> None:
            for parameter, before in kept:
                name = self._names[id(parameter)]
                site = self._updates.get(name)
                if site is None:
                    site = self._updates[name] = self._writer.site(Site(name, Kind.UPDATE))
                moments.change(site, before, parameter)

        return see

    def hook_leaves(self) -> None:
        """Without an optimizer nobody says when gradients are final: take each as it is accumulated."""
        me = weakref.ref(self)

        def came(leaf: torch.Tensor) -> None:
            seer = me()
            spot = seer._leaf(leaf) if seer is not None else None
            if seer is not None and spot is not None and leaf.grad is not None:
                seer._gradient_came([seer._gradient_of(spot)], leaf.grad, 0)

        for parameter in self._model.parameters():
            if parameter.requires_grad and parameter.is_leaf and not nn.parameter.is_lazy(parameter):
                handle = parameter.register_post_accumulate_grad_hook(came)  # type: ignore[no-untyped-call]
                self._leaf_handles.append(handle)

    def _leaf(self, parameter: torch.Tensor) -> _Spot | None:
        """The spot of a parameter; None of one that has no shape yet."""
        if nn.parameter.is_lazy(parameter):
            return None
        name = self._names[id(parameter)]
        spot = self._leaves.get(name)
        if spot is None:
            site = Site(name, Kind.PARAMETER)
            spot = self._leaves[name] = _Spot(site, self._writer.site(site))
        if spot.seen != (parameter.shape, parameter.dtype, parameter.device):
            self._record_shape(spot, parameter, ())
        return spot

    # --- one tensor --------------------------------------------------------------------------------------------------

    @property
    def _moments(self) -> Moments:
        assert self.moments is not None  # the recorder sets it before it measures
        return self.moments

    def _see(self, number: int, tensor: torch.Tensor) -> None:
        self._moments.add(number, tensor)
        if self.with_samples:
            self._moments.keep_sample(number, tensor)

    def _record_shape(self, spot: _Spot, tensor: torch.Tensor, names: tuple[str, ...]) -> None:
        spot.seen = (tensor.shape, tensor.dtype, tensor.device)
        dtype = str(tensor.dtype).removeprefix("torch.")
        dims = tuple(size if type(size) is int else -1 for size in tensor.shape)  # −1: ragged
        self._writer.shape(spot.number, Shape(self.step, dims, names, dtype, str(tensor.device)))


def _tensors(output: Any) -> Iterable[tuple[str, torch.Tensor]]:
    return (("", output),) if type(output) is torch.Tensor else tensors_in(output)
