"""Makes one of torch's modules anew with other sizes, and writes down how."""

from __future__ import annotations

import inspect
from collections import Counter
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Attributes that say how large an axis is that a module makes.
MAKES = ("out_features", "out_channels", "embedding_dim", "hidden_size", "num_features", "num_channels", "embed_dim")
_WINDOW = {"kernel_size", "stride", "padding", "dilation", "output_padding", "output_size", "scale_factor"}


def rebuilt(module: nn.Module, changes: Mapping[str, Any]) -> nn.Module:
    """A module of the same class and settings but for some; weights are drawn anew.

    Args:
        module: one of torch's own.
        changes: constructor arguments that differ; `class` names another class of `torch.nn`.
    """
    arguments = _settings(module) | dict(changes)
    kind = getattr(nn, str(arguments.pop("class", _kind(module).__name__)))
    accepted = {key: value for key, value in arguments.items() if key in _parameters(kind)}
    like = next(module.parameters(), None)
    if like is not None and "device" in _signature(kind):
        accepted |= {"device": like.device, "dtype": like.dtype}
    twin: nn.Module = kind(**accepted)
    return twin.train(module.training)


def can_rebuild(module: nn.Module) -> bool:
    """Whether a module is one of torch's own, made by a constructor that its settings are known of."""
    return getattr(nn, _kind(module).__name__, None) is _kind(module)


def _kind(module: nn.Module) -> type[nn.Module]:
    """Its class, without what torch puts before it for weight norm and the like."""
    return type(module).__mro__[1] if "parametrizations" in module._modules else type(module)


def constructor(module: nn.Module, changes: Mapping[str, Any]) -> str:
    """How the changed module is made: `nn.Conv2d(16, 64, 3, padding=1)`."""
    arguments = _settings(module) | dict(changes)
    name = str(arguments.pop("class", _kind(module).__name__))
    parts = []
    by_position = True
    for key, parameter in _parameters(getattr(nn, name)).items():
        value = arguments.get(key, parameter.default)
        if parameter.default is inspect.Parameter.empty and by_position:
            parts.append(_short(key, value))
        else:
            by_position = False
            if key in arguments and _short(key, value) != _short(key, parameter.default):
                parts.append(f"{key}={_short(key, value)}")
    return f"nn.{name}({', '.join(parts)})"


def usual(root: nn.Module, path: str, attribute: str) -> Any:
    """What most modules at the same place of repeated blocks have for an attribute; None if there are too few."""
    pattern = _pattern(path)
    kind = type(root.get_submodule(path))
    values = [
        getattr(module, attribute, None)
        for other, module in root.named_modules()
        if type(module) is kind and _pattern(other) == pattern
    ]
    (value, count), *_ = Counter(map(repr, values)).most_common(1) or [("None", 0)]
    return next(v for v in values if repr(v) == value) if len(values) >= 3 and count > len(values) / 2 else None


def siblings(root: nn.Module, path: str) -> list[str]:
    """The modules at the same place of repeated blocks that are made like this one, itself included."""
    pattern, text = _pattern(path), constructor(root.get_submodule(path), {})
    return [
        other
        for other, module in root.named_modules()
        if _pattern(other) == pattern and can_rebuild(module) and constructor(module, {}) == text
    ]


def _optional(module: nn.Module, name: str) -> bool:
    return _parameters(_kind(module))[name].default is None


def _pattern(path: str) -> str:
    return ".".join("*" if name.isdecimal() else name for name in path.split("."))


def _settings(module: nn.Module) -> dict[str, Any]:
    """The constructor arguments that a module keeps as attributes."""
    found: dict[str, Any] = {}
    for name in _parameters(_kind(module)):
        value = getattr(module, name, inspect.Parameter.empty)
        if name == "bias" and not isinstance(value, bool):
            found[name] = getattr(module, "bias", None) is not None or getattr(module, "in_proj_bias", None) is not None
        elif name == "add_bias_kv":
            found[name] = getattr(module, "bias_k", None) is not None
        elif value is not inspect.Parameter.empty and not (name == "proj_size" and not value):
            found[name] = value
    # What follows another setting unless it is given.
    follows = {"stride": "kernel_size", "kdim": "embed_dim", "vdim": "embed_dim"}
    return {
        k: v for k, v in found.items() if not (k in follows and found.get(follows[k]) == v and _optional(module, k))
    }


def _parameters(kind: type) -> dict[str, inspect.Parameter]:
    """The constructor's parameters that say what the module does."""
    skipped = {"self", "args", "kwargs", "device", "dtype", "mode"}
    return {name: parameter for name, parameter in _signature(kind).items() if name not in skipped}


def _signature(kind: type) -> dict[str, inspect.Parameter]:
    """The constructor's parameters; those of the parent where they are handed on."""
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        if "__init__" not in base.__dict__ or base is nn.Module:
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters
        found = {**parameters, **found}
        if not any(p.kind is p.VAR_POSITIONAL for p in parameters.values()):
            break
    return found


def _short(key: str, value: object) -> str:
    """A value as its author would write it: `3` for a window of `(3, 3)`."""
    alike = isinstance(value, tuple) and len(value) > 0 and all(entry == value[0] for entry in value)
    if isinstance(value, tuple) and alike and (key in _WINDOW or len(value) == 1):
        return repr(value[0])
    return repr(value)


def first_of(value: Any) -> int:
    """A window's setting along its first axis."""
    return int(value[0]) if isinstance(value, tuple) else int(value)


def paddings(module: nn.Module, size: int, wanted: int) -> Iterator[tuple[str, int]]:
    """Paddings with which a window over an axis makes it as large as wanted."""
    first = {
        name: entry[0] if isinstance(entry := getattr(module, name, default), tuple) else entry
        for name, default in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1), ("output_padding", 0))
    }
    if not all(isinstance(value, int) for value in first.values()):
        return
    kernel, stride, now, dilation, _ = first.values()
    if "Transpose" in type(module).__name__:
        more = wanted - ((size - 1) * stride - 2 * now + dilation * (kernel - 1) + 1)
        if 0 <= more < max(stride, dilation):
            yield "output_padding", more
        return
    for other in range(1, 5):
        if (size + 2 * now - dilation * (kernel - 1) - 1) // other + 1 == wanted and other != stride:
            yield "stride", other
    for padding in range(dilation * kernel):
        if (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 == wanted and padding != now:
            yield "padding", padding
