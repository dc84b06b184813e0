"""Convolution and its variants against torch's, the book's worked numbers, and the laws of the operation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import tensors, values
from tolerances import assert_close

from reference_models.convolution import (
    Conv2d,
    ConvTranspose2d,
    DepthwiseSeparableConv2d,
    conv2d,
    conv_transpose2d,
    output_size,
    receptive_field,
    windows,
)
from tensorscope import ShapeError

small = values(largest=10.0)
tiny = values(largest=1.0)
exact = st.sampled_from([torch.float64, torch.float32])


@st.composite
def slides(draw, *, stride=4, padding=4, dilation=3):
    """How a kernel moves."""
    return {
        "stride": draw(st.integers(1, stride)),
        "padding": draw(st.integers(0, padding)),
        "dilation": draw(st.integers(1, dilation)),
    }


@st.composite
def convolutions(draw, dtypes=exact, elements=small):
    """Images, weight, bias or None, settings that go together, and how many groups that makes."""
    slide = draw(slides())
    kernel = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    groups, depth, filters = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    smallest = [max(1, slide["dilation"] * (k - 1) + 1 - 2 * slide["padding"]) for k in kernel]
    height, width = (draw(st.integers(least, least + 4)) for least in smallest)
    dtype = draw(dtypes)
    images = draw(tensors((draw(st.integers(0, 2)), groups * depth, height, width), dtype, elements))
    weight = draw(tensors((groups * filters, depth, *kernel), dtype, elements))
    bias = draw(st.one_of(st.none(), tensors((groups * filters,), dtype, elements)))
    return images, weight, bias, slide, groups


@st.composite
def transposed_convolutions(draw, dtypes=exact, elements=small):
    """The same for the way back; groups and output padding are among the settings."""
    slide, groups, depth = draw(slides()), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    more = draw(st.integers(0, max(slide["stride"], slide["dilation"]) - 1))
    kernel, filters = (draw(st.integers(1, 3)), draw(st.integers(1, 3))), draw(st.integers(1, 2))
    # s(n - 1) + d(k - 1) + 1 + more - 2p ≥ 1
    reach = [2 * slide["padding"] - slide["dilation"] * (k - 1) - more for k in kernel]
    smallest = [max(1, 1 - (-need // slide["stride"])) for need in reach]
    height, width = (draw(st.integers(least, least + 3)) for least in smallest)
    dtype = draw(dtypes)
    images = draw(tensors((draw(st.integers(0, 2)), groups * depth, height, width), dtype, elements))
    weight = draw(tensors((groups * depth, filters, *kernel), dtype, elements))
    bias = draw(st.one_of(st.none(), tensors((groups * filters,), dtype, elements)))
    return images, weight, bias, {**slide, "groups": groups, "output_padding": more}


def gradients(function, operands, *args, **kwargs):
    """The value, and the gradients of a sum of its squares."""
    wanted = [operand.detach().requires_grad_() for operand in operands if operand is not None]
    y = function(*wanted, *args, **kwargs)
    return y.detach(), torch.autograd.grad(y.square().sum(), wanted)


def assert_same(ours, theirs, operands, mine, torchs):
    """Both functions give the same values and gradients for these operands."""
    (y, found), (wanted_y, wanted) = gradients(ours, operands, **mine), gradients(theirs, operands, **torchs)
    assert_close(y, wanted_y, scale=1e3)
    for gradient, expected in zip(found, wanted, strict=True):
        assert_close(gradient, expected, scale=1e6)


# --- cross-correlation of images -------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(convolutions())
def test_convolution_equals_torchs_in_value_and_gradient(case):
    *operands, slide, groups = case
    assert_same(conv2d, F.conv2d, operands, slide, {**slide, "groups": groups})


@settings(max_examples=12)
@given(convolutions(st.sampled_from([torch.bfloat16, torch.float16]), tiny))
def test_convolution_of_short_floats_is_torchs_of_long_ones_rounded(case):
    *operands, slide, groups = case
    long = [None if operand is None else operand.double() for operand in operands]
    ours = conv2d(*operands, **slide)
    assert ours.dtype is operands[0].dtype
    assert_close(ours, F.conv2d(*long, **slide, groups=groups).to(ours.dtype), scale=4)


def test_convolution_gives_the_books_worked_figure():
    hill = torch.tensor([[1, 2, 3, 2, 1], [2, 3, 4, 3, 2], [3, 4, 5, 4, 3], [2, 3, 4, 3, 2], [1, 2, 3, 2, 1]])
    edge = torch.tensor([[1, 1, 1], [0, 0, 0], [-1, -1, -1]])
    y = conv2d(hill[None, None].double(), edge[None, None].double())
    assert y[0, 0].tolist() == [[-6, -6, -6], [0, 0, 0], [6, 6, 6]]  # erratum E-18


@settings(max_examples=12)
@given(convolutions(st.just(torch.float64)), st.floats(-3, 3))
def test_convolution_is_linear_in_the_image_and_in_the_kernel(case, factor):
    images, weight, _, slide, _ = case
    both = conv2d(images + factor * images.flip(-1), weight, **slide)
    apart = conv2d(images, weight, **slide) + factor * conv2d(images.flip(-1), weight, **slide)
    assert_close(both, apart, scale=1e3)
    assert_close(conv2d(images, factor * weight, **slide), factor * conv2d(images, weight, **slide), scale=1e3)


@settings(max_examples=12)
@given(convolutions(st.just(torch.float64)), st.integers(0, 2), st.integers(0, 2))
def test_what_is_moved_by_strides_comes_out_moved(case, down, right):
    images, weight, bias, slide, _ = case
    step, slide = slide["stride"], {**slide, "padding": 0}
    room = [slide["dilation"] * (k - 1) for k in weight.shape[2:]]
    images = F.pad(images, [room[1], room[1], room[0], room[0]])  # so that the kernel fits, and sees zeros at the edge
    moved = F.pad(images, [step * right, 0, step * down, 0])
    assert_close(conv2d(moved, weight, bias, **slide)[:, :, down:, right:], conv2d(images, weight, bias, **slide))


def test_a_kernel_of_one_pixel_that_is_one_leaves_the_image_alone():
    images = torch.randn(2, 1, 5, 4)
    assert torch.equal(conv2d(images, torch.ones(1, 1, 1, 1)), images)


def test_what_is_not_finite_reaches_only_the_windows_it_lies_in():
    images = torch.zeros(1, 1, 5, 5)
    images[0, 0, 0, 0] = float("nan")
    assert conv2d(images, torch.ones(1, 1, 2, 2)).isnan().sum() == 1


@settings(max_examples=20)
@given(tensors((1, 2, 4, 4), torch.float32, values(largest=1e30, non_finite=True)))
def test_convolution_of_what_is_not_finite_is_torchs(images):
    weight = torch.linspace(0.5, 2, 16).reshape(2, 2, 2, 2)
    ours, theirs = conv2d(images, weight), F.conv2d(images, weight)
    assert torch.equal(ours.isnan(), theirs.isnan())
    assert torch.equal(ours == torch.inf, theirs == torch.inf)
    assert torch.equal(ours == -torch.inf, theirs == -torch.inf)


def test_windows_are_a_view():
    images = torch.randn(1, 1, 4, 4)
    assert windows(images, (2, 2)).untyped_storage().data_ptr() == images.untyped_storage().data_ptr()


def test_operands_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match=r"3 channels do not go with a weight of shape \(4, 2, 1, 1\)"):
        conv2d(torch.zeros(1, 3, 5, 5), torch.zeros(4, 2, 1, 1))
    with pytest.raises(ValueError, match="4 channels do not go with"):
        conv2d(torch.zeros(1, 4, 5, 5), torch.zeros(3, 2, 1, 1))  # two groups, three filters
    with pytest.raises(ValueError, match="0 channels do not go with"):
        conv2d(torch.zeros(1, 0, 5, 5), torch.zeros(3, 0, 1, 1))
    with pytest.raises(ValueError, match="a kernel that spans 5 does not fit on 4 pixels"):
        conv2d(torch.zeros(1, 1, 4, 9), torch.zeros(1, 1, 3, 3), dilation=2)
    with pytest.raises(ShapeError, match="`images` has 3 axes and takes 4"):
        conv2d(torch.zeros(1, 5, 5), torch.zeros(1, 1, 3, 3))
    with pytest.raises(ShapeError, match="axis 0 of `bias` is 3 and takes `out_channels` = 2"):
        conv2d(torch.zeros(1, 1, 5, 5), torch.zeros(2, 1, 3, 3), torch.zeros(3))


@pytest.mark.parametrize(("name", "value", "least"), [("stride", 0, 1), ("padding", -1, 0), ("dilation", 0, 1)])
def test_a_slide_that_is_none_is_refused(name, value, least):
    said = f"expected a `{name}` of at least {least}, got {value}"
    for attempt in (
        lambda: conv2d(torch.zeros(1, 1, 5, 5), torch.zeros(1, 1, 1, 1), **{name: value}),
        lambda: conv_transpose2d(torch.zeros(1, 1, 5, 5), torch.zeros(1, 1, 1, 1), **{name: value}),
        lambda: Conv2d(1, 1, 3, **{name: value}),
        lambda: ConvTranspose2d(1, 1, 3, **{name: value}),
    ):
        with pytest.raises(ValueError, match=said):
            attempt()


# --- sizes -----------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 7), slides(stride=5))
def test_the_output_has_the_size_that_the_formula_says(length, size, slide):
    span = slide["dilation"] * (size - 1) + 1
    if span > length + 2 * slide["padding"]:
        with pytest.raises(ValueError, match=f"a kernel that spans {span} does not fit"):
            output_size(length, size, **slide)
        return
    y = F.conv1d(torch.zeros(1, 1, length), torch.zeros(1, 1, size), **slide)
    assert output_size(length, size, **slide) == y.shape[2]  # erratum E-19


@pytest.mark.parametrize(
    ("layers", "pixels"),
    [
        ([], 1),
        ([(3, 1, 1)], 3),
        ([(3, 1, 1), (3, 1, 1)], 5),
        ([(3, 1, 1), (2, 2, 1), (3, 1, 1), (2, 2, 1)], 10),  # chapter 13's network
        ([(3, 1, 1), (3, 1, 2), (3, 1, 4)], 15),
        ([(11, 4, 1), (3, 2, 1), (5, 1, 1)], 51),  # AlexNet's first layers
    ],
    ids=["nothing", "one", "two", "simple-cnn", "dilated", "alexnet"],
)
def test_receptive_fields_know_strides(layers, pixels):
    assert receptive_field(layers) == pixels  # erratum E-19


@settings(max_examples=12)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 2)), max_size=3))
def test_a_receptive_field_is_where_the_gradient_goes(layers):
    image = torch.zeros(1, 1, 60, 1, dtype=torch.float64, requires_grad=True)
    y = image
    for size, stride, dilation in layers:
        # The kernel is a column, so its width of 1 takes every stride-th of 1 columns.
        y = conv2d(y, torch.ones(1, 1, size, 1, dtype=torch.float64), stride=stride, dilation=dilation)
    rows = torch.autograd.grad(y[0, 0, 0, 0], image)[0].nonzero()[:, 2]
    assert rows.max() - rows.min() + 1 == receptive_field(layers)


# --- transposed convolution ------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(transposed_convolutions())
def test_transposed_convolution_equals_torchs_in_value_and_gradient(case):
    *operands, how = case
    assert_same(conv_transpose2d, F.conv_transpose2d, operands, how, how)


@settings(max_examples=12)
@given(transposed_convolutions(st.sampled_from([torch.bfloat16, torch.float16]), tiny))
def test_transposed_convolution_of_short_floats_is_torchs_of_long_ones_rounded(case):
    *operands, how = case
    long = [None if operand is None else operand.double() for operand in operands]
    ours = conv_transpose2d(*operands, **how)
    assert ours.dtype is operands[0].dtype
    assert_close(ours, F.conv_transpose2d(*long, **how).to(ours.dtype), scale=4)


@settings(max_examples=12)
@given(convolutions(st.just(torch.float64)))
def test_transposed_convolution_is_the_way_of_convolutions_gradient(case):
    images, weight, _, slide, groups = case
    y = conv2d(images.requires_grad_(), weight, **slide)
    flow = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    back = torch.autograd.grad(y, images, flow)[0]
    ours = conv_transpose2d(flow, weight, groups=groups, **{**slide, "padding": 0})
    # What the stride leaves over at the bottom and the right gets no gradient.
    p, (height, width) = slide["padding"], images.shape[2:]
    canvas = F.pad(ours, [0, width + 2 * p - ours.shape[3], 0, height + 2 * p - ours.shape[2]])
    assert_close(canvas[:, :, p : p + height, p : p + width], back, scale=1e2)


def test_each_pixel_stamps_the_kernel():
    images = torch.tensor([[[[1.0, 10.0]]]])
    kernel = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    assert conv_transpose2d(images, kernel, stride=2).flatten().tolist() == [1, 2, 13, 20, 30]


def test_transposed_convolutions_that_cannot_be_are_refused():
    images, weight = torch.zeros(1, 2, 3, 3), torch.zeros(2, 1, 1, 1)
    with pytest.raises(ValueError, match="2 channels do not split into 3 groups"):
        conv_transpose2d(images, weight, groups=3)
    with pytest.raises(ValueError, match="expected an `output_padding` of 0 to 1, got 2"):
        conv_transpose2d(images, weight, stride=2, output_padding=2)
    with pytest.raises(ValueError, match="would become -1×-1 pixels"):
        conv_transpose2d(images, weight, padding=2)
    with pytest.raises(ShapeError, match="axis 0 of `weight`"):
        conv_transpose2d(images, torch.zeros(3, 1, 1, 1))


# --- modules ---------------------------------------------------------------------------------------------------------

HOWS = {
    "plain": {},
    "strided": {"stride": 2, "padding": 1},
    "dilated": {"dilation": 2},
    "grouped": {"groups": 2},
    "depthwise": {"groups": 4, "padding": 1},
    "all": {"stride": 3, "padding": 2, "dilation": 2, "groups": 2},
}


@pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)
def test_a_convolution_takes_torchs_state_dict(how):
    for ours, theirs in (
        (Conv2d(4, 8, 3, **how), torch.nn.Conv2d(4, 8, 3, **how)),
        (ConvTranspose2d(4, 8, 3, **how), torch.nn.ConvTranspose2d(4, 8, 3, **how)),
    ):
        ours.load_state_dict(theirs.state_dict())
        theirs.load_state_dict(ours.state_dict())
        images = torch.randn(2, 4, 9, 7)
        assert_close(ours(images).detach(), theirs(images).detach())


def test_a_convolution_without_bias_takes_torchs_state_dict():
    ours, theirs = Conv2d(2, 3, 1, bias=False), torch.nn.Conv2d(2, 3, 1, bias=False)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 2, 3, 3)
    assert_close(ours(images).detach(), theirs(images).detach())


@pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)
def test_a_convolution_starts_in_torchs_range(how):
    for ours, theirs in ((Conv2d, torch.nn.Conv2d), (ConvTranspose2d, torch.nn.ConvTranspose2d)):
        parameters = (layer(64, 64, 3, **how).state_dict().values() for layer in (ours, theirs))
        for mine, torchs in zip(*parameters, strict=True):
            assert mine.abs().max().item() == pytest.approx(torchs.abs().max().item(), rel=0.2)
            assert mine.std() > 0  # erratum E-40


def test_a_convolution_of_one_pixel_is_a_linear_layer_for_each_pixel():
    layer, images = Conv2d(3, 5, 1), torch.randn(2, 3, 4, 6)
    each = images.movedim(1, -1) @ layer.weight[:, :, 0, 0].T + layer.bias
    assert_close(layer(images).detach(), each.movedim(-1, 1).detach())


@pytest.mark.parametrize("how", [{}, {"stride": 2, "padding": 1}, {"dilation": 2}], ids=["plain", "strided", "dilated"])
def test_a_separable_convolution_is_one_whose_kernels_are_products(how):
    layer, images = DepthwiseSeparableConv2d(3, 5, 3, **how).double(), torch.randn(2, 3, 6, 7, dtype=torch.float64)
    deep, wide = layer.depthwise, layer.pointwise
    # W[o, c, i, j] = P[o, c] · D[c, i, j]
    weight = wide.weight * deep.weight.transpose(0, 1)
    bias = wide.bias + wide.weight[:, :, 0, 0] @ deep.bias
    assert_close(layer(images).detach(), F.conv2d(images, weight, bias, **how).detach())


def test_a_separable_convolution_has_few_parameters():
    count = sum(p.numel() for p in DepthwiseSeparableConv2d(32, 64, 3).parameters())
    assert count == 32 * 9 + 32 + 32 * 64 + 64 == 2_432
    assert sum(p.numel() for p in Conv2d(32, 64, 3).parameters()) == 18_496


@pytest.mark.parametrize(
    "make",
    [
        lambda: Conv2d(4, 6, 3, groups=2),
        lambda: ConvTranspose2d(4, 6, 3, groups=2, stride=2, output_padding=1),
        lambda: DepthwiseSeparableConv2d(4, 6, 3),
    ],
    ids=["convolution", "transposed", "separable"],
)
def test_every_parameter_gets_a_gradient(make):
    model = make()
    model(torch.randn(2, 4, 5, 5)).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_modules_that_cannot_be_are_refused():
    for kind in (Conv2d, ConvTranspose2d):
        with pytest.raises(ValueError, match="4 channels and 6 filters do not split into 4 groups"):
            kind(4, 6, 3, groups=4)
        with pytest.raises(TypeError, match="strde"):
            kind(4, 6, 3, strde=2)
    with pytest.raises(ValueError, match="images of 4 channels do not go with kernels of 2"):
        Conv2d(2, 6, 3)(torch.zeros(1, 4, 5, 5))


def test_layers_print_their_sizes():
    assert str(Conv2d(4, 6, 3)) == "Conv2d(4, 6, size=3, stride=1, padding=0)"
    rare = "Conv2d(4, 6, size=3, stride=1, padding=0, dilation=3, groups=2)"
    assert str(Conv2d(4, 6, 3, groups=2, dilation=3)) == rare
