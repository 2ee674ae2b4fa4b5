"""Adversarial losses of a discriminator's logits.

Source of the figures: BasicSR, basicsr/losses/gan_loss.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from facerestore.errors import OptionError
from facerestore.losses.hints import Weight
from facerestore.registry import LOSSES

Logits = Tensor | list[Tensor]  # of one scale, or of several
LABELLED = ("vanilla", "lsgan")  # the types that compare logits with a label
Label = Annotated[float, Meta(ge=-2, le=2)]


@LOSSES.register()
class GANLoss(nn.Module):
    """What a discriminator (or, through it, a generator) pays for its logits x, given whether they should say "real".

    With the label y (`real_label_val` or `fake_label_val`), or the sign s = +1 (real) or -1 (fake):

    - vanilla: -y log D - (1 - y) log(1 - D), D = sigmoid(x)     Goodfellow et al. 2014, eq. 1, non-saturating
    - lsgan: (x - y)^2                                           Mao et al., ICCV 2017, eq. 2, without its 1/2
    - wgan: -s x                                                 Arjovsky et al., ICML 2017, eq. 3
    - wgan_softplus: log(1 + exp(-s x))                          StyleGAN2's; vanilla with the labels 1 and 0
    - hinge: max(0, 1 - s x); for the generator -x               Lim & Ye 2017; Miyato et al., ICLR 2018, eq. 16 and 17

    forward(logits, target_is_real, is_disc=False): logits of any shape; returns the mean over them, in float32.  Only
    the generator's terms (is_disc=False) are multiplied by `loss_weight`.
    """

    kind = "adversarial"

    def __init__(
        self,
        gan_type: Literal["vanilla", "lsgan", "wgan", "wgan_softplus", "hinge"] = "vanilla",
        real_label_val: Label = 1.0,
        fake_label_val: Label = 0.0,
        loss_weight: Weight = 1.0,
    ):
        """
        Args:
            gan_type: the form of the loss
            real_label_val: label of real logits, below 1 for label smoothing (vanilla and lsgan)
            fake_label_val: label of fake logits (vanilla and lsgan)
            loss_weight: what the generator's terms are multiplied by

        Raises:
            OptionError: labels are given for a type that has none
        """
        super().__init__()
        if gan_type not in LABELLED:
            for name, value, usual in (("real_label_val", real_label_val, 1), ("fake_label_val", fake_label_val, 0)):
                if value != usual:
                    raise OptionError(
                        f"{name}: {value:g} has no effect, as gan_type {gan_type!r} compares with no label: "
                        f"leave it out, or choose {' or '.join(LABELLED)}",
                        (name,),
                    )
        self.gan_type, self.loss_weight = gan_type, loss_weight
        self.labels = (fake_label_val, real_label_val)

    def forward(self, logits: Tensor, target_is_real: bool, is_disc: bool = False) -> Tensor:
        loss = self.mean_loss(logits.float(), target_is_real, is_disc)
        return loss if is_disc else self.loss_weight * loss

    def mean_loss(self, x: Tensor, target_is_real: bool, is_disc: bool) -> Tensor:
        sign = 1 if target_is_real else -1
        if self.gan_type == "wgan":
            return -sign * x.mean()
        if self.gan_type == "wgan_softplus":
            return F.softplus(-sign * x).mean()
        if self.gan_type == "hinge":
            return F.relu(1 - sign * x).mean() if is_disc else -x.mean()
        label = x.new_full((), self.labels[target_is_real]).expand_as(x)  # one number, seen as many
        if self.gan_type == "vanilla":
            return F.binary_cross_entropy_with_logits(x, label)
        return F.mse_loss(x, label)


@LOSSES.register()
class MultiScaleGANLoss(GANLoss):
    """GANLoss of a discriminator that judges at several scales: the mean of the scales' losses.

    Wang et al., High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs (pix2pixHD), CVPR 2018,
    eq. 3, there a sum.  forward(logits, target_is_real, is_disc=False): logits are a list with one item for each scale,
    a tensor or a list of a scale's features of which the last are its logits; or one tensor, as for GANLoss.
    """

    def forward(
        self, logits: Tensor | Sequence[Tensor | Sequence[Tensor]], target_is_real: bool, is_disc: bool = False
    ) -> Tensor:
        scales = [logits] if isinstance(logits, Tensor) else [s if isinstance(s, Tensor) else s[-1] for s in logits]
        of_one = super().forward
        return sum(of_one(scale, target_is_real, is_disc) for scale in scales) / len(scales)


def detached(logits: Logits) -> Logits:
    """The logits as constants."""
    return logits.detach() if isinstance(logits, Tensor) else [scale.detach() for scale in logits]


def mean_logit(logits: Tensor | Sequence[Tensor | Sequence[Tensor]]) -> Tensor:
    """What a discriminator thinks on average, of one scale or of the mean of several: how real pictures seem to it."""
    if isinstance(logits, Tensor):
        return logits.mean()
    return sum(mean_logit(s if isinstance(s, Tensor) else s[-1]) for s in logits) / len(logits)


def relativistic(real_logits: Logits, fake_logits: Logits) -> tuple[Logits, Logits]:
    """How much more real each picture seems than the other kind's average: (C(x_r) - E C(x_f), C(x_f) - E C(x_r)).

    Wang et al., ESRGAN, ECCVW 2018, section 3.2 and eq. 1 and 2, whose D_Ra is the sigmoid of this; after
    Jolicoeur-Martineau, The relativistic discriminator, ICLR 2019.  Logits of any shape, or a list of them for several
    scales; the differences keep it.
    """
    if not isinstance(real_logits, Tensor):
        real, fake = zip(*(relativistic(r, f) for r, f in zip(real_logits, fake_logits, strict=True)), strict=True)
        return list(real), list(fake)
    return real_logits - fake_logits.mean(), fake_logits - real_logits.mean()
