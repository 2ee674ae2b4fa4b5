"""SRGAN and ESRGAN: super-resolution with an adversary.

Ledig et al., Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network, CVPR 2017, eq. 2, 3 and 6;
Wang et al., ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks, ECCVW 2018, eq. 1 to 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from facerestore.data.batch import Batch
from facerestore.losses.gan import detached, mean_logit, relativistic
from facerestore.models.base import DiscriminatorNetwork, GeneratorNetwork, Terms, Turn
from facerestore.models.sr import SRModel
from facerestore.registry import MODELS, AdversarialTerm, FeatureTerm, Iteration, Period, PixelTerm


@MODELS.register()
class SRGANModel(SRModel):
    """The generator minimises its distances to the truth and deceives the discriminator, which tells the two apart.

    Args:
        network_g: the generator, from low quality (N, 3, h, w) to high (N, 3, H, W)
        network_d: the discriminator
        pixel_opt: distance of pictures (`l_g_pix`)
        perceptual_opt: distance of features and of their Gram matrices (`l_g_percep`, `l_g_style`)
        gan_opt: the adversarial loss (`l_g_gan`, `l_d_real`, `l_d_fake`)
        net_d_iters: the generator is updated in every n-th iteration
        net_d_init_iters: the generator is not updated up to this iteration
    """

    optimizer_networks = {"optim_g": ("net_g",), "optim_d": ("net_d",)}
    needed_to_train = ("network_d", "gan_opt")
    minimises_one_of = ()

    def __init__(
        self,
        network_g: GeneratorNetwork,
        network_d: DiscriminatorNetwork | None = None,
        pixel_opt: PixelTerm | None = None,
        perceptual_opt: FeatureTerm | None = None,
        gan_opt: AdversarialTerm | None = None,
        net_d_iters: Period = 1,
        net_d_init_iters: Iteration = 0,
    ):
        super().__init__(network_g, pixel_opt, perceptual_opt)
        self.d, self.gan = network_d, gan_opt
        self.generator_turn = Turn.after(net_d_init_iters, net_d_iters)

    def step(self, batch: Batch, it: int) -> None:
        if self.generator_turn.includes(it):
            with self.phase("g") as loss:
                image = self.g(batch.lq).image
                loss |= self.distances(image, batch.gt, prefix="l_g_")
                loss["l_g_gan"] = self.deceive(image, batch.gt)
        else:
            with torch.no_grad():
                image = self.g(batch.lq).image
        with self.phase("d") as loss:
            self.discriminate(loss, image.detach(), batch.gt)

    def turning_points(self) -> dict[str, Turn]:
        return {"generator is updated": self.generator_turn}

    def deceive(self, image: Tensor, truth: Tensor) -> Tensor:
        """The generator's part of eq. 2: its pictures should pass for real ones."""
        return self.gan(self.d(image).logits, True, is_disc=False)

    def discriminate(self, loss: Terms, image: Tensor, truth: Tensor) -> None:
        """The discriminator's part of eq. 2."""
        real, fake = self.d(truth).logits, self.d(image).logits
        loss["l_d_real"] = self.gan(real, True, is_disc=True)
        loss["l_d_fake"] = self.gan(fake, False, is_disc=True)
        loss.log["out_d_real"], loss.log["out_d_fake"] = mean_logit(real), mean_logit(fake)


@MODELS.register()
class ESRGANModel(SRGANModel):
    """As SRGAN, but the discriminator says which of two pictures is the more real (relativistic average GAN)."""

    def deceive(self, image: Tensor, truth: Tensor) -> Tensor:
        with torch.no_grad():
            real = self.d(truth).logits
        real, fake = relativistic(real, self.d(image).logits)
        return (self.gan(real, False, is_disc=False) + self.gan(fake, True, is_disc=False)) / 2

    def discriminate(self, loss: Terms, image: Tensor, truth: Tensor) -> None:
        # Each half of the published step sees the other's mean as a constant; one pass over each picture serves both.
        fake, real = self.d(image).logits, self.d(truth).logits
        loss["l_d_real"] = self.gan(relativistic(real, detached(fake))[0], True, is_disc=True) / 2
        loss["l_d_fake"] = self.gan(relativistic(detached(real), fake)[1], False, is_disc=True) / 2
        loss.log["out_d_real"], loss.log["out_d_fake"] = mean_logit(real), mean_logit(fake)
