"""Correct models with the coincidences and idioms that look like shape mistakes: forwards alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from programs import From, Named, Program
from torch import Tensor, nn

SOUND: dict[str, Callable[[], Program]] = {}


def sound(build: Callable[[], Program]) -> Callable[[], Program]:
    SOUND[build.__name__] = build
    return build


@sound
def mlp_with_batch_equal_to_width() -> Program:
    return Program(Named(a=nn.Linear(8, 8), b=nn.ReLU(), c=nn.Linear(8, 8), d=nn.LogSoftmax(1)), (torch.randn(8, 8),))


@sound
def cnn_with_square_everything() -> Program:
    parts = {"conv": nn.Conv2d(8, 8, 3, padding=1), "norm": nn.BatchNorm2d(8), "pool": nn.MaxPool2d(2)}
    return Program(Named(**parts, flat=nn.Flatten(), fc=nn.Linear(128, 8)), (torch.randn(8, 8, 8, 8),))


@sound
def residual_with_squeeze_and_excitation() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        y = self.conv(x)
        gate = self.fc(y.mean((2, 3))).sigmoid()
        return x + y * gate[:, :, None, None] + y * gate.view(y.shape[0], -1, 1, 1)

    return Program(From(forward, conv=nn.Conv2d(6, 6, 3, padding=1), fc=nn.Linear(6, 6)), (torch.randn(6, 6, 6, 6),))


@sound
def unet_with_skips() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        a = self.down(x)
        b = F.interpolate(self.mid(F.max_pool2d(a, 2)), scale_factor=2)
        return self.up(torch.cat([a, b], 1)).softmax(dim=1)

    parts = {"down": nn.Conv2d(3, 8, 3, padding=1), "mid": nn.Conv2d(8, 8, 3, padding=1), "up": nn.Conv2d(16, 4, 1)}
    return Program(From(forward, **parts), (torch.randn(4, 3, 8, 8),))


@sound
def lstm_batch_first() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        out, (h, _) = self.lstm(x)
        return self.fc(out[:, -1]) + self.fc(h[-1]) + self.fc(out.mean(1))

    return Program(From(forward, lstm=nn.LSTM(6, 6, batch_first=True), fc=nn.Linear(6, 6)), (torch.randn(6, 6, 6),))


@sound
def lstm_sequence_first() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        return self.fc(self.lstm(x)[0][-1])

    return Program(From(forward, lstm=nn.LSTM(6, 7), fc=nn.Linear(7, 2)), (torch.randn(5, 4, 6),))


@sound
def tagger_sequence_first() -> Program:
    def forward(self: From, ids: Tensor) -> Any:
        return self.fc(self.lstm(self.emb(ids))[0]).log_softmax(-1)

    parts = {"emb": nn.Embedding(9, 6), "lstm": nn.LSTM(6, 7, bidirectional=True), "fc": nn.Linear(14, 3)}
    return Program(From(forward, **parts), (torch.randint(0, 9, (5, 5)),))


@sound
def bidirectional_final_states() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        _, h = self.gru(x)
        h = h.view(2, 2, x.shape[0], 4)[-1].permute(1, 0, 2).reshape(x.shape[0], 8)
        return self.fc(h)

    gru = nn.GRU(6, 4, num_layers=2, batch_first=True, bidirectional=True)
    return Program(From(forward, gru=gru, fc=nn.Linear(8, 2)), (torch.randn(4, 4, 6),))


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


@sound
def gpt_block() -> Program:
    def forward(self: From, ids: Tensor) -> Any:
        b, t = ids.shape
        x = self.emb(ids) + self.pos(torch.arange(t))
        q, k, v = (_heads(y, 4) for y in self.qkv(self.norm(x)).split(16, dim=2))
        scores = q @ k.transpose(-2, -1) / math.sqrt(4)
        scores = scores.masked_fill(self.bias[:, :, :t, :t] == 0, float("-inf"))
        x = x + self.o((F.softmax(scores, -1) @ v).transpose(1, 2).contiguous().view(b, t, 16))
        return self.head(x)

    parts = {"emb": nn.Embedding(11, 16), "pos": nn.Embedding(8, 16), "norm": nn.LayerNorm(16)}
    parts |= {"qkv": nn.Linear(16, 48), "o": nn.Linear(16, 16), "head": nn.Linear(16, 11)}
    bias = torch.tril(torch.ones(8, 8)).view(1, 1, 8, 8)
    return Program(From(forward, **parts, bias=bias), (torch.randint(0, 11, (4, 4)),))


@sound
def gpt_one_masking() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        q, k, v = self.qkv(x).chunk(3, -1)
        seen = torch.tril(torch.ones(6, 6))
        return (q @ k.transpose(-2, -1) * seen + -1e4 * (1 - seen)).softmax(-1) @ v

    return Program(From(forward, qkv=nn.Linear(8, 24)), (torch.randn(6, 6, 8),))


@sound
def bert_with_padding() -> Program:
    def forward(self: From, ids: Tensor, mask: Tensor) -> Any:
        x = self.emb(ids)
        scores = _heads(self.q(x), 2) @ _heads(self.k(x), 2).transpose(-1, -2)
        scores = scores + (1.0 - mask[:, None, None, :].float()) * -10000.0
        x = (scores.softmax(dim=-1) @ _heads(x, 2)).transpose(1, 2).flatten(2)
        return self.fc(x[:, 0].tanh())

    parts = {"emb": nn.Embedding(9, 8), "q": nn.Linear(8, 8), "k": nn.Linear(8, 8), "fc": nn.Linear(8, 2)}
    mask = (torch.arange(5)[None] < torch.tensor([5, 3, 2, 4, 5])[:, None]).long()
    return Program(From(forward, **parts), (torch.randint(0, 9, (5, 5)), mask))


@sound
def bert_with_nothing_to_pad() -> Program:
    model, (ids, mask) = (program := bert_with_padding()).model, program.args
    return Program(model, (ids, torch.ones_like(mask)))


@sound
def square_document_mask() -> Program:
    def forward(self: From, x: Tensor, mask: Tensor) -> Any:
        return (self.q(x) @ x.transpose(-2, -1)).masked_fill(mask, -torch.inf).softmax(-1) @ x

    document = torch.tensor([0, 0, 1, 1, 1, 2])
    mask = document[:, None] != document[None]
    return Program(From(forward, q=nn.Linear(8, 8)), (torch.randn(6, 6, 8), mask))


@sound
def square_causal_mask_given() -> Program:
    def forward(self: From, x: Tensor, mask: Tensor) -> Any:
        return (self.q(x) @ x.transpose(-2, -1) + mask).softmax(-1) @ x

    mask = torch.full((6, 6), -torch.inf).triu(1)
    return Program(From(forward, q=nn.Linear(8, 8)), (torch.randn(6, 6, 8), mask))


@sound
def torchs_transformer() -> Program:
    model = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)
    tgt = nn.Transformer.generate_square_subsequent_mask(5)

    def forward(self: From, src: Tensor, out: Tensor) -> Any:
        return self.core(src, out, tgt_mask=tgt, src_key_padding_mask=torch.zeros(5, 5).bool())

    return Program(From(forward, core=model), (torch.randn(5, 5, 8), torch.randn(5, 5, 8)))


@sound
def torchs_transformer_sequence_first() -> Program:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 1, enable_nested_tensor=False)
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16), 1)
    core = nn.Transformer(8, 2, custom_encoder=encoder, custom_decoder=decoder)
    return Program(core, (torch.randn(7, 3, 8), torch.randn(5, 3, 8)))


@sound
def encoder_sequence_first_pooled() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        return self.fc(self.enc(x + self.pos[:, None]).mean(0))

    enc = nn.TransformerEncoderLayer(8, 2, 16)
    return Program(
        From(forward, enc=enc, pos=nn.Parameter(torch.zeros(5, 8)), fc=nn.Linear(8, 2)), (torch.randn(5, 4, 8),)
    )


@sound
def vision_transformer_with_patches() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        b, c, h, w = x.shape
        patches = x.view(b, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * 16)
        other = x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(1, 2).flatten(2)
        y = self.fc(patches) + self.fc(other) + self.pos
        y = torch.cat([self.cls.expand(b, -1, -1), y], 1)
        return self.att(y, y, y)[0][:, 0]

    parts = {"fc": nn.Linear(48, 16), "pos": nn.Parameter(torch.zeros(1, 4, 16))}
    parts |= {"cls": nn.Parameter(torch.zeros(1, 1, 16)), "att": nn.MultiheadAttention(16, 4, batch_first=True)}
    return Program(From(forward, **parts), (torch.randn(4, 3, 8, 8),))


@sound
def windows_and_back() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        b, h, w, c = x.shape
        windows = x.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        y = (self.q(windows) @ windows.mT).softmax(-1) @ windows
        y = y.view(b, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return x + y

    return Program(From(forward, q=nn.Linear(8, 8)), (torch.randn(4, 8, 8, 8),))


@sound
def heads_folded_into_the_batch() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        b, t, _ = x.shape
        q, k, v = (_heads(y, 4).reshape(b * 4, t, 4) for y in self.qkv(x).chunk(3, -1))
        out = torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(2), v)
        return out.view(b, 4, t, 4).transpose(1, 2).reshape(b, t, 16)

    return Program(From(forward, qkv=nn.Linear(16, 48)), (torch.randn(4, 4, 16),))


@sound
def keys_first_attention_on_images() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        flat = x.view(*x.shape[:2], -1)
        f, g, h = self.f(flat), self.g(flat), self.h(flat)
        beta = F.softmax(torch.bmm(f.transpose(1, 2), g), dim=1)
        return (torch.bmm(h, beta) + flat).view(*x.size()).contiguous()

    parts = {name: nn.Conv1d(8, 8, 1) for name in "fgh"}
    return Program(From(forward, **parts), (torch.randn(8, 8, 4, 4),))


@sound
def channel_attention() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        flat = x.flatten(2)
        energy = torch.bmm(flat, flat.permute(0, 2, 1))
        energy = energy.max(-1, keepdim=True)[0].expand_as(energy) - energy
        return torch.bmm(energy.softmax(-1), flat).view_as(x)

    return Program(From(forward, fc=nn.Identity()), (torch.randn(4, 4, 4, 4),))


@sound
def cross_covariance_attention() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, 4, 4).permute(2, 0, 3, 4, 1)
        weights = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)).softmax(-1)
        return (weights @ v).permute(0, 3, 1, 2).reshape(x.shape)

    return Program(From(forward, qkv=nn.Linear(16, 48)), (torch.randn(4, 4, 16),))


@sound
def slot_attention() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        slots = self.slots.expand(x.shape[0], -1, -1)
        for _ in range(2):
            weights = (self.k(x) @ self.q(slots).transpose(1, 2)).softmax(-1) + 1e-8
            weights = weights / weights.sum(dim=1, keepdim=True)
            slots = slots + weights.transpose(1, 2) @ x
        return slots

    parts = {"slots": nn.Parameter(torch.randn(1, 6, 8)), "k": nn.Linear(8, 8), "q": nn.Linear(8, 8)}
    return Program(From(forward, **parts), (torch.randn(6, 6, 8),))


@sound
def linear_attention() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        q, k, v = (_heads(y, 2) for y in self.qkv(x).chunk(3, -1))
        context = k.softmax(-2).transpose(-2, -1) @ v
        return torch.einsum("bhnd,bhde->bhne", q.softmax(-1), context).transpose(1, 2).flatten(2)

    return Program(From(forward, qkv=nn.Linear(16, 48)), (torch.randn(8, 8, 16),))


@sound
def einsum_attention() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, 2, 8).unbind(2)
        weights = torch.einsum("bqhd,bkhd->bhqk", q, k).softmax(-1)
        return torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(2)

    return Program(From(forward, qkv=nn.Linear(16, 48)), (torch.randn(5, 5, 16),))


@sound
def multiple_instance_pooling() -> Program:
    def forward(self: From, bag: Tensor) -> Any:
        weights = self.score(bag).softmax(dim=0)
        return self.fc(weights.t() @ bag) + self.fc((weights * bag).sum(0, keepdim=True))

    return Program(From(forward, score=nn.Linear(8, 1), fc=nn.Linear(8, 2)), (torch.randn(12, 8),))


@sound
def attention_over_the_samples() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        return (self.q(x) @ self.k(x).T / 2).softmax(-1) @ self.v(x)

    return Program(From(forward, q=nn.Linear(4, 4), k=nn.Linear(4, 4), v=nn.Linear(4, 4)), (torch.randn(12, 4),))


@sound
def relative_shift() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        scores = self.q(x) @ self.r.t()
        b, t, s = scores.shape
        shifted = F.pad(scores, (1, 0)).view(b, s + 1, t)[:, 1:].view(b, t, s)
        zeros = torch.zeros(b, t, 1)
        return shifted + torch.cat([zeros, scores], -1).view(b, s + 1, t)[:, 1:].view_as(scores)

    return Program(From(forward, q=nn.Linear(8, 8), r=nn.Parameter(torch.randn(7, 8))), (torch.randn(3, 7, 8),))


@sound
def channel_shuffle_and_group_norm() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        b, c, h, w = x.shape
        x = self.conv(x).view(b, 4, 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        g = x.view(b, 4, -1)
        g = (g - g.mean(-1, keepdim=True)) / g.std(-1, keepdim=True)
        return F.pixel_shuffle(g.view(b, c, h, w), 2)

    return Program(From(forward, conv=nn.Conv2d(8, 8, 1)), (torch.randn(4, 8, 4, 4),))


@sound
def pyramid_of_frames() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        b, t, d = x.shape
        x = self.rnn(x.reshape(b, t // 2, d * 2))[0]
        return x.reshape(b, t, -1)

    return Program(From(forward, rnn=nn.LSTM(16, 8, batch_first=True)), (torch.randn(4, 8, 8),))
