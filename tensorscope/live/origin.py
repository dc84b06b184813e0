"""Finds out, by running the newest pass again on copies, where the first number that is not finite came from."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from tensorscope.live.origins.generators import generator_state
from tensorscope.live.origins.replaying import Replay, by_values, unrepeatable
from tensorscope.live.origins.watcher import WritesError
from tensorscope.live.postmortem.replay import ONE_AT_A_TIME
from tensorscope.live.tensors import leaves

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from tensorscope.run.origin import Origin


@dataclass(slots=True)  # not frozen: one is made at every step, and that would take three times as long
class Pass:
    """The newest pass through a model, as far as running it again takes.

    Attributes:
        module: what was called.
        args: its positional arguments, not copied.
        kwargs: its keyword arguments, likewise.
        rng: the generators' states before the pass, by device; None for the CPU.
        gradients: whether gradients were on.
        autocast: for each type of device whether autocast was on, and its dtype.
        versions: how often each tensor among the arguments had been written to.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    rng: tuple[tuple[torch.device | None, torch.Tensor], ...]
    gradients: bool
    autocast: tuple[tuple[str, bool, torch.dtype], ...]
    versions: tuple[int, ...]


def remember(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Pass:
    """Keep what it takes to run a pass again; to be called when it begins. Copies generators' states and nothing else.

    Args:
        module: what is called: the traced model, or a part of it on its own.
        args: its positional arguments.
        kwargs: its keyword arguments.
    """
    # Every step comes by here: one tensor on the CPU takes the short way.
    alone = not kwargs and len(args) == 1 and type(args[0]) is torch.Tensor
    given = args if alone else list(leaves((args, kwargs)))
    versions = tuple([-1 if tensor.is_inference() else tensor._version for tensor in given])
    rng: list[tuple[torch.device | None, torch.Tensor]] = [(None, torch.default_generator.get_state())]
    autocast = [("cpu", torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"))]
    devices = {tensor.device for tensor in given if not tensor.is_cpu}
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        devices.add(torch.device("cuda", torch.cuda.current_device()))
    for device in devices:
        autocast.append((device.type, torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)))
        if (state := generator_state(device)) is not None:
            rng.append((device, state))
    return Pass(module, args, kwargs, tuple(rng), torch.is_grad_enabled(), tuple(autocast), versions)


def find_origin(
    pass_: Pass, model: nn.Module, loss_ops: Sequence[str] = (), *, passes: int = 1, step: int = -1
) -> Origin:
    """Find out where the first number that is not finite came from; to be called before the parameters change.

    The pass is run again on copies, forward and backward. Parameters are shared unless the forward writes to them.

    Args:
        pass_: the newest pass of the step.
        model: the traced model, with the step's gradients in place.
        loss_ops: names of the operations that the loss consists of, if they are known.
        passes: how many passes the step had; what is not found in the newest may have happened in another.
        step: the step's number.
    """
    origin = _search(pass_, model, tuple(loss_ops), passes)
    return replace(origin, step=step)


def _search(pass_: Pass, model: nn.Module, loss_ops: tuple[str, ...], passes: int) -> Origin:
    if reason := unrepeatable(model):
        return by_values(pass_, model, reason)
    silence = io.StringIO()
    with ONE_AT_A_TIME, contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        for shares in (True, False):
            try:
                return Replay(pass_, model, loss_ops, passes, shares=shares).origin()
            except WritesError:
                continue
            except Exception as error:  # noqa: BLE001  (the program's own, which may raise anything)
                said = str(error).partition("\n")[0]
                return by_values(pass_, model, f"the forward could not be run again: {type(error).__name__}: {said}")
    raise AssertionError("with copies of all parameters nothing is protected")
