"""LPIPS, a learnt perceptual distance.  Not registered: a loss and a metric look through it.

Zhang, Isola, Efros, Shechtman and Wang, The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018.
Source of the figures: the authors' package lpips, version 0.1 of its linear layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.squeezenet import Fire

from facerestore.archs.vgg_features import layer_names, layers
from facerestore.registry import PublishedFile

Backbone = Literal["alex", "vgg", "squeeze"]

URL = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/"
# Per channel, of pictures in [-1, 1]: ImageNet's mean and deviation, rounded as the authors did
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Tapped(NamedTuple):
    """A classifier's convolutions, and where LPIPS looks at them."""

    name: str  # torchvision's
    layers: Callable[[], list[nn.Module]]
    taps: tuple[int, ...]  # indices of the layers whose outputs are compared
    channels: tuple[int, ...]  # of those outputs
    sha256: str  # of the authors' linear layers for it


def alexnet() -> list[nn.Module]:
    """Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014, up to the last ReLU."""
    return [
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    ]  # fmt: skip


def vgg16() -> list[nn.Module]:
    """Simonyan and Zisserman, ICLR 2015, table 1, D, up to the last ReLU."""
    return layers(layer_names("vgg16")[:-1])


def squeezenet() -> list[nn.Module]:
    """Iandola et al., SqueezeNet, 2016, version 1.1."""
    return [
        nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(64, 16, 64, 64), Fire(128, 16, 64, 64), nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(128, 32, 128, 128), Fire(256, 32, 128, 128), nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(256, 48, 192, 192), Fire(384, 48, 192, 192), Fire(384, 64, 256, 256), Fire(512, 64, 256, 256),
    ]  # fmt: skip


BACKBONES: dict[str, Tapped] = {
    "alex": Tapped("alexnet", alexnet, (1, 4, 7, 9, 11), (64, 192, 384, 256, 256),
                   "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"),
    "vgg": Tapped("vgg16", vgg16, (3, 8, 15, 22, 29), (64, 128, 256, 512, 512),
                  "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"),
    "squeeze": Tapped("squeezenet1_1", squeezenet, (1, 4, 7, 9, 10, 11, 12), (64, 128, 256, 384, 384, 512, 512),
                      "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76"),
}  # fmt: skip


class LPIPS(nn.Module):
    """The distance of two pictures by the features that a classifier sees in them (eq. 1).

    forward: RGB pictures (N, 3, H, W) in [-1, 1], twice, to (N,), in float32.  Frozen and in evaluation mode.

    `backbone` takes torchvision's files, `linear` the authors' (`lin0.model.1.weight`, ...).  Until it is filled, all
    channels of a layer weigh alike.
    """

    def __init__(self, net: Backbone = "alex"):
        super().__init__()
        self.net = net
        self.backbone = Features(BACKBONES[net])
        self.linear = LinearLayers(BACKBONES[net], net)
        for name, values in (("shift", SHIFT), ("scale", SCALE)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> LPIPS:
        return super().train(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        pictures = torch.cat(((x - self.shift) / self.scale, (y - self.shift) / self.scale))
        total = 0
        for features, weight in zip(self.backbone(pictures), self.linear.weights(), strict=True):
            of_x, of_y = unit_length(features.float()).chunk(2)
            total = total + ((of_x - of_y).square() * weight).sum(1).mean((1, 2))
        return total


class Features(nn.Module):
    """A classifier's convolutions under torchvision's keys (`features.N.weight`), and the outputs that are looked at."""

    def __init__(self, tapped: Tapped):
        super().__init__()
        self.torchvision_name, self.taps = tapped.name, tapped.taps
        self.features = nn.Sequential(*tapped.layers())

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                found.append(x)
        return found


class LinearLayers(nn.Module):
    """How much each channel of each layer counts, under the authors' keys."""

    def __init__(self, tapped: Tapped, net: Backbone):
        super().__init__()
        self.published = PublishedFile(f"{URL}{net}.pth", f"lpips_v0.1_{net}.pth", tapped.sha256)
        self.count = len(tapped.channels)
        for k, channels in enumerate(tapped.channels):
            convolution = nn.Conv2d(channels, 1, 1, bias=False)
            nn.init.ones_(convolution.weight)
            self.add_module(f"lin{k}", nn.ModuleDict({"model": nn.ModuleDict({"1": convolution})}))

    def weights(self) -> list[Tensor]:
        """(1, C, 1, 1) of each layer."""
        return [self.get_submodule(f"lin{k}.model.1").weight for k in range(self.count)]


def unit_length(features: Tensor) -> Tensor:
    """Features (N, C, h, w) divided by their length at each position; 0, with a gradient of 0, where all are 0."""
    length = (features.square().sum(1, keepdim=True) + 1e-20).sqrt()
    return features / (length + 1e-10)
