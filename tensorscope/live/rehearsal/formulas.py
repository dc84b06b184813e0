"""Sizes written in the names of the inputs' axes: how they read, and what they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SUM, _PRODUCT, _POWER, _ATOM = range(4)  # how tightly parts bind
_RELATIONS = {
    "Equality": "==", "Unequality": "!=", "GreaterThan": ">=", "StrictGreaterThan": ">", "LessThan": "<=",
    "StrictLessThan": "<",
}  # fmt: skip
_READABLE = {"==": "=", "!=": "≠", ">=": "≥", "<=": "≤"}
_DIVISIONS = {"FloorDiv": "//", "CleanDiv": "//", "PythonMod": "%", "Mod": "%"}
_BETWEEN = _RELATIONS | _DIVISIONS | {"Add": "+", "Mul": "*", "Pow": "**", "And": " and ", "Or": " or "}


def written(formula: Any, names: Mapping[Any, str]) -> str:
    """A formula or condition of sympy's as a reader writes it: `64*(height//2-1)`, `2*seq = length`."""
    sign = _RELATIONS.get(type(formula).__name__)
    if sign is not None:
        left, right = (_written(part, names)[0] for part in formula.args)
        return f"{left} {_READABLE.get(sign, sign)} {right}"
    text = _written(formula, names)[0]
    product = formula.factor() if formula.is_Add else formula  # 64·a·b + 64·a + … is shorter as a product, if it is one
    return min(text, _written(product, names)[0], key=len)


def compiled(formula: Any, names: Mapping[Any, str]) -> Callable[[Mapping[str, int]], Any] | None:
    """A formula or condition as a function of sizes; None if it is made of something unknown."""
    try:
        text = _python(formula, names)
    except NotImplementedError:
        return None
    code = compile(text, "<formula>", "eval")
    known = {"max": max, "min": min, "__builtins__": {}}
    return lambda sizes: eval(code, known, {"sizes": sizes})


def _written(formula: Any, names: Mapping[Any, str]) -> tuple[str, int]:
    """Its text, and how tightly that binds."""
    if formula in names:
        return names[formula], _ATOM
    if formula.is_Integer:
        return str(formula), _ATOM if formula >= 0 else _SUM
    write = _WRITERS.get(type(formula).__name__)
    if write is not None:
        return write(formula, names)
    text = str(formula)
    for symbol, name in names.items():
        text = text.replace(str(symbol), name)
    return text, _SUM


def _bracketed(formula: Any, names: Mapping[Any, str], least: int) -> str:
    text, binds = _written(formula, names)
    return text if binds >= least else f"({text})"


def _sum(formula: Any, names: Mapping[Any, str]) -> tuple[str, int]:
    """Names first, numbers last."""
    parts = sorted(
        formula.args, key=lambda part: (part.is_Integer, part.could_extract_minus_sign(), -part.count_ops(), str(part))
    )
    text = ""
    for part in parts:
        minus = part.could_extract_minus_sign()
        shown = _bracketed(-part if minus else part, names, _PRODUCT)
        text += f"-{shown}" if minus else f"+{shown}" if text else shown
    return text, _SUM


def _product(formula: Any, names: Mapping[Any, str]) -> tuple[str, int]:
    if formula.could_extract_minus_sign():
        return f"-{_bracketed(-formula, names, _PRODUCT)}", _SUM
    over, under = formula.as_numer_denom()
    if under != 1:
        return f"{_bracketed(over, names, _PRODUCT)}//{_bracketed(under, names, _POWER)}", _PRODUCT
    return "*".join(_bracketed(part, names, _POWER) for part in formula.args), _PRODUCT


def _division(formula: Any, names: Mapping[Any, str]) -> tuple[str, int]:
    left, right = formula.args
    sign = _DIVISIONS[type(formula).__name__]
    return f"{_bracketed(left, names, _PRODUCT)}{sign}{_bracketed(right, names, _POWER)}", _PRODUCT


def _power(formula: Any, names: Mapping[Any, str]) -> tuple[str, int]:
    return f"{_bracketed(formula.base, names, _ATOM)}**{_bracketed(formula.exp, names, _ATOM)}", _POWER


def _extreme(formula: Any, names: Mapping[Any, str]) -> tuple[str, int]:
    parts = (_written(part, names)[0] for part in formula.args)
    return f"{type(formula).__name__.lower()}({', '.join(parts)})", _ATOM


_WRITERS: dict[str, Callable[[Any, Mapping[Any, str]], tuple[str, int]]] = {
    "Add": _sum,
    "Mul": _product,
    "Pow": _power,
    "Max": _extreme,
    "Min": _extreme,
    **dict.fromkeys(_DIVISIONS, _division),
}


def _python(formula: Any, names: Mapping[Any, str]) -> str:
    """A formula as an expression over `sizes`."""
    kind = type(formula).__name__
    if formula in names:
        return f"sizes[{names[formula]!r}]"
    if kind in ("BooleanTrue", "BooleanFalse") or formula.is_Integer:
        return str(formula)
    parts = [f"({_python(part, names)})" for part in formula.args]
    if kind in _BETWEEN:
        return _BETWEEN[kind].join(parts)
    if kind in ("Max", "Min"):
        return f"{kind.lower()}({', '.join(parts)})"
    if kind == "Not":
        return f"not {parts[0]}"
    raise NotImplementedError(kind)
