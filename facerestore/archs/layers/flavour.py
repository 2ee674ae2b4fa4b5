"""The three forms in which StyleGAN2's layers are published: FIR, bilinear, clean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor, nn

from facerestore.archs.layers.equalized import SLOPE, EqualizedLinear
from facerestore.archs.layers.fir import BilinearUpsample, FirUpsample
from facerestore.errors import OptionError

OutSize = Literal[8, 16, 32, 64, 128, 256, 512, 1024]
Narrow = Annotated[float, Meta(gt=0, le=8)]
Multiplier = Annotated[int, Meta(ge=1, le=16)]
LrMul = Annotated[float, Meta(gt=0, le=100)]
Taps = tuple[float, ...]
FIR_TAPS = (1.0, 3.0, 3.0, 1.0)


@dataclass(frozen=True)
class Flavour:
    """How layers are built: FIR as in StyleGAN2's paper, bilinear without its filters, clean without equalization too.

    A bilinear network is turned into a clean one by folding its scales into its weights (GFPGAN's 1.3 and 1.4 are
    published so); clean networks export everywhere.
    """

    equalized: bool = True
    taps: Taps | None = None  # of the FIR filter; None: bilinear
    lr_mlp: float = 0.01  # of the mapping network's equalized layers

    def upsample(self) -> nn.Module:
        return BilinearUpsample() if self.taps is None else FirUpsample(self.taps)

    def linear(self, in_channels: int, out_channels: int, bias: float) -> nn.Module:
        """A dense layer whose output starts with unit variance around `bias`."""
        if self.equalized:
            return EqualizedLinear(in_channels, out_channels, bias)
        return plain_linear(in_channels, out_channels, bias, "linear")

    def mapping(self, dim: int, depth: int) -> nn.Sequential:
        """The mapping network f: z to w, (N, dim) both."""
        layers: list[nn.Module] = [PixelNorm()]
        for _ in range(depth):
            if self.equalized:
                layers.append(EqualizedLinear(dim, dim, lr_mul=self.lr_mlp, activate=True))
            else:
                layers += [plain_linear(dim, dim, 0.0, "leaky_relu"), nn.LeakyReLU(SLOPE)]
        return nn.Sequential(*layers)


CLEAN = Flavour(equalized=False)


class PixelNorm(nn.Module):
    """Scales every code (N, dim) to a mean square of 1."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


def plain_linear(in_channels: int, out_channels: int, bias: float, nonlinearity: str) -> nn.Linear:
    linear = nn.Linear(in_channels, out_channels)
    nn.init.kaiming_normal_(linear.weight, SLOPE, nonlinearity=nonlinearity)
    nn.init.constant_(linear.bias, bias)
    return linear


def widths(out_size: int, channel_multiplier: int, narrow: float) -> dict[int, int]:
    """Channels by the side of the features, 4 to out_size.  OptionError where none are left."""
    sides = [2**i for i in range(2, out_size.bit_length())]
    channels = {side: int(narrow * (512 if side <= 32 else 16384 // side * channel_multiplier)) for side in sides}
    if channels[out_size] < 1:
        raise OptionError(f"narrow: {narrow} leaves no channels at {out_size} pixels: give more", ("narrow",))
    return channels


def keywords_of_widths(out_size: int, at_4: int, at_out_size: int) -> dict[str, int | float]:
    """`narrow` and `channel_multiplier` (which shows from 64 pixels on) of networks with so many channels."""
    found: dict[str, int | float] = {"out_size": out_size, "narrow": at_4 / 512}
    if out_size >= 64:
        found["channel_multiplier"] = round(at_out_size * out_size / (32 * at_4))
    return found
