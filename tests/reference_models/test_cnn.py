"""Chapter 13's network: its shapes, its parameters, and torch's with the same weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tolerances import assert_close

from reference_models.cnn import SimpleCNN
from reference_models.losses import accuracy, cross_entropy
from reference_models.optimizers import AdamW
from tensorscope import ShapeError

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
        (lambda: SimpleCNN(10, classes=2, widths=(1, 1, 1)), (0, 1, 10, 10), 2),
        (lambda: SimpleCNN(image=11, padding=2), (1, 1, 11, 11), 10),
    ],
    ids=["tiny", "colours", "smallest", "odd"],
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
    model, images, labels = SimpleCNN(8, widths=(4, 8, 32), padding=1), torch.rand(8, 1, 8, 8), torch.randint(10, (8,))
    optimizer = AdamW(model.parameters(), 1e-2)
    for _ in range(50):
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    assert accuracy(model(images), labels) == 1
    assert loss < 0.1  # log 10 = 2.3 at first


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


# --- the variant with dropout ----------------------------------------------------------------------------------------


def test_dropout_adds_no_parameters_and_is_off_by_default():
    assert list(SimpleCNN(dropout=0.5).state_dict()) == list(SimpleCNN().state_dict())
    assert "dropout" not in dict(SimpleCNN().named_children())


def test_dropout_acts_in_training_alone():  # erratum E-41
    plain, dropping, images = SimpleCNN(), SimpleCNN(dropout=0.5), torch.rand(4, 1, 28, 28)
    dropping.load_state_dict(plain.state_dict())
    assert torch.equal(dropping.eval()(images), plain(images))
    dropping.train()
    assert not torch.equal(dropping(images), dropping(images))


def test_dropout_lies_right_before_the_output_layer():
    model, seen = SimpleCNN(dropout=0.5), []
    for name, module in model.named_children():
        module.register_forward_hook(lambda *_, name=name: seen.append(name))
    model(torch.zeros(1, 1, 28, 28))
    assert seen[-3:] == ["relu3", "dropout", "fc2"]


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match="a kernel that spans 3 does not fit on 2 pixels"):
        SimpleCNN(6)
