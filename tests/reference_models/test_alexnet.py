"""AlexNet at 32×32: its layers and shapes, torch's with the same weights, and one step of training."""

from __future__ import annotations

import pytest
import torch
from tolerances import assert_close

from reference_models.alexnet import AlexNet
from reference_models.convolution import Conv2d
from reference_models.losses import cross_entropy
from reference_models.mlp import Linear
from reference_models.optimizers import AdamW
from reference_models.regularization import Dropout
from tensorscope import ShapeError

CHAIN = [
    ("Conv2d", (2, 24, 32, 32)),
    ("MaxPool2d", (2, 24, 15, 15)),
    ("Conv2d", (2, 64, 15, 15)),
    ("MaxPool2d", (2, 64, 7, 7)),
    ("Conv2d", (2, 96, 7, 7)),
    ("Conv2d", (2, 96, 7, 7)),
    ("Conv2d", (2, 64, 7, 7)),
    ("MaxPool2d", (2, 64, 3, 3)),
    ("Flatten", (2, 576)),
    ("Linear", (2, 256)),
    ("Linear", (2, 256)),
    ("Linear", (2, 10)),
]


def test_shapes_go_as_its_description_says():
    model, seen = AlexNet(), []
    for module in (*model.features, *model.classifier):
        module.register_forward_hook(lambda m, _, y: seen.append((type(m).__name__, tuple(y.shape))))
    model(torch.zeros(2, 1, 32, 32))
    assert [layer for layer in seen if layer[0] not in {"ReLU", "Dropout"}] == CHAIN


def test_it_has_five_convolutions_three_linear_layers_and_two_dropouts():
    model = AlexNet()
    counts = {kind: sum(isinstance(m, kind) for m in model.modules()) for kind in (Conv2d, Linear, Dropout)}
    assert counts == {Conv2d: 5, Linear: 3, Dropout: 2}
    assert all(m.p == 0.5 for m in model.modules() if isinstance(m, Dropout))


def test_it_has_448_954_parameters():
    assert sum(p.numel() for p in AlexNet().parameters()) == 448_954


@pytest.mark.parametrize(
    ("image", "channels", "classes", "batch"),
    [(15, 1, 2, 1), (40, 3, 7, 2), (32, 1, 10, 0)],
    ids=["small", "colours", "empty"],
)
def test_other_sizes_fit_together(image, channels, classes, batch):
    images = torch.zeros(batch, channels, image, image)
    assert AlexNet(image, channels, classes)(images).shape == (batch, classes)


def test_it_equals_torchs_with_the_same_weights():
    nn, model = torch.nn, AlexNet().double().eval()
    torchs = nn.Sequential(
        *(nn.Conv2d(1, 24, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(24, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 96, 3, padding=1), nn.ReLU(), nn.Conv2d(96, 96, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(96, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Dropout()),
        *(nn.Linear(576, 256), nn.ReLU(), nn.Dropout(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)),
    )
    torchs.double().eval().load_state_dict(dict(zip(torchs.state_dict(), model.state_dict().values(), strict=True)))
    images, labels = torch.rand(2, 1, 32, 32, dtype=torch.float64), torch.tensor([3, 7])
    for net in (model, torchs):
        cross_entropy(net(images), labels).backward()
    assert_close(model(images).detach(), torchs(images).detach())
    for mine, theirs in zip(model.parameters(), torchs.parameters(), strict=True):
        assert_close(mine.grad, theirs.grad)


def test_one_step_moves_every_parameter_and_lowers_the_loss():
    model, images, labels = AlexNet(dropout=0.0), torch.rand(8, 1, 32, 32), torch.arange(8)
    before, optimizer = [p.detach().clone() for p in model.parameters()], AdamW(model.parameters(), 1e-3)
    loss = cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())
    assert not any(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert cross_entropy(model(images), labels) < loss


def test_dropout_acts_in_training_alone():
    model, images = AlexNet(), torch.rand(2, 1, 32, 32)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_images_that_do_not_fit_are_explained():
    with pytest.raises(ValueError, match="a kernel that spans 3 does not fit on 2 pixels"):
        AlexNet(14)
    with pytest.raises(ShapeError, match=r"`AlexNet.forward`: `images` has 3 axes and takes 4"):
        AlexNet()(torch.zeros(2, 32, 32))
