"""The network whose features FID and KID compare.  Not registered: metrics look through it.

Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016, as TensorFlow's model of 2015-12-05
has it, which differs from torchvision's: borders do not count in its average pooling, and its last block pools by maximum.
Weights: those that pytorch-fid converted, under torchvision's keys.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.inception import BasicConv2d, InceptionA, InceptionB, InceptionC, InceptionD, InceptionE

from facerestore.registry import PublishedFile

SIDE = 299  # pixels of the network's input
FEATURES = 2048

Path = tuple[str | tuple[str, ...], ...]  # layers one after the other; a tuple of them side by side
inner_average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
maximum = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)


class Branches(nn.Module):
    """A block of torchvision's with another pooling: its paths side by side, the pooled one last."""

    paths: ClassVar[tuple[Path, ...]]
    pool: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(inner_average)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([*(self.along(path, x) for path in self.paths), self.branch_pool(self.pool(x))], dim=1)

    def along(self, path: Path, x: Tensor) -> Tensor:
        for step in path:
            x = self.get_submodule(step)(x) if isinstance(step, str) else torch.cat([self.along((s,), x) for s in step], dim=1)
        return x


class BlockA(Branches, InceptionA):
    paths = (("branch1x1",), ("branch5x5_1", "branch5x5_2"), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"))


class BlockC(Branches, InceptionC):
    paths = (
        ("branch1x1",),
        ("branch7x7_1", "branch7x7_2", "branch7x7_3"),
        ("branch7x7dbl_1", "branch7x7dbl_2", "branch7x7dbl_3", "branch7x7dbl_4", "branch7x7dbl_5"),
    )


class BlockE(Branches, InceptionE):
    paths = (
        ("branch1x1",),
        ("branch3x3_1", ("branch3x3_2a", "branch3x3_2b")),
        ("branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")),
    )


class LastBlock(BlockE):
    pool = staticmethod(maximum)


class FIDInception(nn.Module):
    """forward: RGB pictures (N, 3, H, W) in [0, 1], of any size, to features (N, 2048).

    Pictures are brought to 299 x 299 bilinearly, without antialiasing, and to [-1, 1], as pytorch-fid does.  Frozen and in
    evaluation mode.
    """

    published = PublishedFile(
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "pt_inception-2015-12-05-6726825d.pth",
        "6726825d",
    )

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, kernel_size=3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, kernel_size=3, padding=1)
        self.maxpool1 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, kernel_size=3)
        self.maxpool2 = nn.MaxPool2d(3, stride=2)
        self.Mixed_5b = BlockA(192, pool_features=32)
        self.Mixed_5c = BlockA(256, pool_features=64)
        self.Mixed_5d = BlockA(288, pool_features=64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = BlockC(768, channels_7x7=128)
        self.Mixed_6c = BlockC(768, channels_7x7=160)
        self.Mixed_6d = BlockC(768, channels_7x7=160)
        self.Mixed_6e = BlockC(768, channels_7x7=192)
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = BlockE(1280)
        self.Mixed_7c = LastBlock(2048)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> FIDInception:
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        x = 2 * F.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False) - 1
        for layer in self.children():  # in the order in which they are made
            x = layer(x)
        return x.mean((2, 3))
