"""Finds the model that a command line names, and reads the dims of its inputs."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorscope.dims import Fixed, Name, parse_dims
from tensorscope.errors import DimsError, ModelError, did_you_mean

if TYPE_CHECKING:
    import torch
    from torch import nn

BATCH = 2  # size of an axis named `batch` that is given none
_HOW = "write `package.module:name` or `file.py:name`"


def load_model(target: str) -> nn.Module:
    """Make the model that a target names.

    Args:
        target: `package.module:name` or `file.py:name`; the name may be dotted, and is a model, or a class or function
            that makes one without arguments, alone or as the first of what it returns.

    Raises:
        ModelError: there is no such thing, or it makes no model. What the user's own code raises comes through.
    """
    return load(target)[0]


def load(target: str) -> tuple[nn.Module, tuple[Any, ...]]:
    """Make the model that a target names, and the inputs that come with it: `build()` may return both.

    Raises:
        ModelError: as for `load_model`.
    """
    from torch import nn

    place, _, name = target.rpartition(":")
    if not place or not name:
        raise ModelError(f"`{target}` names no model", hint=_HOW)
    module = _import(place)
    try:
        found = reduce(getattr, name.split("."), module)
    except AttributeError:
        names = [known for known in vars(module) if not known.startswith("_")]
        raise ModelError(f"`{place}` has no `{name}`", hint=did_you_mean(name, names)) from None
    model, inputs = (found, ()) if isinstance(found, nn.Module) else _made_by(found, target)
    if not isinstance(model, nn.Module):
        raise ModelError(f"`{target}` makes no `torch.nn.Module`", facts={"got": f"a {type(model).__name__}"})
    return model, inputs


def arguments_from(model: nn.Module, texts: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Dims as arguments of a model's forward: `mask: bool batch seq` is the one of that name, others in their order.

    Raises:
        DimsError: they are not the forward's parameters.
    """
    named = [_named(text) for text in texts]
    args = tuple(text for name, text in named if not name)
    kwargs = {name: text for name, text in named if name}
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):
        return args, kwargs
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        facts = {"takes": _parameters(signature), "got": ", ".join(f"`{text}`" for text in texts) or "no dims"}
        hint = "write one text of dims per input, `name: dims` for one by its name"
        raise DimsError(f"`{type(model).__name__}` {error}", facts=facts, hint=hint) from None
    return args, kwargs


def inputs_from(text: str) -> torch.Tensor:
    """A tensor of zeros with the dims that a text gives: `batch=4 1 28 28`, `int64 batch seq=16`.

    Raises:
        DimsError: the text cannot be read, or leaves a size open.
    """
    import torch

    from tensorscope.live.rehearsal.inputs import split_dtype

    dims, dtype = split_dtype(text)
    sizes = [_size(axis, text) for axis in parse_dims(dims).axes]
    return torch.zeros(sizes, dtype=dtype or torch.float32)


def _size(axis: object, text: str) -> int:
    if isinstance(axis, Fixed):
        return axis.size
    if isinstance(axis, Name) and axis.name == "batch":
        return BATCH
    raise DimsError(f"`{axis}` in `{text}` has no size", hint=f"give it one, such as `{axis}=16`")


def _named(text: str) -> tuple[str, str]:
    """The parameter that dims are for, empty if they do not say, and the dims."""
    name, colon, dims = text.partition(":")
    return (name.strip(), dims.strip()) if colon and name.strip().isidentifier() else ("", text)


def _parameters(signature: inspect.Signature) -> str:
    stars: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    shown = (
        f"`{stars.get(p.kind, '')}{p.name}{'' if p.default is p.empty else f'={p.default!r}'}`"
        for p in signature.parameters.values()
    )
    return ", ".join(shown) or "nothing"


def _import(place: str) -> Any:
    if place.endswith(".py"):
        path = Path(place)
        if not path.exists():
            raise ModelError(
                f"there is no file `{place}`",
                hint=did_you_mean(path.name, [p.name for p in Path(path.parent).glob("*.py")]),
            )
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        sys.path.insert(0, str(path.parent.resolve()))
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        return module
    sys.path.insert(0, "")
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is not None and place.startswith(error.name):
            raise ModelError(f"there is no module `{place}`", hint=_HOW) from None
        raise


def _made_by(factory: Any, target: str) -> tuple[Any, tuple[Any, ...]]:
    """What a factory makes: a model, and the inputs that it returns with it."""
    if not callable(factory):
        raise ModelError(f"`{target}` makes no model", facts={"got": f"a {type(factory).__name__}"})
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        name = target.rpartition(":")[2]
        facts = {"takes": _parameters(inspect.signature(factory))}
        hint = f"name a function that calls `{name}` with what it needs"
        raise ModelError(f"`{name}` cannot be called without arguments: {error}", facts=facts, hint=hint) from None
    except ValueError:
        pass  # what has no signature is called all the same
    made = factory()
    if not isinstance(made, tuple) or not made:
        return made, ()
    inputs = made[1] if len(made) > 1 else ()
    return made[0], tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
