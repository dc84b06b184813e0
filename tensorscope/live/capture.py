"""Capturing a model's computation graph: from a dry run of its own, or from a real forward as it happens."""

from __future__ import annotations

import inspect
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules import module as nn_module

from tensorscope.errors import GraphError, ModelError
from tensorscope.graphs.graph import Call, Edge, Graph, Module, Op, Role
from tensorscope.graphs.rebuild import rebuilt
from tensorscope.live.sandbox import copied, imagined
from tensorscope.live.silent.watch import Watch
from tensorscope.live.tensors import entries, leaves, named_tensors
from tensorscope.live.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    Place = Callable[[nn.Module], AbstractContextManager[Callable[[Any], Any]]]

SAID = 4  # lines of another's error message that are repeated
_MANY = 8  # outputs of a list or tuple drawn one by one; more are drawn as one


def graph(model: nn.Module, *inputs: Any, depth: int | None = None, **kwargs: Any) -> Graph:
    """Capture the computation graph of a model's forward.

    The forward runs on tensors without data: nothing is computed, and weights, buffers, gradients, random state and
    hooks stay as they are. Where that cannot follow (a branch on a tensor's values), it runs for real on copies. Hooks
    of the user's own do not fire.

    Args:
        model: the model.
        inputs: its positional arguments.
        depth: leave out the interior of modules this many levels below the model.
        kwargs: its keyword arguments.

    Raises:
        ModelError: `model` is not a `torch.nn.Module`.
        GraphError: the forward raised, or the model has lazy parameters.
    """
    _require_model(model)
    model = _unwrapped(model)
    try:
        whole = _run(model, inputs, kwargs, imagined)
    except GraphError as failure:
        if any(tensor.is_meta for tensor in model.parameters()):
            raise  # there is nothing that could run for real
        reason = f"{type(failure.__cause__).__name__}: {str(failure.__cause__).partition(chr(10))[0]}"
        whole = _run(model, inputs, kwargs, copied)
        whole = replace(whole, notes=(*whole.notes, f"run for real on copies, because without data: {reason}"))
    return whole if depth is None else whole.collapse(depth)


class Capture:
    """Records the graph of one real forward while it runs.

    Results, gradients and random state stay what they would have been, and no tensor is kept alive. A model with
    compiled parts is not disturbed: its graph comes from a dry run on tensors without data instead.

    Args:
        model: the model whose forward will run.
        silent: whether to look for shape mistakes that raise nothing, too.

    Attributes:
        watch: looks for them; None until the forward begins, and if nobody looks.
    """

    def __init__(self, model: nn.Module, *, silent: bool = False) -> None:
        _require_model(model)
        self.model = model
        self.watch: Watch | None = None
        self._looks = silent
        self._transcript: Transcript | None = None
        self._hooks: list[Any] = []
        self._listening = False
        self._given: tuple[tuple[Any, ...], Mapping[str, Any]] = ((), {})
        self._replayed: Graph | None = None

    def start(self, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> None:
        """Begin to record; to be called when the model's forward begins, such as from a forward pre-hook."""
        self.abort()
        if torch.compiler.is_compiling():
            return
        if any(_is_compiled(module) for module in self.model.modules()):  # whose insides cannot be watched
            self._replayed, self.watch = _replay(self.model, args, kwargs or {}, silent=self._looks)
        else:
            self._open(args, kwargs or {})

    def stop(self, output: Any) -> Graph | None:
        """End the recording; to be called with what the forward returned.

        Returns:
            The graph; None if there is none to be had. Its notes say if it is not whole.
        """
        transcript, replayed = self._transcript, self._replayed
        if transcript is not None:
            transcript.leave()
            transcript.end(self.model, "", *self._given, output)
            self._returned(output)
            with transcript.safely():
                for name, value in _results(output):
                    transcript.give(name, list(leaves(value)))
                replayed = _finished(self.model, transcript)
        self.abort()
        return replayed

    def abort(self) -> str | None:
        """End without a graph; to be called if the forward raised. Harmless if nothing is being recorded.

        Returns:
            The path of the innermost module that the forward's exception left, if it was seen.
        """
        for hook in self._hooks:
            hook.remove()
            nn_module._global_forward_hooks_with_kwargs.pop(hook.id, None)  # which torch forgets
        self._hooks, self._listening = [], False
        transcript, self._transcript, self._replayed, self._given = self._transcript, None, None, ((), {})
        if transcript is None:
            return None
        transcript.leave()
        transcript.forget()
        return transcript.failed

    def pause(self) -> None:
        """Record nothing more, but leave the hooks for `abort`: torch may be going through them.

        That is where a forward's exception finds us, and a hook taken off there would put an error of torch's in the
        place of the program's own.
        """
        self._listening = False
        if self._transcript is not None:
            self._transcript.leave()

    def _returned(self, output: Any) -> None:
        if self.watch is not None:
            with self.watch.safely():
                self.watch.give(output)

    def _open(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._given = (args, kwargs)
        self.watch = Watch(_weights(self.model)) if self._looks else None
        transcript = self._transcript = Transcript(_weights(self.model), self.watch)
        if self.watch is not None:
            with self.watch.safely():
                for _, tensor in _arguments(self.model, args, kwargs):
                    self.watch.take(tensor)
        with transcript.safely():
            for name, tensor in _arguments(self.model, args, kwargs):
                transcript.take(name, tensor)
        transcript.begin("")
        paths = {id(module): path for path, module in self.model.named_modules() if path}

        def begin(module: nn.Module, args: Any) -> None:
            if self._listening and not torch.compiler.is_compiling() and id(module) in paths:
                transcript.begin(paths[id(module)], opaque=isinstance(module, torch.jit.ScriptModule))

        def end(module: nn.Module, args: Any, *rest: Any) -> None:
            if self._listening and not torch.compiler.is_compiling() and id(module) in paths:
                # After an exception torch leaves the keyword arguments out.
                transcript.end(module, paths[id(module)], args, rest[0] if len(rest) > 1 else {}, rest[-1])

        # Global hooks, so that nothing is stored on the model.
        self._listening = True
        self._hooks.append(nn_module.register_module_forward_pre_hook(begin))
        self._hooks.append(nn_module.register_module_forward_hook(end, with_kwargs=True, always_call=True))
        transcript.watch()


def _run(model: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any], place: Place) -> Graph:
    """Run the forward in a place where nothing lasts, and capture it."""
    return _watched(model, inputs, kwargs, place, silent=False)[0]


def _watched(
    model: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any], place: Place, *, silent: bool
) -> tuple[Graph, Watch | None]:
    path: str | None = None
    try:
        with place(model) as convert:
            args, named = convert((inputs, kwargs))
            capture = Capture(model, silent=silent)
            capture._open(args, named)
            transcript = capture._transcript
            try:
                output = model(*args, **named)
            except BaseException:  # Ctrl-C too must take our modes and hooks away
                path = capture.abort()
                raise
            whole = capture.stop(output)
    except Exception as error:
        raise _failure(model, path, error) from error
    if transcript is None or whole is None or transcript.error is not None:
        raise GraphError(f"the graph of `{type(model).__name__}` cannot be captured")
    return whole, capture.watch


def watched(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Watch | None:
    """Run a model's forward on copies, or without data where it has none, and watch for shape mistakes.

    Args:
        model: the model; weights, buffers, gradients and random state stay as they are.
        args: its positional arguments.
        kwargs: its keyword arguments.

    Returns:
        What watched; None if the forward raised.
    """
    tensors = [*leaves((args, dict(kwargs))), *model.parameters()]
    place: Place = imagined if any(tensor.is_meta for tensor in tensors) else copied
    try:
        return _watched(_unwrapped(model), args, dict(kwargs), place, silent=True)[1]
    except GraphError:
        return None


def _replay(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, silent: bool
) -> tuple[Graph | None, Watch | None]:
    try:
        return _watched(_unwrapped(model), args, dict(kwargs), imagined, silent=silent)
    except GraphError:
        return None, None  # the program being watched goes on without a graph


def _failure(model: nn.Module, path: str | None, error: Exception) -> GraphError:
    said = "\n".join(str(error).splitlines()[:SAID])
    facts: dict[str, object] = {"error": f"{type(error).__name__}: {said}"}
    title = f"the forward of `{type(model).__name__}` raised {type(error).__name__}"
    if path:
        title += f" in `{path}`"
        facts = {"module": f"{path} ({type(model.get_submodule(path)).__name__})", **facts}
    return GraphError(title, facts=facts, hint="run the model itself on these inputs first")


def _require_model(model: object) -> None:
    if not isinstance(model, nn.Module):
        facts = {"got": f"{type(model).__name__} {model!r:.60}"}
        hint = "pass an instance, `Model()`" if isinstance(model, type) else "pass the module whose forward it is"
        raise ModelError("this is not a `torch.nn.Module`", facts=facts, hint=hint)
    for name, parameter in model.named_parameters():
        if nn.parameter.is_lazy(parameter):
            raise GraphError(f"the parameter `{name}` has no shape yet", hint="run one batch through the model first")


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model inside a wrapper that would talk to other processes."""
    wrappers = (nn.parallel.DistributedDataParallel, nn.parallel.DataParallel)
    return model.module if isinstance(model, wrappers) else model


def _is_compiled(module: nn.Module) -> bool:
    return module._compiled_call_impl is not None or "_orig_mod" in module._modules


def _weights(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _arguments(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that a forward is given, by the names that it gives them."""
    forward = getattr(model._modules.get("_orig_mod", model), "forward", None)
    try:
        parameters = list(inspect.signature(forward).parameters.values())  # type: ignore[arg-type]
    except (TypeError, ValueError):
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "input")
    for index, value in enumerate(args):
        yield from named_tensors(names[index] if index < len(names) else f"{rest}[{index - len(names)}]", value)
    for name, value in kwargs.items():
        yield from named_tensors(name, value)


def _results(output: object) -> list[tuple[str, object]]:
    """What a forward returned, split at the top."""
    parts = [(key, entry) for key, entry in entries(output) if any(True for _ in leaves(entry))]
    if not parts or len(parts) > _MANY:
        return [("output", output)] if any(True for _ in leaves(output)) else []
    return [(f"output[{key}]" if key.isdigit() else key, entry) for key, entry in parts]


def _finished(model: nn.Module, transcript: Transcript) -> Graph:
    """What was recorded, as a graph."""
    ops = [
        Op(i, line.name, line.call, tuple(line.outputs), line.role, line.where, line.weights, flops=line.flops)
        for i, line in enumerate(transcript.lines)
    ]
    edges = [
        Edge(source, target, ops[source].outputs[port], port, slot)
        for (source, port, target), slot in transcript.flows.items()
    ]
    calls = [
        Call(i, scene.path, scene.parent, scene.number, members=(scene.path,))
        for i, scene in enumerate(transcript.scenes)
    ]
    used = {end for edge in edges for end in (edge.source, edge.target)}
    # An operation that takes nothing from the inputs and gives nothing on is bookkeeping.
    kept = [op for op in ops if op.id in used or op.role is not Role.OP]
    error = transcript.error
    return rebuilt(
        Graph(
            name=type(model).__name__,
            ops=tuple(kept),
            edges=tuple(edges),
            calls=tuple(calls),
            modules=_modules(model, Counter(call.path for call in calls)),
            tied=_tied(model),
            notes=(f"not whole: {type(error).__name__}: {error}",) if error else (),
        )
    )


def _modules(model: nn.Module, calls: Mapping[str, int]) -> dict[str, Module]:
    aliases: dict[int, list[str]] = defaultdict(list)
    for path, module in model.named_modules(remove_duplicate=False):
        aliases[id(module)].append(path)
    return {
        path: Module(
            path=path,
            type=type(module).__name__,
            parameters=sum(parameter.numel() for parameter in module.parameters()),
            calls=calls[path],
            builtin=type(module).__module__.startswith("torch."),
            aliases=tuple(aliases[id(module)][1:]),
        )
        for path, module in model.named_modules()
    }


def _tied(model: nn.Module) -> tuple[tuple[str, ...], ...]:
    paths: dict[int, list[str]] = defaultdict(list)
    for path, parameter in model.named_parameters(remove_duplicate=False):
        paths[id(parameter)].append(path)
    return tuple(tuple(names) for names in paths.values() if len(names) > 1)
