"""StyleGAN2's discriminator."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from torch import Tensor, nn

from facerestore.archs.layers.equalized import EqualizedLinear, fast_layout
from facerestore.archs.layers.flavour import (
    FIR_TAPS,
    Flavour,
    Multiplier,
    Narrow,
    OutSize,
    Taps,
    keywords_of_widths,
    widths,
)
from facerestore.archs.layers.recognition import Keywords, State, confirmed, count
from facerestore.archs.layers.resampling_blocks import DownBlock, StddevChannel, conv_layer
from facerestore.archs.outputs import Discriminator, DiscriminatorOutput, refuse_other_size
from facerestore.registry import ARCHS


@ARCHS.register()
class StyleGAN2Discriminator(Discriminator):
    """One logit for a picture of one fixed size, by residual blocks that resample by FIR filters.

    Karras et al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020, figure 7c (residual nets).

    forward: pictures (N, 3, out_size, out_size) in the generator's range to `logits` (N, 1).  Any batch goes in: where
    stddev_group does not divide it, the largest smaller group that does is taken.  DataError where a picture has
    another size.

    Source of the figures: BasicSR, basicsr/archs/stylegan2_arch.py.
    """

    def __init__(
        self,
        out_size: OutSize,
        channel_multiplier: Multiplier = 2,
        resample_kernel: Taps = FIR_TAPS,
        stddev_group: Annotated[int, Meta(ge=1, le=4096)] = 4,
        narrow: Narrow = 1.0,
    ):
        """
        Args:
            out_size: side of the pictures, a power of 2
            channel_multiplier: channels from 64 pixels on, times this
            resample_kernel: taps of the FIR filter, an even number of them
            stddev_group: how many pictures, at most, are compared with one another
            narrow: all channels, times this

        Raises:
            OptionError: no channels are left, or the taps are no filter
        """
        super().__init__()
        self.out_size = out_size
        flavour, channels = Flavour(taps=resample_kernel), widths(out_size, channel_multiplier, narrow)
        blocks, side = [conv_layer(3, channels[out_size], 1)], out_size
        while side > 4:
            blocks.append(DownBlock(channels[side], channels[side // 2], flavour))
            side //= 2
        self.conv_body = nn.Sequential(*blocks)
        self.stddev = StddevChannel(stddev_group)
        self.final_conv = conv_layer(channels[4] + 1, channels[4], 3)
        self.final_linear = nn.Sequential(
            EqualizedLinear(channels[4] * 4 * 4, channels[4], activate=True), EqualizedLinear(channels[4], 1)
        )

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        refuse_other_size(self, x, self.out_size, "out_size")
        feat = self.final_conv(self.stddev(self.conv_body(fast_layout(x))))
        return DiscriminatorOutput(logits=self.final_linear(feat.flatten(1)))

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords:
        """Filter and group leave no trace: those of all published files."""
        out_size = 2 ** (count(state, "conv_body") + 1)
        return keywords_of_widths(out_size, state["final_conv.1.bias"].numel(), state["conv_body.0.1.bias"].numel())
