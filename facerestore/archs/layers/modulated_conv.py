"""Convolution whose weights are scaled by a style, without a weight for each sample."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.archs.layers.fir import BilinearUpsample, Fir
from facerestore.archs.layers.flavour import Flavour

EPSILON = 1e-8


class ModulatedConv2d(nn.Module):
    """Modulates by the style, convolves (after or before doubling the side), demodulates.

    Karras et al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020, section 2.2: w'_ijk = s_i w_ijk
    (equation 1), w''_ijk = w'_ijk / sqrt(sum_ik w'_ijk^2 + eps) (equation 3).  Both factors leave the convolution, as
    it is linear: y_j = d_j (w * (s x))_j with d_j = (sum_i s_i^2 sum_k w_ijk^2 + eps)^(-1/2).  So the batch shares one
    dense convolution, where weights of its own for each sample need one with as many groups as samples.

    forward: features (N, in_channels, H, W), style (N, num_style_feat) to (N, out_channels, H or 2H, W or 2W).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        num_style_feat: int,
        flavour: Flavour,
        demodulate: bool = True,
        upsample: bool = False,
    ):
        super().__init__()
        self.demodulate = demodulate
        self.modulation = flavour.linear(num_style_feat, in_channels, bias=1.0)
        weight = torch.randn(1, out_channels, in_channels, kernel_size, kernel_size)
        gain = 1 / math.sqrt(in_channels * kernel_size**2)
        self.scale = gain if flavour.equalized else 1.0
        self.weight = nn.Parameter(weight if flavour.equalized else gain * weight)
        self.convolve: nn.Module
        if not upsample:
            self.convolve = SameSize()
        elif flavour.taps is None:
            self.convolve = BilinearThenConvolve()
        else:
            self.convolve = TransposeThenFilter(flavour.taps)

    def forward(self, x: Tensor, style: Tensor, gain: float = 1.0, shift: Tensor | None = None) -> Tensor:
        """`gain` times the convolution, plus `shift`, which is broadcast to it."""
        style = self.modulation(style) * self.scale
        weight = self.weight[0]
        if len(x) == 1 and x.numel() > weight.numel():
            out = self.convolve(x, self.own_weight(weight, style, gain))
            return out if shift is None else out + shift.to(out.dtype)
        factors = gain * demodulation(weight, style) if self.demodulate else style.new_full((1, len(weight)), gain)
        out = self.convolve(x * over_pixels(style, x), weight)
        if shift is not None:
            return torch.addcmul(shift.to(out.dtype), out, over_pixels(factors, out))
        return out * over_pixels(factors, out) if self.demodulate or gain != 1 else out

    def own_weight(self, weight: Tensor, style: Tensor, gain: float) -> Tensor:
        """What a single picture is convolved with: scaling its weights costs less than scaling its features, if those are more.

        In the weight's precision also under autocast.
        """
        with torch.autocast(weight.device.type, enabled=False):
            style = style.to(weight.dtype)
            own = weight * style[:, :, None, None]
            return own * (gain * demodulation(weight, style).view(-1, 1, 1, 1)) if self.demodulate else gain * own

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ModulatedConv2d:
        """Moves and converts the weight (1, out, in, k, k) as the convolution's that it is, (out, in, k, k).

        Else `.to(memory_format=torch.channels_last)`, which is for four dimensions, fails on the published shape.
        """
        return super()._apply(lambda t: fn(t[0])[None] if t.dim() == 5 else fn(t), recurse)


class SameSize(nn.Module):
    """Convolution with padding."""

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)


class TransposeThenFilter(nn.Module):
    """Transposed convolution of stride 2, smoothed by the FIR filter."""

    def __init__(self, taps: tuple[float, ...]):
        super().__init__()
        self.smooth = Fir(taps, padding=len(taps) // 2 - 1, gain=4.0)

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.smooth(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))


class BilinearThenConvolve(nn.Module):
    """Bilinear enlargement, then convolution with padding."""

    def __init__(self) -> None:
        super().__init__()
        self.upsample = BilinearUpsample()

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(self.upsample(x), weight, padding=weight.shape[-1] // 2)


def demodulation(weight: Tensor, style: Tensor) -> Tensor:
    """d (N, out) of weight (out, in, k, k) and style (N, in), in the weight's precision also under autocast."""
    with torch.autocast(weight.device.type, enabled=False):
        energy = F.linear(style.to(weight.dtype).square(), weight.square().sum(dim=(2, 3)))
        return torch.rsqrt(energy + EPSILON)


def over_pixels(factors: Tensor, features: Tensor) -> Tensor:
    """(N, C) as (N, C, 1, 1), in the precision of the features that it multiplies."""
    return factors.to(features.dtype)[:, :, None, None]
