"""VQGANDiscriminator, the discriminator of VQGAN and CodeFormer."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from facerestore.archs.layers.hints import Count, Depth
from facerestore.archs.layers.recognition import Keywords, State, confirmed, count
from facerestore.archs.outputs import Discriminator, DiscriminatorOutput
from facerestore.errors import DataError
from facerestore.registry import ARCHS, WeightFile


@ARCHS.register()
class VQGANDiscriminator(Discriminator):
    """One logit for each overlapping patch of a picture, with batch norm.

    Isola et al., Image-to-Image Translation with Conditional Adversarial Networks (PatchGAN), CVPR 2017, appendix 6.1.2, as
    Esser et al. (VQGAN, CVPR 2021) and Zhou et al. (CodeFormer, NeurIPS 2022) use it.

    forward: pictures (N, nc, H, W) of any range to `logits` (N, 1, h, w), where h = H / 2^n_layers - 2 (rounded down at each
    halving).  DataError where a picture is too small for one logit.

    Source of the figures: CodeFormer, basicsr/archs/vqgan_arch.py.
    """

    weight_files = {"model_path": WeightFile(doc="file of this network's weights, or 'random'")}

    def __init__(self, nc: Count = 3, ndf: Count = 64, n_layers: Depth = 4):
        """
        Args:
            nc: channels of the pictures
            ndf: channels of the first features; later ones have up to 8 times as many
            n_layers: convolutions that halve the size; the more, the larger a patch
        """
        super().__init__()
        self.smallest = 3 * 2**n_layers  # side in pixels of a picture with one logit
        widths = [ndf * min(2**n, 8) for n in range(n_layers + 1)]
        layers: list[nn.Module] = [nn.Conv2d(nc, ndf, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        for n, (before, after) in enumerate(pairwise(widths), start=1):
            stride = 2 if n < n_layers else 1
            layers += [
                nn.Conv2d(before, after, 4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.main = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        height, width = x.shape[-2:]
        if min(height, width) < self.smallest:
            raise DataError(
                f"VQGANDiscriminator judges pictures of {self.smallest} pixels a side or more, not of {width} x {height}: "
                "give it fewer `n_layers`, or larger pictures"
            )
        return DiscriminatorOutput(logits=self.main(x))

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords:
        ndf, nc = state["main.0.weight"].shape[:2]
        return {"nc": nc, "ndf": ndf, "n_layers": (count(state, "main") - 3) // 3}
