"""UNetDiscriminatorSN, the discriminator of Real-ESRGAN."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.archs.layers.hints import Count
from facerestore.archs.layers.recognition import Keywords, State, confirmed
from facerestore.archs.layers.spectral_norm import SpectralNormConv2d
from facerestore.archs.outputs import Discriminator, DiscriminatorOutput
from facerestore.registry import ARCHS


@ARCHS.register()
class UNetDiscriminatorSN(Discriminator):
    """One logit for each pixel, by a U-Net whose inner convolutions are spectrally normalised.

    Wang et al., Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data, ICCVW 2021, section
    3.4 and figure 6; after Schoenfeld et al., CVPR 2020.

    forward: pictures (N, num_in_ch, H, W) of any range, 8 pixels or more a side, to `logits` (N, 1, H, W).  Sides
    that are no multiple of 8 are judged too: features are enlarged to the size that they are added to.

    Source of the figures: Real-ESRGAN, realesrgan/archs/discriminator_arch.py.
    """

    traceless = frozenset({"skip_connection"})

    def __init__(self, num_in_ch: Count, num_feat: Count = 64, skip_connection: bool = True):
        """
        Args:
            num_in_ch: channels of the pictures
            num_feat: channels of the first and last features; those of the smallest size have 8 times as many
            skip_connection: whether features on the way down are added to those of their size on the way up
        """
        super().__init__()
        self.skip_connection = skip_connection
        self.conv0 = nn.Conv2d(num_in_ch, num_feat, 3, padding=1)
        self.conv1 = SpectralNormConv2d(num_feat, num_feat * 2, 4, stride=2, padding=1)  # down: 1/2,
        self.conv2 = SpectralNormConv2d(num_feat * 2, num_feat * 4, 4, stride=2, padding=1)  # 1/4,
        self.conv3 = SpectralNormConv2d(num_feat * 4, num_feat * 8, 4, stride=2, padding=1)  # 1/8 of the side
        self.conv4 = SpectralNormConv2d(num_feat * 8, num_feat * 4, 3, padding=1)  # up: 1/4,
        self.conv5 = SpectralNormConv2d(num_feat * 4, num_feat * 2, 3, padding=1)  # 1/2,
        self.conv6 = SpectralNormConv2d(num_feat * 2, num_feat, 3, padding=1)  # the whole side
        self.conv7 = SpectralNormConv2d(num_feat, num_feat, 3, padding=1)
        self.conv8 = SpectralNormConv2d(num_feat, num_feat, 3, padding=1)
        self.conv9 = nn.Conv2d(num_feat, 1, 3, padding=1)
        self.lrelu = nn.LeakyReLU(0.2, inplace=True)

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        x0 = self.lrelu(self.conv0(x))
        x1 = self.lrelu(self.conv1(x0))
        x2 = self.lrelu(self.conv2(x1))
        feat = self.lrelu(self.conv3(x2))
        for conv, skip in ((self.conv4, x2), (self.conv5, x1), (self.conv6, x0)):
            feat = F.interpolate(feat, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            feat = self.lrelu(conv(feat))
            if self.skip_connection:
                feat = feat + skip
        feat = self.lrelu(self.conv8(self.lrelu(self.conv7(feat))))
        return DiscriminatorOutput(logits=self.conv9(feat))

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords:
        """Of a network with skip connections, as all published ones have: they leave no trace in a file."""
        num_feat, num_in_ch = state["conv0.weight"].shape[:2]
        return {"num_in_ch": num_in_ch, "num_feat": num_feat, "skip_connection": True}
