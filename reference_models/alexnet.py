"""Chapter 2: AlexNet, which made deep networks win, at a size that a laptop trains.

Glossary
    conv       learned kernels, slid over the image
    pool       the largest number of each patch of 3×3; patches overlap by one row and column
    fc         fully connected: a layer of weighted sums

Source: chapter 2 of the book, which names the layers; Krizhevsky, Sutskever and Hinton, ImageNet Classification with
Deep Convolutional Neural Networks (2012), for their order and proportions.

Differs from the book: images of 32×32 instead of 224×224, so kernels of 5 and 3 instead of 11, 5 and 3, a quarter of
the channels and a sixteenth of the hidden numbers.
Does not handle: local response normalization, groups for two GPUs, the augmentation of the paper.
"""

from __future__ import annotations

from torch import Tensor, nn

from reference_models.activations import ReLU
from reference_models.convolution import Conv2d, output_size
from reference_models.mlp import Linear
from reference_models.pooling import Flatten, MaxPool2d
from reference_models.regularization import Dropout
from tensorscope import shapes


class AlexNet(nn.Module):
    """Five convolutions, three of them pooled, and three layers of weighted sums, with dropout before the first two.

    With the defaults, shapes go (batch, 1, 32, 32) → conv1 (24, 32, 32) → pool (24, 15, 15) → conv2 (64, 15, 15)
    → pool (64, 7, 7) → conv3 (96, 7, 7) → conv4 (96, 7, 7) → conv5 (64, 7, 7) → pool (64, 3, 3) → flatten (576)
    → fc1 (256) → fc2 (256) → fc3 (10), and there are 448 954 parameters.

    Args:
        image: height and width of the images, at least 15.
        channels: channels of the images.
        classes: logits out.
        dropout: share of the numbers before fc1 and fc2 that are left out in training.
    """

    def __init__(self, image: int = 32, channels: int = 1, classes: int = 10, *, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = nn.ModuleList(
            [
                *(Conv2d(channels, 24, 5, padding=2), ReLU(), MaxPool2d(3, 2)),
                *(Conv2d(24, 64, 5, padding=2), ReLU(), MaxPool2d(3, 2)),
                *(Conv2d(64, 96, 3, padding=1), ReLU()),
                *(Conv2d(96, 96, 3, padding=1), ReLU()),
                *(Conv2d(96, 64, 3, padding=1), ReLU(), MaxPool2d(3, 2)),
            ]
        )
        side = image
        for _ in range(3):
            side = output_size(side, 3, stride=2)
        self.classifier = nn.ModuleList(
            [
                *(Flatten(), Dropout(dropout), Linear(64 * side * side, 256), ReLU()),
                *(Dropout(dropout), Linear(256, 256), ReLU()),
                Linear(256, classes),
            ]
        )

    @shapes("batch channels height width -> batch classes")
    def forward(self, images: Tensor) -> Tensor:
        """Score the classes.

        Args:
            images: (batch, channels, height, width) float tensor.

        Returns:
            (batch, classes) logits.
        """
        x = images
        for layer in (*self.features, *self.classifier):
            x = layer(x)
        return x
