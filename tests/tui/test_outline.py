"""The tree shows every site of a run at its place in the model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tensorscope.events import Kind, ModuleInfo, Site
from tui.outline import Role, in_model_order, outline

MODULES = [
    ModuleInfo("", "Net", 0, 0),
    ModuleInfo("embed", "Embedding", 10, 10, aliases=("head.embed",)),
    ModuleInfo("block", "Block", 0, 0),
    ModuleInfo("block.relu", "ReLU", 0, 0),
    ModuleInfo("head", "Head", 0, 0),
]
SITES = [
    Site("", Kind.INPUT),
    Site("block"),
    Site("embed"),
    Site("embed.weight", Kind.PARAMETER),
    Site("block.relu"),
    Site("block.relu", call=1),
    Site("block.relu", place="1"),
    Site("embed").grad,
]


def test_modules_parameters_calls_outputs_and_shared_modules_have_their_lines() -> None:
    lines = [(node.depth, node.label, node.role, node.type) for node in outline(MODULES, SITES)]
    assert lines == [
        (0, "Net", Role.MODULE, ""),
        (1, "input", Role.TENSOR, ""),
        (1, "embed", Role.MODULE, "Embedding"),
        (2, "weight", Role.PARAMETER, ""),
        (1, "block", Role.MODULE, "Block"),
        (2, "relu", Role.MODULE, "ReLU"),
        (3, "output of call 2", Role.TENSOR, ""),
        (3, "output [1]", Role.TENSOR, ""),
        (1, "head", Role.MODULE, "Head"),
        (2, "embed", Role.SHARED, "embed"),
    ]


def test_the_models_order_runs_from_the_input_to_the_output() -> None:
    order = in_model_order(outline(MODULES, [*SITES, Site("")]))
    assert [str(site) for site in order] == [
        "<root>:input", "embed.weight", "embed", "block.relu", "block.relu#1", "block.relu[1]", "block", "<root>",
    ]  # fmt: skip


paths = st.lists(st.sampled_from("abc"), max_size=3).map(".".join)
sites = st.builds(
    Site, paths, st.sampled_from([Kind.OUTPUT, Kind.INPUT]), place=st.sampled_from(["", "0"]), call=st.integers(0, 2),
    gradient=st.booleans(),
)  # fmt: skip


@given(st.lists(paths, unique=True), st.lists(sites))
def test_every_site_has_a_line_whatever_modules_are_known(known: list[str], sites: list[Site]) -> None:
    nodes = outline([ModuleInfo(path, "M", 0, 0) for path in known], sites)
    shown = [node.site for node in nodes if node.site is not None]
    assert len(shown) == len(set(shown))
    assert {str(site) for site in shown} == {site.removesuffix(":grad") for site in sites}
    assert set(map(str, in_model_order(nodes))) == set(map(str, shown))


def test_without_modules_and_sites_there_is_no_tree() -> None:
    assert outline([], []) == ()
