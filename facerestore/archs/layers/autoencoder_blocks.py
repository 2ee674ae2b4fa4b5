"""What the autoencoders of VQGAN, CodeFormer and RestoreFormer are made of: residual blocks, attention, changes of size.

Esser et al., Taming Transformers for High-Resolution Image Synthesis (VQGAN), CVPR 2021, appendix, after Ho et al., Denoising
Diffusion Probabilistic Models, NeurIPS 2020, appendix B.  All take and give features (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.archs.layers.inference import add_pointwise, doubled_and_convolved, frugal, normed_swish
from facerestore.errors import OptionError

GROUPS = 32  # of every group norm: widths are multiples of it


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


class ResBlock(nn.Module):
    """x + conv(swish(norm(conv(swish(norm(x)))))), x by a 1 x 1 convolution where the width changes."""

    def __init__(self, in_channels: int, out_channels: int, shortcut: str = "conv_out", dropout: float = 0.0):
        """
        Args:
            in_channels: channels of the features that come in
            out_channels: channels of the features that go out
            shortcut: the state dict's name for the 1 x 1 convolution: CodeFormer's files and VQGAN's own differ in it
            dropout: probability before the second convolution
        """
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = shortcut if in_channels != out_channels else None
        if self.shortcut:
            self.add_module(shortcut, nn.Conv2d(in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        if frugal(self, x):
            return self.restore(x)
        feat = self.conv1(F.silu(self.norm1(x)))
        feat = self.conv2(self.dropout(F.silu(self.norm2(feat))))
        return feat + (getattr(self, self.shortcut)(x) if self.shortcut else x)

    def restore(self, x: Tensor) -> Tensor:
        """The same without gradients on a CPU, in three pictures' memory instead of eight."""
        feat = self.conv1(normed_swish(self.norm1, x, out=torch.empty_like(x)))
        feat = self.conv2(self.dropout(normed_swish(self.norm2, feat, out=feat)))
        return add_pointwise(feat, x, getattr(self, self.shortcut)) if self.shortcut else feat.add_(x)


class AttnBlock(nn.Module):
    """x + proj(attention among all positions of norm(x)), with one head."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = group_norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        feat = self.norm(x)
        return x + self.proj_out(attend(self.q(feat), self.k(feat), self.v(feat)))


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int = 1) -> Tensor:
    """softmax(q k^T / sqrt(d)) v among positions (Vaswani et al., NeurIPS 2017, eq. 1); `heads` share the channels.

    Args:
        query: (N, C, H, W), d = C / heads
        key: (N, C, H', W')
        value: (N, C, H', W')
        heads: a divisor of C

    Returns:
        (N, C, H, W)
    """
    q, k, v = (feat.flatten(2).unflatten(1, (heads, -1)).transpose(2, 3) for feat in (query, key, value))
    found = F.scaled_dot_product_attention(q, k, v)  # (N, heads, H W, d)
    return found.transpose(2, 3).reshape(query.shape)


class Downsample(nn.Module):
    """(N, C, H, W), both sides even, to (N, C, H / 2, W / 2) by a 3 x 3 convolution that looks right and below."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """(N, C, H, W) to (N, C, 2H, 2W): every pixel doubled, then a 3 x 3 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if frugal(self, x):
            return doubled_and_convolved(self.conv, x)
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


def sizes_of_levels(side: int, width: int, multiples: Sequence[int], names: tuple[str, str, str]) -> list[int]:
    """The side of the features at each level, fine to coarse: side, side / 2, ...

    Args:
        side: of the pictures in pixels
        width: channels that the multiples are of
        multiples: channels of each level / width
        names: what the options call these three

    Raises:
        OptionError: the side cannot be halved so often, or a level's channels cannot be normalised in groups
    """
    shrinkage = 2 ** (len(multiples) - 1)
    if side % shrinkage:
        raise OptionError(
            f"`{names[2]}` has {len(multiples)} levels, so `{names[0]}` must be a multiple of {shrinkage}, not {side}",
            (names[0],),
        )
    if any(channels % GROUPS for channels in (width, *(width * k for k in multiples))):
        raise OptionError(
            f"channels are normalised in {GROUPS} groups: `{names[1]}` must be a multiple of {GROUPS}", (names[1],)
        )
    return [side >> level for level in range(len(multiples))]
