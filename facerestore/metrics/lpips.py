"""LPIPS as a metric; the distance itself is in facerestore/archs/lpips.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from facerestore.archs.lpips import BACKBONES, LPIPS, Backbone
from facerestore.errors import DataError
from facerestore.metrics.base import PictureMetric
from facerestore.registry import METRICS, WeightFile


@METRICS.register("calculate_lpips")
class LPIPSDistance(PictureMetric):
    """Learnt perceptual distance to the truth.  Lower is better.

    Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018.  Figures of different
    classifiers cannot be compared: papers report AlexNet's or VGG's.
    """

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
            doc="file of LPIPS's linear layers (lin0.model.1.weight, ...); the authors' version 0.1 by default; or 'random'",
        ),
    }

    def __init__(self, net: Backbone = "alex"):
        """
        Args:
            net: the classifier through which LPIPS looks: AlexNet, VGG16 or SqueezeNet 1.1
        """
        super().__init__()
        self.lpips = LPIPS(net)

    @torch.no_grad()
    def forward(self, image: Tensor, target: Tensor | None = None) -> Tensor:
        if image.shape != target.shape:
            raise DataError(f"a picture of shape {tuple(image.shape)} cannot be compared with one of {tuple(target.shape)}")
        return self.lpips(2 * image - 1, 2 * target - 1).cpu().double()

    def protocol(self) -> dict[str, Any]:
        return {"network": f"LPIPS 0.1 of {BACKBONES[self.lpips.net].name}", "colours": "RGB, at the picture's own size"}
