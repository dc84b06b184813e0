"""Runs small programs of real torch functions while their axes are followed, and states the law that these obey."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules import module as nn_module
from torch.overrides import TorchFunctionMode

from tensorscope.live.postmortem.axes import Axes, Axis, InputAxis, Kind
from tensorscope.live.postmortem.provenance import Provenance
from tensorscope.live.tensors import leaves
from tensorscope.live.transcript import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Program = Callable[..., Any]


@dataclass
class Watched(TorchFunctionMode):
    """Follows a program, and keeps the axes and shapes of everything that came out of its calls."""

    provenance: Provenance = field(default_factory=Provenance)
    module: str = ""
    calls: list[tuple[str, list[Axes], list[tuple[int, ...]]]] = field(default_factory=list)
    failed: tuple[Any, ...] | None = None
    errors: list[tuple[str, Exception]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        try:
            result = func(*args, **kwargs)
        except Exception:
            self.failed = args
            raise
        self.provenance.follow(len(self.calls), self.module, func, args, kwargs, result)
        if self.provenance.error is not None:
            self.errors.append((name_of(func), self.provenance.error))
            self.provenance.error = None
        came = list(leaves(result))
        axes = [self.provenance.axes(tensor) for tensor in came]
        self.calls.append((name_of(func), axes, [tuple(tensor.shape) for tensor in came]))
        return result


def watch(program: Program, model: nn.Module | None = None, **given: torch.Tensor) -> tuple[Watched, Any]:
    """Run a program on inputs by name; what it raises ends it. Returns what was seen, and the result."""
    watched = Watched(Provenance(model))
    paths = {id(module): path for path, module in model.named_modules()} if model is not None else {}
    for path, tensor in [*model.named_parameters(), *model.named_buffers()] if model is not None else []:
        watched.provenance.weight(path, tensor, model.get_submodule(path.rpartition(".")[0]))
    for name, tensor in given.items():
        watched.provenance.given(name, tensor)
    opened: list[str] = []

    def enter(module: nn.Module, _: Any) -> None:
        opened.append(watched.module)
        watched.module = paths.get(id(module), watched.module)

    def leave(*_: Any) -> None:
        watched.module = opened.pop()

    hooks = (
        nn_module.register_module_forward_pre_hook(enter),
        nn_module.register_module_forward_hook(leave, always_call=True),
    )
    try:
        with torch.no_grad(), watched:
            return watched, program(watched, *given.values())
    except (RuntimeError, IndexError, ValueError, TypeError, AssertionError):
        return watched, None
    finally:
        for hook in hooks:
            hook.remove()
            nn_module._global_forward_hooks_always_called.pop(hook.id, None)


def followed(model: nn.Module, **given: torch.Tensor) -> tuple[Watched, Any]:
    """Run a model on inputs by name."""
    return watch(lambda _, *args: model(*args), model, **given)


def assert_law(
    program: Program,
    given: Mapping[str, torch.Tensor],
    other: Mapping[str, torch.Tensor],
    model: nn.Module | None = None,
    unknown: bool = False,
) -> None:
    """Every axis has its result's size, and for other input sizes the one that the program really makes.

    Args:
        program: takes the watcher and the inputs.
        given: the inputs.
        other: inputs of other sizes, of the same rank; the program may fail on them.
        model: the model that the program calls.
        unknown: whether axes may be unknown.
    """
    watched, result = watch(program, model, **given)
    assert watched.errors == []
    assert result is not None
    again, _ = watch(program, model, **other)
    sizes = {InputAxis(name, index): n for name, t in other.items() for index, n in enumerate(t.shape)}
    for (op, all_axes, shapes), (op_again, _, shapes_again) in zip(watched.calls, again.calls, strict=False):
        assert op == op_again
        for axes, shape, shape_again in zip(all_axes, shapes, shapes_again, strict=False):
            assert tuple(axis.size for axis in axes) == shape
            known = [all(is_settled(part) for part in axis.tree()) for axis in axes]
            assert unknown or all(known), op
            found = [axis.at(sizes) for axis in itertools.compress(axes, known)]
            assert found == [size or None for size in itertools.compress(shape_again, known)], (op, shape, shape_again)


def is_settled(axis: Axis) -> bool:
    """Whether it was said how the axis' size follows from its parts."""
    return axis.kind is not Kind.UNKNOWN and (not axis.varies or axis.rule is not None or axis.source is not None)
