"""Checks of whole models: sizes that are found, constraints that are true, tables that say what really happens."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from graph_models import GPT, ResNet, SmallCNN, Tagger, deep
from hypothesis import Phase, settings
from hypothesis import given as drawn
from hypothesis import strategies as st
from torch import Tensor, nn

from reference_models import SimpleCNN
from tensorscope import ModelError, ShapeTable, check
from tensorscope.live.rehearsal.forward import rehearse
from tensorscope.live.rehearsal.inputs import given
from tensorscope.live.tensors import leaves


class UNet(nn.Module):
    """Halves images so many times, doubles them as often, and joins what has the same size."""

    def __init__(self, levels: int = 2, width: int = 4) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Conv2d(1 if i == 0 else width, width, 3, padding=1) for i in range(levels + 1))
        self.up = nn.ModuleList(nn.ConvTranspose2d(width, width, 2, 2) for _ in range(levels))
        self.mix = nn.ModuleList(nn.Conv2d(2 * width, width, 3, padding=1) for _ in range(levels))

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for level, conv in enumerate(self.down):
            x = F.relu(conv(x))
            if level < len(self.up):
                skips.append(x)
                x = F.max_pool2d(x, 2)
        for up, mix in zip(self.up, self.mix, strict=True):
            x = mix(torch.cat([up(x), skips.pop()], 1))
        return x


class Positional(nn.Module):
    """A learned table of positions, cut to the length of the text."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.table = nn.Embedding(50, 16), nn.Parameter(torch.zeros(1, 256, 16))
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        return self.layer(self.tokens(ids) + self.table[:, : ids.shape[1]])


class Branching(nn.Module):
    """Goes a way that depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        return y * 2 if y.sum() > 0 else y


class Looping(nn.Module):
    """Goes through a sequence step by step."""

    def forward(self, x: Tensor) -> Tensor:
        state = x[:, 0]
        for step in range(1, x.shape[1]):
            state = state + x[:, step]
        return state


class Added(nn.Module):
    """The sum of two inputs."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Doubled(nn.Module):
    """Takes a second input twice as long as the first."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x, x], 1) + y


@dataclass
class Batch:
    """Inputs in a dataclass."""

    x: Tensor


class Nested(nn.Module):
    """Takes a dict and a keyword, returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 4), nn.Linear(6, 4)

    def forward(self, batch: dict[str, Tensor], *, mask: Tensor) -> dict[str, object]:
        return {"y": self.a(batch["x"]) + self.b(batch["z"]), "masks": (mask,)}


IMAGES = ["batch is free", "channels = 1"]


def said(table: ShapeTable) -> list[str]:
    return [str(constraint) for constraint in table.constraints]


@pytest.mark.parametrize(
    ("model", "dims", "constraints"),
    [
        (SmallCNN(), ("batch channels height width",), [*IMAGES, "height and width: 26 to 29"]),
        pytest.param(
            SimpleCNN(),
            ("batch channels height=28 width=29",),
            [*IMAGES, "height and width: 26 to 29"],
            marks=pytest.mark.slow,
        ),
        (GPT(1, 8, 2, 50), ("batch seq",), ["batch is free", "seq ≤ 1024"]),
        (Positional(), ("int64[batch seq]",), ["batch is free", "seq ≤ 256"]),
        (UNet(), ("batch channels height width",), [*IMAGES, "height and width: multiples of 4"]),
        (Tagger(), ("int64 batch seq",), ["batch is free", "seq is free"]),
        (nn.Conv1d(4, 8, 3), ("batch channels length",), ["batch is free", "channels = 4", "length ≥ 3"]),
        (nn.MaxPool1d(2), ("batch 4 length",), ["batch is free", "length ≥ 2"]),
        (Added(), ("a b", "c d"), ["a = c, any size", "b = d, any size"]),
        (Doubled(), ("batch seq", "batch length"), ["batch is free", "2*seq = length"]),
        (nn.MultiheadAttention(16, 4, batch_first=True), ("b q dim", "b k dim", "b k dim"),
         ["b is free", "q is free", "dim = 16", "k is free"]),
        (nn.Unflatten(1, (4, -1)), ("batch dim",), ["batch is free", "dim: multiple of 4"]),
        (nn.PixelShuffle(2), ("batch channels 4 4",), ["batch is free", "channels: multiple of 4"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)  # fmt: skip
def test_sizes_are_found_and_constraints_with_them(
    model: nn.Module, dims: tuple[str, ...], constraints: list[str]
) -> None:
    table = check(model, *dims)
    found = [text.partition(" (tried")[0] for text in said(table)]
    assert found == constraints
    assert all(model(*made) is not None for made in [torch_inputs(table, dims)])


def torch_inputs(table: ShapeTable, dims: tuple[str, ...]) -> list[Tensor]:
    shapes = table.inputs.values()
    return [torch.zeros(shape.dims, dtype=getattr(torch, shape.dtype)) for shape in shapes][: len(dims)]


def test_given_tensors_are_an_example_and_their_accidents_are_none() -> None:
    table = check(SmallCNN(), torch.zeros(1, 1, 28, 28))
    assert said(table)[1:] == ["channels = 1", "height and width: 26 to 29"]
    assert said(table)[0].startswith("batch is free")
    assert str(table.rows[1].outputs[0]) == "(batch, 32, height-2, width-2)"
    assert table.rows[1].outputs[0].dims == (1, 32, 26, 26)


def test_equal_sizes_that_need_not_be_equal_are_free() -> None:
    table = check(Added(), torch.zeros(4, 4), torch.zeros(4, 4))
    assert said(table) == ["batch = b.batch, any size", "features = b.features, any size"]


def test_a_size_that_only_runs_by_accident_shows_what_it_is_tied_to() -> None:
    class Masked(nn.Module):
        def forward(self, scores: Tensor, mask: Tensor) -> Tensor:
            return (scores + mask).softmax(-1)

    table = check(Masked(), "batch=4 heads=2 queries=4 keys=6", "masked=4 keys")
    assert "queries = masked, any size" in said(table)


def test_a_loop_over_an_axis_is_tried_and_says_so() -> None:
    table = check(Looping(), "batch seq 8")
    assert said(table)[0] == "batch is free"
    assert said(table)[1].startswith("seq is free (tried up to ")
    assert table.constraints[1].tried > 100


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (SmallCNN(), torch.zeros(2, 1, 28, 28)),
        (GPT(2, 16, 2, 50), torch.zeros(2, 6, dtype=torch.int64)),
        (ResNet((1, 1, 1, 1), 4), torch.zeros(2, 3, 40, 32)),
        (Tagger(), torch.zeros(2, 5, dtype=torch.int64)),
    ],
    ids=["cnn", "gpt", "resnet", "lstm"],
)
def test_rows_say_what_modules_return_for_real(model: nn.Module, x: Tensor) -> None:
    seen: dict[str, list[tuple[int, ...]]] = {}

    def watch(path: str) -> None:
        def see(module: nn.Module, args: object, output: object) -> None:
            seen.setdefault(path, [tuple(tensor.shape) for tensor in leaves(output)])

        model.get_submodule(path).register_forward_hook(see)

    for path, _ in list(model.named_modules()):
        watch(path)
    model(x)
    real = dict(seen)
    seen.clear()
    taken = given(model, (x,), {})
    done = rehearse(model, taken, taken.sizes)
    assert {path: [each.shape for each in account.outputs] for path, account in done.ledger.accounts.items()} == real
    assert not seen, "hooks of the user's own do not fire"


def test_parameters_are_counted_once_and_tied_ones_are_told() -> None:
    model = GPT(2, 16, 2, 50)
    table = check(model, "batch seq")
    rows = {row.path: row for row in table.rows}
    assert table.parameters == sum(p.numel() for p in model.parameters())
    assert rows["head"].parameters == 0
    assert rows["head"].shared == (("head.weight", "wte.weight"),)
    assert "tied" in str(table)
    assert sum(row.parameters for row in table.rows if row.depth == 1) == table.parameters


def test_frozen_parameters_are_told() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    assert "30 parameters (20 of them frozen)" in check(model, "batch 4").heading()


def test_containers_keywords_and_dataclasses_go_in_and_out() -> None:
    table = check(Nested(), {"x": "batch 8", "z": "batch features"}, mask="bool batch 4")
    assert list(table.inputs) == ["batch.x", "batch.z", "mask"]
    assert said(table) == ["batch is free", "features = 6"]
    assert [shape.place for shape in table.rows[0].outputs] == ["", "masks.0"]

    class Unpacking(nn.Linear):
        def forward(self, batch: Batch) -> Tensor:
            return super().forward(batch.x)

    assert check(Unpacking(3, 2), Batch(torch.zeros(5, 3))).rows[0].outputs[0].dims == (5, 2)


def test_a_way_that_depends_on_values_is_run_for_real() -> None:
    model = Branching()
    state = torch.get_rng_state()
    table = check(model, "batch features")
    assert table.sizes["features"] == 8
    assert table.notes[0].startswith("run for real, on copies")
    assert said(table)[0] == "batch is free (tried up to 32)"
    assert torch.equal(torch.get_rng_state(), state)


def test_a_way_that_depends_on_values_cannot_be_followed_without_weights() -> None:
    with torch.device("meta"):
        model = Branching()
    with pytest.raises(ModelError, match="`Branching` cannot be checked without data"):
        check(model, "batch 8")


def test_what_breaks_raises_as_the_model_would_with_the_explanation_as_a_note() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(99, 2))
    with pytest.raises(RuntimeError, match=r"mat1 and mat2 shapes cannot be multiplied \(2x2704 and 99x2\)") as error:
        check(model, "batch=2 1 28 28")
    assert any("99" in note and "2704" in note for note in error.value.__notes__)


def test_a_size_that_no_choice_can_mend_is_the_models_error() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(9, 2))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        check(model, "batch features")


def test_wrong_sizes_in_the_model_are_a_constraint_if_some_input_fits() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 17 * 17, 2))
    assert "height and width: 36 to 37" in said(check(model, "batch 1 height width"))


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (nn.Linear, "this is not a `torch.nn.Module`\n  got  type <class 'torch.nn.modules.linear.Linear'>"),
        (nn.LazyLinear(3), "the parameter `weight` has no shape yet\n\nhint: run one batch through the model first"),
    ],
)
def test_what_is_no_model_is_said(model: nn.Module, text: str) -> None:
    with pytest.raises(ModelError) as error:
        check(model, "batch 3")
    assert text in str(error.value)


def test_a_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.LazyLinear(2)).eval()
    model(torch.zeros(1, 3, 8, 9))
    before, x = copy.deepcopy(model.state_dict()), torch.randn(1, 3, 8, 9)
    state = torch.get_rng_state()
    check(model, x)
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_an_uncalled_module_is_noted() -> None:
    model = SmallCNN()
    model.spare = nn.Linear(2, 2)
    assert "`spare` (Linear) is not called" in check(model, "2 1 28 28").notes


def test_a_thousand_layers_are_told_in_two_lines() -> None:
    text = str(check(deep(60), "batch features"))
    assert "0, 2 … 58 (30 alike) Linear" in text
    assert len(text.splitlines()) < 14


def test_json_holds_all_of_it() -> None:
    table = check(SmallCNN(), torch.zeros(2, 1, 28, 28))
    data = json.loads(table.to_json())
    assert data["sizes"] == dict(table.sizes)
    assert data["rows"][1]["path"] == "conv1"
    assert data["constraints"][2] == {
        "text": "height and width: 26 to 29",
        "names": ["height", "width"],
        "low": 26,
        "high": 29,
        "step": 1,
        "tried": None,
    }


@pytest.mark.slow
def test_a_model_on_the_meta_device_is_checked_without_memory() -> None:
    with torch.device("meta"):
        model = GPT(8, 8192, 64, 32000)
    table = check(model, "batch seq")
    assert table.parameters == sum(p.numel() for p in model.parameters()) > 6_000_000_000
    assert said(table) == ["batch is free", "seq ≤ 1024"]
    assert all(p.is_meta for p in model.parameters())


STACKS = st.lists(
    st.one_of(
        st.tuples(st.just("conv"), st.integers(1, 5), st.integers(1, 2), st.integers(0, 2)),
        st.tuples(st.just("pool"), st.integers(2, 3), st.integers(1, 3), st.just(0)),
    ),
    min_size=1,
    max_size=4,
)


def stack(layers: list[tuple[str, int, int, int]], image: int) -> nn.Sequential | None:
    """A convolutional network for images of one height, None if they shrink to nothing."""
    made = [
        nn.Conv2d(2, 2, size, stride, padding) if kind == "conv" else nn.MaxPool2d(size, stride)
        for kind, size, stride, padding in layers
    ]
    try:
        features = math.prod(nn.Sequential(*made)(torch.zeros(1, 2, image, image + 1)).shape)
    except RuntimeError:
        return None
    return nn.Sequential(*made, nn.Flatten(), nn.Linear(features, 3))


def runs(model: nn.Module, *sizes: int) -> bool:
    try:
        model(torch.zeros(sizes))
    except RuntimeError:
        return False
    return True


@pytest.mark.slow
@drawn(STACKS, st.integers(9, 20))
@settings(max_examples=5, derandomize=True, phases=[Phase.generate])
def test_constraints_are_true_and_formulas_hold_for_other_sizes(
    layers: list[tuple[str, int, int, int]], image: int
) -> None:
    model = stack(layers, image)
    if model is None:
        return
    table = check(model, torch.zeros(2, 2, image, image + 1))
    heights = next(c for c in table.constraints if "height" in c.names)
    assert heights.high is not None
    assert heights.low <= image <= heights.high
    for height in range(1, image + 12):
        fits = heights.low <= height <= heights.high and (height - heights.low) % heights.step == 0
        assert runs(model, 2, 2, height, image + 1) is fits, (height, heights)
    with torch.no_grad():
        real = model[:-2](torch.zeros(3, 2, heights.high, image + 1)).shape
    seen = table.rows[-3].outputs[0]
    sizes = {"batch": 3, "channels": 2, "height": heights.high, "width": image + 1}
    axes = zip(seen.dims, seen.formulas, strict=True)
    assert [eval(formula, sizes) if formula else size for size, formula in axes] == list(real)
