"""Layers with an equalized learning rate, and the activation that follows them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SQRT2 = math.sqrt(2)
SLOPE = 0.2  # of every leaky ReLU


def fast_layout(x: Tensor) -> Tensor:
    """Features in the memory format that suits convolutions of few channels: channels-last on CPUs; elsewhere as they are."""
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def scaled_product(x: Tensor, weight: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The factors of a linear layer, of which the smaller is scaled: a pass over it costs less, forward and backward."""
    return (scale * x, weight) if x.numel() < weight.numel() else (x, scale * weight)


class EqualizedLinear(nn.Module):
    """A dense layer whose unit normal weights are scaled by lr_mul / sqrt(in_channels) whenever they are used.

    Karras et al., Progressive Growing of GANs, ICLR 2018, section 4.1; lr_mul (weights and bias times it, initial
    weights divided by it) as StyleGAN's mapping network has it.

    forward: (N, in_channels) to (N, out_channels).
    """

    def __init__(self, in_channels: int, out_channels: int, bias: float = 0.0, lr_mul: float = 1.0, activate: bool = False):
        super().__init__()
        self.lr_mul, self.activate = lr_mul, activate
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels) / lr_mul)
        self.bias = nn.Parameter(torch.full((out_channels,), bias))
        self.scale = lr_mul / math.sqrt(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        out = F.linear(*scaled_product(x, self.weight, self.scale), self.bias * self.lr_mul)
        return scaled_leaky_relu(out) if self.activate else out


class EqualizedConv2d(nn.Module):
    """A convolution whose unit normal weights are scaled by 1 / sqrt(fan_in) whenever they are used.

    forward: (N, in_channels, H, W) to (N, out_channels, H', W').  `bias`: its initial value, None for no bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        bias: float | None = 0.0,
    ):
        super().__init__()
        self.stride, self.padding = stride, padding
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = None if bias is None else nn.Parameter(torch.full((out_channels,), bias))
        self.scale = 1 / math.sqrt(in_channels * kernel_size**2)

    def forward(self, x: Tensor, gain: float = 1.0, bias: Tensor | None = None) -> Tensor:
        """`gain` times the convolution; `bias` (out_channels,) stands in for its own."""
        bias = self.bias if bias is None else bias
        x, weight = scaled_product(x, self.weight, gain * self.scale)
        return F.conv2d(x, weight, None if bias is None else gain * bias, self.stride, self.padding)


class ActivatedConv(nn.Sequential):
    """Layers that end with an equalized convolution and its :class:`BiasedLeakyReLU`, computed as one expression.

    The bias goes through the convolution: a pass over the features less, and one less that a backward pass keeps in memory.
    forward: (N, in, H, W) to (N, out, H', W').
    """

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """`gain` (above 0) times what the layers give."""
        *before, conv, activation = self
        for layer in before:
            x = layer(x)
        return F.leaky_relu(conv(x, bias=activation.bias), SLOPE).mul_(gain * SQRT2)


class BiasedLeakyReLU(nn.Module):
    """sqrt(2) leaky_relu(x + bias): the gain keeps the variance.  (N, channels, H, W) to the same."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return scaled_leaky_relu(x + self.bias.to(x.dtype).view(-1, 1, 1))


class ScaledLeakyReLU(nn.Module):
    """sqrt(2) leaky_relu(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return scaled_leaky_relu(x)


def scaled_leaky_relu(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE).mul_(SQRT2)
