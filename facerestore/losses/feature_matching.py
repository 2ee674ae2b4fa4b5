"""Feature matching: the generator's pictures should pass the discriminator's layers as real ones do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.losses.hints import Weight
from facerestore.registry import LOSSES

Features = Sequence[Tensor]


@LOSSES.register()
class FeatureMatchingLoss(nn.Module):
    """The distance between the discriminator's features of generated and real pictures, added up over its layers.

    Wang et al., High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs (pix2pixHD), CVPR 2018,
    eq. 4: sum over layers i of mean |D_i(real) - D_i(fake)|; over several scales the mean of these sums, as its code
    has it (in eq. 5 the sum).  forward(fake_feats, real_feats): a list of tensors, or a list of such lists, one for
    each scale.  The real features are a constant.  Computed in float32.
    """

    kind = "feature matching"
    needs: ClassVar[dict[str, tuple[str, ...]]] = {"network_d": ("feats",)}

    def __init__(self, loss_weight: Weight = 10.0, criterion: Literal["l1", "l2"] = "l1"):
        """
        Args:
            loss_weight: what the loss is multiplied by
            criterion: mean of absolute (l1) or of squared (l2) differences
        """
        super().__init__()
        self.loss_weight = loss_weight
        self.distance = {"l1": F.l1_loss, "l2": F.mse_loss}[criterion]

    def forward(self, fake_feats: Features | Sequence[Features], real_feats: Features | Sequence[Features]) -> Tensor:
        if isinstance(fake_feats[0], Tensor):
            fake_feats, real_feats = [fake_feats], [real_feats]
        scales = zip(fake_feats, real_feats, strict=True)
        total = sum(
            self.distance(fake.float(), real.detach().float())
            for fakes, reals in scales
            for fake, real in zip(fakes, reals, strict=True)
        )
        return self.loss_weight * total / len(fake_feats)
