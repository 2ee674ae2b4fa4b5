"""Residual blocks with adaptive instance normalisation, and the high-pass filter between them, of StarGAN v2.

Choi et al., StarGAN v2, CVPR 2020, appendix on network architecture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.archs.layers.instance_norm import InstanceNorm, scaled_instance_norm
from facerestore.errors import CheckpointError

HALVED_AT_ONCE, DOUBLED_AT_ONCE = 64 * 64, 16 * 16  # pixels from which on convolutions cost more than spreading their weights


class ResidualBlock(nn.Module):
    """(shortcut + residual) / sqrt(2), activations before the convolutions.

    forward: (N, dim_in, H, W) to (N, dim_out, H, W), or (N, dim_out, H / 2, W / 2) with `halve`.
    """

    def __init__(self, dim_in: int, dim_out: int, normalize: bool = False, halve: bool = False):
        super().__init__()
        self.halve = halve
        self.conv1 = nn.Conv2d(dim_in, dim_in, 3, padding=1)
        self.conv2 = nn.Conv2d(dim_in, dim_out, 3, padding=1)
        self.norm1 = InstanceNorm(dim_in) if normalize else nn.Identity()
        self.norm2 = InstanceNorm(dim_in) if normalize else nn.Identity()
        self.conv1x1 = projection(dim_in, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        residual = F.leaky_relu(self.norm1(x), 0.2)
        residual = halved(self.conv1, residual) if self.halve else self.conv1(residual)
        x = F.avg_pool2d(x, 2) if self.halve else x
        residual = self.conv2(F.leaky_relu(self.norm2(residual), 0.2))
        return (self.conv1x1(x) + residual) / math.sqrt(2)


class AdaINBlock(nn.Module):
    """The same with a style; without `shortcut` the residual alone.

    forward: (N, dim_in, H, W) and styles (N, style_dim) to (N, dim_out, H, W), or (N, dim_out, 2H, 2W) with `double`.
    """

    def __init__(self, dim_in: int, dim_out: int, style_dim: int, shortcut: bool, double: bool = False):
        super().__init__()
        self.shortcut, self.double = shortcut, double
        self.conv1 = nn.Conv2d(dim_in, dim_out, 3, padding=1)
        self.conv2 = nn.Conv2d(dim_out, dim_out, 3, padding=1)
        self.norm1 = AdaIN(style_dim, dim_in)
        self.norm2 = AdaIN(style_dim, dim_out)
        self.conv1x1 = projection(dim_in, dim_out)

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        residual = F.leaky_relu(self.norm1(x, s), 0.2)
        residual = doubled(self.conv1, residual) if self.double else self.conv1(residual)
        residual = self.conv2(F.leaky_relu(self.norm2(residual, s), 0.2))
        if not self.shortcut:
            return residual
        x = self.conv1x1(x)
        return ((F.interpolate(x, scale_factor=2, mode="nearest") if self.double else x) + residual) / math.sqrt(2)

    def freeze_unused(self) -> None:
        """Without a shortcut its weights, which published files hold, are zero and take part in nothing."""
        if not self.shortcut:
            for weight in self.conv1x1.parameters():
                nn.init.zeros_(weight).requires_grad_(False)


class AdaIN(nn.Module):
    """(1 + gamma) instance_norm(x) + beta, with gamma and beta linear in the style.

    Huang and Belongie, Arbitrary Style Transfer in Real-Time with Adaptive Instance Normalization, ICCV 2017, equation 8.

    forward: (N, num_features, H, W) and styles (N, style_dim) to (N, num_features, H, W).
    """

    def __init__(self, style_dim: int, num_features: int):
        super().__init__()
        self.fc = nn.Linear(style_dim, 2 * num_features)

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        gamma, beta = self.fc(s).chunk(2, dim=1)
        return scaled_instance_norm(x, 1 + gamma, beta)


class ToOnePixel(nn.Conv2d):
    """A convolution with weights for every pixel of its picture, so a product of matrices.

    forward: (N, dim, side, side) to (N, dim, 1, 1).
    """

    def __init__(self, dim: int, side: int):
        super().__init__(dim, dim, side)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        if weight.is_contiguous(memory_format=torch.channels_last):  # as they lie in memory, so that nothing is copied
            x, weight = x.permute(0, 2, 3, 1), weight.permute(0, 2, 3, 1)
        return F.linear(x.flatten(1), weight.flatten(1), self.bias)[:, :, None, None]


class HighPass(nn.Module):
    """Every channel's pixels times 8 less their eight neighbours, over `w_hpf`; beyond the border there are zeros.

    forward: (N, C, H, W) to (N, C, H, W).  The filter is in the state dict, as in the published files.
    """

    def __init__(self, w_hpf: float):
        super().__init__()
        laplacian = torch.full((3, 3), -1.0)
        laplacian[1, 1] = 8
        self.register_buffer("filter", laplacian / w_hpf)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.conv2d(x, self.filter.to(x.dtype).expand(channels, 1, 3, 3), padding=1, groups=channels)

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *rest: Any) -> None:
        """What the options say is what runs: a filter of another strength is refused."""
        asked, stored = (self.strength_of(values) for values in (self.filter, state_dict.get(prefix + "filter", self.filter)))
        if asked != stored:
            raise CheckpointError(f"the weights are of a generator with `w_hpf: {stored:g}`, and {asked:g} is asked: set it so")
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @staticmethod
    def strength_of(stored: Tensor) -> float:
        """The `w_hpf` of a filter; 1, the published one, where it has no values (meta device)."""
        return 1.0 if stored.is_meta else round(8 / float(stored[1, 1]), 6)


def halved(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """avg_pool2d(conv(x), 2) of a 3 x 3 convolution, as one of 4 x 4 weights and stride 2: 4 products where there were 9."""
    if x.shape[2] * x.shape[3] < HALVED_AT_ONCE:
        return F.avg_pool2d(conv(x), 2)
    return F.conv2d(x, spread(conv.weight) / 4, conv.bias, stride=2, padding=1)


def doubled(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """conv(x enlarged to its nearest pixels) of a 3 x 3 convolution, as one transposed: 4 products where there were 9."""
    if x.shape[2] * x.shape[3] < DOUBLED_AT_ONCE:
        return conv(F.interpolate(x, scale_factor=2, mode="nearest"))
    return F.conv_transpose2d(x, spread(conv.weight.flip(2, 3)).transpose(0, 1), conv.bias, stride=2, padding=1)


def spread(weight: Tensor) -> Tensor:
    """Weights (out, in, 3, 3), each added to its right, lower and diagonal neighbour: (out, in, 4, 4)."""
    padded = F.pad(weight, (1, 1, 1, 1))
    rows = padded[:, :, 1:] + padded[:, :, :-1]
    return rows[..., 1:] + rows[..., :-1]


def projection(dim_in: int, dim_out: int) -> nn.Module:
    """A 1 x 1 convolution where the number of channels changes."""
    return nn.Conv2d(dim_in, dim_out, 1, bias=False) if dim_in != dim_out else nn.Identity()
