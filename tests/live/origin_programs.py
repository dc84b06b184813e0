"""Small programs that stop being finite at a known place: the line marked `# here`, in module `1` of three."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Program:
    """What a module between two linear layers does, and what must be found.

    Attributes:
        run: what it does.
        direction: `forward` or `backward`.
        op: the operation to blame.
        within: the function around it.
        zeros: that the first culprit holds, None if they do not matter.
    """

    run: Run
    direction: str
    op: str
    within: str = ""
    zeros: int | None = None

    @property
    def line(self) -> int:
        """Number of the line that is marked: of a function of the user's own its `backward`."""
        lines, start = inspect.getsourcelines(_Halves if self.op == "_Halves" else self.run)
        return start + next(number for number, line in enumerate(lines) if "# here" in line)


PROGRAMS: dict[str, Program] = {}


def sick(direction: str, op: str, within: str = "", zeros: int | None = None) -> Callable[[Run], Run]:
    """Enter a program into the table."""

    def enter(run: Run) -> Run:
        PROGRAMS[run.__name__] = Program(run, direction, op, within, zeros)
        return run

    return enter


class Between(nn.Module):
    """Does something to what passes."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


def around(run: Run) -> nn.Sequential:
    """A model whose module `1` is the program."""
    return nn.Sequential(nn.Linear(6, 6), Between(run), nn.Linear(6, 6))


# --- forward ----------------------------------------------------------------------------------------------------------


@sick("forward", "div", zeros=24)
def divides_by_zeros(x: Tensor) -> Tensor:
    return x / (x - x)  # here


@sick("forward", "div", zeros=4)
def divides_by_a_sum(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    total = (centred * 0).sum(-1, keepdim=True)
    return centred / total  # here


@sick("forward", "div", zeros=1)
def divides_by_a_count(x: Tensor) -> Tensor:
    chosen = (x > 1e6).sum()
    return x * (x.sum() / chosen)  # here


@sick("forward", "div_", zeros=24)
def divides_in_place(x: Tensor) -> Tensor:
    y = x.clone()
    y /= x * 0  # here
    return y


@sick("forward", "div", zeros=24)
def one_over(x: Tensor) -> Tensor:
    y = x * 0
    return 1 / y  # here


@sick("forward", "reciprocal", zeros=24)
def reciprocal(x: Tensor) -> Tensor:
    return (x * 0).reciprocal()  # here


@sick("forward", "log", zeros=24)
def log_of_zero(x: Tensor) -> Tensor:
    return x.sub(100).relu().log()  # here


@sick("forward", "log")
def log_of_negative(x: Tensor) -> Tensor:
    return torch.log(-x.abs() - 1)  # here


@sick("forward", "sqrt")
def sqrt_of_negative(x: Tensor) -> Tensor:
    y = x - 100
    return torch.sqrt(y)  # here


@sick("forward", "rsqrt", zeros=24)
def rsqrt_of_zero(x: Tensor) -> Tensor:
    return torch.rsqrt(x * 0)  # here


@sick("forward", "exp")
def exp_of_large(x: Tensor) -> Tensor:
    return (x * 1e4).abs().exp()  # here


@sick("forward", "exp")
def softmax_by_hand(x: Tensor) -> Tensor:
    e = torch.exp(x * 0 + 1000)  # here
    return e / e.sum(-1, keepdim=True)


@sick("forward", "pow")
def root_of_negative(x: Tensor) -> Tensor:
    return (-x.abs() - 1) ** 0.5  # here


@sick("forward", "pow", zeros=24)
def power_below_zero(x: Tensor) -> Tensor:
    return torch.pow(x * 0, -1)  # here


@sick("forward", "acos")
def acos_outside(x: Tensor) -> Tensor:
    return torch.acos(x * 0 + 1.5)  # here


@sick("forward", "mean")
def mean_of_nothing(x: Tensor) -> Tensor:
    return x + x[:0].mean()  # here


@sick("forward", "softmax")
def fully_masked_softmax(x: Tensor) -> Tensor:
    scores = x @ x.T
    mask = torch.ones(4, 4).tril(-1).bool()
    scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ x  # here


@sick("forward", "log_softmax")
def fully_masked_log_softmax(x: Tensor) -> Tensor:
    return F.log_softmax(x + torch.full((6,), float("-inf")), dim=-1)  # here


@sick("forward", "mul")
def mask_by_multiplying(x: Tensor) -> Tensor:
    keep = (x > 0).float()
    return x + (1 - keep) * float("-inf")  # here


@sick("forward", "sub")
def infinity_minus_itself(x: Tensor) -> Tensor:
    low = torch.full((6,), float("-inf"))
    y = x + low
    return y - low  # here


@sick("forward", "mul")
def overflow(x: Tensor) -> Tensor:
    y = x * 1e30
    return y * y  # here


@sick("forward", "matmul")
def matmul_overflow(x: Tensor) -> Tensor:
    y = x * 1e30
    return (y @ y.T) @ x  # here


@sick("forward", "linear")
def linear_overflow(x: Tensor) -> Tensor:
    return F.linear(x * 1e30, torch.full((6, 6), 1e30))  # here


@sick("forward", "half")
def cast_to_half(x: Tensor) -> Tensor:
    y = x + 1e5
    return y.half().float()  # here


@sick("forward", "div", within="normalize", zeros=24)
def normalize_without_eps(x: Tensor) -> Tensor:
    return F.normalize(x * 0, eps=0.0)  # here


@sick("forward", "log")
def written_into_a_slice(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    bad = (x[0] * 0).log()  # here
    y[2] = bad
    return y + x


@sick("forward", "div", zeros=24)
def legal_mask_beside_a_fault(x: Tensor) -> Tensor:
    scores = (x / (x * 0)) @ x.T  # here
    mask = torch.ones(4, 4).tril().bool()
    return scores.masked_fill(~mask, float("-inf")).softmax(-1) @ x


@sick("forward", "div")
def hidden_log_beside_a_fault(x: Tensor) -> Tensor:
    hidden = torch.where(x.abs() > 0, x, (x * 0).log())
    return hidden + (x * 0) / (x * 0)  # here


@sick("forward", "sqrt")
def after_a_checked_branch(x: Tensor) -> Tensor:
    for _ in range(3):
        x = x - 2
    if x.mean() < 0:
        return x.sqrt()  # here
    return x


@sick("forward", "log")
def checkpointed(x: Tensor) -> Tensor:
    def part(y: Tensor) -> Tensor:
        return (y * 0).log()  # here

    return checkpoint(part, x, use_reentrant=False)  # type: ignore[no-any-return]


@sick("forward", "log")
def checkpointed_reentrant(x: Tensor) -> Tensor:
    def part(y: Tensor) -> Tensor:
        return (y * 0).log()  # here

    return checkpoint(part, x, use_reentrant=True)  # type: ignore[no-any-return]


class _Halves(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x / 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # here
        return gradient / (gradient * 0)


# --- backward ---------------------------------------------------------------------------------------------------------


@sick("backward", "sqrt", zeros=24)
def sqrt_at_zero(x: Tensor) -> Tensor:
    return x + (x * 0).sqrt()  # here


@sick("backward", "sqrt", zeros=4)
def norm_by_hand(x: Tensor) -> Tensor:
    return x + (x * 0).pow(2).sum(-1, keepdim=True).sqrt()  # here


@sick("backward", "pow", zeros=24)
def power_at_zero(x: Tensor) -> Tensor:
    return x + (x * 0) ** 0.5  # here


@sick("backward", "pow", zeros=24)
def power_of_an_absolute(x: Tensor) -> Tensor:
    y = (x * 0).abs()
    return x + y.pow(0.3)  # here


@sick("backward", "log", zeros=24)
def masked_log(x: Tensor) -> Tensor:
    y = x * 0
    return torch.where(y > 0, y.log(), torch.zeros_like(y))  # here


@sick("backward", "div", zeros=24)
def masked_division(x: Tensor) -> Tensor:
    y = x * 0
    ratio = x / y  # here
    return torch.where(y != 0, ratio, x)


@sick("backward", "acos")
def acos_at_one(x: Tensor) -> Tensor:
    return x + torch.acos(x * 0 + 1)  # here


@sick("backward", "div", zeros=24)
def masked_fill_after(x: Tensor) -> Tensor:
    y = x * 0
    r = x / y  # here
    return r.masked_fill(y == 0, 0.0) + x


@sick("backward", "_Halves")
def own_function(x: Tensor) -> Tensor:
    return _Halves.apply(x) + x  # type: ignore[no-any-return,no-untyped-call]


@sick("backward", "sqrt", zeros=24)
def checkpointed_backward(x: Tensor) -> Tensor:
    def part(y: Tensor) -> Tensor:
        return y + (y * 0).sqrt()  # here

    return checkpoint(part, x, use_reentrant=False)  # type: ignore[no-any-return]


@sick("backward", "sqrt", zeros=24)
def checkpointed_backward_reentrant(x: Tensor) -> Tensor:
    def part(y: Tensor) -> Tensor:
        return y + (y * 0).sqrt()  # here

    return checkpoint(part, x, use_reentrant=True)  # type: ignore[no-any-return]


@sick("backward", "sqrt_", zeros=24)
def sqrt_in_place(x: Tensor) -> Tensor:
    y = x * 0
    y.sqrt_()  # here
    return x + y


@sick("backward", "sqrt", zeros=4)
def distances(x: Tensor) -> Tensor:
    square = (x[:, None] - x[None]).pow(2).sum(-1)
    return square.sqrt() @ x  # here


@sick("backward", "svd")
def equal_singular_values(x: Tensor) -> Tensor:
    u, s, v = torch.svd(x[:3, :3] * 0 + torch.eye(3))  # here
    return x + (u @ v.T).sum() + s.sum()
