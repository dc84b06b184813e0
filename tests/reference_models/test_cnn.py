"""Convolution and pooling against torch's, the book's worked numbers, and the book's network."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from strategies import tensors, values
from tolerances import assert_close

from reference_models.cnn import Conv2d, Flatten, MaxPool2d, SimpleCNN, conv2d, max_pool2d, windows
from reference_models.losses import accuracy, cross_entropy
from reference_models.optimizers import AdamW
from tensorscope import ShapeError

small = values(largest=10.0)
exact = st.sampled_from([torch.float64, torch.float32])


@st.composite
def convolutions(draw, dtypes=exact):
    """Images, weight, bias or None, and settings that go together."""
    stride, padding, dilation = draw(st.integers(1, 3)), draw(st.integers(0, 2)), draw(st.integers(1, 2))
    kernel = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    groups, depth, filters = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    smallest = [max(1, dilation * (k - 1) + 1 - 2 * padding) for k in kernel]
    height, width = (draw(st.integers(least, least + 4)) for least in smallest)
    dtype = draw(dtypes)
    images = draw(tensors((draw(st.integers(0, 2)), groups * depth, height, width), dtype, small))
    weight = draw(tensors((groups * filters, depth, *kernel), dtype, small))
    bias = draw(st.one_of(st.none(), tensors((groups * filters,), dtype, small)))
    return images, weight, bias, {"stride": stride, "padding": padding, "dilation": dilation}, groups


@given(convolutions())
def test_convolution_equals_torchs_in_value_and_gradient(case):
    *operands, settings, groups = case
    wanted = [operand.requires_grad_() for operand in operands if operand is not None]
    ours = conv2d(*operands, **settings)
    theirs = F.conv2d(*operands, **settings, groups=groups)
    assert_close(ours.detach(), theirs.detach(), scale=1e3)
    gradients = (torch.autograd.grad(y.square().sum(), wanted) for y in (ours, theirs))
    for mine, torchs in zip(*gradients, strict=True):
        assert_close(mine, torchs, scale=1e6)


def test_convolution_gives_the_books_worked_figure():
    hill = torch.tensor([[1, 2, 3, 2, 1], [2, 3, 4, 3, 2], [3, 4, 5, 4, 3], [2, 3, 4, 3, 2], [1, 2, 3, 2, 1]])
    edge = torch.tensor([[1, 1, 1], [0, 0, 0], [-1, -1, -1]])
    y = conv2d(hill[None, None].double(), edge[None, None].double())
    assert y[0, 0].tolist() == [[-6, -6, -6], [0, 0, 0], [6, 6, 6]]  # erratum E-18


@given(convolutions(st.just(torch.float64)), st.floats(-3, 3))
def test_convolution_is_linear_in_the_image_and_in_the_kernel(case, factor):
    images, weight, _, settings, _ = case
    both = conv2d(images + factor * images.flip(-1), weight, **settings)
    apart = conv2d(images, weight, **settings) + factor * conv2d(images.flip(-1), weight, **settings)
    assert_close(both, apart, scale=1e3)
    assert_close(conv2d(images, factor * weight, **settings), factor * conv2d(images, weight, **settings), scale=1e3)


def test_a_kernel_of_one_pixel_that_is_one_leaves_the_image_alone():
    images = torch.randn(2, 1, 5, 4)
    assert torch.equal(conv2d(images, torch.ones(1, 1, 1, 1)), images)


def test_what_is_not_finite_reaches_only_the_windows_it_lies_in():
    images = torch.zeros(1, 1, 5, 5)
    images[0, 0, 0, 0] = float("nan")
    assert conv2d(images, torch.ones(1, 1, 2, 2)).isnan().sum() == 1


def test_operands_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match=r"3 channels do not go with a weight of shape \(4, 2, 1, 1\)"):
        conv2d(torch.zeros(1, 3, 5, 5), torch.zeros(4, 2, 1, 1))
    with pytest.raises(ValueError, match="4 channels do not go with"):
        conv2d(torch.zeros(1, 4, 5, 5), torch.zeros(3, 2, 1, 1))  # two groups, three filters
    with pytest.raises(ValueError, match="a kernel that spans 5 does not fit on axis 2"):
        conv2d(torch.zeros(1, 1, 4, 9), torch.zeros(1, 1, 3, 3), dilation=2)
    with pytest.raises(ShapeError, match="`images` has 3 axes and takes 4"):
        conv2d(torch.zeros(1, 5, 5), torch.zeros(1, 1, 3, 3))
    with pytest.raises(ShapeError, match="axis 0 of `bias` is 3 and takes `out_channels` = 2"):
        conv2d(torch.zeros(1, 1, 5, 5), torch.zeros(2, 1, 3, 3), torch.zeros(3))


@st.composite
def poolings(draw):
    """Images and settings of a pooling that go together; numbers repeat, so that there are ties."""
    size = draw(st.integers(1, 3))
    padding = draw(st.integers(0, size // 2))
    least = max(1, size - 2 * padding)
    sides = draw(st.integers(least, least + 4)), draw(st.integers(least, least + 4))
    elements = st.one_of(st.integers(-2, 2).map(float), small)
    images = draw(tensors((draw(st.integers(0, 2)), draw(st.integers(1, 2)), *sides), torch.float64, elements))
    return images, size, draw(st.one_of(st.none(), st.integers(1, 3))), padding


@given(poolings())
def test_pooling_equals_torchs_in_value_and_gradient(case):
    images, *settings = case
    images.requires_grad_()
    ours, theirs = max_pool2d(images, *settings), F.max_pool2d(images, *settings)
    assert torch.equal(ours, theirs)
    weights = torch.linspace(1, 2, ours.numel(), dtype=ours.dtype).reshape(ours.shape)
    assert_close(*(torch.autograd.grad((y * weights).sum(), images)[0] for y in (ours, theirs)))


@given(tensors((1, 2, 4, 6), torch.float32, values(largest=1e30, non_finite=True)))
def test_pooling_of_what_is_not_finite_is_torchs(images):
    assert_close(max_pool2d(images, 2), F.max_pool2d(images, 2))


def test_pooling_that_could_see_padding_alone_is_refused():
    with pytest.raises(ValueError, match="padding 2 is more than half a patch of 3"):
        max_pool2d(torch.zeros(1, 1, 5, 5), 3, 1, 2)
    with pytest.raises(ValueError, match="a kernel that spans 3 does not fit"):
        max_pool2d(torch.zeros(1, 1, 2, 5), 3)


def test_windows_are_a_view():
    images = torch.randn(1, 1, 4, 4)
    assert windows(images, (2, 2)).untyped_storage().data_ptr() == images.untyped_storage().data_ptr()


# --- the network -----------------------------------------------------------------------------------------------------

CHAIN = {
    "conv1": (2, 32, 26, 26),
    "relu1": (2, 32, 26, 26),
    "pool1": (2, 32, 13, 13),
    "conv2": (2, 64, 11, 11),
    "relu2": (2, 64, 11, 11),
    "pool2": (2, 64, 5, 5),
    "flatten": (2, 1600),
    "fc1": (2, 128),
    "relu3": (2, 128),
    "fc2": (2, 10),
}


def test_shapes_go_as_in_the_book():
    model, seen = SimpleCNN(), {}
    for name, module in model.named_children():
        module.register_forward_hook(lambda _, __, y, name=name: seen.update({name: tuple(y.shape)}))
    assert model(torch.zeros(2, 784).reshape(-1, 1, 28, 28)).shape == (2, 10)
    assert list(seen.items()) == list(CHAIN.items())


def test_the_network_has_225_034_parameters():
    assert sum(p.numel() for p in SimpleCNN().parameters()) == 225_034


def test_padding_by_one_gives_3136_features():
    assert SimpleCNN(padding=1).fc1.weight.shape == (128, 3136)  # erratum E-17: once, not twice


@pytest.mark.parametrize(
    ("model", "images", "classes"),
    [
        (SimpleCNN.tiny, (3, 1, 8, 8), 10),
        (lambda: SimpleCNN(32, 3, 7), (3, 3, 32, 32), 7),
        (lambda: SimpleCNN(10, classes=2, filters=(1, 1)), (0, 1, 10, 10), 2),
    ],
)
def test_other_sizes_fit_together(model, images, classes):
    assert model()(torch.zeros(images)).shape == (images[0], classes)


def test_every_parameter_gets_a_gradient():
    model = SimpleCNN()
    cross_entropy(model(torch.rand(16, 1, 28, 28)), torch.arange(16) % 10).backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_the_network_equals_torchs_with_the_same_weights():
    model = SimpleCNN().double()
    torchs = torch.nn.Sequential(
        *(torch.nn.Conv2d(1, 32, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.Conv2d(32, 64, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.Flatten(), torch.nn.Linear(1600, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)),
    ).double()
    torchs.load_state_dict(dict(zip(torchs.state_dict(), model.state_dict().values(), strict=True)))
    images, labels = torch.rand(4, 1, 28, 28, dtype=torch.float64), torch.arange(4)
    for net, loss in ((model, cross_entropy), (torchs, F.cross_entropy)):
        loss(net(images), labels).backward()
    assert_close(model(images).detach(), torchs(images).detach())
    for mine, theirs in zip(model.parameters(), torchs.parameters(), strict=True):
        assert_close(mine.grad, theirs.grad)


def test_one_batch_can_be_learnt_by_heart():
    model, images, labels = SimpleCNN.tiny(), torch.rand(16, 1, 8, 8), torch.randint(10, (16,))
    optimizer = AdamW(model.parameters(), 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    assert accuracy(model(images), labels) == 1
    assert loss < 0.01


def test_an_image_without_its_channel_axis_is_explained():
    with pytest.raises(ShapeError) as caught:
        SimpleCNN()(torch.zeros(4, 28, 28))
    assert str(caught.value) == (
        "`SimpleCNN.forward`: `images` has 3 axes and takes 4\n"
        "  expected  batch channels height width\n"
        "  got       (4, 28, 28) float32\n"
        "  bound     nothing yet\n\n"
        "hint: `images.unsqueeze(0)` adds `batch`, or `images.unsqueeze(1)` adds `channels`"
    )


def test_layers_print_their_sizes():
    assert str(Conv2d(4, 6, 3, groups=2)) == "Conv2d(2, 6, size=3, stride=1, padding=0)"
    assert str(MaxPool2d(2)) == "MaxPool2d(2)"
    assert Flatten()(torch.zeros(0, 2, 3)).shape == (0, 6)
