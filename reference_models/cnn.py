"""Chapter 13: a network that reads digits.

Glossary
    conv       learned kernels, slid over the image
    pool       the largest number of each patch of 2×2
    fc         fully connected: a layer of weighted sums

Source: chapter 13 of the book, with the sizes of chapter 27 where they are smaller.

Differs from the book: the image is padded once, not twice (erratum E-17); weights start from He's range, not from zero
(E-40); dropout follows the mode that the model is in, where the book's flag says the opposite of its comment (E-41);
the network returns logits, as its loss takes them (E-57).
Does not handle: images that are not square, more than two convolutions.
"""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn

from reference_models.activations import ReLU
from reference_models.convolution import Conv2d, output_size
from reference_models.mlp import Linear
from reference_models.pooling import Flatten, MaxPool2d
from reference_models.regularization import Dropout
from tensorscope import shapes


class SimpleCNN(nn.Module):
    """Chapter 13's network: two convolutions, each rectified and pooled, then two layers of weighted sums.

    With the defaults, shapes go (batch, 1, 28, 28) → conv1 (32, 26, 26) → pool1 (32, 13, 13) → conv2 (64, 11, 11)
    → pool2 (64, 5, 5) → flatten (1600) → fc1 (128) → fc2 (10), and there are 225 034 parameters.

    Args:
        image: height and width of the images.
        channels: channels of the images.
        classes: logits out.
        widths: kernels of the first and of the second convolution, numbers of the layer before the logits.
        padding: zeros around the images of both convolutions.
        dropout: share of the numbers before the logits that are left out in training.
    """

    def __init__(
        self,
        image: int = 28,
        channels: int = 1,
        classes: int = 10,
        *,
        widths: tuple[int, int, int] = (32, 64, 128),
        padding: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        first, second, hidden = widths
        self.conv1 = Conv2d(channels, first, 3, padding=padding)
        self.relu1 = ReLU()
        self.pool1 = MaxPool2d(2)
        self.conv2 = Conv2d(first, second, 3, padding=padding)
        self.relu2 = ReLU()
        self.pool2 = MaxPool2d(2)
        self.flatten = Flatten()
        side = image
        for _ in range(2):
            side = output_size(output_size(side, 3, padding=padding), 2, stride=2)
        self.fc1 = Linear(second * side * side, hidden)
        self.relu3 = ReLU()
        self.dropout = Dropout(dropout) if dropout else None
        self.fc2 = Linear(hidden, classes)

    @classmethod
    def tiny(cls) -> Self:
        """The same network for 8×8 images, small enough for tests."""
        return cls(8, widths=(16, 32, 64), padding=1)

    @shapes("batch channels height width -> batch classes")
    def forward(self, images: Tensor) -> Tensor:
        """Score the classes.

        Args:
            images: (batch, channels, height, width) float tensor.

        Returns:
            (batch, classes) logits.
        """
        x = self.pool1(self.relu1(self.conv1(images)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = self.relu3(self.fc1(self.flatten(x)))
        if self.dropout:
            x = self.dropout(x)
        logits: Tensor = self.fc2(x)
        return logits
