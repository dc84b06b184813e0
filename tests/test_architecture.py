"""The import directions, sizes and front door that the design asks for, checked over the syntax trees."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import tensorscope

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for name in ("tensorscope", "reference_models", "tui") for path in (ROOT / name).rglob("*.py"))
LONGEST_FILE = 400  # lines

# Part of tensorscope → the parts that it may import. What is not listed may be imported by nobody.
ALLOWED = {
    "errors": set(),
    "dims": {"errors"},
    "contracts": {"errors", "dims"},
    "events": {"errors", "dims"},
    "reports": {"errors", "dims", "events"},
    "tables": {"errors", "dims", "events", "reports"},
    "graphs": {"errors", "dims", "events"},
    "run": {"errors", "dims", "events", "reports", "graphs"},
    "diagnosis": {"errors", "dims", "events", "reports", "graphs", "run"},
    "plots": {"errors", "dims", "events", "graphs", "run"},
    "live": {"errors", "dims", "contracts", "events", "reports", "tables", "graphs", "run", "diagnosis"},
    "testing": {"errors", "dims", "contracts", "events", "live"},
}
FROM_TORCH_NN = {"Module", "ModuleList", "Parameter"}  # what "from scratch" leaves of it
WITHOUT_TORCH = [part for part in ALLOWED if part not in {"live", "testing"}]


def imports(source: str) -> Iterator[tuple[str, bool]]:
    """Every module that a source imports, and whether it does so when it is imported itself."""

    def walk(node: ast.AST, at_import: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_import) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield node.module or "", at_import
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.iter_child_nodes(node):
            yield from walk(child, at_import and not lazy and not typing)

    return walk(ast.parse(source), True)


def part_of(module: str) -> str:
    return module.split(".")[1] if module.startswith("tensorscope.") else ""


def of_package(name: str) -> list[Path]:
    return [path for path in SOURCES if path.is_relative_to(ROOT / name)]


def test_the_library_imports_only_downwards() -> None:
    for path in of_package("tensorscope"):
        part = path.relative_to(ROOT / "tensorscope").parts[0].removesuffix(".py")
        for module, _ in imports(path.read_text()) if part != "__init__" else ():
            assert module.split(".")[0] not in {"tui", "reference_models"}, f"{path} imports {module}"
            if other := part_of(module):
                assert other == part or other in ALLOWED[part], f"{path} imports {module}"
            if part in WITHOUT_TORCH:
                assert module.split(".")[0] != "torch", f"{path} imports {module}"


def test_the_terminal_reaches_torch_only_inside_a_command() -> None:
    for path in of_package("tui"):
        for module, at_import in imports(path.read_text()):
            needs_torch = module.split(".")[0] in {"torch", "reference_models"} or part_of(module) == "live"
            assert not (needs_torch and at_import), f"{path} imports {module} at start"


def test_the_reference_models_know_the_shape_decorator_alone_and_no_layer_of_torchs() -> None:
    for path in of_package("reference_models"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tensorscope"):
                assert node.module == "tensorscope", path
                assert [alias.name for alias in node.names] == ["shapes"], path
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"nn", "torch.nn"}:
                assert node.attr in FROM_TORCH_NN, f"{path} uses nn.{node.attr}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert "functional" not in ast.unparse(node), path


def test_no_file_is_a_giant() -> None:
    for path in [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))]:
        assert len(path.read_text().splitlines()) <= LONGEST_FILE, path


def test_a_forbidden_import_would_be_seen() -> None:
    assert ("torch", True) in imports("import torch")
    assert ("torch", False) in imports("def f():\n    import torch")
    assert ("torch", False) in imports("if TYPE_CHECKING:\n    import torch")


def loaded_by(code: str) -> str:
    run = [sys.executable, "-c", f"{code}\nimport sys; print(' '.join(sys.modules))"]
    return subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_importing_the_package_loads_neither_torch_nor_numpy() -> None:
    modules = loaded_by("import tensorscope, tui.cli").split()
    assert "torch" not in modules
    assert "numpy" not in modules


def test_reading_and_diagnosing_a_run_loads_no_torch() -> None:
    code = "from tensorscope import open_run, diagnose; import tensorscope.plots.figures, tensorscope.graphs.render"
    assert "torch" not in loaded_by(code).split()


@pytest.mark.slow
def test_the_check_above_can_fail() -> None:
    assert "torch" in loaded_by("from tensorscope import trace").split()


def test_every_public_name_has_its_one_home() -> None:
    for name, home in tensorscope._HOMES.items():
        assert getattr(tensorscope, name).__module__ == f"tensorscope.{home}"
        assert not (ROOT / "tensorscope" / name).exists(), "no public name may equal a module's name"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        tensorscope.no_such_name  # noqa: B018
