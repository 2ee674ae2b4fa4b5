"""Residual blocks of StyleGAN2's discriminator and of GFPGAN's U-Net, and the layers around them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.archs.layers.equalized import SLOPE, SQRT2, ActivatedConv, BiasedLeakyReLU, EqualizedConv2d
from facerestore.archs.layers.fir import BilinearUpsample, Fir
from facerestore.archs.layers.flavour import Flavour


def conv_layer(in_channels: int, out_channels: int, kernel_size: int, activate: bool = True) -> nn.Sequential:
    """Equalized convolution with bias and, after it, the activation.  (N, in, H, W) to (N, out, H, W)."""
    if not activate:
        return nn.Sequential(EqualizedConv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2))
    conv = EqualizedConv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=None)
    return ActivatedConv(conv, BiasedLeakyReLU(out_channels))


def halving_layer(in_channels: int, out_channels: int, kernel_size: int, flavour: Flavour) -> nn.Sequential:
    """Filter and equalized convolution to half the side: 3 x 3 with activation, or 1 x 1 without.

    (N, in, H, W) to (N, out, H / 2, W / 2).
    """
    margin, stride = kernel_size // 2, 1
    if flavour.taps is None:
        shrink: nn.Module = nn.AvgPool2d(2)  # which is what bilinear interpolation at half the size is
    elif kernel_size == 1:
        shrink = Fir(flavour.taps, padding=len(flavour.taps) // 2 - 1, stride=2)
    else:
        shrink = Fir(flavour.taps, padding=len(flavour.taps) // 2)
        margin, stride = 0, 2
    conv = EqualizedConv2d(in_channels, out_channels, kernel_size, stride, margin, bias=None)
    if kernel_size > 1:
        return ActivatedConv(shrink, conv, BiasedLeakyReLU(out_channels))
    return nn.Sequential(shrink, conv)


class DownBlock(nn.Module):
    """Two convolutions beside a 1 x 1, to half the side; the sum is scaled to keep the variance (StyleGAN2, figure 7c).

    forward: (N, in, H, W) to (N, out, H / 2, W / 2).
    """

    def __init__(self, in_channels: int, out_channels: int, flavour: Flavour):
        super().__init__()
        self.conv1 = conv_layer(in_channels, in_channels, 3)
        self.conv2 = halving_layer(in_channels, out_channels, 3, flavour)
        self.skip = halving_layer(in_channels, out_channels, 1, flavour)

    def forward(self, x: Tensor) -> Tensor:
        shrink, conv = self.skip
        return self.conv2(self.conv1(x), 1 / SQRT2) + conv(shrink(x), 1 / SQRT2)


class UpBlock(nn.Module):
    """As :class:`DownBlock`, to double the side.  (N, in, H, W) to (N, out, 2H, 2W)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = conv_layer(in_channels, in_channels, 3)
        self.conv2 = DoublingConv(in_channels, out_channels)
        self.skip = EqualizedConv2d(in_channels, out_channels, 1, bias=None)
        self.upsample = BilinearUpsample()

    def forward(self, x: Tensor) -> Tensor:
        # A 1 x 1 convolution may come before the interpolation as well as after it: here it costs a quarter.
        return self.conv2(self.conv1(x), 1 / SQRT2) + self.upsample(self.skip(x, 1 / SQRT2))


class DoublingConv(EqualizedConv2d):
    """Bilinear enlargement, equalized 3 x 3 convolution, activation.  (N, in, H, W) to (N, out, 2H, 2W)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1, bias=None)
        self.upsample = BilinearUpsample()
        self.activation = BiasedLeakyReLU(out_channels)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """`gain` (above 0) times the layer."""
        return F.leaky_relu(super().forward(self.upsample(x), gain * SQRT2, self.activation.bias), SLOPE)


class CleanConv2d(nn.Conv2d):
    """A plain convolution, followed by a leaky ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(super().forward(x), SLOPE)


class CleanBlock(nn.Module):
    """:class:`UpBlock` or :class:`DownBlock` of plain convolutions, without their scale."""

    def __init__(self, in_channels: int, out_channels: int, up: bool):
        super().__init__()
        self.up = up
        self.conv1 = CleanConv2d(in_channels, in_channels, 3, padding=1)
        self.conv2 = CleanConv2d(in_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.resize = BilinearUpsample() if up else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.resize(self.skip(x)) if self.up else self.skip(self.resize(x))
        return self.conv2(self.resize(self.conv1(x))) + skip


class StddevChannel(nn.Module):
    """Appends a channel: how much the pictures of a group differ, on average over all features and pixels.

    Karras et al., Progressive Growing of GANs, ICLR 2018, section 3.  The group is the largest number up to `group`
    that divides the batch; samples i, i + N / group, ... are one.

    forward: (N, C, H, W) to (N, C + 1, H, W).
    """

    def __init__(self, group: int):
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        group = max(size for size in range(1, self.group + 1) if batch % size == 0)
        precise = x.to(torch.promote_types(x.dtype, torch.float32))
        variance = precise.unflatten(0, (group, batch // group)).var(dim=0, unbiased=False)
        spread = torch.sqrt(variance + 1e-8).mean(dim=(1, 2, 3)).to(x.dtype)
        return torch.cat((x, spread.repeat(group).view(batch, 1, 1, 1).expand(-1, -1, height, width)), dim=1)
