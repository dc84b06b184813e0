"""Programs with one silent shape mistake each, and what they should have been."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from programs import From, Named, Program, Wrap, registry
from torch import Tensor, nn

VALUES, sick = registry()


# -- losses --


@sick("loss_broadcasting", "loss")
def regression_with_a_column(right: bool) -> Program:
    x, y = torch.randn(16, 5), torch.randn(16)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))
    return Program(model, (x,), lambda out: ((out.squeeze(-1) if right else out) - y).pow(2).mean())


@sick("loss_broadcasting", "loss")
def mean_absolute_error_by_hand(right: bool) -> Program:
    x, y = torch.randn(12, 3), torch.randn(12)
    model = nn.Linear(3, 1)
    return Program(model, (x,), lambda out: torch.abs(y - (out[:, 0] if right else out)).sum() / 12)


@sick("loss_broadcasting", "loss")
def q_learning_without_squeeze(right: bool) -> Program:
    x, actions, reward = torch.randn(10, 4), torch.randint(0, 3, (10,)), torch.randn(10)

    def loss(q: Tensor) -> Tensor:
        chosen = q.gather(1, actions.unsqueeze(1))
        return F.smooth_l1_loss(chosen.squeeze(1), reward) if right else F.smooth_l1_loss(chosen, reward)

    return Program(nn.Linear(4, 3), (x,), loss if right else warned(loss))


@sick("loss_broadcasting", "loss")
def a_sliced_column(right: bool) -> Program:
    x, y = torch.randn(10, 4), torch.randn(10)
    return Program(nn.Linear(4, 2), (x,), lambda out: ((out[:, 0] if right else out[:, :1]) - y).pow(2).mean())


@sick("loss_broadcasting", "loss")
def mean_and_variance_against_a_row(right: bool) -> Program:
    x, y = torch.randn(10, 4), torch.randn(10)

    def loss(out: Tensor) -> Tensor:
        mean, log_variance = out.chunk(2, 1)
        return (log_variance + ((y[:, None] if right else y) - mean) ** 2 / log_variance.exp()).mean()

    return Program(nn.Linear(4, 2), (x,), loss)


@sick("loss_broadcasting", "criterion")
def loss_inside_the_model(right: bool) -> Program:
    def forward(self: From, x: Tensor, y: Tensor) -> Any:
        return self.criterion(self.net(x), y.unsqueeze(-1) if right else y)

    class Gap(nn.Module):
        def forward(self, prediction: Tensor, target: Tensor) -> Any:
            return torch.square(prediction - target).mean()

    return Program(From(forward, net=nn.Linear(6, 1), criterion=Gap()), (torch.randn(9, 6), torch.randn(9)))


@sick("loss_broadcasting", "loss")
def per_sample_weights(right: bool) -> Program:
    x, y, weights = torch.randn(8, 5), torch.randint(0, 3, (8,)), torch.rand(8, 1)

    def loss(logits: Tensor) -> Tensor:
        each = F.cross_entropy(logits, y, reduction="none")
        return (each * (weights[:, 0] if right else weights)).mean()

    return Program(nn.Linear(5, 3), (x,), loss)


def warned(loss: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Torch itself warns of some of these."""

    def quiet(out: Tensor) -> Tensor:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return loss(out)

    return quiet


# -- broadcasting inside --


@sick("silent_broadcast", "center")
def mean_without_keepdim(right: bool) -> Program:
    center = From(lambda _, x: x - x.mean(1, keepdim=right))
    return Program(
        nn.Sequential(*[center]) if False else Named(center=center, fc=nn.Linear(8, 2)), (torch.randn(8, 8),)
    )


@sick("silent_broadcast", "scale")
def per_sample_scale_on_the_features(right: bool) -> Program:
    def forward(_: From, x: Tensor) -> Any:
        norm = x.norm(dim=1)
        return x / (norm[:, None] if right else norm)

    return Program(Named(scale=From(forward), fc=nn.Linear(6, 2)), (torch.randn(6, 6),))


@sick("silent_broadcast", "conv")
def bias_along_the_width(right: bool) -> Program:
    def forward(self: From, x: Tensor) -> Any:
        y = F.conv2d(x, self.weight, padding=1)
        return y + (self.bias.view(1, -1, 1, 1) if right else self.bias)

    conv = From(forward, weight=nn.Parameter(torch.randn(16, 3, 3, 3)), bias=nn.Parameter(torch.zeros(16)))
    return Program(Named(conv=conv, act=nn.ReLU()), (torch.randn(2, 3, 5, 16),))


@sick("silent_broadcast", "attn")
def lengths_mask_from_the_ids(right: bool) -> Program:
    def forward(self: From, ids: Tensor) -> Any:
        x = self.emb(ids)
        hidden = torch.zeros(ids.shape).masked_fill(ids == 0, -1e9)
        scores = (self.q(x) @ self.k(x).transpose(-2, -1)) / 4
        return (scores + (hidden[:, None] if right else hidden)).softmax(-1) @ x

    parts = {"emb": nn.Embedding(20, 16), "q": nn.Linear(16, 16), "k": nn.Linear(16, 16)}
    ids = torch.randint(1, 20, (6, 6))
    ids[3:, 4:] = 0
    return Program(Named(attn=From(forward, **parts), out=nn.Linear(16, 20)), (ids,))


@sick("silent_broadcast", "attn")
def lengths_mask_given(right: bool) -> Program:
    def forward(self: From, x: Tensor, padded: Tensor) -> Any:
        scores = self.q(x) @ x.transpose(-2, -1)
        return scores.masked_fill(padded[:, None] if right else padded, -torch.inf).softmax(-1) @ x

    padded = torch.arange(5)[None] >= torch.tensor([5, 3, 2, 4, 1])[:, None]
    return Program(Wrap(attn=From(forward, q=nn.Linear(8, 8))), (torch.randn(5, 5, 8), padded))


# -- softmax --


def _attention(dim: int, right: bool, rank: int = 3) -> nn.Module:
    def forward(self: From, x: Tensor) -> Any:
        q, k, v = self.qkv(x).chunk(3, -1)
        if rank == 4:
            q, k, v = (t.unflatten(-1, (2, 8)).transpose(1, 2) for t in (q, k, v))
        weights = F.softmax(q @ k.transpose(-2, -1) / 4, dim=-1 if right else dim)
        out = F.dropout(weights, 0.0) @ v
        return out.transpose(1, 2).flatten(2) if rank == 4 else out

    return From(forward, qkv=nn.Linear(16, 48))


@sick("softmax_wrong_dim", "attn")
def softmax_over_queries(right: bool) -> Program:
    return Program(Named(attn=_attention(1, right), fc=nn.Linear(16, 3)), (torch.randn(2, 6, 16),))


@sick("softmax_wrong_dim", "attn")
def softmax_over_heads(right: bool) -> Program:
    return Program(Named(attn=_attention(1, right, 4), fc=nn.Linear(16, 3)), (torch.randn(2, 6, 16),))


@sick("softmax_wrong_dim", "attn")
def softmax_over_the_batch_in_attention(right: bool) -> Program:
    return Program(Named(attn=_attention(0, right), fc=nn.Linear(16, 3)), (torch.randn(2, 6, 16),))


@sick("softmax_wrong_dim", "head")
def class_probabilities_over_the_batch(right: bool) -> Program:
    return Program(Named(fc=nn.Linear(5, 3), head=nn.Softmax(dim=1 if right else 0)), (torch.randn(7, 5),))


@sick("softmax_wrong_dim", "head")
def log_probabilities_over_the_batch(right: bool) -> Program:
    y = torch.randint(0, 3, (7,))
    model = Named(fc=nn.Linear(5, 3), head=nn.LogSoftmax(dim=1 if right else 0))
    return Program(model, (torch.randn(7, 5),), lambda out: F.nll_loss(out, y))


@sick("softmax_wrong_dim", "loss")
def log_probabilities_over_the_positions(right: bool) -> Program:
    ids = torch.randint(0, 11, (4, 6))

    def loss(logits: Tensor) -> Tensor:
        return F.nll_loss(logits.log_softmax(-1 if right else 1).view(-1, 11), ids.view(-1))

    return Program(Named(emb=nn.Embedding(11, 8), fc=nn.Linear(8, 11)), (ids,), loss)


@sick("softmax_wrong_dim", "pool")
def pooling_weights_over_the_batch(right: bool) -> Program:
    def forward(self: From, x: Tensor) -> Any:
        weights = torch.softmax(self.score(x), dim=1 if right else 0)
        return (weights * x).sum(1)

    return Program(Named(pool=From(forward, score=nn.Linear(8, 1)), fc=nn.Linear(8, 2)), (torch.randn(4, 5, 8),))


@sick("softmax_wrong_dim", "pool")
def pooling_weights_over_one_score(right: bool) -> Program:
    def forward(self: From, x: Tensor) -> Any:
        return (torch.softmax(self.score(x), dim=1 if right else -1) * x).sum(1)

    return Program(Named(pool=From(forward, score=nn.Linear(8, 1)), fc=nn.Linear(8, 2)), (torch.randn(4, 5, 8),))
