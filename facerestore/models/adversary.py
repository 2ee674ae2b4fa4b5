"""What methods with a discriminator of whole pictures share."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from facerestore.errors import OptionError
from facerestore.losses.gan import Logits, mean_logit
from facerestore.losses.regularizers import r1_penalty
from facerestore.models.base import Terms

# Lazy regularisation makes of k steps k + 1 (Karras et al., StyleGAN2, appendix B): beta_2 becomes beta_2^r, and the
# learning rate, in the paper but not in the published code, r times as large, with r = k / (k + 1).
BETA_2 = 0.99


def refuse_other_sizes(networks: Mapping[str, nn.Module]) -> None:
    """OptionError where generator and discriminator are built for pictures of different sizes."""
    drawn, judged = (getattr(networks.get(key), "out_size", None) for key in ("network_g", "network_d"))
    if None not in (drawn, judged) and drawn != judged:
        raise OptionError(
            f"network_d judges pictures of {judged} x {judged} pixels, and network_g makes {drawn} x {drawn}: set one "
            "`out_size` for both",
            ("network_d", "out_size"),
        )


def lazy_ratio(every: int) -> float:
    """r of a network that is regularised in every n-th iteration."""
    return every / (every + 1)


def lazy_betas(every: int) -> tuple[float, float]:
    """Adam's published betas of such a network."""
    return 0.0, BETA_2 ** lazy_ratio(every)


def discriminate(loss: Terms, d: nn.Module, gan: nn.Module, real: Tensor, fake: Tensor, r1_weight: float) -> None:
    """The discriminator's terms: `l_d`, and with a weight R1's penalty of the real pictures (`l_d_r1`).

    Karras et al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020: the logistic loss of Goodfellow et al.
    2014, eq. 1 (of `gan`), and the gradient penalty of Mescheder et al., ICML 2018, eq. 9.

    Args:
        loss: the phase's terms
        d: the discriminator
        gan: the adversarial loss
        real: pictures (N, 3, H, W)
        fake: generated ones, constants
        r1_weight: what the penalty is multiplied by; 0 leaves it out
    """
    real = real.detach().requires_grad_(r1_weight > 0)
    real_logits, fake_logits = d(real).logits, d(fake).logits
    loss["l_d"] = gan(real_logits, True, is_disc=True) + gan(fake_logits, False, is_disc=True)
    loss.log["real_score"], loss.log["fake_score"] = mean_logit(real_logits), mean_logit(fake_logits)
    if r1_weight:
        loss["l_d_r1"] = r1_weight * r1_penalty(total(real_logits), real)


def total(logits: Logits) -> Tensor:
    """The sum of all logits, of one scale or of several."""
    return logits.sum() if isinstance(logits, Tensor) else torch.stack([scale.sum() for scale in logits]).sum()
