"""FacialComponentDiscriminator, which judges GFPGAN's eyes and mouths."""

from __future__ import annotations

from torch import Tensor

from facerestore.archs.layers.flavour import FIR_TAPS, Flavour
from facerestore.archs.layers.recognition import Keywords, State, confirmed
from facerestore.archs.layers.resampling_blocks import conv_layer, halving_layer
from facerestore.archs.outputs import Discriminator, DiscriminatorOutput
from facerestore.registry import ARCHS


@ARCHS.register()
class FacialComponentDiscriminator(Discriminator):
    """A small patch discriminator for crops of one eye or of the mouth.

    Wang et al., Towards Real-World Blind Face Restoration with Generative Facial Prior, CVPR 2021, section 3.5 (facial
    component loss); its layers are those of StyleGAN2's discriminator.

    forward: crops (N, 3, H, W) in the generator's range to `logits` (N, 1, H / 4, W / 4) and `feats`, for the feature
    style loss (equation 7): 128 channels at half the side, 256 at a quarter.

    Source of the figures: GFPGAN, gfpgan/archs/gfpganv1_arch.py.
    """

    offers = frozenset({"logits", "feats"})

    def __init__(self) -> None:
        super().__init__()
        flavour = Flavour(taps=FIR_TAPS)
        self.conv1 = conv_layer(3, 64, 3)
        self.conv2 = halving_layer(64, 128, 3, flavour)
        self.conv3 = conv_layer(128, 128, 3)
        self.conv4 = halving_layer(128, 256, 3, flavour)
        self.conv5 = conv_layer(256, 256, 3)
        self.final_conv = conv_layer(256, 1, 3, activate=False)

    def forward(self, x: Tensor, return_feats: bool = True) -> DiscriminatorOutput:
        """Judge crops; `return_feats`: whether the output holds the features too."""
        half = self.conv3(self.conv2(self.conv1(x)))
        quarter = self.conv5(self.conv4(half))
        return DiscriminatorOutput(self.final_conv(quarter), [half, quarter] if return_feats else None)

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords:
        return {}
