"""LPIPS as a loss.  Source of the figures: CodeFormer, basicsr/losses/losses.py."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facerestore.archs.lpips import LPIPS, Backbone
from facerestore.losses.hints import Weight
from facerestore.registry import LOSSES, WeightFile

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@LOSSES.register()
class LPIPSLoss(nn.Module):
    """Learnt perceptual distance, mean over the batch.

    Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018, eq. 1: squared
    differences of features of unit length, weighted by channel, averaged over positions and summed over layers.

    forward(pred, target): pictures (N, 3, H, W) in [-1, 1], as LPIPS was trained on them; `target` is a constant.  Returns
    (distance, None): there is no style term.  Distances are computed in float32.

    CodeFormer normalises pictures by ImageNet's mean and deviation before LPIPS does so again: `use_input_norm` and
    `range_norm`, both true in its files, give that distance.  The network is frozen and stays in eval mode.
    """

    kind = "feature"
    weight_files = {
        "weights": WeightFile(
            module="lpips.backbone",
            default="torchvision",
            required=True,
            extra_keys=True,
            doc="file of the classifier's weights under torchvision's keys; torchvision's own by default; or 'random'",
        ),
        "lpips_weights": WeightFile(
            module="lpips.linear",
            default="published",
            required=True,
            doc="file of LPIPS's linear layers (lin0.model.1.weight, ...); the authors' version 0.1 by default; "
            "or 'random': every channel weighs alike",
        ),
    }

    def __init__(
        self,
        loss_weight: Weight = 1.0,
        use_input_norm: bool = False,
        range_norm: bool = False,
        net: Backbone = "vgg",
    ):
        """
        Args:
            loss_weight: what the distance is multiplied by
            use_input_norm: whether pictures, by then in [0, 1], are brought to ImageNet's mean and deviation, before LPIPS
                does the like again
            range_norm: whether pictures come in [-1, 1] and are mapped to [0, 1] before all else
            net: the classifier through which LPIPS looks: AlexNet, VGG16 or SqueezeNet 1.1
        """
        super().__init__()
        self.loss_weight, self.use_input_norm, self.range_norm = loss_weight, use_input_norm, range_norm
        self.lpips = LPIPS(net)
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.train(False)

    def train(self, mode: bool = True) -> LPIPSLoss:
        return super().train(False)

    def forward(self, pred: Tensor, target: Tensor) -> tuple[Tensor, None]:
        distance = self.lpips(self.prepared(pred), self.prepared(target.detach()))
        return self.loss_weight * distance.mean(), None

    def prepared(self, image: Tensor) -> Tensor:
        if self.range_norm:
            image = (image + 1) / 2
        return (image - self.mean) / self.std if self.use_input_norm else image
