"""Finds what `tensorscope run` is to run, and makes it the program, as python would: `__main__`, arguments, path."""

from __future__ import annotations

import builtins
import importlib.util
import os
import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader, SourcelessFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from tensorscope.errors import TensorscopeError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class ScriptError(TensorscopeError, FileNotFoundError):
    """There is nothing of that name to run."""


@dataclass(frozen=True, slots=True)
class Script:
    """A program that can be started.

    Attributes:
        name: what becomes `sys.argv[0]`.
        load: reads and compiles it; raises what python says of a file that cannot be.
        facts: attributes of its `__main__`.
    """

    name: str
    load: Callable[[], CodeType | None]
    facts: dict[str, Any]


def script_at(target: str) -> Script:
    """The script that `python TARGET` runs: a file, a folder or archive with a `__main__`, or `-` for standard input.

    From here on, modules are looked for where it is.

    Raises:
        ScriptError: there is none.
    """
    if target == "-":
        _look_first_in("")
        return Script("-", lambda: compile(sys.stdin.buffer.read(), "<stdin>", "exec", dont_inherit=True), {})
    path = Path(target)
    whole = os.path.join(os.getcwd(), target)  # as python does: neither `..` nor links are resolved
    if not path.exists():
        names = [other.name for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise ScriptError(f"there is no script `{target}`", hint=did_you_mean(path.name, names))
    inside = PathFinder.find_spec("__main__", [whole]) if path.is_dir() or path.suffix != ".py" else None
    if inside is not None:
        _look_first_in(whole)
        return _from_spec(inside, name=target)
    if path.is_dir():
        hint = "name the script in it, or give it a `__main__.py`"
        raise ScriptError(f"there is no script in the folder `{target}`", hint=hint)
    _look_first_in(str(path.resolve().parent))
    return _from_file(target, whole)


def module_named(name: str) -> Script:
    """The module that `python -m NAME` runs; the packages around it are imported.

    Raises:
        ScriptError: there is none. What its packages raise comes through.
    """
    home = str(Path.cwd())
    _look_first_in(home)
    spec = _spec_of(name)
    if spec is not None and spec.submodule_search_locations is not None:
        name += ".__main__"
        spec = _spec_of(name)
    if spec is None:
        raise ScriptError(f"there is no module `{name}`", facts={"looked in": home})
    return _from_spec(spec, name=spec.origin or name)


def become_main(script: Script, arguments: Sequence[str]) -> dict[str, Any]:
    """Put a new `__main__` in place, and the command line that belongs to it.

    Returns:
        The namespace to run the script in.
    """
    main = ModuleType("__main__")
    facts = {"__builtins__": builtins, "__annotations__": {}, "__cached__": None}
    vars(main).update(facts | script.facts)
    sys.modules["__main__"] = main
    sys.argv[:] = [script.name, *arguments]
    return vars(main)


def _from_file(target: str, file: str) -> Script:
    compiled = file.endswith(".pyc")
    loader = SourcelessFileLoader("__main__", file) if compiled else SourceFileLoader("__main__", file)

    def load() -> CodeType | None:
        if isinstance(loader, SourcelessFileLoader):
            return loader.get_code("__main__")
        return compile(loader.get_data(file), file, "exec", dont_inherit=True)  # leaves no cache file behind

    return Script(target, load, {"__file__": file, "__loader__": loader})


def _from_spec(spec: ModuleSpec, *, name: str) -> Script:
    loader: Any = spec.loader
    facts = {
        "__file__": spec.origin,
        "__cached__": spec.cached,
        "__loader__": loader,
        "__package__": spec.parent,
        "__spec__": spec,
    }
    return Script(name, lambda: loader.get_code(spec.name), facts)


def _spec_of(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            return None  # it, or a package it would be in
        raise


def _look_first_in(home: str) -> None:
    """Import from a folder first, as python does for its script, unless it was told not to.

    Modules loaded for ourselves that the folder has its own of are forgotten: python would have found those.
    """
    if sys.flags.safe_path:
        return
    sys.path[0] = home
    folder = Path(home)
    others = {name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names - {"__main__"}
    own = {name for name in others if (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()}
    for module in [module for module in sys.modules if module.partition(".")[0] in own]:
        del sys.modules[module]
