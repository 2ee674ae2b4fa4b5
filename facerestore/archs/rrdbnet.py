"""RRDBNet, the generator of ESRGAN and Real-ESRGAN."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.archs.layers.hints import Count, Depth
from facerestore.archs.layers.init import scaled_kaiming_
from facerestore.archs.layers.recognition import Keywords, State, confirmed, count
from facerestore.archs.outputs import Generator, GeneratorOutput
from facerestore.registry import ARCHS

RESIDUAL_SCALE = 0.2  # beta of figure 4


@ARCHS.register()
class RRDBNet(Generator):
    """Residual-in-residual dense blocks, without batch norm.

    Wang et al., ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks, ECCVW 2018, figure 4; for scales 2
    and 1 Wang et al., Real-ESRGAN, ICCVW 2021, section 3.3: the picture is first unshuffled, 2 x 2 or 4 x 4 pixels
    into channels, and the network enlarges by 4 always.

    forward: pictures (N, num_in_ch, H, W) of any range to `image` (N, num_out_ch, scale H, scale W) of the range that
    it was trained for.  Where a side cannot be unshuffled, the picture is continued by its last row and column, and
    the result cropped, so that any size goes in.

    Source of the figures: BasicSR, basicsr/archs/rrdbnet_arch.py.
    """

    def __init__(
        self,
        num_in_ch: Count,
        num_out_ch: Count,
        scale: Literal[1, 2, 4] = 4,
        num_feat: Count = 64,
        num_block: Depth = 23,
        num_grow_ch: Count = 32,
    ):
        """
        Args:
            num_in_ch: channels of the pictures that come in
            num_out_ch: channels of the pictures that go out
            scale: output side / input side
            num_feat: channels of the features
            num_block: number of residual-in-residual dense blocks
            num_grow_ch: channels that each layer of a dense block adds
        """
        super().__init__()
        self.upscale = scale
        self.unshuffle = 4 // scale  # side of the square of pixels that becomes one
        self.conv_first = nn.Conv2d(num_in_ch * self.unshuffle**2, num_feat, 3, padding=1)
        self.body = nn.Sequential(*(RRDB(num_feat, num_grow_ch) for _ in range(num_block)))
        self.conv_body = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv_up1 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv_up2 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv_hr = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, padding=1)
        self.lrelu = nn.LeakyReLU(0.2, inplace=True)
        scaled_kaiming_(self.body)

    def forward(self, x: Tensor) -> GeneratorOutput:
        height, width = x.shape[-2:]
        right, below = -width % self.unshuffle, -height % self.unshuffle
        if right or below:
            x = F.pad(x, (0, right, 0, below), mode="replicate")
        feat = self.conv_first(F.pixel_unshuffle(x, self.unshuffle))
        feat = feat + self.conv_body(self.body(feat))
        feat = self.lrelu(self.conv_up1(F.interpolate(feat, scale_factor=2, mode="nearest")))
        feat = self.lrelu(self.conv_up2(F.interpolate(feat, scale_factor=2, mode="nearest")))
        image = self.conv_last(self.lrelu(self.conv_hr(feat)))
        return GeneratorOutput(image=image[..., : height * self.upscale, : width * self.upscale])

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords:
        """The scale is told by the first convolution, of a network whose pictures come and go with as many channels."""
        num_feat, unshuffled = state["conv_first.weight"].shape[:2]
        num_out_ch = state["conv_last.bias"].numel()
        scale = {4: 2, 16: 1}.get(unshuffled / num_out_ch, 4)
        return {
            "num_in_ch": unshuffled * scale**2 // 16,
            "num_out_ch": num_out_ch,
            "scale": scale,
            "num_feat": num_feat,
            "num_block": count(state, "body"),
            "num_grow_ch": state["body.0.rdb1.conv1.bias"].numel(),
        }


class RRDB(nn.Module):
    """x + 0.2 dense(dense(dense(x))), all (N, num_feat, H, W)."""

    def __init__(self, num_feat: int, num_grow_ch: int):
        super().__init__()
        self.rdb1 = ResidualDenseBlock(num_feat, num_grow_ch)
        self.rdb2 = ResidualDenseBlock(num_feat, num_grow_ch)
        self.rdb3 = ResidualDenseBlock(num_feat, num_grow_ch)

    def forward(self, x: Tensor) -> Tensor:
        return x + RESIDUAL_SCALE * self.rdb3(self.rdb2(self.rdb1(x)))


class ResidualDenseBlock(nn.Module):
    """Five convolutions, each of which sees what all before it made; x + 0.2 times the last, (N, num_feat, H, W)."""

    def __init__(self, num_feat: int, num_grow_ch: int):
        super().__init__()
        self.conv1 = nn.Conv2d(num_feat, num_grow_ch, 3, padding=1)
        self.conv2 = nn.Conv2d(num_feat + num_grow_ch, num_grow_ch, 3, padding=1)
        self.conv3 = nn.Conv2d(num_feat + 2 * num_grow_ch, num_grow_ch, 3, padding=1)
        self.conv4 = nn.Conv2d(num_feat + 3 * num_grow_ch, num_grow_ch, 3, padding=1)
        self.conv5 = nn.Conv2d(num_feat + 4 * num_grow_ch, num_feat, 3, padding=1)
        self.lrelu = nn.LeakyReLU(0.2, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat((seen, self.lrelu(conv(seen))), dim=1)
        return x + RESIDUAL_SCALE * self.conv5(seen)
