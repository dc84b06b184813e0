"""Gathers what the hooks hear, step by step, and hands it to the writer."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tensorscope.errors import GraphError
from tensorscope.graphs.graph import Graph
from tensorscope.live.capture import Capture
from tensorscope.live.clipping import ClipWatch
from tensorscope.live.hooks import ModelHooks, guarded
from tensorscope.live.memory import memory
from tensorscope.live.modes import Modes
from tensorscope.live.moments import Moments, statistics
from tensorscope.live.optimizers import Optimizers
from tensorscope.live.sightings import Sightings
from tensorscope.live.silent.first_step import FirstStep
from tensorscope.live.stats import Row, count_bins
from tensorscope.live.steps import StepFinder
from tensorscope.live.stopwatch import Stopwatch, Times, joined
from tensorscope.live.troubles import Troubles
from tensorscope.run import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn
    from torch.optim import Optimizer

    from tensorscope.live.pace import Pace
    from tensorscope.run.writer import Writer

_LOG = logging.getLogger("tensorscope")  # which prints warnings to stderr unless the program says otherwise
HISTOGRAM_EVERY = 10  # measured steps
FAILURES = 20  # failures to measure, after which the trace gives up
HOOK_SECONDS = 2e-6  # what torch needs to call a module's hooks, which we don't see
MODES_KEPT = 100  # changes of training modes that are recorded

Numbers = dict[str, "Callable[[], float]"]


@dataclass(slots=True)
class Bundle:
    """What was gathered in one phase of a step; moments only if it is measured."""

    moments: Moments | None = None
    with_samples: bool = False
    scalars: Numbers = field(default_factory=dict)
    gauges: Numbers = field(default_factory=dict)
    times: list[Times] = field(default_factory=list)


class Recorder:
    """Listens to a model and records it.

    Args:
        model: the model.
        writer: takes what is measured.
        pace: says which steps are measured.
        with_histograms: whether to record histograms.
        first_step: the number of the first step: a run that is resumed goes on counting.
    """

    def __init__(
        self, model: nn.Module, writer: Writer, pace: Pace, *, with_histograms: bool, first_step: int = 0
    ) -> None:
        self.measuring = False
        self._model, self._writer, self._pace = model, writer, pace
        self._with_histograms = with_histograms
        self._paths = {path: number for number, (path, _) in enumerate(model.named_modules())}
        self._devices = {p.device for p in model.parameters()} - {torch.device("cpu")}
        self._stopwatch = Stopwatch(
            [self._paths.get(path.rpartition(".")[0], 0) if path else -1 for path in self._paths]
        )
        self._sights = Sightings(model, writer, self._stopwatch, self)
        self._modes, self._modes_seen = Modes(model), list[dict[str, Any]]()
        self._clips = ClipWatch(functools.partial(guarded, self))
        self._optimizers = Optimizers(writer, self._sights.names)
        self._troubles = Troubles(model, writer)
        self._capture: Capture | None = None
        self._captured = False
        self._first_step = FirstStep(writer)
        self._updated: dict[int, Callable[[], None]] = {}
        self._failures = self._measured = self._calls = 0
        self._timed_step = self._orphans_seen = -1
        self._due = self._told_trouble = False
        self._began = 0.0
        self._hooks = ModelHooks(model, self)
        self._owned: set[int] = set()
        self._steps: StepFinder[Bundle] = StepFinder(Bundle, self._emit, self._expects_optimizer, first_step)

    # --- what the hooks tell -----------------------------------------------------------------------------------------

    def pass_begins(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        """Decide whether the pass belongs to a step, and whether that step is measured."""
        if self.measuring:  # the pass before was
            self._sights.begin_pass()
            self._drop_capture()
            self._first_step.end()
        self._steps.optimizers_gone(self._optimizers.gone())
        self._take_times()  # a phase that is held back keeps its own
        gradients = torch.is_grad_enabled()
        if not self._steps.pass_begins(gradients=gradients) or _is_traced():
            self.measuring = False
            return
        began = time.perf_counter()
        step = self._steps.number
        self._time_step(step)
        if self._steps.trains:
            self._troubles.pass_begins(module, args, kwargs, step)
        if self.measuring:
            self._begin_measured_pass(module, args, kwargs, gradients=gradients)
        self._stopwatch.ours += time.perf_counter() - began

    def _begin_measured_pass(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any], *, gradients: bool) -> None:
        bundle = self._steps.phase.bundle
        if bundle.moments is None:
            bundle.moments = Moments(len(self._paths) * 6)
            bundle.with_samples = self._with_histograms and self._measured % HISTOGRAM_EVERY == 0
            self._clips.watch(self._model.parameters())
            self._note_modes()
        self._sights.moments, self._sights.step = bundle.moments, self._steps.number
        self._sights.with_samples = bundle.with_samples
        if not self._steps.trains:
            self._sights.see_parameters(self._model.parameters())
            if gradients:
                self._sights.hook_leaves()
        if module is self._model and not self._captured:
            with contextlib.suppress(GraphError):  # parameters that have no shape yet: try again at the next pass
                self._capture = Capture(module, silent=True)
                self._capture.start(args, kwargs)

    def entered(self, path: str) -> None:
        """Note when a module begins."""
        self._stopwatch.enter(self._paths.get(path, 0))

    def returned(self, path: str, module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        """Measure a module's output, and arrange for its gradient; of the model itself the input too."""
        began = time.perf_counter()
        self._stopwatch.leave(self._paths.get(path, 0), began)
        self._calls += 1
        if module is self._model and self._capture is not None:
            self._record_graph(self._capture, output)
        with torch._C.DisableTorchFunction():  # nobody's mode is to see or change what we compute
            self._sights.see_call(path, module, args, kwargs, output)
        self._stopwatch.ours += time.perf_counter() - began

    def recomputed(self, path: str, output: Any) -> None:
        """Arrange for the gradients of checkpointed activations; their values were seen in the real pass."""
        self._sights.recomputed(path, output)

    def pass_ends(self, output: Any) -> None:
        """Nothing may keep the last output alive between passes."""
        self._sights.end_pass()
        if self._steps.trains and torch.is_grad_enabled():
            self._troubles.pass_ends(output)

    def optimizer_steps(self, optimizer: Optimizer) -> None:
        """Measure parameters and their final gradients: the optimizer's own, and once a step those that none owns."""
        self._first_step.end()
        began = time.perf_counter()
        own = self._optimizers.parameters(optimizer)
        step, moments = self._steps.number, self._steps.phase.bundle.moments
        overflow = getattr(optimizer, "found_inf", None)  # a gradient scaler has looked, and deals with what is bad
        bad = False
        if moments is None and overflow is None:
            bad = self._troubles.look_at_gradients(own, step, self._pace.step_seconds)
            if bad and self._troubles.are_new:
                moments = self._steps.phase.bundle.moments = Moments(len(self._paths) * 6)
        if moments is not None:
            bad = self._see_optimizer(optimizer, own, moments)
            if isinstance(overflow, torch.Tensor):
                self._steps.phase.bundle.gauges["overflow"] = _reader(overflow.detach().clone())
        if bad and overflow is None:
            self._troubles.went_bad(step)
        self._stopwatch.ours += time.perf_counter() - began

    def _see_optimizer(self, optimizer: Optimizer, own: list[torch.Tensor], moments: Moments) -> bool:
        """Measure what an optimizer is about to change; whether a gradient was bad."""
        sights, gauges = self._sights, self._steps.phase.bundle.gauges
        sights.moments, sights.step = moments, self._steps.number
        seen = own
        if self._orphans_seen != self._steps.number:
            self._orphans_seen = self._steps.number
            self._owned |= self._optimizers.owned
            seen = own + [p for p in sights.own(self._model.parameters()) if id(p) not in self._owned]
        sights.see_parameters(seen)
        bad = sights.see_gradients(seen)
        gauges |= {name: _reader(value) for name, value in self._optimizers.numbers(optimizer).items()}
        comparison = self._clips.compare(optimizer)
        if comparison is not None:
            gauges["clip"] = comparison.factor
        self._updated[id(optimizer)] = sights.before_update(own)
        return bad

    def optimizer_stepped(self, optimizer: Optimizer) -> None:
        """Measure what the step has changed, and let the step finder know."""
        began = time.perf_counter()
        see_updates = self._updated.pop(id(optimizer), None)
        if see_updates is not None:
            see_updates()
        self._clips.end()
        self._troubles.forget()
        self._stopwatch.ours += time.perf_counter() - began
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

    def log(self, scalars: Numbers) -> None:
        """Record scalars at the step under way."""
        if self._steps.phase.number is not None:
            self._write_numbers(schema.SCALARS, scalars, self._steps.phase.number)
        else:
            self._steps.phase.bundle.scalars |= scalars

    def step(self) -> None:
        """End a step here."""
        self._steps.step()

    def tell_first_step(self) -> None:
        """Write down what the first step has shown so far, and look no further."""
        self._first_step.end()

    def abandon(self) -> None:
        """Take the hooks off and forget what is under way."""
        self._hooks.remove()
        self._sights.begin_pass()
        self._clips.end()
        self._drop_capture()
        self.measuring, self._sights.moments = False, None

    def close(self) -> None:
        """Take the hooks off and hand over what is left."""
        self._hooks.remove()
        self._sights.begin_pass()
        self._clips.end()
        self._drop_capture()
        self._first_step.end()
        guarded(self, self._troubles.close)(self._steps.number)
        self.measuring = False
        self._steps.optimizers_gone(self._optimizers.gone())
        self._steps.close()
        self._sights.moments = None

    # --- the first pass ----------------------------------------------------------------------------------------------

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

    def _drop_capture(self) -> None:
        """An earlier pass may have been left by an exception that nobody told us of, such as Ctrl-C."""
        if self._capture is not None:
            self._capture.abort()
            self._capture = None

    def _note_modes(self) -> None:
        changed = self._modes.changes(self._steps.number)
        if changed is not None and len(self._modes_seen) < MODES_KEPT:
            self._modes_seen.append(changed)
            self._writer.document("modes", json.dumps(self._modes_seen))

    # --- steps -------------------------------------------------------------------------------------------------------

    def _time_step(self, step: int) -> None:
        """At the first pass of a step: learn what the last one took, decide whether this one is measured."""
        if step == self._timed_step:
            self.measuring = self._due  # an evaluation pass may have come in between
            return
        now = time.perf_counter()
        if self._timed_step >= 0:
            self._learn(now - self._began, self._stopwatch.ours + HOOK_SECONDS * self._calls)
        self._timed_step, self._began, self._calls = step, now, 0
        self._stopwatch.ours = 0.0
        self.measuring = self._due = self._failures < FAILURES and self._pace.is_due(step)

    def _learn(self, seconds: float, spent: float) -> None:
        before, measured = self._pace.interval, self._due
        self._pace.step_took(seconds, spent, measured=measured, behind=self._writer.is_behind)
        if self._pace.interval != before:
            self._writer.meta(interval=self._pace.interval)
        self._tell_trouble()
        if measured:
            numbers = {"step_seconds": seconds - spent, "tracing_seconds": spent, "interval": float(before)}
            self._write_numbers(schema.GAUGES, {k: _reader(v) for k, v in numbers.items()}, self._timed_step)

    def _tell_trouble(self) -> None:
        """Say once when the run cannot be written, and again if that comes back."""
        trouble = self._writer.failure or self._writer.trouble
        if trouble and not self._told_trouble:
            _LOG.warning("tensorscope: %s; the training goes on", trouble)
        self._told_trouble = bool(trouble)

    def _expects_optimizer(self) -> bool:
        self._owned |= self._hooks.owned_parameters()
        return bool(self._owned)

    def _emit(self, bundles: list[Bundle], step: int) -> None:
        self._take_times()
        phases = [bundle.moments for bundle in bundles if bundle.moments is not None]
        if phases:
            if self._sights.moments in phases:
                self._sights.moments = None  # a graph that is kept may go backward again
            self._writer.frame(schema.STATS, step, *statistics(phases))
            self._emit_samples([phase for phase in phases if phase.has_samples], step)
            self._emit_times([times for bundle in bundles for times in bundle.times], step)
            gauges = {name: _reader(value) for name, value in memory(self._devices).items()}
            for bundle in bundles:
                gauges |= bundle.gauges
            self._write_numbers(schema.GAUGES, gauges, step)
            self._measured += 1
        for bundle in bundles:
            self._write_numbers(schema.SCALARS, bundle.scalars, step)
            bundle.moments, bundle.scalars, bundle.gauges, bundle.times = None, {}, {}, []

    def _emit_samples(self, phases: list[Moments], step: int) -> None:
        for phase in phases:
            series, fetch = phase.samples()
            self._writer.frame(schema.HISTOGRAMS, step, series, _binned(fetch))

    def _take_times(self) -> None:
        """What was timed so far belongs to the phase under way."""
        times = self._stopwatch.rows()
        if times is not None:
            self._stopwatch.clear()
            if not self._devices:
                self._steps.phase.bundle.times.append(times)

    def _emit_times(self, times: list[Times], step: int) -> None:
        if times:
            series, rows = joined(times)
            self._writer.frame(schema.TIMES, step, series, lambda: rows)

    def _write_numbers(self, kind: str, numbers: Numbers, step: int) -> None:
        if numbers:
            values = list(numbers.values())
            self._writer.frame(
                kind, step, tuple(numbers), lambda: np.array([[value()] for value in values], np.float64)
            )


def _reader(value: float | torch.Tensor) -> Callable[[], float]:
    return lambda: float(value)


def _binned(fetch: Callable[[], list[Row]]) -> Callable[[], Row]:
    return lambda: np.stack([count_bins(few) for few in fetch()])


def _is_traced() -> bool:
    """Whether someone else is tracing the model, so that tensors hold no numbers of this training."""
    return torch._C._is_tracing() or torch.compiler.is_compiling()
