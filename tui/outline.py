"""The model as a tree of lines: modules with what they give, their parameters below them, shared ones pointing home."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from tensorscope.events import Kind, ModuleInfo, Site

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class Role(StrEnum):
    """What a line of the tree stands for."""

    MODULE = "module"
    TENSOR = "tensor"  # an input, a further output or a further call of a module
    PARAMETER = "parameter"
    SHARED = "shared"  # a second path of a module that stands elsewhere


@dataclass(frozen=True, slots=True)
class Node:
    """One line.

    Attributes:
        label: its name below its parent.
        depth: how far it is indented; its descendants follow it and are deeper.
        role: what it stands for.
        path: dotted path of the module it is or belongs to.
        site: the tensor whose statistics it shows, without `:grad`; None if none was recorded.
        type: class name of a module; for a shared one the path where it stands.
        leaf: whether nothing is below it.
    """

    label: str
    depth: int
    role: Role
    path: str
    site: Site | None = None
    type: str = ""
    leaf: bool = True


def outline(modules: Sequence[ModuleInfo], sites: Iterable[Site]) -> tuple[Node, ...]:
    """Arrange modules and sites as a tree, depth first, in the order in which the model holds them."""
    tree = _Tree({module.path: module for module in modules})
    for module in modules:
        tree.add(module.path)
        for alias in module.aliases:
            tree.shared.setdefault(_parent(alias), []).append((alias, module.path))
    for site in sites:
        tree.place(site)
    return tuple(tree.lines("", 0)) if tree.children or tree.tensors or modules else ()


def in_model_order(nodes: Iterable[Node]) -> list[Site]:
    """Every site of the tree, from the input's side to the output's: what a module gives follows what is inside it."""
    sites: list[Site] = []
    within: list[tuple[Node, list[Node]]] = []  # the modules that a line is in, each with its further outputs
    for node in nodes:
        while within and within[-1][0].depth >= node.depth:
            _close(sites, *within.pop())
        if node.role is Role.MODULE:
            within.append((node, []))
        elif node.role is Role.TENSOR and node.site and node.site.kind is Kind.OUTPUT and within:
            within[-1][1].append(node)
        elif node.role is not Role.SHARED and node.site is not None:
            sites.append(node.site)
    while within:
        _close(sites, *within.pop())
    return sites


def _close(sites: list[Site], module: Node, further: list[Node]) -> None:
    sites += [node.site for node in (module, *further) if node.site is not None]


class _Tree:
    def __init__(self, infos: dict[str, ModuleInfo]) -> None:
        self.infos = infos
        self.children: dict[str, dict[str, None]] = {}
        self.tensors: dict[str, dict[Site, None]] = {}
        self.shared: dict[str, list[tuple[str, str]]] = {}

    def add(self, path: str) -> None:
        """Make room for a module and for those that hold it, even where nobody told of them."""
        while path:
            self.children.setdefault(_parent(path), {})[path] = None
            path = _parent(path)

    def place(self, site: Site) -> None:
        """Hang a site, or the one whose gradient it is, below its module."""
        if site.module not in self.infos:
            self.add(site.module)
        tensor = Site(site.path, site.kind, place=site.place, call=site.call) if site.gradient else site
        self.tensors.setdefault(site.module, {})[tensor] = None

    def lines(self, path: str, depth: int) -> Iterator[Node]:
        """The module at `path` and all below it."""
        own = Site(path)
        tensors = self.tensors.get(path, {})
        below = [self._tensor(site, depth + 1) for site in tensors if site != own]
        below.sort(key=lambda node: node.role is Role.PARAMETER)
        shared = self.shared.get(path, [])
        children = self.children.get(path, {})
        info = self.infos.get(path)
        name = path.rpartition(".")[2] if path else (info.type if info else "model")
        kind = info.type if info and path else ""
        site = own if own in tensors else None
        leaf = not (below or shared or children)
        yield Node(name, depth, Role.MODULE, path, site, kind, leaf)
        yield from below
        for child in children:
            yield from self.lines(child, depth + 1)
        for alias, home in shared:
            yield Node(alias.rpartition(".")[2], depth + 1, Role.SHARED, home, self._output(home), home)

    def _output(self, path: str) -> Site | None:
        return Site(path) if Site(path) in self.tensors.get(path, {}) else None

    def _tensor(self, site: Site, depth: int) -> Node:
        if site.kind is Kind.PARAMETER:
            return Node(site.path.rpartition(".")[2], depth, Role.PARAMETER, site.module, site)
        said = "input" if site.kind is Kind.INPUT else "output"
        said += f" of call {site.call + 1}" if site.call else ""
        said += f" [{site.place}]" if site.place else ""
        return Node(said, depth, Role.TENSOR, site.path, site)


def _parent(path: str) -> str:
    return path.rpartition(".")[0]
