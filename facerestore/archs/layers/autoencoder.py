"""VQGAN's encoder and decoder, as lists of blocks whose places are the published state-dict keys."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from facerestore.archs.layers.autoencoder_blocks import AttnBlock, Downsample, ResBlock, Upsample, group_norm, sizes_of_levels
from facerestore.archs.layers.recognition import Keywords, State, count

PUBLISHED_ATTENTION = 16  # side of the features among whose positions attention is paid


class Blocks(nn.Module):
    """Blocks one after the other.

    `meeting`: for each size of features, the block after which CodeFormer couples encoder and decoder (of the level with
    that side where pictures have the nominal one).
    """

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        self.meeting: dict[int, int] = {}

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x

    def add_level(self, in_channels: int, out_channels: int, res_blocks: int, attention: bool) -> None:
        """Residual blocks of one size, each followed by attention where there is any."""
        for i in range(res_blocks):
            self.blocks.append(ResBlock(in_channels if i == 0 else out_channels, out_channels))
            if attention:
                self.blocks.append(AttnBlock(out_channels))

    def add_middle(self, channels: int) -> None:
        self.blocks.extend((ResBlock(channels, channels), AttnBlock(channels), ResBlock(channels, channels)))


class Encoder(Blocks):
    """Pictures (N, 3, H, W) to features (N, emb_dim, H / f, W / f), f = 2^(levels - 1).

    Esser et al., Taming Transformers (VQGAN), CVPR 2021, table 7, left, without the last swish.
    """

    def __init__(
        self, img_size: int, nf: int, ch_mult: Sequence[int], res_blocks: int, attn_resolutions: Sequence[int], emb_dim: int
    ):
        super().__init__()
        channels = nf
        self.blocks.append(nn.Conv2d(3, nf, 3, padding=1))
        for size, multiple in zip(nominal_sizes(img_size, nf, ch_mult), ch_mult, strict=True):
            if size != img_size:
                self.blocks.append(Downsample(channels))
            attention = size in attn_resolutions
            self.add_level(channels, nf * multiple, res_blocks, attention)
            self.meeting[size] = len(self.blocks) - 1 - attention  # the last residual block, before its attention
            channels = nf * multiple
        self.add_middle(channels)
        self.blocks.extend((group_norm(channels), nn.Conv2d(channels, emb_dim, 3, padding=1)))


class Decoder(Blocks):
    """Features (N, emb_dim, h, w) to pictures (N, 3, f h, f w), f = 2^(levels - 1).

    Esser et al., Taming Transformers (VQGAN), CVPR 2021, table 7, right, without the last swish.
    """

    def __init__(
        self, img_size: int, nf: int, ch_mult: Sequence[int], res_blocks: int, attn_resolutions: Sequence[int], emb_dim: int
    ):
        super().__init__()
        channels = nf * ch_mult[-1]
        self.blocks.append(nn.Conv2d(emb_dim, channels, 3, padding=1))
        self.add_middle(channels)
        sizes = nominal_sizes(img_size, nf, ch_mult)
        for size, multiple in zip(reversed(sizes), reversed(ch_mult), strict=True):
            if size != sizes[-1]:
                self.blocks.append(Upsample(channels))
            attention = size in attn_resolutions
            first = len(self.blocks)
            self.add_level(channels, nf * multiple, res_blocks, attention)
            # The first residual block; at the smallest size the last, before its attention.
            self.meeting[size] = first if size != sizes[-1] else len(self.blocks) - 1 - attention
            channels = nf * multiple
        self.blocks.extend((group_norm(channels), nn.Conv2d(channels, 3, 3, padding=1)))


def nominal_sizes(img_size: int, nf: int, ch_mult: Sequence[int]) -> list[int]:
    """The side of the features at each level, fine to coarse; OptionError where there can be none."""
    return sizes_of_levels(img_size, nf, ch_mult, ("img_size", "nf", "ch_mult"))


def keywords_of_encoder(state: State, img_size: int | None = None) -> Keywords:
    """An :class:`Encoder`'s keywords from the keys and shapes under `encoder.`.

    The nominal size of the pictures leaves no trace: where it is not given, the smallest features with attention are those
    of the published 16 x 16, or without any, the smallest of all.
    """

    def holds(block: int, part: str) -> bool:
        return f"encoder.blocks.{block}.{part}.weight" in state

    last = count(state, "encoder.blocks") - 1
    levels: list[list[int]] = [[]]  # the blocks of each
    for block in range(1, last - 1):
        if holds(block, "conv"):  # halves the size
            levels.append([])
        else:
            levels[-1].append(block)
    del levels[-1][-3:]  # the middle
    attentive = [level for level, blocks in enumerate(levels) if any(holds(block, "q") for block in blocks)]
    if img_size is None:
        img_size = PUBLISHED_ATTENTION << max(attentive, default=len(levels) - 1)
    nf = state["encoder.blocks.0.bias"].numel()
    return {
        "img_size": img_size,
        "nf": nf,
        "ch_mult": [state[f"encoder.blocks.{blocks[0]}.conv1.bias"].numel() // nf for blocks in levels],
        "res_blocks": sum(holds(block, "conv1") for block in levels[0]),
        "attn_resolutions": [img_size >> level for level in attentive],
        "emb_dim": state[f"encoder.blocks.{last}.bias"].numel(),
    }
