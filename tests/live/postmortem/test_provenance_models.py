"""The law of provenance on whole models, where every axis is known, and what their axes come from."""

from __future__ import annotations

import pytest
import torch
from provenance_programs import Watched, assert_law, followed, watch
from torch import Tensor, nn
from torch.nn import functional as F

from tensorscope.live.postmortem.axes import InputAxis, Kind


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, seq, dim = x.shape
        split = (t.view(batch, seq, self.heads, dim // self.heads) for t in self.qkv(x).chunk(3, dim=-1))
        q, k, v = (t.transpose(1, 2) for t in split)
        hidden = torch.tril(torch.ones(seq, seq)) == 0
        scores = (q @ k.transpose(-2, -1)).masked_fill(hidden, -1e9).softmax(-1)
        return self.proj((scores @ v).transpose(1, 2).reshape(batch, seq, dim))


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(50, 24), nn.Embedding(40, 24)
        self.attn, self.norm = Attention(24, 3), nn.LayerNorm(24)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
        x = x + self.attn(self.norm(x))
        return F.cross_entropy((x @ self.tokens.weight.T).view(-1, 50), ids.view(-1), reduction="none")


class Images(nn.Module):
    """A U-Net of two levels."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.pool = nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2)
        self.deep, self.up = nn.Conv2d(8, 16, 3, padding="same"), nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.out = nn.Conv2d(16, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.down(x), inplace=True)
        up = self.up(self.deep(self.pool(skip)))
        return self.out(torch.cat([F.interpolate(up, size=skip.shape[2:]), skip], dim=1))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], both: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 6)
        self.rnn = kind(6, 5, num_layers=2, batch_first=True, bidirectional=both)
        self.cell = nn.LSTMCell(5 * (1 + both), 9)

    def forward(self, ids: Tensor) -> Tensor:
        out, last = self.rnn(self.embed(ids))
        state = last[0] if isinstance(last, tuple) else last
        hidden, _ = self.cell(out[:, -1])
        return hidden + torch.cat([state[-1], state[-1][:, :4]], 1)


class Patches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj, self.first = nn.Linear(48, 12), nn.Parameter(torch.zeros(1, 1, 12))
        self.attn = nn.MultiheadAttention(12, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        x = x.reshape(batch, channels, height // 4, 4, width // 4, 4).permute(0, 2, 4, 1, 3, 5)
        x = self.proj(x.flatten(3).flatten(1, 2))
        x = torch.cat([self.first.expand(batch, -1, -1), x], dim=1)
        out, weights = self.attn(x, x[:, 1:], x[:, 1:])
        return out * weights.sum(-1, keepdim=True)


def test_sizes_in_a_transformer() -> None:
    ids = {"ids": torch.randint(50, (2, 10))}, {"ids": torch.randint(50, (5, 7))}
    model = Language()
    assert_law(lambda _, x: model(x), *ids, model)


def test_sizes_in_a_unet() -> None:
    model = Images()
    assert_law(lambda _, x: model(x), {"x": torch.randn(2, 3, 20, 31)}, {"x": torch.randn(1, 3, 9, 14)}, model)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("both", [False, True])
def test_sizes_in_recurrent_layers(kind: type[nn.RNNBase], both: bool) -> None:
    model = Recurrent(kind, both)
    ids = {"ids": torch.randint(30, (3, 7))}, {"ids": torch.randint(30, (4, 5))}
    assert_law(lambda _, x: model(x), *ids, model)


def test_sizes_in_a_patch_transformer() -> None:
    model = Patches()
    assert_law(lambda _, x: model(x), {"x": torch.randn(2, 3, 32, 24)}, {"x": torch.randn(3, 3, 16, 40)}, model)


def test_steps_stacked_in_a_loop_over_an_axis_are_that_axis() -> None:
    def program(_: Watched, x: Tensor) -> Tensor:
        return torch.stack([x[:, t] for t in range(x.size(1))], dim=1)

    x = torch.randn(3, 7, 4)
    watched, stacked = watch(program, x=x)
    assert watched.provenance.axes(stacked) == watched.provenance.axes(x)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_a_projected_lstm_has_outputs_and_cells_of_different_sizes() -> None:
    model = nn.LSTM(4, 6, proj_size=3)
    watched, (out, (hidden, cells)) = followed(model, x=torch.randn(5, 2, 4))
    axes = watched.provenance.axes
    assert [axis.label for axis in (axes(out)[-1], axes(hidden)[-1], axes(cells)[-1])] == [
        "proj_size",
        "proj_size",
        "hidden_size",
    ]


def test_merged_heads_are_the_axis_that_was_split() -> None:
    watched, _ = followed(Attention(24, 3), x=torch.randn(2, 5, 24))
    _, (merged,), _ = next(call for call in watched.calls if call[0] == "reshape")
    assert merged[:2] == watched.calls[1][1][0][:2]
    assert (merged[2].kind, merged[2].size, merged[2].parts[0].label) == (Kind.PART, 24, "qkv.out_features")


def test_the_books_network_flattens_channels_times_height_times_width() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4096, 9)
    )
    watched, _ = followed(model, x=torch.randn(4, 1, 28, 28))
    assert watched.failed is not None
    _, features = watched.provenance.axes(watched.failed[0])
    assert [part.size for part in features.parts] == [64, 5, 5]
    assert features.inputs() == {InputAxis("x", 2), InputAxis("x", 3)}
    assert [axis.label for axis in features.weights()] == ["2.out_channels"]
    assert features.at({InputAxis("x", 2): 38, InputAxis("x", 3): 41}) == 4096


def test_inputs_are_named_by_what_takes_them() -> None:
    watched, _ = followed(Recurrent(nn.LSTM, False), ids=torch.randint(30, (3, 7)))
    assert watched.provenance.names == {InputAxis("ids", 0): "batch", InputAxis("ids", 1): "seq"}
    watched, _ = followed(nn.LSTM(4, 4), x=torch.randn(7, 3, 4))
    assert list(watched.provenance.names.values()) == ["seq", "batch", "dim"]
    watched, _ = followed(nn.Linear(4, 4), x=torch.randn(7, 4))
    assert list(watched.provenance.names.values()) == ["batch", "features"]
    watched, _ = followed(nn.Conv2d(3, 4, 1), x=torch.randn(3, 8, 9))
    assert list(watched.provenance.names.values()) == ["channels", "height", "width"]
