"""Distances between pictures, element by element, and total variation.

Source of the figures: BasicSR, basicsr/losses/basic_loss.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from facerestore.errors import DataError
from facerestore.losses.hints import Weight
from facerestore.registry import LOSSES


def reduce(loss: Tensor, weight: Tensor | None, reduction: Literal["mean", "sum", "none"]) -> Tensor:
    """`loss` (N, C, H, W) times a weight map that broadcasts to it, reduced.

    The mean is the weighted one: the weighted sum over the sum of the weights, each counted for every channel that it
    weighs.  It is 0 where all weights are 0.
    """
    if weight is not None:
        weight = weight.to(loss).expand_as(loss)
        loss = loss * weight
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if weight is None:
        return loss.mean()
    return loss.sum() / weight.sum().clamp_min(torch.finfo(loss.dtype).tiny)


class PixelLoss(nn.Module, ABC):
    """The base of the distances d(pred, target): their mean, sum or map, times the loss's weight.

    forward(pred, target, weight=None): pictures (N, C, H, W) of any range; a weight map (N, 1 or C, H, W) of values
    from 0.  Computed in float32.
    """

    kind = "pixel"

    def __init__(
        self,
        loss_weight: Weight = 1.0,
        reduction: Literal["mean", "sum", "none"] = "mean",
    ):
        """
        Args:
            loss_weight: what the loss is multiplied by
            reduction: mean over all elements (with a weight map: the weighted mean), their sum, or none, a map
        """
        super().__init__()
        self.loss_weight, self.reduction = loss_weight, reduction

    @abstractmethod
    def distance(self, pred: Tensor, target: Tensor) -> Tensor:
        """d(pred, target) of every element."""

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        if pred.shape != target.shape:
            raise DataError(f"pictures of shapes {tuple(pred.shape)} and {tuple(target.shape)} cannot be compared")
        return self.loss_weight * reduce(self.distance(pred.float(), target.float()), weight, self.reduction)


@LOSSES.register()
class L1Loss(PixelLoss):
    """|pred - target|.  Shapes and reductions: see PixelLoss."""

    def distance(self, pred: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(pred, target, reduction="none")


@LOSSES.register()
class MSELoss(PixelLoss):
    """(pred - target)^2.  Shapes and reductions: see PixelLoss."""

    def distance(self, pred: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(pred, target, reduction="none")


@LOSSES.register()
class CharbonnierLoss(PixelLoss):
    """sqrt((pred - target)^2 + eps), an L1 distance that is smooth at 0.

    Charbonnier et al., Two Deterministic Half-Quadratic Regularization Algorithms for Computed Imaging, ICIP 1994; as
    used by Lai et al., Deep Laplacian Pyramid Networks for Fast and Accurate Super-Resolution, CVPR 2017 (eps is
    that paper's epsilon squared).  Shapes and reductions: see PixelLoss.
    """

    def __init__(
        self,
        loss_weight: Weight = 1.0,
        reduction: Literal["mean", "sum", "none"] = "mean",
        eps: Annotated[float, Meta(gt=0, le=1)] = 1e-12,
    ):
        """
        Args:
            loss_weight: what the loss is multiplied by
            reduction: mean over all elements (with a weight map: the weighted mean), their sum, or none, a map
            eps: what keeps the root's gradient finite at 0
        """
        super().__init__(loss_weight, reduction)
        self.eps = eps

    def distance(self, pred: Tensor, target: Tensor) -> Tensor:
        return ((pred - target).square() + self.eps).sqrt()


@LOSSES.register()
class WeightedTVLoss(nn.Module):
    """Anisotropic total variation: the L1 distance of vertical neighbours plus that of horizontal ones.

    Rudin et al., Nonlinear total variation based noise removal algorithms, Physica D 1992, with the L1 norm of the
    gradient.  forward(pred, weight=None): pictures (N, C, H, W) of any range; a weight map (N, 1 or C, H, W) of values
    from 0, of which the upper or left pixel of a pair counts.  Computed in float32.
    """

    def __init__(self, loss_weight: Weight = 1.0, reduction: Literal["mean", "sum"] = "mean"):
        """
        Args:
            loss_weight: what the loss is multiplied by
            reduction: mean over all pairs (with a weight map: the weighted mean), or their sum
        """
        super().__init__()
        self.loss_weight, self.reduction = loss_weight, reduction

    def forward(self, pred: Tensor, weight: Tensor | None = None) -> Tensor:
        pred = pred.float()
        rows = columns = weight
        if weight is not None:
            weight = weight.expand_as(pred)
            rows, columns = weight[..., :-1, :], weight[..., :-1]
        vertical = reduce(pred.diff(dim=-2).abs(), rows, self.reduction)
        horizontal = reduce(pred.diff(dim=-1).abs(), columns, self.reduction)
        return self.loss_weight * (vertical + horizontal)
