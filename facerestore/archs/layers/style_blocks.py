"""What a StyleGAN2 generator is made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.archs.layers.equalized import SLOPE, SQRT2, BiasedLeakyReLU, fast_layout
from facerestore.archs.layers.flavour import Flavour
from facerestore.archs.layers.modulated_conv import ModulatedConv2d


class ConstantInput(nn.Module):
    """The learned 4 x 4 features with which every picture begins."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, channels, 4, 4))

    def forward(self, batch: int) -> Tensor:
        return fast_layout(self.weight.expand(batch, -1, -1, -1))


class StyleConv(nn.Module):
    """Modulated 3 x 3 convolution, noise, bias, leaky ReLU (StyleGAN2, figure 2d); its gain of sqrt(2) comes last.

    The clean form has it before the noise and the bias, which are greater by as much.

    forward: features (N, in, H, W), style (N, num_style_feat), noise (N or 1, 1, H', W') to (N, out, H', W').
    """

    def __init__(self, in_channels: int, out_channels: int, num_style_feat: int, flavour: Flavour, upsample: bool):
        super().__init__()
        self.modulated_conv = ModulatedConv2d(in_channels, out_channels, 3, num_style_feat, flavour, upsample=upsample)
        self.weight = nn.Parameter(torch.zeros(1))  # of the noise
        self.equalized = flavour.equalized
        if self.equalized:
            self.activate = BiasedLeakyReLU(out_channels)
        else:
            self.bias = nn.Parameter(torch.zeros(1, out_channels, 1, 1))

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        gain, bias = (SQRT2, SQRT2 * self.activate.bias.view(1, -1, 1, 1)) if self.equalized else (1.0, self.bias)
        x = self.modulated_conv(x, style, SQRT2, gain * self.weight * noise)
        return F.leaky_relu(x + bias.to(x.dtype), SLOPE)


class ToRGB(nn.Module):
    """Modulated 1 x 1 convolution without demodulation, added to the doubled picture of the level before.

    forward: features (N, in, H, W), style (N, num_style_feat), picture (N, 3, H / 2, W / 2) to (N, 3, H, W).
    """

    def __init__(self, in_channels: int, num_style_feat: int, flavour: Flavour, first: bool = False):
        super().__init__()
        self.modulated_conv = ModulatedConv2d(in_channels, 3, 1, num_style_feat, flavour, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.upsample = None if first else flavour.upsample()

    def forward(self, x: Tensor, style: Tensor, picture: Tensor | None = None) -> Tensor:
        out = self.modulated_conv(x, style) + self.bias
        return out if self.upsample is None else out + self.upsample(picture)
