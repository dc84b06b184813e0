"""Gathers what the hooks hear, measures it and hands it to the writer, step by step."""

from __future__ import annotations

import contextlib
import json
import time
import traceback
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tensorscope.errors import GraphError
from tensorscope.events import MAX_CALLS, Kind, Shape, Site
from tensorscope.graphs.graph import Graph
from tensorscope.live.capture import Capture
from tensorscope.live.frames import Sample, Seen, histograms, statistics
from tensorscope.live.hooks import ModelHooks, guarded
from tensorscope.live.rectifiers import Rectifiers
from tensorscope.live.shapes import named_dims
from tensorscope.live.silent.first_step import FirstStep
from tensorscope.live.stats import measure_row, sample
from tensorscope.live.steps import StepFinder
from tensorscope.live.tensors import tensors_in
from tensorscope.run import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch.optim import Optimizer

    from tensorscope.live.pace import Pace
    from tensorscope.run.writer import Writer

HISTOGRAM_EVERY = 10  # measured steps
FAILURES = 20  # failures to measure, after which the trace gives up


@dataclass(slots=True)
class Bundle:
    """What was gathered in one phase of a step."""

    rows: list[Seen] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    scalars: dict[str, Callable[[], float]] = field(default_factory=dict)


class Recorder:
    """Listens to a model and records it.

    Args:
        model: the model.
        writer: takes what is measured.
        pace: says which steps are measured.
        with_histograms: whether to record histograms.
    """

    def __init__(self, model: nn.Module, writer: Writer, pace: Pace, *, with_histograms: bool) -> None:
        self.measuring = False
        self._model, self._writer, self._pace = model, writer, pace
        self._with_histograms = with_histograms
        self._names = {id(p): name for name, p in model.named_parameters()}
        self._calls: dict[str, int] = {}
        self._shapes: dict[int, tuple[Any, ...]] = {}
        self._rectifiers = Rectifiers()
        self._last: tuple[weakref.ref[torch.Tensor], int, Seen, list[int]] | None = None
        self._capture: Capture | None = None
        self._captured = False
        self._first_step = FirstStep(writer)
        self._leaf_handles: list[Any] = []
        self._origins: set[str] = set()
        self._handed: list[dict[str, Any]] = []
        self._failures = 0
        self._measured = 0
        self._timed_step = -1
        self._due = False
        self._began = self._spent = 0.0
        self._hooks = ModelHooks(model, self)
        self._gradient_came = guarded(self, self._measure_gradient)
        self._owned: set[int] = set()
        self._orphans_seen = -1
        self._steps: StepFinder[Bundle] = StepFinder(Bundle, self._emit, self._expects_optimizer)

    # --- what the hooks tell -----------------------------------------------------------------------------------------

    def pass_begins(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        """Decide whether the pass belongs to a step, and whether that step is measured."""
        self._calls.clear()
        self._last = None
        self._drop_leaf_hooks()
        self._drop_capture()
        self._first_step.end()
        gradients = torch.is_grad_enabled()
        if not self._steps.pass_begins(gradients=gradients) or _is_traced():
            self.measuring = False
            return
        self._time_step(self._steps.number)
        if self.measuring and not self._steps.trains:
            began = time.perf_counter()
            self._see_parameters(self._model.parameters())
            if gradients:
                self._hook_leaves()
            self._spent += time.perf_counter() - began
        if self.measuring and module is self._model and not self._captured:
            with contextlib.suppress(GraphError):  # parameters that have no shape yet: try again at the next pass
                self._capture = Capture(module, silent=True)
                self._capture.start(args, kwargs)

    def returned(self, path: str, module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        """Measure a module's output, and arrange for its gradient; of the model itself the input too."""
        began = time.perf_counter()
        if module is self._model and self._capture is not None:
            self._record_graph(self._capture, output)
        with torch._C.DisableTorchFunction():  # nobody's mode is to see or change what we compute
            self._see_call(path, module, args, kwargs, output)
        self._spent += time.perf_counter() - began

    def recomputed(self, path: str, output: Any) -> None:
        """Arrange for the gradients of checkpointed activations; their values were seen in the real pass."""
        for place, tensor in tensors_in(output):
            self._hook_gradient(tensor, [self._writer.site(Site(path, place=place).grad)])

    def pass_ends(self) -> None:
        """Nothing may keep the last output alive between passes."""
        self._last = None

    def optimizer_steps(self, optimizer: Optimizer) -> None:
        """Measure parameters and their final gradients: the optimizer's own, and once a step those that none owns."""
        own = [p for group in optimizer.param_groups for p in group["params"] if id(p) in self._names]
        self._owned |= {id(p) for p in own}
        self._first_step.end()
        if not self.measuring:
            return
        began = time.perf_counter()
        if self._orphans_seen != self._timed_step:
            self._orphans_seen = self._timed_step
            own += [p for p in self._model.parameters() if id(p) in self._names and id(p) not in self._owned]
        self._see_parameters(own)
        for parameter in own:
            if parameter.grad is not None:
                self._see(Site(self._names[id(parameter)], Kind.PARAMETER).grad, parameter.grad)
        self._spent += time.perf_counter() - began

    def optimizer_stepped(self, optimizer: Optimizer) -> None:
        """Let the step finder know."""
        self._steps.optimizer_stepped(id(optimizer))

    def failed(self, error: Exception) -> None:
        """Note a failure to measure; give up measuring after many."""
        self._failures += 1
        if self._failures >= FAILURES:
            self.measuring = False
            if self._failures == FAILURES:
                self._writer.note(self._steps.number, f"no more is measured, after {FAILURES} failures")
            return
        where = traceback.extract_tb(error.__traceback__)[-1]
        self._writer.note(
            self._steps.number, f"not measured: {type(error).__name__}: {error} (at {where.name}, line {where.lineno})"
        )

    # --- what the trace asks -----------------------------------------------------------------------------------------

    def log(self, scalars: dict[str, Callable[[], float]]) -> None:
        """Record scalars at the step under way."""
        if self._steps.phase.number is not None:
            self._write_scalars(scalars, self._steps.phase.number)
        else:
            self._steps.phase.bundle.scalars |= scalars

    def step(self) -> None:
        """End a step here."""
        self._steps.step()

    def tell_first_step(self) -> None:
        """Write down what the first step has shown so far, and look no further."""
        self._first_step.end()

    def close(self) -> None:
        """Take the hooks off and hand over what is left."""
        self._hooks.remove()
        self._drop_leaf_hooks()
        self._drop_capture()
        self._first_step.end()
        self.measuring = False
        self._steps.close()

    # --- looking at a call -------------------------------------------------------------------------------------------

    def _see_call(self, path: str, module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        call = min(self._calls.get(path, 0), MAX_CALLS - 1)
        self._calls[path] = call + 1
        names: list[tuple[str, ...]] | None = None
        for number, (place, tensor) in enumerate(tensors_in(output)):
            site = Site(path, place=place, call=call)
            if self._shape_changed(site, tensor):
                names = names or list(named_dims(module, args, dict(kwargs), output).outputs.values())
                self._record_shape(site, tensor, names[number] if number < len(names) else ())
            self._see_output(site, module, tensor)
            self._note_origin(path, args, kwargs)
        if module is self._model:
            self._see_inputs(module, args, kwargs, output, call)

    def _record_graph(self, capture: Capture, output: Any) -> None:
        """The graph of the first pass that returned something."""
        if output is None:
            capture.pause()  # taken off when the next pass begins
            return
        self._capture = None
        graph = capture.stop(output)
        if isinstance(graph, Graph):
            self._writer.document("graph", graph.to_json())
            self._captured = True
            self._first_step.forward_ended(capture.watch, self._steps.number)

    # --- measuring ---------------------------------------------------------------------------------------------------

    def _see_output(self, site: Site, module: nn.Module, tensor: torch.Tensor) -> None:
        number = self._writer.site(site)
        last = self._last
        if last is not None and last[0]() is tensor and last[1] == tensor._version:
            # A container returns its last child's tensor: what was measured of that holds here too.
            self._bundle.rows.append(Seen(number, last[2].row, same_as=last[2].site))
            last[3].append(self._writer.site(site.grad))
            return
        seen = Seen(number, measure_row(tensor), self._rectifiers.dead_fraction(site, module, tensor))
        self._keep(seen, tensor)
        gradient_sites: list[int] = []
        if torch.is_grad_enabled() and tensor.requires_grad and tensor.grad_fn is not None:
            gradient_sites = [self._writer.site(site.grad)]
            self._hook_gradient(tensor, gradient_sites)
        self._last = (weakref.ref(tensor), tensor._version, seen, gradient_sites)

    def _note_origin(self, path: str, args: Any, kwargs: Mapping[str, Any]) -> None:
        """When a module's output first holds non-finite values: were its arguments at fault, or did it make them?"""
        row = self._bundle.rows[-1].row if self._bundle.rows else ()
        if isinstance(row, torch.Tensor) or not row or not row[5] or path in self._origins:
            return  # on an accelerator nobody looks: that would wait for it
        given = [tensor for _, tensor in tensors_in((args, dict(kwargs)))]
        self._origins.add(path)
        if any(bad and not isinstance(bad, torch.Tensor) for bad in (measure_row(tensor)[5] for tensor in given)):
            self._handed.append({"path": path, "step": self._steps.number})
            self._writer.document("handed_nonfinite", json.dumps(self._handed))

    def _see_inputs(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any, call: int) -> None:
        names: list[tuple[str, ...]] | None = None
        given = {str(i): a for i, a in enumerate(args)} | dict(kwargs)
        for number, (place, tensor) in enumerate(tensors_in(given)):
            site = Site("", Kind.INPUT, place=place, call=call)
            if self._shape_changed(site, tensor):
                names = names or list(named_dims(module, args, dict(kwargs), output).inputs.values())
                self._record_shape(site, tensor, names[number] if number < len(names) else ())
            self._see(site, tensor)

    def _see_parameters(self, parameters: Any) -> None:
        for parameter in parameters:
            if nn.parameter.is_lazy(parameter):
                continue
            site = Site(self._names[id(parameter)], Kind.PARAMETER)
            if self._shape_changed(site, parameter):
                self._record_shape(site, parameter, ())
            self._see(site, parameter)

    def _see(self, site: Site, tensor: torch.Tensor) -> None:
        self._keep(Seen(self._writer.site(site), measure_row(tensor)), tensor)

    def _keep(self, seen: Seen, tensor: torch.Tensor) -> None:
        self._bundle.rows.append(seen)
        few = sample(tensor)
        if few is not None:
            self._bundle.samples.append(Sample(seen.site, few))

    def _hook_gradient(self, tensor: torch.Tensor, sites: list[int]) -> None:
        """Measure the gradient of a tensor when it comes; the hook knows the sites and not the tensor."""
        if not tensor.requires_grad or tensor.grad_fn is None:
            return
        me = weakref.ref(self)

        def gradient(grad: torch.Tensor) -> None:
            recorder = me()
            if recorder is not None:
                recorder._gradient_came(sites, grad)

        tensor.register_hook(gradient)  # type: ignore[no-untyped-call]

    def _measure_gradient(self, sites: list[int], grad: torch.Tensor) -> None:
        if not self.measuring:
            return
        began = time.perf_counter()
        seen = Seen(sites[0], measure_row(grad))
        self._keep(seen, grad)
        self._bundle.rows += [Seen(site, seen.row, same_as=sites[0]) for site in sites[1:]]
        self._spent += time.perf_counter() - began

    def _hook_leaves(self) -> None:
        """Without an optimizer nobody says when gradients are final: take each as it is accumulated."""
        for name, parameter in self._model.named_parameters():
            if parameter.requires_grad and parameter.is_leaf and not nn.parameter.is_lazy(parameter):
                sites = [self._writer.site(Site(name, Kind.PARAMETER).grad)]
                me = weakref.ref(self)

                def came(leaf: torch.Tensor, sites: list[int] = sites, me: Any = me) -> None:
                    recorder = me()
                    if recorder is not None and leaf.grad is not None:
                        recorder._gradient_came(sites, leaf.grad)

                handle = parameter.register_post_accumulate_grad_hook(came)  # type: ignore[no-untyped-call]
                self._leaf_handles.append(handle)

    def _drop_leaf_hooks(self) -> None:
        for handle in self._leaf_handles:
            handle.remove()
        self._leaf_handles = []

    def _drop_capture(self) -> None:
        """An earlier pass may have been left by an exception that nobody told us of, such as Ctrl-C."""
        if self._capture is not None:
            self._capture.abort()
            self._capture = None

    @property
    def _bundle(self) -> Bundle:
        return self._steps.phase.bundle

    def _shape_changed(self, site: Site, tensor: torch.Tensor) -> bool:
        return self._shapes.get(self._writer.site(site)) != (tensor.shape, tensor.dtype, tensor.device)

    def _record_shape(self, site: Site, tensor: torch.Tensor, names: tuple[str, ...]) -> None:
        number = self._writer.site(site)
        self._shapes[number] = (tensor.shape, tensor.dtype, tensor.device)
        dtype = str(tensor.dtype).removeprefix("torch.")
        dims = tuple(size if type(size) is int else -1 for size in tensor.shape)  # −1: ragged
        self._writer.shape(number, Shape(self._steps.number, dims, names, dtype, str(tensor.device)))

    # --- steps -------------------------------------------------------------------------------------------------------

    def _time_step(self, step: int) -> None:
        """At the first pass of a step: learn what the last one took, decide whether this one is measured."""
        if step == self._timed_step:
            self.measuring = self._due  # an evaluation pass may have come in between
            return
        now = time.perf_counter()
        if self._timed_step >= 0:
            before = self._pace.interval
            self._pace.step_took(now - self._began, self._spent, measured=self._due)
            if self._pace.interval != before:
                self._writer.meta(interval=self._pace.interval)
        self._timed_step, self._began, self._spent = step, now, 0.0
        self.measuring = self._due = self._failures < FAILURES and self._pace.is_due(step)

    def _expects_optimizer(self) -> bool:
        self._owned |= self._hooks.owned_parameters()
        return bool(self._owned)

    def _emit(self, bundles: list[Bundle], step: int) -> None:
        rows = [row for bundle in bundles for row in bundle.rows]
        samples = [few for bundle in bundles for few in bundle.samples]
        if rows:
            series, fetch = statistics(rows, samples)
            self._writer.frame(schema.STATS, step, series, fetch)
            if self._with_histograms and self._measured % HISTOGRAM_EVERY == 0 and samples:
                series, fetch = histograms(samples)
                self._writer.frame(schema.HISTOGRAMS, step, series, fetch)
            self._measured += 1
        for bundle in bundles:
            self._write_scalars(bundle.scalars, step)
            bundle.rows, bundle.samples, bundle.scalars = [], [], {}

    def _write_scalars(self, scalars: dict[str, Callable[[], float]], step: int) -> None:
        if scalars:
            values = list(scalars.values())
            self._writer.frame(schema.SCALARS, step, tuple(scalars), lambda: _column(values))


def _column(values: list[Callable[[], float]]) -> Any:
    import numpy as np

    return np.array([value() for value in values], np.float64)


def _is_traced() -> bool:
    """Whether someone else is tracing the model, so that tensors hold no numbers of this training."""
    return torch._C._is_tracing() or torch.compiler.is_compiling()
