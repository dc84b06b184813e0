"""Programs that mix the batch, take axes in the wrong order or mask in vain, and what they should have been."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from programs import From, Named, Program, Wrap, registry
from torch import Tensor, nn

LAYOUTS, sick = registry()


# -- the batch --


@sick("batch_mixing", "flat")
def flatten_that_absorbs_the_batch(right: bool) -> Program:
    flat = From(lambda _, x: x.reshape(-1, 8 * 5 * 5 if right else 8 * 5))
    return Program(Named(conv=nn.Conv2d(1, 8, 3), flat=flat, act=nn.ReLU()), (torch.randn(4, 1, 7, 7),))


@sick("batch_mixing", "rnn")
def last_states_viewed_as_rows(right: bool) -> Program:
    def forward(self: From, x: Tensor) -> Any:
        _, h = self.gru(x)
        h = h.transpose(0, 1).reshape(x.shape[0], -1) if right else h.view(x.shape[0], -1)
        return self.fc(h)

    parts = {"gru": nn.GRU(6, 8, batch_first=True, bidirectional=True), "fc": nn.Linear(16, 2)}
    return Program(Wrap(rnn=From(forward, **parts)), (torch.randn(4, 5, 6),))


@sick("batch_mixing", "swap")
def view_in_place_of_a_transposition(right: bool) -> Program:
    swap = From(lambda _, x: x.transpose(0, 1) if right else x.view(x.shape[1], x.shape[0], -1))
    return Program(Named(fc=nn.Linear(6, 6), swap=swap, act=nn.Tanh()), (torch.randn(4, 5, 6),))


@sick("batch_mixing", "time")
def view_as_steps_of_a_recurrence(right: bool) -> Program:
    def forward(self: From, x: Tensor) -> Any:
        return self.rnn(x.transpose(0, 1) if right else x.view(8, 4, 6))[0][-1]

    return Program(Wrap(time=From(forward, rnn=nn.GRU(6, 8))), (torch.randn(4, 8, 6),))


@sick("batch_mixing", "collect")
def as_many_steps_as_twice_the_samples(right: bool) -> Program:
    def forward(self: From, x: Tensor) -> Any:
        steps = torch.stack([self.fc(x[:, t]) for t in range(8)])
        return steps.transpose(0, 1) if right else steps.view(4, 8, 8)

    return Program(Wrap(collect=From(forward, fc=nn.Linear(6, 8))), (torch.randn(4, 8, 6),))


@sick("batch_mixing", "collect")
def stacked_steps_viewed_as_samples(right: bool) -> Program:
    def forward(self: From, x: Tensor) -> Any:
        h, steps = torch.zeros(x.shape[0], 8), []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            steps.append(h)
        out = torch.stack(steps)
        return out.transpose(0, 1) if right else out.view(x.shape[0], x.shape[1], 8)

    return Program(Wrap(collect=From(forward, cell=nn.GRUCell(6, 8))), (torch.randn(3, 5, 6),))


@sick("batch_mixing", "lstm")
def lstm_over_the_batch(right: bool) -> Program:
    def forward(self: From, x: Tensor) -> Any:
        return self.fc(self.lstm(x)[0][:, -1])

    parts = {"lstm": nn.LSTM(6, 8, batch_first=right), "fc": nn.Linear(8, 2)}
    return Program(From(forward, **parts), (torch.randn(4, 5, 6),))


@sick("batch_mixing", "gru")
def gru_over_the_batch_with_mean(right: bool) -> Program:
    def forward(self: From, ids: Tensor) -> Any:
        return self.fc(self.gru(self.emb(ids))[0].mean(dim=1))

    parts = {"emb": nn.Embedding(9, 6), "gru": nn.GRU(6, 8, batch_first=right), "fc": nn.Linear(8, 2)}
    return Program(From(forward, **parts), (torch.randint(0, 9, (4, 5)),))


@sick("batch_mixing", "enc.layers.0.self_attn")
def encoder_over_the_batch(right: bool) -> Program:
    def forward(self: From, x: Tensor) -> Any:
        return self.fc(self.enc(x)[:, 0])

    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=right)
    enc = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return Program(From(forward, enc=enc, fc=nn.Linear(8, 2)), (torch.randn(4, 5, 8),))


# -- the order of axes --


@sick("axis_order", "rows")
def image_rows_without_permute(right: bool) -> Program:
    def forward(_: From, x: Tensor) -> Any:
        b, c, h, w = x.shape
        return (x.permute(0, 2, 3, 1) if right else x).reshape(b, h * w, c)

    return Program(Named(conv=nn.Conv2d(3, 16, 3), rows=From(forward), fc=nn.Linear(16, 4)), (torch.randn(2, 3, 8, 8),))


def _heads(right: bool, split: str) -> nn.Module:
    def forward(self: From, x: Tensor) -> Any:
        b, t, d = x.shape

        def heads(y: Tensor) -> Tensor:
            if right:
                return y.view(b, t, 4, d // 4).transpose(1, 2)
            return y.reshape(b, 4, t, d // 4) if split == "view" else y.view(b, t, 4, d // 4)

        q, k, v = (heads(y) for y in self.qkv(x).chunk(3, -1))
        if split == "sdpa":
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            out = (q @ k.transpose(-2, -1) / math.sqrt(d // 4)).softmax(-1) @ v
        return self.o((out.transpose(1, 2) if right or split == "view" else out).reshape(b, t, d))

    return From(forward, qkv=nn.Linear(32, 96), o=nn.Linear(32, 32))


@sick("axis_order", "attn")
def heads_viewed_without_transposition(right: bool) -> Program:
    return Program(Named(attn=_heads(right, "view")), (torch.randn(2, 10, 32),))


@sick("axis_order", "attn")
def attention_between_heads(right: bool) -> Program:
    return Program(Named(attn=_heads(right, "none")), (torch.randn(2, 10, 32),))


@sick("axis_order", "attn")
def fused_attention_between_heads(right: bool) -> Program:
    return Program(Named(attn=_heads(right, "sdpa")), (torch.randn(2, 10, 32),))


@sick("axis_order", "conv")
def channels_last_images(right: bool) -> Program:
    x = torch.randn(2, 16, 16, 3)
    conv = nn.Conv2d(3 if right else 16, 8, 3, padding=1)
    return Program(Named(conv=conv, act=nn.ReLU()), (x.permute(0, 3, 1, 2) if right else x,))


@sick("axis_order", "loss")
def classes_on_the_wrong_axis(right: bool) -> Program:
    ids, y = torch.randint(0, 6, (4, 6)), torch.randint(0, 6, (4, 6))
    model = Named(emb=nn.Embedding(6, 8), fc=nn.Linear(8, 6))
    return Program(model, (ids,), lambda out: F.cross_entropy(out.transpose(1, 2) if right else out, y))


@sick("axis_order", "crop")
def a_slice_beyond_the_end(right: bool) -> Program:
    crop = From((lambda _, x: x[:, 10:20]) if right else (lambda _, x: x[:, 15:30]))
    return Program(Named(crop=crop, act=nn.ReLU()), (torch.randn(10, 20),))


@sick("axis_order", "norm")
def batch_norm_over_positions(right: bool) -> Program:
    turn = From(lambda _, x: x.transpose(1, 2) if right else x)
    parts = {"emb": nn.Embedding(9, 6), "turn": turn, "norm": nn.BatchNorm1d(6)}
    return Program(Named(**parts), (torch.randint(0, 9, (4, 6)),))


@sick("axis_order", "rnn")
def channels_as_steps(right: bool) -> Program:
    def forward(self: From, x: Tensor) -> Any:
        h = self.conv(x)
        return self.rnn(h.transpose(1, 2) if right else h)[0][:, -1]

    parts = {"conv": nn.Conv1d(2, 6, 3, padding=1), "rnn": nn.GRU(6, 4, batch_first=True)}
    return Program(From(forward, **parts), (torch.randn(3, 2, 6),))


@sick("axis_order", "head")
def linear_over_the_width(right: bool) -> Program:
    turn = From(lambda _, x: x.permute(0, 2, 3, 1) if right else x)
    return Program(
        Named(conv=nn.Conv2d(3, 8, 3, padding=1), turn=turn, head=nn.Linear(8, 2)), (torch.randn(2, 3, 5, 8),)
    )


# -- masks --


def _masked(apply: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
    def forward(self: From, x: Tensor) -> Any:
        q, k, v = self.qkv(x).chunk(3, -1)
        causal = torch.tril(torch.ones(x.shape[1], x.shape[1]))
        return apply(q @ k.transpose(-2, -1) / 4, causal).softmax(-1) @ v

    return From(forward, qkv=nn.Linear(16, 48))


def _causal(wrong: Callable[[Tensor, Tensor], Tensor], right: bool) -> Program:
    hide = lambda scores, causal: scores.masked_fill(causal == 0, -torch.inf)  # noqa: E731
    return Program(Named(attn=_masked(hide if right else wrong), fc=nn.Linear(16, 3)), (torch.randn(2, 6, 16),))


@sick("future_leak", "attn")
def zeros_and_ones_added(right: bool) -> Program:
    return _causal(lambda scores, causal: scores + causal, right)


@sick("future_leak", "attn")
def zeros_and_ones_multiplied(right: bool) -> Program:
    return _causal(lambda scores, causal: scores * causal, right)


@sick("future_leak", "attn")
def filled_with_a_tiny_number(right: bool) -> Program:
    return _causal(lambda scores, causal: scores.masked_fill(causal == 0, -1e-9), right)


@sick("future_leak", "attn")
def masked_and_thrown_away(right: bool) -> Program:
    def wrong(scores: Tensor, causal: Tensor) -> Tensor:
        scores.masked_fill(causal == 0, -torch.inf)
        return scores

    return _causal(wrong, right)


@sick("future_leak", "attn")
def the_past_hidden(right: bool) -> Program:
    return _causal(lambda scores, causal: scores.masked_fill(causal.tril(-1) == 1, -1e9), right)


@sick("future_leak", "attn")
def one_position_late(right: bool) -> Program:
    return _causal(lambda scores, causal: scores + torch.full_like(scores[0], -torch.inf).triu(2), right)


@sick("mask_ineffective", "attn")
def padding_multiplied(right: bool) -> Program:
    def forward(self: From, x: Tensor, real: Tensor) -> Any:
        scores = self.q(x) @ x.transpose(-2, -1)
        real = real[:, None, :]
        scores = scores.masked_fill(real == 0, -torch.inf) if right else scores * real
        return scores.softmax(-1) @ x

    real = (torch.arange(7)[None] < torch.tensor([7, 4, 5])[:, None]).float()
    return Program(Wrap(attn=From(forward, q=nn.Linear(8, 8))), (torch.randn(3, 7, 8), real))


@sick("mask_ineffective", "attn")
def padding_added(right: bool) -> Program:
    def forward(self: From, x: Tensor, real: Tensor) -> Any:
        bias = (1 - real) * -1e9 if right else real
        return F.softmax(self.q(x) @ x.transpose(-2, -1) + bias[:, None, :], dim=-1) @ x

    real = (torch.arange(7)[None] < torch.tensor([7, 4, 5])[:, None]).float()
    return Program(Wrap(attn=From(forward, q=nn.Linear(8, 8))), (torch.randn(3, 7, 8), real))


@sick("mask_ineffective", "attn")
def padding_of_the_queries(right: bool) -> Program:
    def forward(self: From, x: Tensor, padded: Tensor) -> Any:
        scores = self.q(x) @ x.transpose(-2, -1)
        return scores.masked_fill(padded[:, None, :] if right else padded[:, :, None], -1e9).softmax(-1) @ x

    padded = torch.arange(7)[None] >= torch.tensor([7, 4, 5])[:, None]
    return Program(Wrap(attn=From(forward, q=nn.Linear(8, 8))), (torch.randn(3, 7, 8), padded))


@sick("mask_ineffective", "attn")
def padding_thrown_away(right: bool) -> Program:
    def forward(self: From, x: Tensor, padded: Tensor) -> Any:
        scores = self.q(x) @ x.transpose(-2, -1)
        masked = scores.masked_fill(padded[:, None, :], -torch.inf)
        return (masked if right else scores).softmax(-1) @ x

    padded = torch.arange(7)[None] >= torch.tensor([7, 4, 5])[:, None]
    return Program(Wrap(attn=From(forward, q=nn.Linear(8, 8))), (torch.randn(3, 7, 8), padded))


@sick("future_leak", "enc.layers.0.self_attn")
def a_float_triangle_for_torchs_encoder(right: bool) -> Program:
    def forward(self: From, x: Tensor) -> Any:
        ones = torch.ones(x.shape[1], x.shape[1])
        return self.enc(x, mask=ones.triu(1).bool() if right else ones.tril())

    enc = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1, enable_nested_tensor=False)
    return Program(From(forward, enc=enc), (torch.randn(2, 5, 8),))


@sick("future_leak", "attn")
def inverted_triangle_for_fused_attention(right: bool) -> Program:
    def forward(self: From, x: Tensor) -> Any:
        q, k, v = self.qkv(x).unflatten(-1, (6, 8)).transpose(1, 2).chunk(3, 1)
        ones = torch.ones(x.shape[1], x.shape[1])
        return F.scaled_dot_product_attention(q, k, v, attn_mask=ones.tril().bool() if right else ones.triu().bool())

    return Program(Wrap(attn=From(forward, qkv=nn.Linear(16, 48))), (torch.randn(2, 5, 16),))
