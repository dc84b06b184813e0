"""Views and reshapes: element counts, contiguity, hard-coded sizes."""

import torch
import torch.nn.functional as F
from torch import nn

from shape_programs.record import case


class Grid(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 20)

    def forward(self, x):
        h = self.fc(x)
        return h.reshape(15, 15)


@case(
    op="reshape",
    line="h.reshape(15, 15)",
    operands=((10, 20),),
    origin="fc",
    fix=("200", "(10, 20)", "8, 25", "-1"),
    fixed=("h.reshape(15, 15)", "h.reshape(8, 25)"),
    ids="S5",
)
def reshape_of_another_count():
    return Grid(), (torch.randn(10, 8),)


class ShortFlatten(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 64, 3)
        self.pool = nn.AdaptiveAvgPool2d(7)
        self.fc = nn.Linear(64 * 49, 10)

    def forward(self, x):
        h = self.pool(self.conv(x))
        h = h.view(h.size(0), 64 * 7)
        return self.fc(h)


@case(
    op="view",
    line="h.view(h.size(0), 64 * 7)",
    operands=((4, 64, 7, 7),),
    origin=("pool", "conv"),
    fix=("3136", "-1", "flatten"),
    verified=True,
    fixed=("64 * 7)", "64 * 7 * 7)"),
    ids="S5b",
)
def flatten_forgets_a_dimension():
    return ShortFlatten(), (torch.randn(4, 1, 20, 20),)


class FixedBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.fc = nn.Linear(4 * 64, 3)

    def forward(self, x):
        h = F.relu(self.conv(x))
        return self.fc(h.view(32, 4 * 64))


@case(
    op="view",
    line="h.view(32, 4 * 64)",
    operands=((20, 4, 8, 8),),
    origin=("conv", "x"),
    fix=("-1", "size(0)", "shape[0]", "20"),
    verified=True,
    fixed=("h.view(32,", "h.view(-1,"),
    ids="S5",
)
def batch_size_hard_coded():
    return FixedBatch(), (torch.randn(20, 1, 8, 8),)


class Patchify(nn.Module):
    def __init__(self, patch):
        super().__init__()
        self.patch = patch
        self.embed = nn.Linear(3 * patch * patch, 16)

    def forward(self, image):
        b, c, h, w = image.shape
        p = self.patch
        tiles = image.permute(0, 2, 3, 1).view(b, h // p, p, w // p, p, c)
        return self.embed(tiles.transpose(2, 3).reshape(b, -1, p * p * c))


class PatchModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.patchify = Patchify(4)

    def forward(self, image):
        return self.patchify(image)


@case(
    module="patchify",
    op="view",
    line="image.permute(0, 2, 3, 1).view(",
    operands=((2, 18, 18, 3),),
    origin=("permute", "image"),
    fix=("16", "20", "divisible", "divide", "multiple", "patch"),
    fixed=("torch.randn(2, 3, 18, 18)", "torch.randn(2, 3, 20, 20)", ".view(b, h", ".reshape(b, h"),
    ids="S5",
)
def patches_do_not_divide():
    return PatchModel(), (torch.randn(2, 3, 18, 18),)


class ShuffleUnit(nn.Module):
    def __init__(self, groups):
        super().__init__()
        self.groups = groups

    def forward(self, x):
        n, c, h, w = x.shape
        x = x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2)
        return x.view(n, c, h, w)


class ShuffleNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 1)
        self.shuffle = ShuffleUnit(3)

    def forward(self, x):
        return self.shuffle(self.conv(x))


@case(
    module="shuffle",
    op="view",
    line="return x.view(n, c, h, w)",
    operands=((2, 4, 3, 5, 5),),
    origin=("transpose", "conv"),
    fix=("reshape", "contiguous"),
    verified=True,
    fixed=("return x.view(n, c, h, w)", "return x.reshape(n, c, h, w)"),
    ids="F1",
)
def view_after_transpose():
    return ShuffleNet(), (torch.randn(2, 3, 5, 5),)


class Unflattened(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(10, 96)
        self.shape = nn.Unflatten(1, (8, 4, 4))
        self.up = nn.ConvTranspose2d(8, 1, 2, stride=2)

    def forward(self, z):
        return self.up(self.shape(self.fc(z)))


@case(
    module="shape",
    op="unflatten",
    line="self.shape(self.fc(z))",
    operands=((5, 96),),
    origin="fc",
    fix=("128", "96", "6"),
    verified=True,
    fixed=("nn.Linear(10, 96)", "nn.Linear(10, 128)"),
    ids="S5",
)
def unflatten_sizes():
    return Unflattened(), (torch.randn(5, 10),)


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU())
        self.stats = nn.Linear(64, 20)
        self.decoder = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 784), nn.Sigmoid())

    def forward(self, x):
        mu, logvar = self.stats(self.encoder(x)).chunk(2, dim=-1)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        return self.decoder(z).view_as(x), mu, logvar


@case(
    module="decoder.0",
    op="linear",
    line="self.decoder(z)",
    operands=((3, 10), (64, 20)),
    origin="stats",
    fix=("10", "40"),
    verified=True,
    fixed=("nn.Linear(20, 64)", "nn.Linear(10, 64)"),
    ids="S1e",
)
def vae_latent_halved():
    return VAE(), (torch.rand(3, 1, 28, 28),)
