"""Distances between the features that a network trained on ImageNet sees in two pictures.

Source of the figures: BasicSR, basicsr/losses/basic_loss.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.archs.vgg_features import VGGFeatures, VggType
from facerestore.errors import OptionError
from facerestore.losses.hints import Weight
from facerestore.registry import LOSSES, WeightFile

CRITERIA: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": F.l1_loss,
    "l2": F.mse_loss,
    "fro": lambda x, y: torch.linalg.vector_norm(x - y),  # over the whole batch
}


@LOSSES.register()
class PerceptualLoss(nn.Module):
    """Perceptual and style loss of VGG features.

    Johnson et al., Perceptual Losses for Real-Time Style Transfer and Super-Resolution, ECCV 2016: eq. 2 (features) and
    eq. 3 and 4 (Gram matrices; after Gatys et al., CVPR 2016).  Each layer's distance is multiplied by its own weight;
    the sums by `perceptual_weight` and `style_weight`.

    forward(x, gt): pictures (N, 3, H, W) in [0, 1], or in [-1, 1] with `range_norm`; `gt` is a constant.  Returns
    (perceptual, style), None for a term of weight 0.  Distances and Gram matrices are computed in float32.

    The VGG is frozen and stays in eval mode.  Its weights are torchvision's, loaded by the builder.
    """

    kind = "feature"
    weight_files = {
        "weights": WeightFile(
            module="vgg",
            default="torchvision",
            required=True,
            extra_keys=True,
            doc="file of the VGG's weights under torchvision's keys; torchvision's own by default; or 'random'",
        )
    }

    def __init__(
        self,
        layer_weights: dict[str, Weight],
        vgg_type: VggType = "vgg19",
        use_input_norm: bool = True,
        range_norm: bool = False,
        perceptual_weight: Weight = 1.0,
        style_weight: Weight = 0.0,
        criterion: Literal["l1", "l2", "fro"] = "l1",
    ):
        """
        Args:
            layer_weights: weights of the layers' distances by name: conv5_4 (before its ReLU), relu2_2, pool3, ...
            vgg_type: which VGG
            use_input_norm: whether pictures in [0, 1] are brought to ImageNet's mean and deviation
            range_norm: whether pictures come in [-1, 1] and are mapped to [0, 1] first
            perceptual_weight: what the perceptual term is multiplied by; 0 leaves it out
            style_weight: what the style term is multiplied by; 0 leaves it out
            criterion: mean of absolute (l1) or squared (l2) differences, or Frobenius norm over the whole batch (fro)

        Raises:
            OptionError: there is no such layer, or none, or both terms are left out
        """
        super().__init__()
        if not perceptual_weight and not style_weight:
            raise OptionError(
                "perceptual_weight and style_weight are both 0, so that nothing is measured: "
                "give one of them, or leave this loss out",
                ("perceptual_weight",),
            )
        self.layer_weights = dict(layer_weights)
        self.perceptual_weight, self.style_weight = perceptual_weight, style_weight
        self.distance = CRITERIA[criterion]
        try:
            self.vgg = VGGFeatures(list(layer_weights), vgg_type, use_input_norm, range_norm)
        except OptionError as error:  # of its layer_name_list
            raise OptionError(error.message, ("layer_weights",)) from None
        self.vgg.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> PerceptualLoss:
        return super().train(False)

    def forward(self, x: Tensor, gt: Tensor) -> tuple[Tensor | None, Tensor | None]:
        of_x = self.vgg(x)
        with torch.no_grad():
            of_gt = self.vgg(gt)
        perceptual = style = None
        if self.perceptual_weight:
            perceptual = self.perceptual_weight * self.sum_over_layers(as_float32, of_x, of_gt)
        if self.style_weight:
            style = self.style_weight * self.sum_over_layers(gram_matrix, of_x, of_gt)
        return perceptual, style

    def sum_over_layers(self, view: Callable[[Tensor], Tensor], x: Mapping[str, Tensor], gt: Mapping[str, Tensor]) -> Tensor:
        return sum(w * self.distance(view(x[layer]), view(gt[layer])) for layer, w in self.layer_weights.items())


def as_float32(features: Tensor) -> Tensor:
    return features.float()


def gram_matrix(features: Tensor) -> Tensor:
    """F F^T / (C H W), (N, C, C), of features F (N, C, H W): how often two channels fire together, wherever they do.

    In float32 under autocast too: its entries are sums over all positions.
    """
    flat = features.float().flatten(2)
    with torch.autocast(features.device.type, enabled=False):
        return flat @ flat.mT / (flat.shape[1] * flat.shape[2])
