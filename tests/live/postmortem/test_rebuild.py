"""Modules made anew: written down they are themselves, and what a change says is what changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from tensorscope.live.postmortem.rebuild import can_rebuild, constructor, rebuilt, siblings, usual

small = st.integers(1, 5)
flags = st.booleans()


@st.composite
def linears(draw: st.DrawFn) -> nn.Module:
    return nn.Linear(draw(small), draw(small), bias=draw(flags))


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Module:
    rank, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    sizes = st.one_of(small, st.tuples(*[small] * rank))
    kind = getattr(nn, f"Conv{draw(st.sampled_from(['', 'Transpose']))}{rank}d")
    stride = draw(small)
    settings: dict[str, Any] = {"stride": stride, "groups": groups, "bias": draw(flags), "dilation": draw(small)}
    if "Transpose" in kind.__name__:
        settings |= {"padding": draw(small), "output_padding": draw(st.integers(0, stride - 1))}
    else:
        same = [] if stride > 1 else ["same"]
        settings |= {"padding": draw(st.one_of(sizes, st.sampled_from(["valid", *same])))}
        settings |= {"padding_mode": draw(st.sampled_from(["zeros", "circular"]))}
    return kind(groups * draw(small), groups * draw(small), draw(sizes), **settings)  # type: ignore[no-any-return]


@st.composite
def norms(draw: st.DrawFn) -> nn.Module:
    size, groups = draw(small), draw(st.integers(1, 3))
    shape = draw(st.one_of(small, st.lists(small, min_size=1, max_size=3, unique=True)))
    affine, eps = draw(flags), draw(st.sampled_from([1e-5, 1e-3]))
    batch = st.sampled_from([nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm2d])
    settings: dict[str, Any] = {"eps": eps, "affine": affine}
    momentum: Any = draw(st.sampled_from([None, 0.1, 0.5]))
    return draw(
        st.sampled_from(
            [
                draw(batch)(size, momentum=momentum, **settings),
                nn.LayerNorm(shape, eps=eps, elementwise_affine=affine, bias=draw(flags)),
                nn.GroupNorm(groups, groups * size, **settings),
                nn.RMSNorm(shape, elementwise_affine=affine),
            ]
        )
    )


@st.composite
def recurrents(draw: st.DrawFn) -> nn.Module:
    settings: dict[str, Any] = {"num_layers": draw(st.integers(1, 2)), "bias": draw(flags)}
    settings |= {"batch_first": draw(flags), "bidirectional": draw(flags)}
    kind = draw(st.sampled_from([nn.LSTM, nn.GRU, nn.RNN]))
    if kind is nn.RNN:
        settings["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    return kind(draw(small), draw(small), **settings)  # type: ignore[no-any-return]


@st.composite
def attentions(draw: st.DrawFn) -> nn.Module:
    heads = draw(st.integers(1, 3))
    settings: dict[str, Any] = {"batch_first": draw(flags), "bias": draw(flags), "dropout": 0.1}
    settings |= {name: draw(st.sampled_from([None, 2, 7])) for name in ("kdim", "vdim")}
    return nn.MultiheadAttention(heads * draw(small), heads, **settings)


@st.composite
def embeddings(draw: st.DrawFn) -> nn.Module:
    rows = draw(small)
    padding = draw(st.sampled_from([None, 0, rows - 1]))
    plain = nn.Embedding(rows, draw(small), padding_idx=padding, max_norm=draw(st.sampled_from([None, 1.0])))
    return draw(st.sampled_from([plain, nn.EmbeddingBag(rows, draw(small), padding_idx=padding)]))


OTHERS = [
    nn.MaxPool2d(2),
    nn.MaxPool1d(3, 2, padding=1),
    nn.AvgPool2d((2, 3), ceil_mode=True),
    nn.AdaptiveAvgPool2d((1, None)),
    nn.Flatten(2),
    nn.Unflatten(1, (2, 3)),
    nn.Dropout(0.3),
    nn.Softmax(dim=-1),
    nn.PReLU(4),
    nn.LeakyReLU(0.2),
    nn.Bilinear(2, 3, 4),
    nn.LSTMCell(3, 4),
    nn.GRUCell(3, 4, bias=False),
    nn.ConstantPad2d((1, 2, 3, 4), 0.5),
    nn.ZeroPad2d(1),
    nn.Upsample(scale_factor=2),
    nn.PixelShuffle(3),
    nn.CosineSimilarity(dim=2),
    nn.ReLU(inplace=True),
]
modules = st.one_of(linears(), convolutions(), norms(), recurrents(), attentions(), embeddings())


def sizes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def evaluated(text: str) -> nn.Module:
    return eval(text, {"nn": nn})  # type: ignore[no-any-return]


@given(modules)
def test_a_module_as_it_is_written_is_the_same_module(module: nn.Module) -> None:
    twin = evaluated(constructor(module, {}))
    assert (type(twin), repr(twin), sizes(twin)) == (type(module), repr(module), sizes(module))


@given(modules)
def test_a_module_made_anew_is_the_same_but_for_its_weights(module: nn.Module) -> None:
    twin = rebuilt(module, {})
    assert twin is not module
    assert (type(twin), repr(twin), sizes(twin)) == (type(module), repr(module), sizes(module))


@pytest.mark.parametrize("module", OTHERS, ids=repr)
def test_layers_without_sizes_of_their_own_are_written_as_they_are(module: nn.Module) -> None:
    twin = evaluated(constructor(module, {}))
    assert (type(twin), repr(twin), sizes(twin)) == (type(module), repr(module), sizes(module))
    assert repr(rebuilt(module, {})) == repr(module)


WRITTEN = [
    (nn.Linear(4096, 128), {"in_features": 1600}, "nn.Linear(1600, 128)"),
    (nn.Linear(4, 2, bias=False), {"out_features": 3}, "nn.Linear(4, 3, bias=False)"),
    (nn.Conv2d(16, 32, 3, padding=1), {"in_channels": 64}, "nn.Conv2d(64, 32, 3, padding=1)"),
    (nn.Conv2d(3, 8, (3, 5), bias=False), {}, "nn.Conv2d(3, 8, (3, 5), bias=False)"),
    (nn.BatchNorm1d(7), {"class": "BatchNorm2d"}, "nn.BatchNorm2d(7)"),
    (nn.BatchNorm2d(64), {"num_features": 32}, "nn.BatchNorm2d(32)"),
    (nn.LayerNorm((4, 5)), {"normalized_shape": (5,)}, "nn.LayerNorm(5)"),
    (nn.GroupNorm(4, 12), {"num_groups": 3}, "nn.GroupNorm(3, 12)"),
    (nn.Embedding(10, 4, padding_idx=0), {"num_embeddings": 20}, "nn.Embedding(20, 4, padding_idx=0)"),
    (nn.LSTM(8, 16, batch_first=True), {"input_size": 9}, "nn.LSTM(9, 16, batch_first=True)"),
    (nn.GRU(8, 16, 2), {"batch_first": True}, "nn.GRU(8, 16, num_layers=2, batch_first=True)"),
    (nn.MultiheadAttention(8, 2), {"embed_dim": 16}, "nn.MultiheadAttention(16, 2)"),
    (nn.MultiheadAttention(8, 2), {"kdim": 5}, "nn.MultiheadAttention(8, 2, kdim=5)"),
    (nn.MaxPool2d(2), {"stride": 1}, "nn.MaxPool2d(2, stride=1)"),
    (nn.MaxPool2d(2), {"kernel_size": 3}, "nn.MaxPool2d(3)"),
    (nn.MaxPool2d(2, 2), {}, "nn.MaxPool2d(2)"),
    (nn.Flatten(0), {"start_dim": 1}, "nn.Flatten()"),
]


@pytest.mark.parametrize(("module", "changes", "text"), WRITTEN)
def test_a_changed_module_is_written_as_its_author_would(module: nn.Module, changes: Any, text: str) -> None:
    assert constructor(module, changes) == text


@pytest.mark.parametrize(("module", "changes", "text"), WRITTEN)
def test_a_module_made_with_changes_is_what_is_written(module: nn.Module, changes: Any, text: str) -> None:
    twin = rebuilt(module, changes)
    assert repr(twin) == repr(evaluated(text))
    assert sizes(twin) == sizes(evaluated(text))


LOST = [nn.LSTM(8, 16, proj_size=4), nn.MultiheadAttention(8, 2, add_bias_kv=True)]


@pytest.mark.parametrize("module", LOST, ids=["projected", "biased"])
def test_settings_that_are_kept_under_another_name_are_kept(module: nn.Module) -> None:
    assert sizes(evaluated(constructor(module, {}))) == sizes(module)
    assert sizes(rebuilt(module, {})) == sizes(module)


@pytest.mark.parametrize("module", [nn.LayerNorm((4, 4)), nn.RMSNorm((2, 2, 2)), nn.Unflatten(1, (3, 3))], ids=repr)
def test_several_axes_of_one_size_stay_several(module: nn.Module) -> None:
    assert repr(evaluated(constructor(module, {}))) == repr(module)


@given(modules, st.sampled_from([torch.float32, torch.float64, torch.bfloat16]), flags)
def test_a_module_made_anew_keeps_dtype_device_and_training(
    module: nn.Module, dtype: torch.dtype, training: bool
) -> None:
    assume(any(True for _ in module.parameters()))
    twin = rebuilt(module.to("meta", dtype).train(training), {})
    kinds = {(parameter.dtype, parameter.device.type) for parameter in twin.parameters()}
    assert kinds == {(dtype, "meta")}
    assert twin.training is training


@given(modules)
def test_the_module_itself_stays_as_it_was(module: nn.Module) -> None:
    before, attributes = {k: v.clone() for k, v in module.state_dict().items()}, dict(vars(module))
    rebuilt(module, {})
    constructor(module, {})
    assert dict(vars(module)) == attributes
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_weight_normed_layers_are_written_as_the_layers_they_are() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))
    assert can_rebuild(layer)
    assert constructor(layer, {"in_features": 5}) == "nn.Linear(5, 4)"
    assert type(rebuilt(layer, {"in_features": 5})) is nn.Linear


class Own(nn.Linear):
    pass


@pytest.mark.parametrize(
    ("module", "can"),
    [(nn.Linear(1, 1), True), (nn.ReLU(), True), (Own(1, 1), False), (nn.Module(), True), (nn.LSTM(1, 1), True)],
)
def test_only_torchs_own_classes_are_made_anew(module: nn.Module, can: bool) -> None:
    assert can_rebuild(module) is can


def test_a_setting_that_a_class_does_not_have_is_left_out() -> None:
    assert repr(rebuilt(nn.Conv2d(1, 2, 3), {"class": "Linear", "in_features": 1, "out_features": 2})) == repr(
        nn.Linear(1, 2)
    )


@pytest.mark.parametrize("changes", [{"in_features": -1}, {"class": "NoSuchLayer"}])
def test_what_cannot_be_made_raises(changes: dict[str, Any]) -> None:
    with pytest.raises((RuntimeError, AttributeError)):
        rebuilt(nn.Linear(1, 1), changes)


# -- repeated blocks --


def stack(*widths: int, last: nn.Module | None = None) -> nn.Module:
    """`blocks.N.fc` of some widths."""
    root = nn.Module()
    root.blocks = nn.ModuleList(nn.ModuleDict({"fc": nn.Linear(w, 4), "norm": nn.LayerNorm(w)}) for w in widths)
    root.head = last or nn.Linear(8, 8)
    return root


@pytest.mark.parametrize(
    ("widths", "expected"),
    [((8, 8, 8), 8), ((8, 8, 9), 8), ((9, 8, 8, 9, 8), 8), ((8, 9), None), ((8, 8), None), ((7, 8, 9), None)],
)
def test_what_most_of_three_or_more_siblings_have_is_usual(widths: tuple[int, ...], expected: int | None) -> None:
    assert usual(stack(*widths), "blocks.0.fc", "in_features") == expected


def test_what_no_module_has_is_not_usual() -> None:
    assert usual(stack(8, 8, 8), "blocks.0.fc", "num_heads") is None
    assert usual(stack(8, 8, 8), "head", "in_features") is None


def test_siblings_stand_at_the_same_place_and_are_made_alike() -> None:
    root = stack(8, 9, 8)
    assert siblings(root, "blocks.0.fc") == ["blocks.0.fc", "blocks.2.fc"]
    assert siblings(root, "blocks.1.fc") == ["blocks.1.fc"]
    assert siblings(root, "head") == ["head"]
    assert siblings(root, "blocks.2.norm") == ["blocks.0.norm", "blocks.2.norm"]


def test_entries_of_one_sequence_are_siblings() -> None:
    root = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.Linear(3, 4))
    assert siblings(root, "0") == ["0", "2"]
