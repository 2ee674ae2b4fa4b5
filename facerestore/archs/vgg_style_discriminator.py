"""VGGStyleDiscriminator, the discriminator of BasicSR's SRGAN and of ESRGAN."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.archs.layers.hints import Count
from facerestore.archs.layers.recognition import Keywords, State, confirmed
from facerestore.archs.outputs import Discriminator, DiscriminatorOutput, refuse_other_size
from facerestore.registry import ARCHS


@ARCHS.register()
class VGGStyleDiscriminator(Discriminator):
    """One logit for a picture of one fixed size, by a VGG-like chain of convolutions and two dense layers.

    The discriminator of SRGAN (Ledig et al., CVPR 2017, figure 4, bottom) as Wang et al., ESRGAN, ECCVW 2018, train it:
    4 x 4 convolutions where the size is halved, 100 dense features, no sigmoid.

    forward: pictures (N, num_in_ch, input_size, input_size) of any range to `logits` (N, 1).  DataError where a picture
    has another size: the first dense layer is bound to it (SRGANDiscriminator and UNetDiscriminatorSN take any).

    Source of the figures: BasicSR, basicsr/archs/discriminator_arch.py.
    """

    def __init__(self, num_in_ch: Count, num_feat: Count, input_size: Literal[128, 256] = 128):
        """
        Args:
            num_in_ch: channels of the pictures
            num_feat: channels of the first features; the last have 8 times as many
            input_size: side of the pictures in pixels, that is of the crops of the training (`gt_size`)
        """
        super().__init__()
        self.input_size = input_size
        widths = [num_in_ch] + [num_feat * k for k in (1, 2, 4, 8, 8, 8)]
        self.levels = 5 if input_size == 128 else 6  # each halves the side; 4 x 4 features are left
        for level, (before, after) in enumerate(pairwise(widths[: self.levels + 1])):
            first = level == 0  # pictures are not normalised
            self.add_module(f"conv{level}_0", nn.Conv2d(before, after, 3, padding=1, bias=first))
            self.add_module(f"bn{level}_0", nn.Identity() if first else nn.BatchNorm2d(after))
            self.add_module(f"conv{level}_1", nn.Conv2d(after, after, 4, stride=2, padding=1, bias=False))
            self.add_module(f"bn{level}_1", nn.BatchNorm2d(after))
        self.linear1 = nn.Linear(num_feat * 8 * 4 * 4, 100)
        self.linear2 = nn.Linear(100, 1)

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        refuse_other_size(self, x, self.input_size, "input_size")
        feat = x
        for level in range(self.levels):
            for half in (0, 1):
                conv, norm = getattr(self, f"conv{level}_{half}"), getattr(self, f"bn{level}_{half}")
                feat = F.leaky_relu(norm(conv(feat)), 0.2, inplace=True)
        feat = F.leaky_relu(self.linear1(feat.flatten(1)), 0.2, inplace=True)
        return DiscriminatorOutput(logits=self.linear2(feat))

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords:
        num_feat, num_in_ch = state["conv0_0.weight"].shape[:2]
        return {
            "num_in_ch": num_in_ch,
            "num_feat": num_feat,
            "input_size": 256 if "conv5_0.weight" in state else 128,
        }
