"""Learning optimization: residual networks, whose blocks add to what they are given instead of replacing it.

Glossary
    x          what a block is given
    F(x)       what it adds: two layers with a rectifier between them
    shortcut   how x gets past them: as it is, or by one linear layer where the sizes differ

Source: "Learning optimization strategies" and chapters 2 and 24 of the book; He et al., Deep Residual Learning for
Image Recognition (2016).

Differs from the book: every pair of neighbouring sizes has a block, so that the output layer fits the last of them
(erratum E-37); blocks of convolutions normalise over the batch, as in the paper.
Does not handle: bottleneck blocks, images so small that halving leaves nothing.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from reference_models.activations import ReLU
from reference_models.convolution import Conv2d
from reference_models.mlp import Linear
from reference_models.normalization import BatchNorm2d
from reference_models.pooling import GlobalAvgPool2d
from tensorscope import shapes


class ResidualBlock(nn.Module):
    """Two linear layers and a way past them.

    Args:
        inputs: numbers in.
        hidden: numbers between the layers.
        outputs: numbers out; the shortcut is linear where they are not as many as inputs.
        residual: whether there is a way past; without one, this is the block that ResNets are compared with.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, *, residual: bool = True) -> None:
        super().__init__()
        self.linear1 = Linear(inputs, hidden)
        self.relu1 = ReLU()
        self.linear2 = Linear(hidden, outputs)
        self.residual = residual
        self.shortcut = Linear(inputs, outputs) if residual and inputs != outputs else None
        self.relu2 = ReLU()

    @shapes("*batch inputs -> *batch outputs")
    def forward(self, x: Tensor) -> Tensor:
        """Add to the input, or to its shortcut.

        Args:
            x: (..., inputs) float tensor.
        """
        added = self.linear2(self.relu1(self.linear1(x)))
        if self.residual:
            # y = max(F(x) + x, 0) of each number
            added = added + (self.shortcut(x) if self.shortcut else x)
        y: Tensor = self.relu2(added)
        return y


class ResNetMLP(nn.Module):
    """Residual blocks of linear layers, then weighted sums.

    Args:
        sizes: numbers in, then those after each block, which is as wide inside.
        outputs: numbers out.
        residual: whether blocks have a way past them.

    Raises:
        ValueError: there is no block.
    """

    def __init__(self, *sizes: int, outputs: int = 1, residual: bool = True) -> None:
        super().__init__()
        if len(sizes) < 2:
            raise ValueError(f"expected sizes before and after at least one block, got {sizes}")
        self.blocks = nn.ModuleList(ResidualBlock(i, o, o, residual=residual) for i, o in pairwise(sizes))
        self.fc = Linear(sizes[-1], outputs)

    @shapes("*batch inputs -> *batch outputs")
    def forward(self, x: Tensor) -> Tensor:
        """Predict.

        Args:
            x: (..., inputs) float tensor.
        """
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.fc(x)
        return y


class BasicBlock(nn.Module):
    """Two convolutions of 3×3, each normalised over the batch, and a way past them.

    Args:
        channels: channels in.
        filters: channels out.
        stride: of the first convolution; 2 halves height and width.
    """

    def __init__(self, channels: int, filters: int, stride: int = 1) -> None:
        super().__init__()
        # What normalization subtracts, a bias would add in vain.
        self.conv1 = Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False)
        self.bn1 = BatchNorm2d(filters)
        self.relu1 = ReLU()
        self.conv2 = Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(filters)
        self.downsample: nn.ModuleList | None = None
        if stride != 1 or channels != filters:
            # A 1×1 convolution takes each pixel that is left to its new channels.
            narrow = Conv2d(channels, filters, 1, stride=stride, bias=False)
            self.downsample = nn.ModuleList([narrow, BatchNorm2d(filters)])
        self.relu2 = ReLU()

    @shapes("batch channels height width -> batch out_channels out_height out_width")
    def forward(self, images: Tensor) -> Tensor:
        """Add to the images, or to their shortcut.

        Args:
            images: (batch, channels, height, width) float tensor.
        """
        added = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(images)))))
        for layer in self.downsample or ():
            images = layer(images)
        # y = max(F(x) + x, 0) of each number
        y: Tensor = self.relu2(added + images)
        return y


class ResNetMini(nn.Module):
    """A residual network for small images: a convolution, three blocks, the mean of each channel, weighted sums.

    With the defaults, shapes go (batch, 1, 8, 8) → conv1 (16, 8, 8) → block1 (16, 8, 8) → block2 (32, 4, 4)
    → block3 (32, 4, 4) → pool (32) → fc (10), and there are 38 266 parameters.

    Args:
        channels: channels of the images.
        classes: logits out.
        filters: kernels of each block; those of the second are slid in steps of 2.
    """

    def __init__(self, channels: int = 1, classes: int = 10, *, filters: tuple[int, int, int] = (16, 32, 32)) -> None:
        super().__init__()
        first, second, third = filters
        self.conv1 = Conv2d(channels, first, 3, padding=1, bias=False)
        self.bn1 = BatchNorm2d(first)
        self.relu1 = ReLU()
        self.block1 = BasicBlock(first, first)
        self.block2 = BasicBlock(first, second, stride=2)
        self.block3 = BasicBlock(second, third)
        self.pool = GlobalAvgPool2d()
        self.fc = Linear(third, classes)

    @shapes("batch channels height width -> batch classes")
    def forward(self, images: Tensor) -> Tensor:
        """Score the classes.

        Args:
            images: (batch, channels, height, width) float tensor.

        Returns:
            (batch, classes) logits.
        """
        x = self.relu1(self.bn1(self.conv1(images)))
        x = self.block3(self.block2(self.block1(x)))
        logits: Tensor = self.fc(self.pool(x))
        return logits
