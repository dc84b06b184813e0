"""More correct models: sets, graphs, experts, positions, scans, statistics over the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from programs import From, Named, Program
from torch import Tensor, nn

LAYERS: dict[str, Callable[[], Program]] = {}


def layer(build: Callable[[], Program]) -> Callable[[], Program]:
    LAYERS[build.__name__] = build
    return build


@layer
def deep_sets() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        h = self.a(x)
        return self.b((h - h.mean(1, keepdim=True)).relu().sum(1)) + self.b(h.amax(dim=1))

    return Program(From(forward, a=nn.Linear(6, 6), b=nn.Linear(6, 6)), (torch.randn(6, 6, 6),))


@layer
def graph_network() -> Program:
    def forward(self: From, x: Tensor, adjacency: Tensor) -> Any:
        degree = adjacency.sum(1)
        normal = adjacency / degree.sqrt()[:, None] / degree.sqrt()[None]
        h = (normal @ self.a(x)).relu()
        gate = (self.left(h) + self.right(h).T).masked_fill(adjacency == 0, -torch.inf).softmax(dim=1)
        h = gate @ h
        graph = (h - h.mean(0)) / h.std(0)
        return self.b(normal @ graph).log_softmax(dim=1)

    parts = {"a": nn.Linear(6, 6), "b": nn.Linear(6, 6), "left": nn.Linear(6, 1), "right": nn.Linear(6, 1)}
    adjacency = (torch.eye(6) + torch.eye(6).roll(1, 0) + torch.eye(6).roll(-1, 0)).clamp(max=1)
    return Program(From(forward, **parts), (torch.randn(6, 6), adjacency))


@layer
def pooled_graph() -> Program:
    def forward(self: From, x: Tensor, adjacency: Tensor) -> Any:
        assignment = (adjacency @ self.assign(x)).softmax(-1)
        return assignment.T @ self.embed(x), assignment.T @ adjacency @ assignment

    parts = {"assign": nn.Linear(8, 3), "embed": nn.Linear(8, 8)}
    return Program(From(forward, **parts), (torch.randn(10, 8), torch.rand(10, 10)))


@layer
def mixture_of_experts() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        flat = x.view(-1, x.shape[-1])
        weights, chosen = self.gate(flat).softmax(-1).topk(2)
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            rows, slot = torch.where(chosen == number)
            out[rows] += weights[rows, slot, None] * expert(flat[rows])
        dense = torch.stack([expert(flat) for expert in self.experts], 1)
        mixed = (self.gate(flat).softmax(-1).unsqueeze(-1) * dense).sum(1)
        return (out + mixed).view(x.shape)

    experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
    return Program(From(forward, gate=nn.Linear(8, 4), experts=experts), (torch.randn(4, 4, 8),))


@layer
def soft_mixture_of_experts() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        logits = x @ self.slots
        slots = logits.softmax(dim=1).transpose(1, 2) @ x
        return logits.softmax(dim=2) @ self.fc(slots)

    return Program(From(forward, slots=nn.Parameter(torch.randn(8, 6)), fc=nn.Linear(8, 8)), (torch.randn(6, 6, 8),))


def rotated(x: Tensor) -> Tensor:
    positions = torch.arange(x.shape[-2]).float()
    angles = positions[:, None] * torch.exp(-torch.arange(0, x.shape[-1], 2) / x.shape[-1])[None]
    cos, sin = angles.cos(), angles.sin()
    even, odd = x.float().reshape(*x.shape[:-1], -1, 2).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


@layer
def rotary_and_linear_biases() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, 4, 4).permute(2, 0, 3, 1, 4)
        scores = rotated(q) @ rotated(k).transpose(-2, -1)
        places = torch.arange(x.shape[1])
        slopes = 2.0 ** -torch.arange(1.0, 5.0)
        scores = scores - (places[None] - places[:, None]).abs() * slopes[:, None, None]
        scores = scores + self.table(places[None] - places[:, None] + 4).permute(2, 0, 1)
        scores = scores + torch.full((4, 4), -torch.inf).triu(1)
        return (scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)

    return Program(From(forward, qkv=nn.Linear(16, 48), table=nn.Embedding(9, 4)), (torch.randn(4, 4, 16),))


@layer
def selective_scan() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        delta, b, c = F.softplus(self.delta(x)), self.b(x), self.c(x)
        decay = torch.exp(delta[..., None] * -self.a.exp())
        h, out = torch.zeros(x.shape[0], 4, 4), []
        for t in range(x.shape[1]):
            h = decay[:, t] * h + (delta[:, t] * x[:, t])[..., None] * b[:, t, None, :]
            out.append((h * c[:, t, None, :]).sum(-1))
        return torch.stack(out, dim=1) + x * self.d

    parts: dict[str, Any] = {name: nn.Linear(4, 4) for name in ("delta", "b", "c")}
    parts |= {"a": nn.Parameter(torch.zeros(4, 4)), "d": nn.Parameter(torch.ones(4))}
    return Program(From(forward, **parts), (torch.randn(4, 4, 4),))


@layer
def fourier_time_and_modulation() -> Program:
    def forward(self: From, x: Tensor, time: Tensor) -> Any:
        frequencies = torch.exp(-torch.arange(4.0))
        angles = time * frequencies
        shift, scale = self.fc(torch.cat([angles.sin(), angles.cos()], -1)).chunk(2, dim=1)
        return self.conv(x) * (1 + scale[..., None, None]) + shift[..., None, None]

    parts = {"fc": nn.Linear(8, 8), "conv": nn.Conv2d(4, 4, 3, padding=1)}
    return Program(From(forward, **parts), (torch.randn(4, 4, 4, 4), torch.rand(4, 1)))


@layer
def statistics_of_the_batch() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        h = self.a(x)
        h = (h - h.mean(0)) / (h.var(0) + 1e-5).sqrt()
        spread = h.std(0).mean().expand(h.shape[0], 1)
        return self.b(torch.cat([h, spread], 1)), h.T @ h / len(h)

    return Program(From(forward, a=nn.Linear(8, 8), b=nn.Linear(9, 1)), (torch.randn(8, 8),))


@layer
def prototypes_and_distances() -> Program:
    def forward(self: From, support: Tensor, query: Tensor) -> Any:
        centers = self.f(support).view(5, 2, -1).mean(1)
        far = ((self.f(query)[:, None] - centers[None]) ** 2).sum(-1)
        return (-far).log_softmax(-1), torch.cdist(self.f(query), centers)

    return Program(From(forward, f=nn.Linear(6, 6)), (torch.randn(10, 6), torch.randn(5, 6)))


@layer
def radial_basis_functions() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        return self.fc(torch.exp(-((x - self.centers) ** 2)))

    parts = {"centers": nn.Parameter(torch.randn(8)), "fc": nn.Linear(8, 1)}
    return Program(From(forward, **parts), (torch.randn(8, 1),))


@layer
def coordinates_and_symmetries() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        pairs = self.f(x[:, :, None] * x[:, None])
        pairs = (pairs + pairs.transpose(1, 2)) / 2
        return pairs - pairs.mean((1, 2), keepdim=True), x - x.transpose(1, 2)

    return Program(From(forward, f=nn.Linear(6, 6)), (torch.randn(6, 6, 6),))


@layer
def packed_sequences() -> Program:
    def forward(self: From, ids: Tensor, lengths: Tensor) -> Any:
        packed = nn.utils.rnn.pack_padded_sequence(self.emb(ids), lengths, batch_first=True, enforce_sorted=False)
        out, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        last = out[torch.arange(len(ids)), lengths - 1]
        valid = torch.arange(out.shape[1])[None] < lengths[:, None]
        mean = (out * valid[..., None]).sum(1) / lengths[:, None]
        return self.fc(last + mean)

    parts = {"emb": nn.Embedding(9, 4), "rnn": nn.GRU(4, 4, batch_first=True), "fc": nn.Linear(4, 4)}
    return Program(From(forward, **parts), (torch.randint(0, 9, (4, 4)), torch.tensor([4, 2, 3, 1])))


@layer
def torchs_attention_with_masks() -> Program:
    def forward(self: From, x: Tensor, padded: Tensor) -> Any:
        causal = torch.ones(5, 5).triu(1).bool()
        y = self.att(x, x, x, attn_mask=causal, key_padding_mask=padded)[0]
        z = F.scaled_dot_product_attention(y, y, y, attn_mask=~causal)
        return F.scaled_dot_product_attention(z, z, z, is_causal=True)

    padded = torch.arange(5)[None] >= torch.tensor([5, 3, 4, 2, 1])[:, None]
    return Program(From(forward, att=nn.MultiheadAttention(8, 2, batch_first=True)), (torch.randn(5, 5, 8), padded))


@layer
def one_dimensional_convolutions() -> Program:
    flip = From(lambda _, x: x.transpose(1, 2))
    parts = {
        "emb": nn.Embedding(9, 6),
        "flip": flip,
        "conv": nn.Conv1d(6, 6, 3, padding=1),
        "pool": nn.AdaptiveMaxPool1d(1),
    }
    return Program(Named(**parts, flat=nn.Flatten(), fc=nn.Linear(6, 6)), (torch.randint(0, 9, (6, 6)),))


@layer
def rows_of_an_image_as_a_sequence() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        h = self.conv(x)
        b, c, height, width = h.shape
        rows = h.permute(0, 2, 3, 1).reshape(b, height * width, c)
        columns = h.flatten(2).permute(2, 0, 1)
        return self.rnn(rows)[0][:, -1] + self.other(columns)[0][-1]

    parts = {"conv": nn.Conv2d(1, 8, 3, padding=1), "rnn": nn.LSTM(8, 4, batch_first=True), "other": nn.LSTM(8, 4)}
    return Program(From(forward, **parts), (torch.randn(8, 1, 8, 8),))


@layer
def bilinear_pooling_and_outer_products() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        h = self.a(x)
        outer = h.unsqueeze(2) * h.unsqueeze(1)
        return self.b(outer.flatten(1)), torch.einsum("bi,bj->bij", h, h), h[:, None] - h[None]

    return Program(From(forward, a=nn.Linear(4, 4), b=nn.Linear(16, 4)), (torch.randn(4, 4),))


@layer
def blockwise_scaling_and_back() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        blocks = self.a(x).reshape(-1, 8)
        blocks = (blocks / blocks.abs().amax(-1, keepdim=True) * 127).round() / 127
        return self.b(blocks.view(x.shape[0], -1))

    return Program(From(forward, a=nn.Linear(12, 12), b=nn.Linear(12, 3)), (torch.randn(4, 12),))
