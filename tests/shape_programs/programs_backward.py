"""Errors that come in the backward pass or in the optimizer's step."""

import torch
from torch import nn

from shape_programs.record import case


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return (grad * 2).sum(-1)


class DoubledNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, x):
        return Doubled.apply(self.fc(x))


def step(model, x):
    loss = model(x).pow(2).sum()
    loss.backward()


@case(
    op=("backward", "DoubledBackward", "Doubled"),
    line=("loss.backward()"),
    operands=(),
    fix=(),
    fixed=("(grad * 2).sum(-1)", "grad * 2"),
    ids="S2",
)
def gradient_of_another_shape():
    return step, (DoubledNet(), torch.randn(2, 3))


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        grad_x = grad @ w
        return grad_x, x.t() @ grad


class ScaledNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 5))

    def forward(self, x):
        return Scaled.apply(x, self.weight)


@case(
    op=("matmul", "mm"),
    line="grad_x = grad @ w",
    operands=((2, 5), (3, 5)),
    origin=("w", "weight", "grad"),
    fix=("w.t()", "w.T", "w.mT", "transpose"),
    verified=True,
    fixed=("grad @ w", "grad @ w.t()"),
    ids="S1",
)
def product_inside_a_backward():
    return step, (ScaledNet(), torch.randn(2, 3, requires_grad=True))


def unreduced(model, x, y):
    loss = nn.functional.mse_loss(model(x), y, reduction="none")
    loss.backward()


@case(
    op="backward",
    line="loss.backward()",
    operands=((4, 2),),
    origin=("mse_loss", "model"),
    fix=("mean()", "sum()"),
    fixed=('reduction="none"', 'reduction="mean"'),
    ids="S3",
)
def backward_of_a_batch_of_losses():
    return unreduced, (nn.Linear(3, 2), torch.randn(4, 3), torch.randn(4, 2))


def seeded(model, x):
    out = model(x)
    out.backward(torch.ones(x.shape[0]))


@case(
    op="backward",
    line="out.backward(torch.ones(x.shape[0]))",
    operands=((4, 2), (4,)),
    origin=("model", "ones", "linear", "addmm"),
    fix=("ones_like", "(4, 2)"),
    fixed=("torch.ones(x.shape[0])", "torch.ones_like(out)"),
    ids="S2",
)
def gradient_seed_of_another_shape():
    return seeded, (nn.Linear(3, 2), torch.randn(4, 3))


def load(model, state):
    model.load_state_dict(state)


@case(
    module=("", "model"),
    op=("load_state_dict", "copy_"),
    line="model.load_state_dict(state)",
    operands=((10, 8), (4, 8)),
    fix=("10", "4", "strict"),
    fixed=("nn.Linear(8, 10)", "nn.Linear(8, 4)"),
    ids="S1e",
)
def checkpoint_of_another_head():
    return load, (nn.Linear(8, 4), nn.Linear(8, 10).state_dict())


def set_gradient(model):
    model.weight.grad = torch.zeros(model.out_features)


@case(
    op=("grad", "setattr", "set"),
    line="model.weight.grad = torch.zeros(model.out_features)",
    operands=((2, 3),),
    fix=("(2, 3)", "zeros_like"),
    fixed=("torch.zeros(model.out_features)", "torch.zeros_like(model.weight)"),
    ids="S2",
)
def gradient_assigned_by_hand():
    return set_gradient, (nn.Linear(3, 2),)
