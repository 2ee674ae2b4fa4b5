"""SRResNet and SRGAN side by side, as the SRGAN tutorials train them: the same start, the same batches, other losses.

Ledig et al., Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network, CVPR 2017: SRResNet by
eq. 4 alone; SRGAN by eq. 3 with eq. 5 (VGG) and eq. 6 (-log D) for the generator and eq. 2 for the discriminator.
"""

from __future__ import annotations

import torch
from torch import Tensor

from facerestore.data.batch import Batch
from facerestore.losses.gan import mean_logit
from facerestore.models.base import DiscriminatorNetwork, GeneratorNetwork, Method
from facerestore.registry import MODELS, AdversarialTerm, FeatureTerm, PixelTerm


@MODELS.register()
class SRGANComparisonModel(Method):
    """One generator learns by pixels alone, its twin also by features and by an adversary.

    Args:
        network_g: SRGAN's generator
        network_srresnet: SRResNet; `weights: network_g` lets both start alike
        network_d: SRGAN's discriminator, which judges restored and true pictures in one batch
        pixel_opt: distance of pictures, SRResNet's only loss (`l_srresnet_pix`) and a part of SRGAN's (`l_g_pix`)
        perceptual_opt: distance of features (`l_g_percep`)
        gan_opt: the adversarial loss (`l_g_gan`; `l_d` is the mean of its two terms)
    """

    optimizer_networks = {"optim_srresnet": ("net_srresnet",), "optim_g": ("net_g",), "optim_d": ("net_d",)}
    averaged = ("net_g", "net_srresnet")
    needed_to_train = ("network_d", "pixel_opt", "gan_opt")

    def __init__(
        self,
        network_g: GeneratorNetwork,
        network_srresnet: GeneratorNetwork,
        network_d: DiscriminatorNetwork | None = None,
        pixel_opt: PixelTerm | None = None,
        perceptual_opt: FeatureTerm | None = None,
        gan_opt: AdversarialTerm | None = None,
    ):
        self.g, self.srresnet, self.d = network_g, network_srresnet, network_d
        self.pixel, self.perceptual, self.gan = pixel_opt, perceptual_opt, gan_opt

    def step(self, batch: Batch, it: int) -> None:
        with self.phase("srresnet") as loss:
            loss["l_srresnet_pix"] = self.pixel(self.srresnet(batch.lq).image, batch.gt)

        with self.phase("g") as loss:
            image = self.g(batch.lq).image
            loss["l_g_pix"] = self.pixel(image, batch.gt)
            if self.perceptual:
                loss["l_g_percep"] = self.perceptual(image, batch.gt)[0]
            loss["l_g_gan"] = self.gan(self.d(image).logits, True, is_disc=False)

        with self.phase("d") as loss:
            fake, real = halves(self.d(torch.cat((image.detach(), batch.gt))).logits)
            loss["l_d"] = (self.gan(real, True, is_disc=True) + self.gan(fake, False, is_disc=True)) / 2
            loss.log["out_d_real"], loss.log["out_d_fake"] = mean_logit(real), mean_logit(fake)

    def restore(self, batch: Batch, ema: bool = True) -> Tensor:
        return self.inference_network("net_g", ema)(batch.lq).image

    def restorations(self, batch: Batch, ema: bool = True) -> dict[str, Tensor]:
        srresnet = self.inference_network("net_srresnet", ema)(batch.lq).image
        return {"SRResNet": srresnet, "SRGAN": self.restore(batch, ema)}

    def restorers(self) -> tuple[str, ...]:
        return "SRResNet", "SRGAN"


def halves(logits: Tensor | list[Tensor]) -> tuple[Tensor | list[Tensor], Tensor | list[Tensor]]:
    """The logits of the first and of the second half of a batch, at each scale."""
    if isinstance(logits, Tensor):
        first, second = logits.chunk(2)
        return first, second
    scales = [scale.chunk(2) for scale in logits]
    return [s[0] for s in scales], [s[1] for s in scales]
