"""RestoreFormer: blind face restoration by attention to a dictionary of clean faces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from facerestore.archs.layers.autoencoder_blocks import (
    Downsample,
    ResBlock,
    Upsample,
    attend,
    group_norm,
    sizes_of_levels,
)
from facerestore.archs.layers.hints import Count, Depth
from facerestore.archs.layers.quantizers import VectorQuantizer
from facerestore.archs.layers.recognition import Keywords, State, confirmed, count
from facerestore.archs.outputs import Generator, GeneratorOutput, refuse_indivisible
from facerestore.errors import OptionError
from facerestore.registry import ARCHS

Probability = Annotated[float, Meta(ge=0, lt=1)]


@ARCHS.register()
class RestoreFormer(Generator):
    """An autoencoder whose decoder, in each attention, is asked by the features of the degraded picture.

    Wang et al., RestoreFormer: High-Quality Blind Face Restoration from Undegraded Key-Value Pairs, CVPR 2022, figure 2:
    features become entries of a dictionary of clean faces, which give keys and values; the encoder's features before that
    are the queries (multi-head cross-attention, section 3).

    forward: RGB pictures (N, in_channels, H, W) in [-1, 1], both sides multiples of f = 2^(levels - 1), to `image`
    (N, out_ch, H, W) of that range (not clamped), `codes` (N, h w) with h = H / f and w = W / f, `code_loss` (beta 0.25 on
    the dictionary's term: what draws features to the dictionary, which is as a rule fixed, has weight 1), and `feat`
    (N, embed_dim, h, w), the features before they became codes.  DataError where a side is no multiple of f.

    Source of the figures: GFPGAN, gfpgan/archs/restoreformer_arch.py.
    """

    offers = frozenset({"image", "codes", "code_loss", "feat"})
    input_range = output_range = (-1.0, 1.0)
    traceless = frozenset({"head_size"})

    def __init__(
        self,
        n_embed: Count = 1024,
        embed_dim: Count = 256,
        ch: Count = 64,
        out_ch: Count = 3,
        ch_mult: Annotated[Sequence[Count], Meta(min_length=1)] = (1, 2, 2, 4, 4, 8),
        num_res_blocks: Depth = 2,
        attn_resolutions: Sequence[Count] = (16,),
        dropout: Probability = 0.0,
        in_channels: Count = 3,
        resolution: Count = 512,
        z_channels: Count = 256,
        fix_decoder: bool = False,
        fix_codebook: bool = True,
        fix_encoder: bool = False,
        head_size: Count = 8,
    ):
        """
        Args:
            n_embed: number of entries of the dictionary
            embed_dim: channels of an entry
            ch: channels of the first features
            out_ch: channels of the pictures that go out
            ch_mult: channels of each level / ch, from the whole size down; each further level halves the side
            num_res_blocks: residual blocks of each level
            attn_resolutions: sides of the features among whose positions attention is paid: the smallest ones', or none
            dropout: probability in the residual blocks
            in_channels: channels of the pictures that come in
            resolution: side of the pictures in pixels, which says what `attn_resolutions` are; others go in too
            z_channels: channels of the features beside the dictionary
            fix_decoder: whether decoder and dictionary are not trained
            fix_codebook: whether the dictionary is not trained
            fix_encoder: whether the encoder is not trained
            head_size: heads of each attention, a divisor of the channels

        Raises:
            OptionError: a size, a width or a number of heads does not fit the others
        """
        super().__init__()
        sizes = sizes_of_levels(resolution, ch, ch_mult, ("resolution", "ch", "ch_mult"))
        if any(size in attn_resolutions for size in sizes[:-1]):
            raise OptionError(
                f"RestoreFormer pays attention at its smallest features alone, here {sizes[-1]} pixels a side",
                ("attn_resolutions",),
            )
        if ch * ch_mult[-1] % head_size:
            raise OptionError(
                f"`head_size` must divide the {ch * ch_mult[-1]} channels of the smallest features", ("head_size",)
            )
        heads = head_size
        self.shrinkage = 2 ** (len(ch_mult) - 1)
        widths = [ch * multiple for multiple in ch_mult]
        attention = sizes[-1] in attn_resolutions
        self.encoder = Encoder(in_channels, ch, widths, num_res_blocks, attention, dropout, z_channels, heads)
        self.decoder = Decoder(z_channels, widths, num_res_blocks, attention, dropout, out_ch, heads)
        # The published loss; with the dictionary fixed, beta weighs a term without effect.
        self.quantize = VectorQuantizer(n_embed, embed_dim, beta=0.25, legacy=True)
        self.quant_conv = nn.Conv2d(z_channels, embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, z_channels, 1)
        fixed = [self.encoder] if fix_encoder else []
        fixed += [self.decoder, self.post_quant_conv] if fix_decoder else []
        fixed += [self.quantize] if fix_decoder or fix_codebook else []
        for part in fixed:
            part.requires_grad_(False)

    def forward(self, x: Tensor) -> GeneratorOutput:
        refuse_indivisible(self, x, self.shrinkage)
        z, before_attention, after_middle = self.encoder(x)
        feat = self.quant_conv(z)
        found = self.quantize(feat)
        image = self.decoder(self.post_quant_conv(found.feat), before_attention, after_middle)
        return GeneratorOutput(image=image, codes=found.codes, code_loss=found.code_loss, feat=feat)

    @property
    def codebook(self) -> nn.Parameter:
        """The dictionary (n_embed, embed_dim)."""
        return self.quantize.embedding.weight

    def last_layer(self, w: float | None = None) -> nn.Parameter:
        """The weight of the last convolution, by whose gradient an adversary is weighted.  `w` changes nothing here."""
        return self.decoder.conv_out.weight

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords:
        """Of a network with 8 heads and 16 x 16 codes, as the published one has: they leave no trace in a file."""
        levels = count(state, "encoder.down")
        ch, in_channels = state["encoder.conv_in.weight"].shape[:2]
        n_embed, embed_dim = state["quantize.embedding.weight"].shape
        return {
            "n_embed": n_embed,
            "embed_dim": embed_dim,
            "ch": ch,
            "out_ch": state["decoder.conv_out.bias"].numel(),
            "ch_mult": [state[f"encoder.down.{i}.block.0.conv1.bias"].numel() // ch for i in range(levels)],
            "num_res_blocks": count(state, "encoder.down.0.block"),
            "attn_resolutions": [16] if f"encoder.down.{levels - 1}.attn.0.q.weight" in state else [],
            "in_channels": in_channels,
            "resolution": 16 << (levels - 1),
            "z_channels": state["encoder.conv_out.bias"].numel(),
            "head_size": 8,
        }


class CrossAttention(nn.Module):
    """x + proj(attention): keys and values are norm(x)'s, queries norm(asking)'s, or norm(x)'s too where nobody asks.

    RestoreFormer, section 3.  forward: x and asking (N, C, H, W) to (N, C, H, W).
    """

    def __init__(self, channels: int, heads: int, asked: bool):
        """
        Args:
            channels: C
            heads: number of heads, a divisor of C
            asked: whether queries come from elsewhere; the norm for them is in the state dict in any case
        """
        super().__init__()
        self.heads = heads
        self.norm1 = group_norm(channels)
        self.norm2 = group_norm(channels).requires_grad_(asked)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, asking: Tensor | None = None) -> Tensor:
        feat = self.norm1(x)
        asking = feat if asking is None else self.norm2(asking)
        return x + self.proj_out(attend(self.q(asking), self.k(feat), self.v(feat), self.heads))


class Level(nn.Module):
    """Residual blocks of one size, each followed by attention where there is any."""

    def __init__(self, before: int, after: int, blocks: int, heads: int | None, dropout: float, asked: bool):
        super().__init__()
        self.block = nn.ModuleList(residual(before if i == 0 else after, after, dropout) for i in range(blocks))
        self.attn = nn.ModuleList(CrossAttention(after, heads, asked) for _ in range(blocks) if heads)

    def forward(self, x: Tensor, asking: Tensor | None = None) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x, asking)
        return x


class Middle(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, channels: int, heads: int, dropout: float, asked: bool):
        super().__init__()
        self.block_1 = residual(channels, channels, dropout)
        self.attn_1 = CrossAttention(channels, heads, asked)
        self.block_2 = residual(channels, channels, dropout)


class Encoder(nn.Module):
    """Pictures to features z (N, z_channels, h, w), and the two that the decoder's attention is asked by.

    These are (N, C, h, w): those before the middle's attention for the decoder's levels, and the middle's for its middle.
    """

    def __init__(
        self,
        in_channels: int,
        ch: int,
        widths: Sequence[int],
        blocks: int,
        attention: bool,
        dropout: float,
        z_channels: int,
        heads: int,
    ):
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, ch, 3, padding=1)
        self.down = nn.ModuleList()
        last = len(widths) - 1
        for i, (before, after) in enumerate(zip([ch, *widths], widths, strict=False)):
            level = Level(before, after, blocks, heads if attention and i == last else None, dropout, asked=False)
            if i < last:
                level.downsample = Downsample(after)
            self.down.append(level)
        self.mid = Middle(widths[-1], heads, dropout, asked=False)
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        feat = self.conv_in(x)
        for level in self.down[:-1]:
            feat = level.downsample(level(feat))
        before_attention = self.mid.block_1(self.down[-1](feat))
        after_middle = self.mid.block_2(self.mid.attn_1(before_attention))
        return self.conv_out(F.silu(self.norm_out(after_middle))), before_attention, after_middle


class Decoder(nn.Module):
    """Features (N, z_channels, h, w), asked by the encoder's, to pictures."""

    def __init__(
        self,
        z_channels: int,
        widths: Sequence[int],
        blocks: int,
        attention: bool,
        dropout: float,
        out_ch: int,
        heads: int,
    ):
        super().__init__()
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], heads, dropout, asked=True)
        self.up = nn.ModuleList()  # fine to coarse, as in the state dict
        for i, after in enumerate(widths):
            before = widths[min(i + 1, last)]
            level = Level(before, after, blocks + 1, heads if attention and i == last else None, dropout, asked=True)
            if i > 0:
                level.upsample = Upsample(after)
            self.up.append(level)
        self.norm_out = group_norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], out_ch, 3, padding=1)

    def forward(self, z: Tensor, before_attention: Tensor, after_middle: Tensor) -> Tensor:
        feat = self.mid.block_1(self.conv_in(z))
        feat = self.mid.block_2(self.mid.attn_1(feat, after_middle))
        for i in reversed(range(len(self.up))):
            feat = self.up[i](feat, before_attention)
            if i > 0:
                feat = self.up[i].upsample(feat)
        return self.conv_out(F.silu(self.norm_out(feat)))


def residual(in_channels: int, out_channels: int, dropout: float) -> ResBlock:
    return ResBlock(in_channels, out_channels, shortcut="nin_shortcut", dropout=dropout)
