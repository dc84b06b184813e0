"""Finds the model that a command line names, and makes inputs of the dims that it gives."""

from __future__ import annotations

import importlib
import importlib.util
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


def load_model(target: str) -> nn.Module:
    """Make the model that a target names.

    Args:
        target: `package.module:name` or `file.py:name`; the name may be dotted, and is a model, or a class or function
            that makes one without arguments.

    Raises:
        ModelError: there is no such thing, or it makes no model. What the user's own code raises comes through.
    """
    from torch import nn

    place, _, name = target.rpartition(":")
    module = _import(place)
    try:
        found = reduce(getattr, name.split("."), module)
    except AttributeError:
        names = [known for known in vars(module) if not known.startswith("_")]
        raise ModelError(f"`{place}` has no `{name}`", hint=did_you_mean(name, names)) from None
    if not isinstance(found, nn.Module):
        found = _made_by(found, target)
    if not isinstance(found, nn.Module):
        raise ModelError(f"`{target}` makes no `torch.nn.Module`", facts={"got": f"a {type(found).__name__}"})
    return found


def inputs_from(text: str) -> torch.Tensor:
    """A tensor of zeros with the dims that a text gives: `batch=4 1 28 28`, `int64 batch seq=16`.

    Raises:
        DimsError: the text cannot be read, or leaves a size open.
    """
    import torch

    first, _, rest = text.strip().partition(" ")
    dtype = getattr(torch, first, None)
    dims = parse_dims(rest if isinstance(dtype, torch.dtype) else text)
    sizes = [_size(axis, text) for axis in dims.axes]
    return torch.zeros(sizes, dtype=dtype if isinstance(dtype, torch.dtype) else torch.float32)


def _size(axis: object, text: str) -> int:
    if isinstance(axis, Fixed):
        return axis.size
    if isinstance(axis, Name) and axis.name == "batch":
        return BATCH
    raise DimsError(f"`{axis}` in `{text}` has no size", hint=f"give it one, such as `{axis}=16`")


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
            raise ModelError(
                f"there is no module `{place}`", hint="write `package.module:name` or `file.py:name`"
            ) from None
        raise


def _made_by(factory: Any, target: str) -> Any:
    if not callable(factory):
        raise ModelError(f"`{target}` makes no model", facts={"got": f"a {type(factory).__name__}"})
    made = factory()
    return made[0] if isinstance(made, tuple) and made else made
