"""Drawings say what they should, are well-formed in every format, and never hang."""

from __future__ import annotations

import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import torch
from graph_models import GPT, ResNet, SmallCNN, Tagger, Unrolled, deep
from torch import Tensor, nn

from tensorscope import Graph, GraphError, graph
from tensorscope.graphs import render
from tensorscope.graphs.graph import Flow
from tensorscope.graphs.kinds import OpKind, kind_of
from tensorscope.graphs.sketch import Node, amount, sketch
from tensorscope.graphs.stack import ROOMY, stacked


@pytest.fixture(scope="module")
def gpt() -> Graph:
    return graph(GPT(12, 8, 2, 11), torch.zeros(1, 4, dtype=torch.long))


@pytest.fixture(scope="module")
def cnn() -> Graph:
    return graph(SmallCNN(), torch.ones(4, 1, 28, 28))


def texts(svg: bytes) -> list[str]:
    return [node.text or "" for node in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def node(found: Graph, title: str) -> Node:
    return next(node for node in sketch(found.fold()).nodes if node.title == title)


# -- what is drawn --


def test_a_layer_is_one_node_with_name_class_and_parameters(cnn: Graph) -> None:
    drawn = sketch(cnn)
    assert [(n.title, n.type, n.notes) for n in drawn.nodes] == [
        ("x", "", ()),
        ("conv1", "Conv2d", ("320 params",)),
        ("relu", "", ()),
        ("pool", "MaxPool2d", ()),
        ("conv2", "Conv2d", ("18.5 k params",)),
        ("relu", "", ()),
        ("pool", "MaxPool2d", ()),
        ("flatten", "", ()),
        ("fc1", "Linear", ("205 k params",)),
        ("relu", "", ()),
        ("fc2", "Linear", ("1.29 k params",)),
        ("output", "", ()),
    ]
    assert drawn.boxes == []
    assert [link.label for link in drawn.links][:2] == ["(4, 1, 28, 28)", "(4, 32, 26, 26)"]


def test_repeated_blocks_are_a_box_with_their_range(gpt: Graph) -> None:
    block = next(box for box in sketch(gpt.fold()).boxes if box.type == "Block")
    assert (block.title, block.repeat, block.flow) == ("h.0 … 11", 12, Flow.SEQUENCE)
    assert node(gpt, "q").type == "Linear"


def test_a_tied_weight_is_said_where_it_is_used(gpt: Graph) -> None:
    assert node(gpt, "head").notes == ("88 params", "uses wte.weight")
    assert "wte.weight = head.weight (one parameter)" in sketch(gpt).notes


def test_moving_elements_about_is_one_node(gpt: Graph) -> None:
    titles = [n.title for n in sketch(gpt.fold()).nodes]
    assert titles.count("view · transpose") == 3
    assert "transpose · reshape" in titles


def test_one_of_torchs_layers_is_one_node_whatever_it_prepares() -> None:
    drawn = sketch(graph(Tagger(), torch.zeros(2, 5, dtype=torch.long)))
    assert [n.title for n in drawn.nodes] == ["tokens", "embed", "lstm", "fc", "output"]


def test_a_state_fed_back_is_a_link_back() -> None:
    drawn = sketch(graph(Unrolled(), torch.ones(2, 50, 8)).fold())
    (back,) = [link for link in drawn.links if link.back]
    assert back.source == back.target
    assert back.label == "(2, 16)"


def test_another_dtype_is_said() -> None:
    drawn = sketch(graph(Tagger(), torch.zeros(2, 5, dtype=torch.long)))
    assert drawn.links[0].label == "(2, 5) int64"


def test_a_large_drawing_stacks_its_chains(gpt: Graph) -> None:
    drawn = sketch(gpt.fold())
    assert len(drawn.nodes) > ROOMY
    stacks = [[part.title for part in n.parts] for n in stacked(drawn).nodes if n.parts]
    assert ["up", "act", "down", "drop"] in stacks
    small = sketch(graph(Tagger(), torch.zeros(2, 5, dtype=torch.long)))
    assert stacked(small) is small


def test_a_collapsed_module_says_how_much_it_hides() -> None:
    shallow = graph(GPT(1, 8, 2, 11), torch.zeros(1, 4, dtype=torch.long), depth=1)
    block = node(shallow, "h.0")
    assert (block.type, block.kind) == ("Block", OpKind.MODULE)
    assert block.notes[0] == "29 operations"


def test_counts_are_short() -> None:
    assert [amount(n) for n in (0, 999, 1000, 12_345, 124_000_000, 7_000_000_000)] == [
        *["0", "999", "1 k", "12.3 k", "124 M", "7 G"]
    ]


def test_kinds_go_by_name() -> None:
    kinds = [kind_of(name) for name in ("linear", "conv_transpose2d", "avg_pool2d", "softmax", "view", "frobnicate")]
    assert kinds == [
        *[OpKind.WEIGHTED, OpKind.WEIGHTED, OpKind.REDUCTION, OpKind.ACTIVATION, OpKind.SHAPE, OpKind.ARITHMETIC]
    ]


def test_names_cannot_break_the_drawing() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module('a<b>&"c"\\', nn.Linear(2, 2))

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {'<o> "ut" &': self.get_submodule('a<b>&"c"\\')(x)}

    Odd.__name__ = 'Odd<"T">\\l'
    said = texts(render.render(graph(Odd(), torch.ones(1, 2)), "svg"))
    assert 'a<b>&"c"\\' in said
    assert '<o> "ut" &' in "".join(said)


# -- pictures --


@pytest.mark.parametrize(
    ("suffix", "start"), [(".svg", b"<?xml"), (".png", b"\x89PNG\r\n"), (".pdf", b"%PDF-"), (".SVG", b"<?xml")]
)
def test_pictures_are_well_formed(cnn: Graph, tmp_path: Path, suffix: str, start: bytes) -> None:
    path = cnn.save(tmp_path / f"graph{suffix}")
    assert path.read_bytes().startswith(start)
    if suffix == ".svg":
        assert {"conv1", "Conv2d", "flatten", "SmallCNN"} <= {text.strip() for text in texts(path.read_bytes())}


def test_dot_text_can_be_saved_and_unfolded(gpt: Graph, tmp_path: Path) -> None:
    text = gpt.save(str(tmp_path / "graph.dot")).read_text()
    assert text == gpt.to_dot()
    assert "×12" in text
    assert len(gpt.to_dot(fold=False)) > 5 * len(text)


def test_another_suffix_is_refused(cnn: Graph, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"cannot be saved as `\.gif`") as caught:
        cnn.save(tmp_path / "graph.gif")
    assert caught.value.facts["expected"] == ".dot, .svg, .png, .pdf"
    assert caught.value.hint
    assert caught.value.hint.endswith("graph.svg`")
    assert not list(tmp_path.iterdir())


def test_a_notebook_shows_the_picture(cnn: Graph) -> None:
    bundle = cnn._repr_mimebundle_(include=None, exclude=None)
    assert bundle["image/svg+xml"] == cnn._repr_svg_()
    assert bundle["text/plain"] == repr(cnn)


def test_pictures_come_from_any_thread(cnn: Graph) -> None:
    drawn: list[bytes] = []
    threads = [threading.Thread(target=lambda: drawn.append(render.render(cnn, "svg"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(drawn)) == 1


def test_a_dot_on_the_path_is_used(cnn: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "dot"
    program.write_text(f"#!{sys.executable}\nimport sys; sys.stdin.read(); print('drawn by', *sys.argv[1:])\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert render.render(cnn, "svg") == b"drawn by -Tsvg\n"


@pytest.mark.parametrize(("said", "hint"), [("No module named 'pygraphviz'", "reinstall"), ("syntax error", None)])
def test_a_failing_graphviz_is_said(cnn: Graph, monkeypatch: pytest.MonkeyPatch, said: str, hint: str | None) -> None:
    monkeypatch.setattr(render.shutil, "which", lambda _: None)
    monkeypatch.setattr(render, "_DRAW", f"import sys; sys.exit({said!r})")
    with pytest.raises(GraphError, match=said.split(maxsplit=1)[0]) as caught:
        render.render(cnn, "svg")
    assert (caught.value.hint or "").startswith(hint or "")


class Tangle(nn.Module):
    """Operations of which no two in a row do the same."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        made = [x]
        for step in range(1, self.size):
            one, other = made[-1], made[(step * 7919) % len(made)]
            made.append(one[: 1 + step % 5].sum() * other)
        return torch.stack(made[1:]).sum()


def test_a_layout_that_takes_too_long_is_tried_with_less(monkeypatch: pytest.MonkeyPatch, gpt: Graph) -> None:
    tried: list[int] = []

    def slow(command: list[str], **options: Any) -> Any:
        tried.append(options["input"].count(b"->"))
        if tried[-1] > 40:
            raise subprocess.TimeoutExpired(command, 1)
        return subprocess.CompletedProcess(command, 0, b"drawn", b"")

    monkeypatch.setattr(render.subprocess, "run", slow)
    assert render.render(graph(Tangle(300), torch.ones(5)), "svg").startswith(b"drawn") or len(tried) == len(
        render.SIZES
    )
    assert tried == sorted(tried, reverse=True)
    monkeypatch.setattr(
        render.subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(subprocess.TimeoutExpired("", 1))
    )
    with pytest.raises(GraphError, match="in time"):
        render.render(gpt, "svg")


@pytest.mark.parametrize("size", [400, 100, 20])
def test_a_drawing_can_be_made_to_fit(size: int) -> None:
    for found in (graph(Tangle(500), torch.ones(5)), graph(ResNet(), torch.ones(1, 3, 64, 64))):
        assert len(render.fitted(found, size).nodes) <= size + 2


@pytest.mark.slow
def test_a_thousand_layers_and_five_hundred_steps_are_small_pictures() -> None:
    for found in (graph(deep(1000), torch.ones(1, 16)), graph(Unrolled(), torch.ones(1, 500, 8))):
        assert len(texts(render.render(found, "svg"))) < 40


@pytest.mark.slow
def test_a_tangle_is_drawn_within_the_patience_of_all_tries() -> None:
    assert render.render(graph(Tangle(3000), torch.ones(5)), "svg").startswith(b"<?xml")
    assert render.render(graph(deep(1000), torch.ones(1, 16)), "svg", fold=False).startswith(b"<?xml")


def test_a_folder_that_does_not_exist_is_said(tmp_path: Path) -> None:
    drawn = graph(nn.Linear(2, 2), torch.ones(1, 2))
    for name in ("x.svg", "x.dot"):
        with pytest.raises(GraphError, match=r"cannot be written\n  reason  No such file or directory"):
            drawn.save(tmp_path / "nowhere" / name)
