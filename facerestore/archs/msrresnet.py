"""MSRResNet, the plain residual network that BasicSR trains by default."""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.archs.layers.hints import Count, Depth, refuse_unaddable
from facerestore.archs.layers.init import scaled_kaiming_
from facerestore.archs.layers.recognition import Keywords, State, confirmed, count
from facerestore.archs.outputs import Generator, GeneratorOutput
from facerestore.registry import ARCHS


@ARCHS.register()
class MSRResNet(Generator):
    """SRResNet without batch norm, which learns what to add to the bilinearly enlarged picture.

    Ledig et al., Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network, CVPR 2017,
    figure 4, with the residual blocks of EDSR (Lim et al., CVPRW 2017, figure 2c).

    forward: pictures (N, num_in_ch, H, W) of any range to `image` (N, num_out_ch, upscale H, upscale W) of the same
    range. Every convolution starts scaled by 0.1, so that an untrained network returns little more than the enlarged
    picture.

    Source of the figures: BasicSR, basicsr/archs/srresnet_arch.py.
    """

    def __init__(
        self,
        num_in_ch: Count = 3,
        num_out_ch: Count = 3,
        num_feat: Count = 64,
        num_block: Depth = 16,
        upscale: Literal[2, 3, 4] = 4,
    ):
        """
        Args:
            num_in_ch: channels of the pictures that come in
            num_out_ch: channels of the pictures that go out: as many as come in, or any number where one comes in
            num_feat: channels of the features
            num_block: number of residual blocks
            upscale: output side / input side; 4 is reached in two steps of 2

        Raises:
            OptionError: the enlarged picture cannot be added to num_out_ch channels
        """
        super().__init__()
        refuse_unaddable(num_in_ch, num_out_ch)
        self.upscale = upscale
        step = 2 if upscale == 4 else upscale
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, padding=1)
        self.body = nn.Sequential(*(ResidualBlock(num_feat) for _ in range(num_block)))
        self.upconv1 = nn.Conv2d(num_feat, num_feat * step**2, 3, padding=1)
        if upscale == 4:
            self.upconv2 = nn.Conv2d(num_feat, num_feat * step**2, 3, padding=1)
        self.pixel_shuffle = nn.PixelShuffle(step)
        self.conv_hr = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, padding=1)
        self.lrelu = nn.LeakyReLU(0.1, inplace=True)
        scaled_kaiming_(self)

    def forward(self, x: Tensor) -> GeneratorOutput:
        feat = self.body(self.lrelu(self.conv_first(x)))
        feat = self.lrelu(self.pixel_shuffle(self.upconv1(feat)))
        if self.upscale == 4:
            feat = self.lrelu(self.pixel_shuffle(self.upconv2(feat)))
        residual = self.conv_last(self.lrelu(self.conv_hr(feat)))
        base = F.interpolate(x, scale_factor=self.upscale, mode="bilinear", align_corners=False)
        return GeneratorOutput(image=base + residual)

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords:
        num_feat, num_in_ch = state["conv_first.weight"].shape[:2]
        return {
            "num_in_ch": num_in_ch,
            "num_out_ch": state["conv_last.bias"].numel(),
            "num_feat": num_feat,
            "num_block": count(state, "body"),
            "upscale": 4 if "upconv2.bias" in state else math.isqrt(state["upconv1.bias"].numel() // num_feat),
        }


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), all (N, num_feat, H, W)."""

    def __init__(self, num_feat: int):
        super().__init__()
        self.conv1 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv2 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.relu(self.conv1(x)))
