"""What a run measured, shown on its graph."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from graph_models import GPT, SmallCNN

from tensorscope import Finding, Graph, GraphError, graph
from tensorscope.events import Kind, Severity, Site
from tensorscope.graphs.overlay import BROKEN, SCALE, SEVERITIES, Overlay, number


class Recorded:
    """As much of a run as an overlay asks for."""

    def __init__(
        self, values: Mapping[Site, float], broken: tuple[str, ...] = (), found: tuple[Finding, ...] = ()
    ) -> None:
        self.values, self.broken, self.findings = values, broken, found

    @property
    def sites(self) -> list[Site]:
        return list(self.values)

    def history(self, site: Site, stat: str) -> tuple[list[int], list[float]]:
        if stat == "nonfinite":
            return [3, 7], [0, 5 if site in self.broken else 0]
        return [3, 7], [-1.0, self.values[site]]


def finding(site: str | None, severity: Severity = Severity.WARNING, rule: str = "dead_relu") -> Finding:
    return Finding(rule, site, severity, "", 1, 2)


@pytest.fixture(scope="module")
def cnn() -> Graph:
    return graph(SmallCNN(), torch.ones(4, 1, 28, 28))


@pytest.fixture(scope="module")
def gpt() -> Graph:
    return graph(GPT(6, 8, 2, 11), torch.zeros(1, 4, dtype=torch.long))


def test_modules_take_the_colour_of_their_last_value(cnn: Graph) -> None:
    run = Recorded({Site("conv1"): 1.0, Site("fc1"): 2.0, Site("fc2"): 1000.0, Site("fc2").grad: 9.0})
    shown = cnn.overlay(run, "rms").shown
    assert shown is not None
    assert shown.title == "rms of outputs, step 7"
    assert dict(shown.values) == {"conv1": 1.0, "fc1": 2.0, "fc2": 1000.0}
    assert [shown.paint([path]).fill for path in ("conv1", "fc1", "fc2")] == [SCALE[0], SCALE[0], SCALE[-1]]
    assert str(shown.paint(["fc2"])) == "1e+03"
    assert str(shown.paint(["pool"])) == ""


def test_gradients_are_shown_on_request(cnn: Graph) -> None:
    run = Recorded({Site("conv1"): 1.0, Site("conv1").grad: 0.25, Site("conv1.weight", Kind.PARAMETER).grad: 3.0})
    shown = cnn.overlay(run, gradient=True).shown
    assert shown is not None
    assert (shown.title, dict(shown.values)) == ("rms of gradients, step 7", {"conv1": 0.25})


def test_what_is_not_finite_is_marked_apart(cnn: Graph) -> None:
    run = Recorded({Site("conv1"): 1.0, Site("fc1"): math.nan, Site("fc2"): 3.0}, broken=("fc2",))
    shown = cnn.overlay(run).shown
    assert shown is not None
    assert str(shown.paint(["fc1"])) == "✖ not finite"
    assert str(shown.paint(["fc2"])) == "3  ✖ not finite"
    assert str(shown.paint(["conv1", "fc2"])) == "1 … 3  ✖ not finite in 1 of 2"
    assert [shown.paint([path]).line for path in ("conv1", "fc1", "fc2")] == [None, BROKEN, BROKEN]


def test_findings_are_marked_where_they_were_made_or_around_it(gpt: Graph) -> None:
    found = (
        finding("h.3.mlp.act"),
        finding("h.2.attn.q.weight", Severity.ERROR, "vanishing"),
        finding("loss", rule="loss_flat"),
        finding(None, rule="slow"),
    )
    text = gpt.overlay(Recorded({Site("h.0"): 1.0}, found=found)).to_dot()
    assert "▲ dead_relu" in text
    assert "▲ vanishing" in text
    assert SEVERITIES["error"] in text
    page = text[: text.index("subgraph")]
    assert "▲ loss_flat" in page
    assert "▲ slow" in page
    shallow = gpt.collapse(1).overlay(Recorded({Site("h.0"): 1.0}, found=found)).to_dot()
    assert "▲ dead_relu" in shallow


def test_a_folded_block_shows_the_range_of_all(gpt: Graph) -> None:
    run = Recorded({Site(f"h.{layer}"): 10.0**-layer for layer in range(6)})
    assert "1e-05 … 1" in gpt.overlay(run).to_dot()


def test_the_legend_goes_from_light_to_dark(cnn: Graph) -> None:
    run = Recorded({Site("conv1"): 0.0, Site("fc2"): 6.0})
    shown = cnn.overlay(run).shown
    assert shown is not None
    assert shown.legend() == list(zip(SCALE, "012345", strict=True))
    assert "rms of outputs, step 7" in cnn.overlay(run).to_dot()
    assert Overlay("one", {"a": 2.0}).legend() == [(SCALE[0], "2")]


def test_an_overlay_is_drawn(cnn: Graph) -> None:
    run = Recorded(
        {Site("conv1"): 1.0, Site("fc1"): math.nan}, broken=("fc1",), found=(finding("conv2"), finding("conv2"))
    )
    drawn = cnn.overlay(run)._repr_svg_()
    assert "not finite" in drawn
    assert drawn.count("dead_relu") == 1


def test_a_run_that_measured_nothing_is_said(cnn: Graph) -> None:
    with pytest.raises(GraphError, match="no measured outputs"):
        cnn.overlay(Recorded({}))


def test_numbers_are_short() -> None:
    assert [number(value) for value in (0.000123, 1.0, 12345.0)] == ["0.00012", "1", "1.2e+04"]
