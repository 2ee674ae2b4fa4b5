"""SRVGGNetCompact, Real-ESRGAN's small and fast generator."""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.archs.layers.hints import Count, Depth, Enlargement, refuse_unaddable
from facerestore.archs.layers.recognition import Keywords, State, confirmed, count
from facerestore.archs.outputs import Generator, GeneratorOutput
from facerestore.registry import ARCHS


@ARCHS.register()
class SRVGGNetCompact(Generator):
    """A chain of convolutions at the input's size, which learns what to add to the enlarged picture.

    Published with Real-ESRGAN (Wang et al., ICCVW 2021) as realesr-general-x4v3 (32 convolutions) and
    realesr-animevideov3 (16).  Pixels are shuffled once, at the very end, and added to the nearest-neighbour
    enlargement.

    forward: pictures (N, C, H, W) of any range to `image` (N, C, upscale H, upscale W) of the same range.

    Source of the figures: Real-ESRGAN, realesrgan/archs/srvgg_arch.py.
    """

    def __init__(
        self,
        num_in_ch: Count = 3,
        num_out_ch: Count = 3,
        num_feat: Count = 64,
        num_conv: Depth = 16,
        upscale: Enlargement = 4,
        act_type: Literal["prelu", "relu", "leakyrelu"] = "prelu",
    ):
        """
        Args:
            num_in_ch: channels of the pictures that come in
            num_out_ch: channels of the pictures that go out: as many as come in, or any number where one comes in
            num_feat: channels of the features
            num_conv: number of convolutions between the first and the last
            upscale: output side / input side
            act_type: activation: prelu (a slope for each channel), relu, or leakyrelu (slope 0.1)

        Raises:
            OptionError: the enlarged picture cannot be added to num_out_ch channels
        """
        super().__init__()
        refuse_unaddable(num_in_ch, num_out_ch)
        self.upscale = upscale
        layers: list[nn.Module] = []
        for channels in [num_in_ch] + [num_feat] * num_conv:
            layers += [nn.Conv2d(channels, num_feat, 3, padding=1), activation(act_type, num_feat)]
        self.body = nn.Sequential(*layers, nn.Conv2d(num_feat, num_out_ch * upscale**2, 3, padding=1))
        self.upsampler = nn.PixelShuffle(upscale)

    def forward(self, x: Tensor) -> GeneratorOutput:
        base = F.interpolate(x, scale_factor=float(self.upscale), mode="nearest")
        return GeneratorOutput(image=base + self.upsampler(self.body(x)))

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords | None:
        """Of a network with PReLUs whose pictures come and go with as many channels.

        Without the slopes nothing in a file tells the other two activations from each other.
        """
        if "body.1.weight" not in state:
            return None
        num_feat, num_in_ch = state["body.0.weight"].shape[:2]
        layers = count(state, "body")
        return {
            "num_in_ch": num_in_ch,
            "num_out_ch": num_in_ch,
            "num_feat": num_feat,
            "num_conv": (layers - 3) // 2,
            "upscale": math.isqrt(state[f"body.{layers - 1}.bias"].numel() // num_in_ch),
            "act_type": "prelu",
        }


def activation(act_type: str, num_feat: int) -> nn.Module:
    if act_type == "prelu":
        return nn.PReLU(num_feat)
    return nn.ReLU(inplace=True) if act_type == "relu" else nn.LeakyReLU(0.1, inplace=True)
