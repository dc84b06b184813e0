"""What jaxtyping's annotations carry, for where jaxtyping is not installed: classes with the same attributes.

Written after jaxtyping 0.3: `Float[Tensor, "batch dim"]` is a class with `dtype`, `dtypes`, `array_type` and `dim_str`,
a union of arrays becomes a union of such classes, and `Shaped` has something that is no sequence for its dtypes.
"""

from __future__ import annotations

import re
import types
from typing import Any, Union, get_args, get_origin

_UINTS = ["uint2", "uint4", "uint8", "uint16", "uint32", "uint64"]
_INTS = ["int2", "int4", "int8", "int16", "int32", "int64"]
_FLOATS = [
    *("float4_e2m1fn", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
    *("bfloat16", "float16", "float32", "float64"),
]


class AbstractArray:
    pass


class _Meta(type):
    def __getitem__(cls, item: tuple[Any, str]) -> Any:
        array, text = item
        if get_origin(array) in {Union, types.UnionType}:
            return Union[tuple(cls[each, text] for each in get_args(array))]  # noqa: UP007
        if isinstance(array, type) and issubclass(array, AbstractArray):
            text, array = f"{text} {array.dim_str}", array.array_type
        carried = {"dtype": cls, "dtypes": cls.dtypes, "array_type": array, "dim_str": text.strip()}
        return type(f"{cls.__name__}[{array}, {text!r}]", (AbstractArray,), carried)


class AbstractDtype(metaclass=_Meta):
    dtypes: Any = None

    def __init_subclass__(cls) -> None:
        if isinstance(cls.dtypes, str | re.Pattern):
            cls.dtypes = (cls.dtypes,)
        elif isinstance(cls.dtypes, list):
            cls.dtypes = tuple(cls.dtypes)


def _word(name: str, dtypes: Any) -> Any:
    return _Meta(name, (AbstractDtype,), {"dtypes": dtypes})


Float, Float32, Int64 = _word("Float", _FLOATS), _word("Float32", "float32"), _word("Int64", "int64")
Int, Integer, Bool = _word("Int", _INTS), _word("Integer", _UINTS + _INTS), _word("Bool", ["bool", "bool_"])
Num, Shaped = _word("Num", _UINTS + _INTS + _FLOATS + ["complex64", "complex128"]), _word("Shaped", object())
