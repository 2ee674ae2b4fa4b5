"""SRResNet and its kin: super-resolution by pixel (and perceptual) losses alone.

Ledig et al., Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network, CVPR 2017, eq. 4, and
Wang et al., ESRGAN, ECCVW 2018, for its PSNR-oriented model.
"""

from __future__ import annotations

from torch import Tensor

from facerestore.data.batch import Batch
from facerestore.models.base import GeneratorNetwork, Method
from facerestore.registry import MODELS, FeatureTerm, PixelTerm


@MODELS.register()
class SRModel(Method):
    """Minimises a distance between the restored picture and the truth.

    Args:
        network_g: the generator, from low quality (N, 3, h, w) to high (N, 3, H, W)
        pixel_opt: distance of pictures (`l_pix`)
        perceptual_opt: distance of features and of their Gram matrices (`l_percep`, `l_style`)
    """

    optimizer_networks = {"optim_g": ("net_g",)}
    minimises_one_of = ("pixel_opt", "perceptual_opt")

    def __init__(
        self,
        network_g: GeneratorNetwork,
        pixel_opt: PixelTerm | None = None,
        perceptual_opt: FeatureTerm | None = None,
    ):
        self.g = network_g
        self.pixel, self.perceptual = pixel_opt, perceptual_opt

    def step(self, batch: Batch, it: int) -> None:
        with self.phase("g") as loss:
            loss |= self.distances(self.g(batch.lq).image, batch.gt, prefix="l_")

    def distances(self, image: Tensor, truth: Tensor, prefix: str) -> dict[str, Tensor]:
        """The terms that compare the restored picture with the truth."""
        terms = {}
        if self.pixel:
            terms["pix"] = self.pixel(image, truth)
        if self.perceptual:
            terms["percep"], terms["style"] = self.perceptual(image, truth)
        return {prefix + name: term for name, term in terms.items() if term is not None}

    def restore(self, batch: Batch, ema: bool = True) -> Tensor:
        return self.inference_network("net_g", ema)(batch.lq).image
