"""What VQGAN and CodeFormer ask of a picture: that it be near the truth, and that it deceive a discriminator as much.

Esser et al., Taming Transformers for High-Resolution Image Synthesis (VQGAN), CVPR 2021, eq. 4, 6 and 7.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from facerestore.losses.gan import mean_logit
from facerestore.losses.regularizers import adaptive_weight
from facerestore.models.base import Terms


@dataclass(frozen=True)
class AdaptiveAdversary:
    """Distances to the truth, and an adversary that pulls at the last layer as hard as they do.

    Args:
        discriminator: from pictures (N, 3, H, W) to logits
        pixel: distance of pictures
        perceptual: distance of features
        gan: the adversarial loss
        weight: what the adversary's term is multiplied by, beside the adaptive weight
        adaptive: whether there is an adaptive weight, in [0, 1]
    """

    discriminator: nn.Module | None
    pixel: nn.Module | None
    perceptual: nn.Module | None
    gan: nn.Module | None
    weight: float
    adaptive: bool

    def reconstruction(self, image: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """`l_g_pix`, `l_g_percep` and `l_g_style`, as far as they are asked for."""
        terms = {}
        if self.pixel:
            terms["l_g_pix"] = self.pixel(image, truth)
        if self.perceptual:
            terms["l_g_percep"], terms["l_g_style"] = self.perceptual(image, truth)
        return {name: term for name, term in terms.items() if term is not None}

    def generator_terms(self, loss: Terms, image: Tensor, truth: Tensor, last_layer: Tensor, judged: bool) -> None:
        """Add what the generator pays for a picture; `judged`: whether the discriminator has a say already."""
        distances = self.reconstruction(image, truth)
        loss |= distances
        if not judged:
            return
        deceit = self.gan(self.discriminator(image).logits, True, is_disc=False)
        weight = (
            deceit.new_full((), self.weight)
            if not self.adaptive
            else self.weight * adaptive_weight(sum(distances.values()), deceit, last_layer, max_weight=1.0)
        )
        loss["l_g_gan"] = weight * deceit
        loss.log["d_weight"] = weight

    def discriminator_terms(self, loss: Terms, image: Tensor, truth: Tensor) -> None:
        """Add what the discriminator pays for taking one for the other."""
        real, fake = self.discriminator(truth).logits, self.discriminator(image.detach()).logits
        loss["l_d_real"] = self.gan(real, True, is_disc=True)
        loss["l_d_fake"] = self.gan(fake, False, is_disc=True)
        loss.log["out_d_real"], loss.log["out_d_fake"] = mean_logit(real), mean_logit(fake)
