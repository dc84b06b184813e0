"""A failed call in its surroundings: who failed, what it was given, and the changes written down as they are tried."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from crashes import Flattened, caught, images
from torch import Tensor, nn
from torch.nn import functional as F

from tensorscope.live.postmortem.axes import Axis, Kind
from tensorscope.live.postmortem.crash import read_crash
from tensorscope.live.postmortem.programs import programs
from tensorscope.live.postmortem.replay import replay
from tensorscope.live.postmortem.scene import Remedy, Scene, attached, passed_through, snake


def scene_of(function: Any, *args: Any) -> Scene:
    """The failure of a call, run again."""
    crash = read_crash(caught(function, *args))
    program = next(iter(programs(crash)))
    seen = replay(program)
    assert seen.failure is not None
    return Scene(program, seen, seen.failure, crash.user.place if crash.user else None)


def works(scene: Scene, remedy: Remedy | None) -> bool:
    assert remedy is not None
    assert remedy.edit is not None
    return replay(scene.program, remedy.edit).failure is None


class Module(nn.Module):
    """A model whose forward is a function of it and its input."""

    def __init__(self, forward: Any, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.run = forward

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


# -- who failed, with what --


def test_a_layer_of_torchs_is_called_by_its_path() -> None:
    scene = scene_of(Flattened(), images())
    assert (scene.subject, scene.path, scene.op, scene.depth) == ("`fc`", "fc", "linear", 1)
    assert [str(operand) for operand in scene.operands()] == ["x.flatten(1) (2, 36) float32", "weight (2, 9) float32"]
    assert isinstance(scene.module, nn.Linear)
    assert "cannot be multiplied" in scene.message


def test_a_users_expression_is_called_by_its_text() -> None:
    scene = scene_of(Module(lambda _, x: x + x.t()), torch.zeros(2, 3))
    assert (scene.subject, scene.path, scene.op, scene.depth) == ("`x + x.t()`", "", "add", 0)
    assert [operand.name for operand in scene.operands()] == ["x", "x.t()"]


def test_an_expression_that_is_too_long_is_called_by_its_operation() -> None:
    def forward(_: Any, x: Tensor) -> Tensor:
        return torch.cat([x.flatten(0).unsqueeze(0).expand(2, -1), x.flatten(0).unsqueeze(0).expand(3, -1)], dim=-1)

    assert scene_of(Module(forward), torch.zeros(2, 3)).subject == "`cat`"


def test_operands_that_would_share_a_text_keep_their_roles() -> None:
    scene = scene_of(Module(lambda _, x: x @ x), torch.zeros(2, 3))
    assert [operand.name for operand in scene.operands()] == ["input", "other"]


def test_what_a_sequential_hands_on_has_no_text_of_the_users() -> None:
    scene = scene_of(
        Module(lambda m, x: m.body(x), body=nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 2))), torch.zeros(1, 3)
    )
    assert (scene.path, scene.depth) == ("body.1", 2)
    assert [operand.name for operand in scene.operands()] == ["input", "weight"]


def test_biases_and_running_statistics_are_not_told() -> None:
    scene = scene_of(Module(lambda m, x: m.norm(x), norm=nn.BatchNorm1d(4)), torch.zeros(2, 3))
    assert [operand.name for operand in scene.operands()] == ["x", "weight"]


def test_a_module_that_refuses_its_input_by_itself_is_the_call() -> None:
    scene = scene_of(Module(lambda m, x: m.lstm(x), lstm=nn.LSTM(4, 2)), torch.zeros(2, 3, 5))
    assert (scene.op, [str(operand) for operand in scene.operands()]) == ("lstm", ["x (2, 3, 5) float32"])


def test_attention_is_told_with_what_the_user_gave_it() -> None:
    scene = scene_of(
        Module(lambda m, x: m.attn(x, x[:, 1:], x[:, 1:]), attn=nn.MultiheadAttention(8, 2, batch_first=True)),
        torch.zeros(2, 5, 6),
    )
    dims = [operand.dims for operand in scene.operands()]
    assert dims == [(2, 5, 6), (2, 4, 6), (2, 4, 6)]


def test_where_an_error_is_no_calls_there_are_no_operands() -> None:
    def forward(_: Any, x: Tensor) -> Tensor:
        batch, seq, dim = x.shape
        return x.view(batch, seq, dim)

    scene = scene_of(Module(forward), torch.zeros(2, 3))
    assert (scene.op, scene.operands()) == ("", ())


def test_an_argument_of_the_module_that_was_running_is_told_by_its_number() -> None:
    scene = scene_of(Flattened(), images())
    given = scene.call.tensor("input")
    assert given is not None
    assert scene.argument_of(given) == 0
    assert scene.argument_of(torch.zeros(1)) is None


def test_the_line_is_the_users() -> None:
    scene = scene_of(Module(lambda _, x: x + x.t()), torch.zeros(2, 3))
    assert scene.line.rpartition(":")[0] == __file__


# -- changes, written down and tried --


def test_an_operand_passed_through_something_is_written_after_it_and_works() -> None:
    scene = scene_of(Module(lambda _, x: x @ x), torch.zeros(2, 3))
    remedy = scene.transform("other", ".t()")
    assert (remedy.text, remedy.where) == ("`x.t()` in place of `x`", scene.line)
    assert works(scene, remedy)


def test_an_operand_without_a_text_is_told_by_its_module() -> None:
    model = Module(lambda m, x: m.body(x), body=nn.Sequential(nn.Flatten(0), nn.Linear(3, 2)))
    scene = scene_of(model, torch.zeros(4, 3))
    remedy = scene.transform("input", ".view(4, 3)")
    assert remedy.text == "pass the input of `body.1` through `.view(4, 3)`"
    assert works(scene, remedy)


def test_an_argument_is_set_to_another_value() -> None:
    scene = scene_of(Module(lambda _, x: x.softmax(dim=4)), torch.zeros(2, 3))
    assert replay(scene.program, scene.setting("dim", -1)).failure is None


def test_the_function_is_replaced() -> None:
    scene = scene_of(Module(lambda _, x: torch.mm(x, x)), torch.zeros(2, 3, 3))
    assert replay(scene.program, scene.replacing(torch.matmul)).failure is None


def test_what_a_program_is_given_is_changed() -> None:
    scene = scene_of(Module(lambda _, x: x @ x), torch.zeros(2, 3))
    assert replay(scene.program, scene.given("x", lambda x: x[:, :2])).failure is None


def test_a_layer_is_made_with_other_settings() -> None:
    scene = scene_of(Flattened(), images())
    remedy = scene.rebuild("fc", in_features=36)
    assert remedy is not None
    assert remedy.text == "make `fc` `nn.Linear(36, 2)`"
    assert remedy.where.rpartition(":")[0].endswith("crashes.py")
    assert remedy.wider is None
    assert works(scene, remedy)


@pytest.mark.parametrize("path", ["no.such", ""])
def test_what_cannot_be_made_anew_gives_no_remedy(path: str) -> None:
    assert scene_of(Flattened(), images()).rebuild(path, in_features=36) is None


def test_layers_of_repeated_blocks_are_made_alike() -> None:
    parts = {"blocks": nn.ModuleList([nn.Linear(9, 3), nn.Linear(9, 3)])}
    scene = scene_of(Module(lambda m, x: m.blocks[1](m.blocks[0](x)), **parts), torch.zeros(2, 3))
    remedy = scene.rebuild("blocks.0", in_features=3)
    assert remedy is not None
    assert remedy.edit is not None
    assert remedy.wider is not None
    assert replay(scene.program, remedy.edit).failure is not None
    assert replay(scene.program, remedy.wider).failure is None


def test_consumer_or_producer_is_resized() -> None:
    model = Module(lambda m, x: m.two(m.one(x)), one=nn.Linear(3, 4), two=nn.Linear(5, 2))
    scene = scene_of(model, torch.zeros(1, 3))
    features = scene.axes(scene.call.roles["input"])[-1]
    consumer, producer = scene.resized_consumer("in_features", 4), scene.resized_producer(features, 5)
    assert consumer is not None
    assert producer is not None
    assert (consumer.text, producer.text) == ("make `two` `nn.Linear(4, 2)`", "make `one` `nn.Linear(3, 5)`")
    assert works(scene, consumer)
    assert works(scene, producer)
    assert scene.resized_producer(features, features.size) is None
    assert scene.resized_producer(Axis(4, Kind.LITERAL, "given to `zeros`"), 5) is None


@pytest.mark.parametrize(("heads", "better"), [((8, 8, 8), False), ((8, 8, 9), True)])
def test_a_layer_that_is_unlike_its_siblings_is_the_better_one_to_change(heads: tuple[int, ...], better: bool) -> None:
    layers = nn.ModuleList(nn.Linear(8, size) for size in heads)
    scene = scene_of(
        Module(lambda m, x: m.head(m.layers[2](x)), layers=layers, head=nn.Linear(8 if better else 9, 2)),
        torch.zeros(1, 8),
    )
    axis = scene.axes(scene.call.roles["input"])[-1]
    remedy = scene.resized_producer(axis, 8 if better else 9)
    assert remedy is not None
    assert (remedy.rank < 25) is better


def test_a_window_is_padded_so_that_it_makes_what_is_wanted() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        return m.conv(x) + x

    scene = scene_of(Module(forward, conv=nn.Conv2d(1, 1, 3)), torch.zeros(1, 1, 8, 8))
    made = scene.axes(scene.call.roles["input"])[-1]
    remedies = list(scene.window(made, 8))
    assert [remedy.text for remedy in remedies] == ["make `conv` `nn.Conv2d(1, 1, 3, padding=1)`"]
    assert works(scene, remedies[0])
    assert list(scene.window(made, 99)) == []


def test_another_method_in_place_of_an_earlier_one() -> None:
    def forward(_: Any, x: Tensor) -> Tensor:
        keys = x.transpose(0, 1)
        return x @ keys

    scene = scene_of(Module(forward), torch.zeros(2, 3, 4))
    step = scene.replay.steps[0]
    site = scene.site_of(step)
    assert site is not None
    edit = scene.replacing_at(site, lambda x, *_: x.mT)
    remedy = scene.rewritten(step, "transpose(-2, -1)", edit, 5)
    assert remedy.text == "`x.transpose(-2, -1)` in place of `x.transpose(0, 1)`"
    assert remedy.where == f"{__file__}:{step.place.line if step.place else 0}"
    assert works(scene, remedy)


def test_a_call_site_inside_of_a_torch_layer_is_that_layers_alone() -> None:
    scene = scene_of(Flattened(), images())
    assert scene.site()[2:] == ("linear", "fc")
    sites = [scene.site_of(step) for step in scene.replay.steps]
    assert [site[2:] for site in sites if site] == [
        ("conv2d", "conv"),
        ("add_", "norm"),
        ("batch_norm", "norm"),
        ("flatten", None),
    ]


# -- how it is written --


@pytest.mark.parametrize(
    ("text", "suffix", "expected"),
    [
        ("x", ".t()", "x.t()"),
        ("self.keys", ".t()", "self.keys.t()"),
        ("x.flatten(1)", ".t()", "x.flatten(1).t()"),
        ("x[0]", ".t()", "x[0].t()"),
        ("x + y", ".t()", "(x + y).t()"),
        ("-x", ".t()", "(-x).t()"),
        ("f(g(x))", ".t()", "(f(g(x))).t()"),
        ("x", " + 1", "x + 1"),
        ("x", "[:, None]", "x[:, None]"),
        ("a @ b", "[None]", "(a @ b)[None]"),
    ],
)
def test_what_is_written_after_an_expression_applies_to_all_of_it(text: str, suffix: str, expected: str) -> None:
    assert attached(text, suffix) == expected


def test_what_a_suffix_makes_is_what_python_makes_of_it() -> None:
    x = torch.arange(6).view(2, 3)
    assert torch.equal(passed_through(".t()[0]")(x), x.t()[0])
    assert torch.equal(passed_through("[:, None].float()")(x), x[:, None].float())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("BatchNorm2d", "batch_norm"),
        ("Conv1d", "conv"),
        ("LSTM", "lstm"),
        ("GRUCell", "gru_cell"),
        ("MultiheadAttention", "multihead_attention"),
        ("CrossEntropyLoss", "cross_entropy_loss"),
        ("MaxPool3d", "max_pool"),
        ("ReLU", "re_lu"),
        ("EmbeddingBag", "embedding_bag"),
    ],
)
def test_a_classs_name_as_a_function_is_called(name: str, expected: str) -> None:
    assert snake(name) == expected


def test_a_loss_called_by_its_module_is_the_function_that_failed() -> None:
    scene = scene_of(
        Module(lambda m, x: m.criterion(x, x[0].long()), criterion=nn.CrossEntropyLoss()), torch.zeros(2, 3)
    )
    assert scene.op == F.cross_entropy.__name__
