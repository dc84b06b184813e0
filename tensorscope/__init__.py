"""tensorscope: the debugger for PyTorch tensors.

Names are fetched on first use (PEP 562), so that `import tensorscope` loads neither torch nor numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Every public name and its one home.
_HOMES = {
    "DimsError": "errors",
    "Finding": "events",
    "Graph": "graphs.graph",
    "GraphError": "errors",
    "ModelError": "errors",
    "Run": "run.reader",
    "RunError": "errors",
    "ShapeError": "errors",
    "ShapeReport": "reports",
    "ShapeTable": "tables",
    "Site": "events",
    "Stats": "events",
    "TensorscopeError": "errors",
    "Trace": "live.trace",
    "check": "live.check",
    "diagnose": "diagnosis.engine",
    "explain": "live.explain",
    "explaining": "live.explain",
    "graph": "live.capture",
    "measure": "live.stats",
    "open_run": "run.reader",
    "shapes": "live.shapes",
    "trace": "live.trace",
}

__all__ = [*_HOMES]  # noqa: PLE0604  (strings, built from one table)

if TYPE_CHECKING:
    from tensorscope.diagnosis.engine import diagnose as diagnose
    from tensorscope.errors import DimsError as DimsError
    from tensorscope.errors import GraphError as GraphError
    from tensorscope.errors import ModelError as ModelError
    from tensorscope.errors import RunError as RunError
    from tensorscope.errors import ShapeError as ShapeError
    from tensorscope.errors import TensorscopeError as TensorscopeError
    from tensorscope.events import Finding as Finding
    from tensorscope.events import Site as Site
    from tensorscope.events import Stats as Stats
    from tensorscope.graphs.graph import Graph as Graph
    from tensorscope.live.capture import graph as graph
    from tensorscope.live.check import check as check
    from tensorscope.live.explain import explain as explain
    from tensorscope.live.explain import explaining as explaining
    from tensorscope.live.shapes import shapes as shapes
    from tensorscope.live.stats import measure as measure
    from tensorscope.live.trace import Trace as Trace
    from tensorscope.live.trace import trace as trace
    from tensorscope.reports import ShapeReport as ShapeReport
    from tensorscope.run.reader import Run as Run
    from tensorscope.run.reader import open_run as open_run
    from tensorscope.tables import ShapeTable as ShapeTable
else:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted([*globals(), *_HOMES])
