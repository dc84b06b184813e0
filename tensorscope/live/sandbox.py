"""A place to run a model's forward in which nothing that it does to itself lasts."""

from __future__ import annotations

import copy
import logging
import random
import sys
import warnings
from collections import deque
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn.modules import module as nn_module
from torch.utils._pytree import tree_map_only

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Hooks with which torch itself makes a weight (weight norm, pruning). The user's own are left out: they would count,
# log or measure a pass that is none.
_PART_OF_THE_MODEL = ("torch.nn.utils.",)
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_hooks",
    "_backward_pre_hooks",
)
_GLOBAL_HOOKS: tuple[dict[int, Any], ...] = (
    nn_module._global_forward_hooks,
    nn_module._global_forward_pre_hooks,
    nn_module._global_backward_hooks,
    nn_module._global_backward_pre_hooks,
)


@contextmanager
def imagined(model: nn.Module) -> Iterator[Callable[[Any], Any]]:
    """Give the model weights without data; yields what makes arguments to match.

    Nothing is computed, so a model too large for this machine will do. Weights on the meta device are imagined on the
    CPU, where their inputs are.
    """
    with imagined_in(model, FakeTensorMode(allow_non_fake_inputs=True)) as imagine:
        yield lambda value: tree_map_only(torch.Tensor, imagine, value)


@contextmanager
def imagined_in(model: nn.Module, mode: FakeTensorMode) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """The same in a mode of the caller's, such as one whose sizes may be symbols; yields what imagines a tensor."""
    made: dict[int, torch.Tensor] = {}

    def imagine(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            made[id(tensor)] = mode.from_tensor(tensor) if tensor.device.type != "meta" else _unmeta(tensor, mode)
        return made[id(tensor)]

    with quiet(), swapped(model, imagine), kept_random_state(), mode:
        yield imagine


@contextmanager
def copied(model: nn.Module, *, with_hooks: bool = False) -> Iterator[Callable[[Any], Any]]:
    """Give the model copies of its weights and buffers; yields what copies arguments.

    Args:
        model: the model.
        with_hooks: whether the user's own hooks fire.
    """
    made: dict[int, torch.Tensor] = {}

    def clone(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            made[id(tensor)] = copy.deepcopy(tensor) if isinstance(tensor, nn.Parameter) else _twin(tensor)
        return made[id(tensor)]

    with quiet(), swapped(model, clone, with_hooks=with_hooks), kept_random_state(), torch.no_grad():
        yield lambda value: tree_map_only(torch.Tensor, clone, value)


@contextmanager
def swapped(
    model: nn.Module, convert: Callable[[torch.Tensor], torch.Tensor], *, with_hooks: bool = False
) -> Iterator[None]:
    """Put copies in place of every module's attributes, tensors converted, and the attributes back afterwards.

    Attributes the forward sets, lists it appends to and hooks added meanwhile are gone afterwards.
    """
    duplicates = _Duplicates(convert)
    with ExitStack() as back:
        for module in [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]:
            attributes = object.__getattribute__(module, "__dict__")
            back.callback(object.__setattr__, module, "__dict__", attributes)
            replaced = {key: duplicates.of(value) for key, value in attributes.items()}
            for key in () if with_hooks else _HOOKS:
                replaced[key] = _torchs_own(attributes, key)
            object.__setattr__(module, "__dict__", replaced)
        for hooks in _GLOBAL_HOOKS:
            back.callback(hooks.update, dict(hooks))
            back.callback(hooks.clear)
            hooks.clear()
        # Compiled parts are opaque, what they were made from is not. Where nothing is compiled this would only import.
        if "torch._dynamo" in sys.modules:
            back.enter_context(torch.compiler.set_stance("force_eager"))
        yield


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Put the generators of torch, Python and numpy back as they were."""
    numpy = sys.modules.get("numpy")
    python, numbers = random.getstate(), numpy.random.get_state() if numpy else None
    initialized = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if initialized else ()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        if numpy:
            numpy.random.set_state(numbers)


def _twin(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def _unmeta(tensor: torch.Tensor, mode: FakeTensorMode) -> torch.Tensor:
    with mode:
        fake = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="cpu")
        return nn.Parameter(fake, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fake


def duplicated(value: Any, convert: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A value with its tensors converted; what holds them is copied, so that what is put into it is lost.

    Lists, tuples, sets, dicts, deques and objects of classes that are neither Python's nor torch's, such as a cache of
    keys and values, are copied; modules are not.
    """
    return _Duplicates(convert).of(value)


class _Duplicates:
    """Copies of what is met, each thing once."""

    def __init__(self, convert: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.convert = convert
        self._made: dict[int, Any] = {}

    def of(self, value: Any) -> Any:
        """The copy of a value; the value itself if it holds no state of the program's."""
        if isinstance(value, torch.Tensor):
            return self.convert(value)
        if id(value) not in self._made:
            made = self._copy(value)
            if made is not value:
                self._made[id(value)] = made
            return made
        return self._made[id(value)]

    def _copy(self, value: Any) -> Any:
        if isinstance(value, list | tuple | set | frozenset) and hasattr(type(value), "_fields"):
            return type(value)(*map(self.of, value))
        if type(value) in (list, tuple, set, frozenset):
            return type(value)(map(self.of, value))
        if isinstance(value, deque):
            return type(value)(map(self.of, value), value.maxlen)
        if isinstance(value, dict):
            twin = copy.copy(value)
            for key, entry in value.items():
                twin[key] = self.of(entry)
            return twin
        return self._object(value) if _holds_state(value) else value

    def _object(self, value: Any) -> Any:
        """A copy of an object of the program's own."""
        try:
            twin = copy.copy(value)
            self._made[id(value)] = twin  # which may hold itself
            for key, entry in vars(value).items():
                vars(twin)[key] = self.of(entry)
        except Exception:  # noqa: BLE001  (what cannot be copied stays itself)
            self._made.pop(id(value), None)
            return value
        return twin


def _holds_state(value: object) -> bool:
    if isinstance(value, nn.Module | type) or callable(value) or not hasattr(value, "__dict__"):
        return False
    package = type(value).__module__.partition(".")[0]
    return package not in sys.stdlib_module_names and package not in ("torch", "numpy", "builtins")


def _torchs_own(attributes: dict[str, Any], key: str) -> Any:
    """The hooks under a key without the user's; flags of hooks stay."""
    twin = copy.copy(attributes[key])
    if key in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        for number, hook in attributes[key].items():
            home = getattr(hook, "__module__", None) or type(hook).__module__
            if not home.startswith(_PART_OF_THE_MODEL):
                del twin[number]
    return twin


@contextmanager
def quiet() -> Iterator[None]:
    """Keep this pass, which is none of the program's, from warning, and torch from logging what it cannot imagine."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled
