"""Residual blocks and networks: their shapes, torch's with the same weights, and what the way past a block is for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import tensors, values
from tolerances import assert_close

from reference_models.data import digits, split
from reference_models.losses import accuracy, cross_entropy
from reference_models.optimizers import AdamW
from reference_models.resnet import BasicBlock, ResidualBlock, ResNetMini, ResNetMLP
from tensorscope import ShapeError

sizes = st.integers(1, 5)


@settings(max_examples=30)
@given(st.data(), sizes, sizes, sizes, st.booleans())
def test_a_residual_block_equals_torchs_formula_in_value_and_gradient(data, inputs, hidden, outputs, residual):
    block = ResidualBlock(inputs, hidden, outputs, residual=residual).double()
    x = data.draw(tensors((data.draw(st.integers(0, 3)), inputs), torch.float64, values(largest=10.0))).requires_grad_()
    deep = F.linear(F.relu(F.linear(x, *block.linear1.parameters())), *block.linear2.parameters())
    past = F.linear(x, *block.shortcut.parameters()) if residual and inputs != outputs else x if residual else 0
    wanted = [x, *block.parameters()]
    results = [(y.detach(), *torch.autograd.grad(y.square().sum(), wanted)) for y in (block(x), F.relu(deep + past))]
    for mine, torchs in zip(*results, strict=True):
        assert_close(mine, torchs, scale=1e3)


def test_the_shortcut_is_linear_only_where_sizes_differ():
    assert ResidualBlock(4, 8, 4).shortcut is None
    assert ResidualBlock(4, 8, 5).shortcut.weight.shape == (5, 4)
    assert ResidualBlock(4, 8, 5, residual=False).shortcut is None


@given(tensors(st.tuples(st.integers(0, 3), st.just(4)), torch.float32, values(largest=100.0)))
@settings(max_examples=20)
def test_a_block_that_adds_nothing_rectifies(x):
    block = ResidualBlock(4, 8, 4)
    with torch.no_grad():
        block.linear2.weight.zero_(), block.linear2.bias.zero_()
    assert torch.equal(block(x), x.relu())


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_output_layer_fits_the_last_block(outputs):  # erratum E-37
    model = ResNetMLP(10, 64, 32, 16, outputs=outputs)
    assert [tuple(block.linear2.weight.shape) for block in model.blocks] == [(64, 64), (32, 32), (16, 16)]
    assert model(torch.zeros(5, 10)).shape == (5, outputs)


def test_a_network_without_a_block_is_refused():
    with pytest.raises(ValueError, match=r"expected sizes before and after at least one block, got \(10,\)"):
        ResNetMLP(10)


def first_to_last(residual, depth):
    """How much smaller the first block's gradient is than the last one's."""
    model = ResNetMLP(16, *[16] * depth, outputs=4, residual=residual)
    cross_entropy(model(torch.randn(32, 16)), torch.arange(32) % 4).backward()
    norms = [block.linear1.weight.grad.norm().item() for block in model.blocks]
    return norms[0] / norms[-1]


@pytest.mark.parametrize("depth", [10, 16])
def test_gradients_reach_the_first_of_many_blocks_only_past_them(depth):
    for seed in range(3):
        torch.manual_seed(seed)
        with_ways, without = first_to_last(True, depth), first_to_last(False, depth)
        assert with_ways > 0.1
        assert without < 1e-4


# --- convolutions ----------------------------------------------------------------------------------------------------


def torchs_block(block, channels, filters, stride):
    """The same block of torch's layers, with the same weights."""
    deep = torch.nn.Sequential(
        *(torch.nn.Conv2d(channels, filters, 3, stride, 1, bias=False), torch.nn.BatchNorm2d(filters), torch.nn.ReLU()),
        *(torch.nn.Conv2d(filters, filters, 3, 1, 1, bias=False), torch.nn.BatchNorm2d(filters)),
    )
    narrow = torch.nn.Conv2d(channels, filters, 1, stride, bias=False)
    past = torch.nn.Sequential(narrow, torch.nn.BatchNorm2d(filters)) if block.downsample else torch.nn.Identity()
    for theirs, ours in (
        (deep, (block.conv1, block.bn1, block.relu1, block.conv2, block.bn2)),
        (past, block.downsample or ()),
    ):
        for layer, mine in zip(theirs.children(), ours, strict=True):
            layer.load_state_dict(mine.state_dict())
    return (lambda x: F.relu(deep(x) + past(x))), deep, past


@pytest.mark.parametrize(
    ("channels", "filters", "stride"),
    [(3, 3, 1), (3, 5, 1), (3, 3, 2), (2, 4, 2)],
    ids=["same", "wide", "half", "both"],
)
def test_a_convolutional_block_equals_torchs_in_training_and_evaluation(channels, filters, stride):
    block = BasicBlock(channels, filters, stride).double()
    theirs, *parts = torchs_block(block, channels, filters, stride)
    for part in parts:
        part.double()
    for training in (True, False):
        for part in (block, *parts):
            part.train(training)
        x = torch.randn(4, channels, 5, 6, dtype=torch.float64).requires_grad_()
        ours, wanted = block(x), theirs(x)
        assert ours.shape == (4, filters, -(-5 // stride), -(-6 // stride))
        assert_close(ours.detach(), wanted.detach())
        assert_close(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (ours, wanted)), scale=1e2)


CHAIN = {
    "conv1": (2, 16, 8, 8),
    "bn1": (2, 16, 8, 8),
    "relu1": (2, 16, 8, 8),
    "block1": (2, 16, 8, 8),
    "block2": (2, 32, 4, 4),
    "block3": (2, 32, 4, 4),
    "pool": (2, 32),
    "fc": (2, 10),
}


def test_shapes_go_as_its_description_says():
    model, seen = ResNetMini(), {}
    for name, module in model.named_children():
        module.register_forward_hook(lambda _, __, y, name=name: seen.update({name: tuple(y.shape)}))
    model(torch.zeros(2, 1, 8, 8))
    assert list(seen.items()) == list(CHAIN.items())


def test_the_network_has_38_266_parameters():
    assert sum(p.numel() for p in ResNetMini().parameters()) == 38_266


@pytest.mark.parametrize("images", [(0, 3, 9, 7), (3, 3, 28, 28), (2, 3, 2, 1)], ids=["empty", "large", "small"])
def test_images_of_any_size_are_taken(images):
    assert ResNetMini(3, 7, filters=(2, 3, 4))(torch.zeros(images)).shape == (images[0], 7)


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (lambda: ResidualBlock(4, 8, 5), (8, 4)),
        (lambda: ResNetMLP(4, 8, 8, 6, outputs=3), (8, 4)),
        (lambda: BasicBlock(4, 5, 2), (8, 4, 4, 4)),
        (ResNetMini, (8, 1, 8, 8)),
    ],
    ids=["block", "mlp", "convolutions", "mini"],
)
def test_every_parameter_gets_a_gradient(make, inputs):
    model = make()
    model(torch.randn(inputs)).square().sum().backward()
    assert all(p.grad.abs().sum() > 1e-4 for p in model.parameters())


def test_one_batch_can_be_learnt_by_heart():
    model, images, labels = ResNetMini(filters=(8, 8, 8)), torch.rand(16, 1, 8, 8), torch.randint(10, (16,))
    optimizer = AdamW(model.parameters(), 1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    assert accuracy(model(images), labels) == 1
    assert loss < 0.3  # log 10 = 2.3 at first


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_digits_are_told_apart(seed):
    torch.manual_seed(seed)
    train, test = split(digits(), seed)
    model, order = ResNetMini(), torch.Generator().manual_seed(seed)
    optimizer = AdamW(model.parameters(), 2e-3)
    for _ in range(10):
        for batch in train.batches(64, order):
            optimizer.zero_grad()
            cross_entropy(model(batch.inputs), batch.labels).backward()
            optimizer.step()
    with torch.no_grad():
        assert accuracy(model.eval()(test.inputs), test.labels) >= 0.97


def test_an_image_without_its_channel_axis_is_explained():
    with pytest.raises(ShapeError, match=r"`ResNetMini.forward`: `images` has 3 axes and takes 4"):
        ResNetMini()(torch.zeros(2, 8, 8))
