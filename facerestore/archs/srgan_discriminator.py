"""SRGANDiscriminator, SRGAN's own, for crops of any size."""

from __future__ import annotations

from torch import Tensor, nn

from facerestore.archs.layers.hints import Count
from facerestore.archs.layers.recognition import Keywords, State, confirmed
from facerestore.archs.outputs import Discriminator, DiscriminatorOutput
from facerestore.registry import ARCHS


@ARCHS.register()
class SRGANDiscriminator(Discriminator):
    """One logit for a picture of any size, and the features behind it for feature matching.

    Ledig et al., Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network, CVPR 2017,
    figure 4 (bottom): k3n64s1, then k3n64s2, k3n128s1, k3n128s2, k3n256s1, k3n256s2, k3n512s1, k3n512s2 with batch
    norm, LeakyReLU 0.2 after each; dense 1024, LeakyReLU, dense 1.  Two things differ: the sigmoid is left to the
    loss; and the features are averaged over all positions before the dense layers, which the paper binds to crops of
    96 pixels.  So a crop of any size is judged, and the head has half a million weights instead of 19 million.

    forward: pictures (N, num_in_ch, H, W) of any range to `logits` (N, 1) and `feats`, the activations after each of
    the eight convolutions: num_feat channels at the full side to 8 num_feat at 1/16 (rounded up).
    """

    offers = frozenset({"logits", "feats"})

    def __init__(self, num_in_ch: Count = 3, num_feat: Count = 64, num_hidden: Count = 1024):
        """
        Args:
            num_in_ch: channels of the pictures
            num_feat: channels of the first features; the last have 8 times as many
            num_hidden: features of the dense layer before the last
        """
        super().__init__()
        blocks, channels = [], num_in_ch
        for width in (num_feat, 2 * num_feat, 4 * num_feat, 8 * num_feat):
            blocks += [conv_block(channels, width, stride=1, norm=bool(blocks)), conv_block(width, width, stride=2)]
            channels = width
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, num_hidden),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(num_hidden, 1),
        )

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        feats = []
        for block in self.blocks:
            x = block(x)
            feats.append(x)
        return DiscriminatorOutput(logits=self.head(x), feats=feats)

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords:
        num_feat, num_in_ch = state["blocks.0.0.weight"].shape[:2]
        return {"num_in_ch": num_in_ch, "num_feat": num_feat, "num_hidden": state["head.2.bias"].numel()}


def conv_block(num_in: int, num_out: int, stride: int, norm: bool = True) -> nn.Sequential:
    """Convolution, batch norm where asked for, LeakyReLU: (N, num_in, H, W) to (N, num_out, H / stride, W / stride)."""
    conv = nn.Conv2d(num_in, num_out, 3, stride, padding=1, bias=not norm)  # batch norm would take a bias out again
    middle = [nn.BatchNorm2d(num_out)] if norm else []
    return nn.Sequential(conv, *middle, nn.LeakyReLU(0.2, inplace=True))
