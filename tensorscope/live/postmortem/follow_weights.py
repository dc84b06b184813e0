"""The axes of parameters and buffers, called by the attribute of their layer that fixes each size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorscope.live.postmortem.axes import Axes, Axis, Kind
from tensorscope.live.postmortem.follow_operation import PRODUCT

if TYPE_CHECKING:
    from torch import nn

# Attributes of torch's layers that can be the size of an axis, by the axis; the first that says the same is meant.
_FIRST = (
    "out_channels",
    "out_features",
    "num_embeddings",
    "num_features",
    "num_channels",
    "num_parameters",
    "normalized_shape",
)
_SECOND = ("in_channels", "in_features", "in1_features", "embedding_dim", "normalized_shape")
_THIRD = ("in2_features", "kernel_size", "normalized_shape")
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def weight_axes(path: str, shape: tuple[int, ...], owner: nn.Module | None) -> Axes:
    """The axes of a parameter or buffer.

    Args:
        path: such as `conv2.weight`.
        shape: its sizes.
        owner: the module that it belongs to, None if that is not known.
    """
    place, _, name = path.rpartition(".")
    return tuple(_axis(path, place, name, index, shape, owner) for index in range(len(shape)))


def _axis(path: str, place: str, name: str, index: int, shape: tuple[int, ...], owner: nn.Module | None) -> Axis:
    plain = Axis(shape[index], Kind.WEIGHT, f"axis {index} of `{path}`")
    if owner is None or not type(owner).__module__.startswith("torch.nn."):
        return plain

    def named(attribute: str, size: int) -> Axis:
        return Axis(size, Kind.WEIGHT, f"{place}.{attribute}".lstrip("."))

    if times := _multiple(owner, name, index):
        count, attribute = times
        size = getattr(owner, attribute, 0)
        if isinstance(size, int) and count * size == shape[index]:
            gates = Axis(count, Kind.LITERAL, "gates" if "hidden" in attribute else "query, key and value")
            whole = named(attribute, size)
            return whole if count == 1 else Axis(shape[index], Kind.PRODUCT, attribute, (gates, whole), rule=PRODUCT)
    for attribute in _attributes(type(owner).__name__, name, index):
        if _says(owner, attribute, index, len(shape)) == shape[index]:
            return named(attribute, shape[index])
    return plain


def _multiple(owner: nn.Module, name: str, index: int) -> tuple[int, str] | None:
    """An axis that holds an attribute's size several times: gates of a recurrent layer, the three projections."""
    if name.startswith(("weight_ih", "weight_hh", "bias_ih", "bias_hh")) and index == 0:
        kind = type(owner).__name__.removesuffix("Cell")
        return (_GATES[kind], "hidden_size") if kind in _GATES else None
    if name in {"in_proj_weight", "in_proj_bias"} and index == 0:
        return 3, "embed_dim"
    return None


def _attributes(kind: str, name: str, index: int) -> tuple[str, ...]:
    """The attributes that may fix the size of an axis."""
    if name.startswith("weight_ih"):
        return ("input_size",)
    if name.startswith(("weight_hh", "weight_hr")):
        return ("proj_size", "hidden_size") if (index == 1) == name.startswith("weight_hh") else ("hidden_size",)
    if name.endswith("proj_weight"):
        return ("embed_dim", *{"k": ("kdim",), "v": ("vdim",)}.get(name[0], ()))[:: -1 if index else 1]
    if kind.startswith("ConvTranspose") and index < 2 and name == "weight":
        return (("in_channels",), ("out_channels",))[index]
    return (_FIRST, _SECOND, _THIRD)[index] if index < 3 else ("kernel_size", "normalized_shape")


def _says(owner: nn.Module, attribute: str, index: int, rank: int) -> int | None:
    value = getattr(owner, attribute, None)
    if isinstance(value, tuple):  # one number an axis, of the last ones
        value = value[index - rank + len(value)] if len(value) >= rank - index else None
    return value if isinstance(value, int) else None
