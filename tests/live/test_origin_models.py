"""The origin is found in models of every make, and nothing is blamed that does no harm."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from origin_programs import Between, around
from test_origin import searched
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tensorscope.live.origin import find_origin, remember
from tensorscope.run.origin import Direction, Origin

INF, NAN = math.inf, math.nan


def with_loss(model: nn.Module, x: Tensor, loss: Callable[[Any], Tensor], **more: Any) -> Origin:
    pass_ = remember(model, (x,), {})
    loss(model(x)).backward()
    return find_origin(pass_, model, **more)


# --- what the pass is given -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_bad_input_is_blamed_by_its_name(value: float) -> None:
    x = torch.randn(4, 6)
    x[1, 2] = value
    found = searched(nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)), x)
    assert (found.direction, found.site, found.culprits[0].nonfinite) == (Direction.INPUT, "input", 1)
    assert found.sure


def test_a_bad_keyword_argument_is_blamed_by_its_name() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 2)

        def forward(self, x: Tensor, *, context: dict[str, Tensor]) -> dict[str, Any]:
            return {"logits": self.fc(x + context["shift"]), "note": "text"}

    model, x, shift = Two(), torch.randn(4, 6), torch.randn(6)
    shift[0] = NAN
    pass_ = remember(model, (x,), {"context": {"shift": shift}})
    model(x, context={"shift": shift})["logits"].sum().backward()
    found = find_origin(pass_, model)
    assert (found.direction, found.culprits[0].name) == (Direction.INPUT, "context.shift")


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("name", ["0.weight", "2.bias"])
def test_a_bad_parameter_is_blamed_by_its_path(name: str, value: float) -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    model.get_parameter(name).data.view(-1)[0] = value
    if name == "0.weight" and value == INF:
        model[1] = nn.Identity()  # tanh would hide it
    found = searched(model, torch.randn(4, 6))
    assert (found.direction, found.site, found.module) == (Direction.PARAMETER, name, name[0])


def test_a_bad_running_variance_is_blamed_by_its_path() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6).eval())
    model[1].running_var[2] = NAN  # type: ignore[index]
    found = searched(model, torch.randn(4, 6))
    assert (found.direction, found.site) == (Direction.PARAMETER, "1.running_var")


def test_a_bad_input_that_the_forward_hides_is_found_through_the_backward() -> None:
    x = torch.randn(4, 6)
    x[1] = NAN

    def hide(y: Tensor) -> Tensor:
        return y.nan_to_num()

    model = nn.Sequential(nn.Linear(6, 6), Between(hide), nn.Linear(6, 2))
    found = searched(model, x)
    assert found.direction == Direction.INPUT


def test_a_constant_that_holds_nan_is_laid_to_the_line_that_reads_it() -> None:
    table = torch.tensor([1.0, NAN, 1.0, 1.0, 1.0, 1.0])

    def scale(x: Tensor) -> Tensor:
        return x * table

    found = searched(around(scale), torch.randn(4, 6))
    assert (found.direction, found.op, found.module) == (Direction.FORWARD, "mul", "1")
    assert (found.culprits[0].name, found.culprits[0].nonfinite) == ("table", 1)


# --- models -----------------------------------------------------------------------------------------------------------


class Tied(nn.Module):
    """Embeds and reads out with one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.body = nn.Linear(6, 6)
        self.head = nn.Linear(6, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.body(self.embed(ids))
        return self.head(hidden / (hidden * 0))  # type: ignore[no-any-return]


def test_tied_weights_stay_tied() -> None:
    found = searched(Tied(), torch.randint(0, 7, (3, 4)))
    assert (found.direction, found.op, found.module) == (Direction.FORWARD, "div", "")
    assert found.site == "<root>"


def square_root(x: Tensor) -> Tensor:
    return x + (x * 0).sqrt()


class First(nn.Module):
    """Keeps the first of what a recurrent layer returns."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]  # type: ignore[no-any-return]


class Attends(nn.Module):
    """Attention with a causal mask of −Inf, in the middle of which a fault may be."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.full((x.shape[1], x.shape[1]), -INF).triu(1)
        return self.attention(x, x, x, attn_mask=mask, need_weights=False)[0]  # type: ignore[no-any-return]


class Looks(nn.Module):
    """Attention in one function of torch's."""

    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x, is_causal=True)


class Reentrant(nn.Module):
    """Runs its layers again in the backward."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.body, x, use_reentrant=self.reentrant)  # type: ignore[no-any-return]


BODIES: dict[str, Callable[[], nn.Module]] = {
    "dropout": lambda: nn.Dropout(0.5),
    "batch norm": lambda: nn.Sequential(nn.Flatten(0, 1), nn.BatchNorm1d(6), nn.Unflatten(0, (3, 5))),
    "layer norm": lambda: nn.LayerNorm(6),
    "lstm": lambda: First(nn.LSTM(6, 6, batch_first=True)),
    "gru": lambda: First(nn.GRU(6, 6, 2, batch_first=True)),
    "attention": Attends,
    "sdpa": Looks,
    "encoder": lambda: nn.TransformerEncoderLayer(6, 2, 12, batch_first=True),
    "checkpoint": lambda: Reentrant(False),
    "reentrant checkpoint": lambda: Reentrant(True),
    "in place": lambda: nn.ReLU(inplace=True),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6)),
    "max norm": lambda: Between(lambda x: F.embedding(x[..., 0].long().abs() % 3, torch.randn(3, 6), max_norm=1.0) + x),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("after", [False, True])
def test_a_fault_beside_a_body_of_any_make_is_found_in_its_own_module(
    body: Callable[[], nn.Module], after: bool
) -> None:
    parts = [body(), Between(square_root)]
    model = nn.Sequential(nn.Linear(6, 6), *(parts if after else reversed(parts)), nn.Linear(6, 2))
    found = searched(model, torch.randn(3, 5, 6))
    assert (found.direction, found.op, found.module) == (Direction.BACKWARD, "sqrt", "2" if after else "1")
    assert found.sure
    assert found.culprits[0].zeros == 90


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_sound_model_is_not_blamed_for_its_loss(body: Callable[[], nn.Module]) -> None:
    model = nn.Sequential(nn.Linear(6, 6), body(), nn.Linear(6, 2))
    found = with_loss(model, torch.randn(3, 5, 6), lambda out: (out * 0).sqrt().sum(), loss_ops=["mul", "sqrt", "sum"])
    assert (found.direction, found.site, found.sure) == (Direction.LOSS, "loss", True)
    assert found.ops == ("mul", "sqrt", "sum")
    assert (found.culprits[0].name, found.culprits[0].nonfinite) == ("output", 0)


def test_autocast_is_switched_on_again() -> None:
    model = around(lambda x: x + (x.float() * 0).sqrt())
    x = torch.randn(4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        pass_ = remember(model, (x,), {})
        out = model(x)
    out.sum().backward()
    found = find_origin(pass_, model)
    assert (found.direction, found.op, found.module) == (Direction.BACKWARD, "sqrt", "1")


def test_numbers_that_outgrow_float16_are_found_with_their_size() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2)).half()
    with torch.no_grad():
        model[0].weight.mul_(4000)
        model[1].weight.fill_(1000)
    found = searched(model, torch.randn(4, 6).half() * 10)
    assert (found.direction, found.op) == (Direction.FORWARD, "linear")
    assert found.culprits[0].dtype == "float16"
    assert [one.name for one in found.culprits][1] == f"{found.module}.weight"


def test_a_dropout_of_the_same_random_numbers_decides_what_happens() -> None:
    def unlucky(x: Tensor) -> Tensor:
        return x / (F.dropout(torch.ones(()), 0.5) > 0)

    model, outcomes = around(unlucky), set()
    for seed in range(12):
        torch.manual_seed(seed)
        pass_, x = remember(model, (torch.randn(4, 6),), {}), None
        x = pass_.args[0]
        out = model(x)
        model.zero_grad()
        out.sum().backward()
        bad = not bool(out.isfinite().all())
        outcomes.add(bad)
        torch.rand(5)
        assert (find_origin(pass_, model).direction == Direction.FORWARD) == bad
    assert outcomes == {True, False}


def test_a_part_that_is_called_on_its_own_has_its_path_in_the_model() -> None:
    model = nn.ModuleDict({"encoder": around(square_root), "decoder": nn.Linear(6, 2)})
    x = torch.randn(4, 6)
    pass_ = remember(model["encoder"], (x,), {})
    model["decoder"](model["encoder"](x)).sum().backward()
    found = find_origin(pass_, model)
    assert (found.direction, found.module, found.op) == (Direction.BACKWARD, "encoder.1", "sqrt")


def test_a_part_that_is_sound_leaves_doubt() -> None:
    model = nn.ModuleDict({"encoder": around(square_root), "decoder": nn.Linear(6, 2)})
    y = model["encoder"](torch.randn(4, 6))
    pass_ = remember(model["decoder"], (y,), {})
    model["decoder"](y).sum().backward()
    found = find_origin(pass_, model)
    assert (found.direction, found.sure) == (Direction.LOSS, False)
    assert "only the last part" in found.note


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*is deprecated")
def test_an_operation_of_a_script_has_its_module() -> None:
    class Scripted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / (x * 0)

    found = searched(nn.Sequential(nn.Linear(6, 6), torch.jit.script(Scripted()), nn.Linear(6, 2)), torch.randn(4, 6))
    assert (found.direction, found.module, found.op) == (Direction.FORWARD, "1", "div")


# --- infinities that do no harm ---------------------------------------------------------------------------------------


def causal(x: Tensor) -> Tensor:
    mask = torch.ones(4, 4).tril().bool()
    return (x @ x.T).masked_fill(~mask, -INF).softmax(-1) @ x


def added_mask(x: Tensor) -> Tensor:
    return F.softmax(x @ x.T + torch.full((4, 4), -INF).triu(1), dim=-1) @ x


def log_of_a_mask(x: Tensor) -> Tensor:
    return F.softmax(x @ x.T + torch.ones(4, 4).tril().log(), dim=-1) @ x


def log_in_a_where(x: Tensor) -> Tensor:
    return torch.where(x > 0, x.clamp(min=1e-3).log(), (x.detach() * 0).log().exp())


def largest_from_minus_infinity(x: Tensor) -> Tensor:
    best = torch.full((4,), -INF)
    for column in x.unbind(1):
        best = torch.maximum(best, column)
    return x + best[:, None]


def unused(x: Tensor) -> Tensor:
    (x.detach() / 0).sum()
    return x.tanh()


def written_over(x: Tensor) -> Tensor:
    y = torch.full_like(x, NAN)
    y[:, :3] = x[:, :3]
    y[:, 3:] = x[:, 3:]
    return y


def one_over_infinity(x: Tensor) -> Tensor:
    return x + 1 / (x.detach().abs() * 1e30).square()


HARMLESS = [causal, added_mask, log_of_a_mask, log_in_a_where, largest_from_minus_infinity, unused, written_over,
            one_over_infinity]  # fmt: skip


@pytest.mark.parametrize("run", HARMLESS)
def test_infinities_that_do_no_harm_are_left_alone(run: Callable[[Tensor], Tensor]) -> None:
    model = around(run)
    x = torch.randn(4, 6)
    out = model(x)
    out.sum().backward()
    assert out.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert with_loss(model, x, lambda out: out.sum() * NAN).direction == Direction.LOSS


@pytest.mark.parametrize("run", HARMLESS)
def test_a_fault_beside_them_is_found_all_the_same(run: Callable[[Tensor], Tensor]) -> None:
    model = nn.Sequential(nn.Linear(6, 6), Between(run), Between(square_root), nn.Linear(6, 6))
    found = searched(model, torch.randn(4, 6))
    assert (found.direction, found.op, found.module) == (Direction.BACKWARD, "sqrt", "2")


def test_a_mask_that_is_given_and_one_that_is_kept_are_no_bad_input() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 6)
            self.register_buffer("kept", torch.full((4, 4), -INF).triu(1))

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            y = self.fc(x)
            y = (y @ y.T + mask + self.kept).softmax(-1) @ y
            return y + (y * 0).sqrt()

    found = searched(Masked(), torch.randn(4, 6), torch.full((4, 4), -INF).triu(2))
    assert (found.direction, found.op) == (Direction.BACKWARD, "sqrt")


def test_infinities_in_the_output_are_told_of_where_the_loss_is_blamed() -> None:
    def choices(x: Tensor) -> Tensor:
        return x.masked_fill(x > 0, -INF)

    model = nn.Sequential(nn.Linear(6, 6), Between(choices))
    found = with_loss(model, torch.randn(4, 6), lambda out: (out * 0).sum())
    assert (found.direction, found.sure) == (Direction.LOSS, False)
    assert "`masked_fill`" in found.note


# --- anywhere ---------------------------------------------------------------------------------------------------------

SOUND = [nn.Tanh, nn.Sigmoid, nn.Dropout, lambda: nn.LayerNorm(6), lambda: nn.Linear(6, 6), nn.GELU,
         lambda: Between(causal), lambda: Between(added_mask)]  # fmt: skip


def divided(x: Tensor) -> Tensor:
    return (x * 0) / (x * 0)


def logarithm(x: Tensor) -> Tensor:
    return x + (-1 - x.abs()).log()


@given(st.lists(st.sampled_from(SOUND), min_size=1, max_size=6), st.data())
def test_a_fault_is_found_wherever_it_is_planted(kinds: list[Callable[[], nn.Module]], data: st.DataObject) -> None:
    parts = [make() for make in kinds]
    place = data.draw(st.integers(0, len(parts)))
    run, op = data.draw(st.sampled_from([(divided, "div"), (logarithm, "log"), (square_root, "sqrt")]))
    parts.insert(place, Between(run))
    model = nn.Sequential(nn.Linear(6, 6), *parts, nn.Linear(6, 3))
    found = searched(model, torch.randn(4, 6))
    assert (found.module, found.op, found.sure) == (str(place + 1), op, True)
    assert found.direction == ("backward" if op == "sqrt" else "forward")
