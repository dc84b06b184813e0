"""Correct trainings whose losses look like shape mistakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from programs import From, Named, Program
from torch import Tensor, nn

TRAININGS: dict[str, Callable[[], Program]] = {}


def training(build: Callable[[], Program]) -> Callable[[], Program]:
    TRAININGS[build.__name__] = build
    return build


@training
def regression() -> Program:
    y = torch.randn(8, 1)
    return Program(nn.Linear(8, 1), (torch.randn(8, 8),), lambda out: F.mse_loss(out, y) + ((out - y) ** 2).mean())


@training
def classification_with_as_many_classes() -> Program:
    y = torch.randint(0, 8, (8,))

    def loss(out: Tensor) -> Tensor:
        accuracy = (out.argmax(1) == y).float().mean()
        return F.cross_entropy(out, y, label_smoothing=0.1) + 0 * accuracy

    return Program(nn.Linear(8, 8), (torch.randn(8, 8),), loss)


@training
def language_model() -> Program:
    ids = torch.randint(0, 6, (6, 7))

    def loss(out: Tensor) -> Tensor:
        return F.cross_entropy(out.reshape(-1, 6), ids[:, 1:].reshape(-1)) + F.nll_loss(
            out.view(-1, 6).log_softmax(-1), ids[:, 1:].flatten()
        )

    return Program(Named(emb=nn.Embedding(6, 6), fc=nn.Linear(6, 6)), (ids[:, :-1],), loss)


@training
def segmentation_with_dice() -> Program:
    y = torch.randint(0, 4, (4, 4, 4))

    def loss(out: Tensor) -> Tensor:
        p, t = out.softmax(1), F.one_hot(y, 4).permute(0, 3, 1, 2).float()
        dice = 1 - (2 * (p * t).sum((2, 3)) + 1) / (p.sum((2, 3)) + t.sum((2, 3)) + 1)
        return dice.mean() + F.cross_entropy(out, y) + F.nll_loss(out.log_softmax(1), y)

    return Program(nn.Conv2d(3, 4, 1), (torch.randn(4, 3, 4, 4),), loss)


@training
def focal_and_weighted() -> Program:
    y, weights = torch.randint(0, 4, (8,)), torch.rand(8)

    def loss(out: Tensor) -> Tensor:
        each = F.cross_entropy(out, y, reduction="none")
        focal = ((1 - torch.exp(-each)) ** 2 * each * weights).mean()
        squares = ((out - F.one_hot(y, 4)) ** 2 * weights[:, None]).mean()
        return focal + squares + F.kl_div(out.log_softmax(-1), F.one_hot(y, 4).float(), reduction="batchmean")

    return Program(nn.Linear(4, 4), (torch.randn(8, 4),), loss)


@training
def contrastive() -> Program:
    def loss(z: Tensor) -> Tensor:
        z = F.normalize(z, dim=-1)
        logits = z @ z.t() / 0.1
        labels = torch.arange(len(z))
        same = labels.view(-1, 1) == labels.view(1, -1)
        supervised = -(logits.log_softmax(0) * same / same.sum(0)).sum()
        return F.cross_entropy(logits, labels) + F.cross_entropy(logits.t(), labels) + supervised

    return Program(nn.Linear(6, 8), (torch.randn(8, 6),), loss)


@training
def pairwise_ranking_and_kernels() -> Program:
    y = torch.randn(9)

    def loss(out: Tensor) -> Tensor:
        s = out.squeeze(-1)
        ranking = F.softplus(-(s[:, None] - s[None]) * (y[:, None] - y).sign()).mean()
        kernel = torch.exp(-((out - out.t()) ** 2)).mean() + torch.exp(-((s.unsqueeze(1) - y) ** 2)).mean()
        squares = (out**2).sum(1, keepdim=True) + (out**2).sum(1) - 2 * out @ out.t()
        return ranking + kernel + squares.mean() + torch.cdist(out, out).mean()

    return Program(nn.Linear(5, 1), (torch.randn(9, 5),), loss)


@training
def q_learning() -> Program:
    actions, reward, done = torch.randint(0, 3, (6,)), torch.randn(6), torch.zeros(6)

    def loss(q: Tensor) -> Tensor:
        chosen = q.gather(1, actions.unsqueeze(1)).squeeze(1)
        target = reward + 0.9 * q.detach().max(1)[0] * (1 - done)
        return F.smooth_l1_loss(chosen, target) + F.mse_loss(q.gather(1, actions[:, None]), target[:, None])

    return Program(nn.Linear(6, 3), (torch.randn(6, 6),), loss)


@training
def variational_autoencoder() -> Program:
    x = torch.rand(6, 6)

    def forward(self: From, x: Tensor) -> Any:
        mu, logvar = self.enc(x).chunk(2, -1)
        return self.dec(mu + torch.randn_like(mu) * (logvar / 2).exp()).sigmoid(), mu, logvar

    def loss(out: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        y, mu, logvar = out
        kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1).mean()
        return F.binary_cross_entropy(y, x, reduction="sum") / len(x) + kl

    return Program(From(forward, enc=nn.Linear(6, 12), dec=nn.Linear(6, 6)), (x,), loss)


@training
def least_squares_gan() -> Program:
    return Program(
        nn.Linear(4, 1), (torch.randn(5, 4),), lambda out: F.mse_loss(out, torch.ones_like(out)) + (out - 1.0).mean()
    )


@training
def quantiles() -> Program:
    y, taus = torch.randn(5, 1), torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])

    def loss(out: Tensor) -> Tensor:
        gap = y - out
        return torch.maximum(taus * gap, (taus - 1) * gap).mean()

    return Program(nn.Linear(4, 5), (torch.randn(5, 4),), loss)


@training
def vector_quantised() -> Program:
    def forward(self: From, x: Tensor) -> Any:
        z = self.enc(x)
        far = z.pow(2).sum(1, keepdim=True) + self.codes.pow(2).sum(1) - 2 * z @ self.codes.t()
        picked = self.codes[far.argmin(1)]
        return z + (picked - z).detach(), ((picked - z.detach()) ** 2).mean()

    model = From(forward, enc=nn.Linear(6, 6), codes=nn.Parameter(torch.randn(6, 6)))
    return Program(model, (torch.randn(6, 6),), lambda out: out[0].pow(2).mean() + out[1])
