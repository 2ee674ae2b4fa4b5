"""Losses: modules and functions of tensors.

A new one is a file with its class, one import below, and a YAML that names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from facerestore.losses.feature_matching import FeatureMatchingLoss
from facerestore.losses.gan import GANLoss, MultiScaleGANLoss
from facerestore.losses.lpips import LPIPSLoss
from facerestore.losses.perceptual import PerceptualLoss
from facerestore.losses.pixel import CharbonnierLoss, L1Loss, MSELoss, WeightedTVLoss
from facerestore.registry import LOSSES

__all__ = [
    "CharbonnierLoss",
    "FeatureMatchingLoss",
    "GANLoss",
    "L1Loss",
    "LPIPSLoss",
    "MSELoss",
    "MultiScaleGANLoss",
    "PerceptualLoss",
    "WeightedTVLoss",
    "build_loss",
]


def build_loss(options: Mapping[str, Any]) -> nn.Module:
    """The loss of `{"type": ..., **keywords}`."""
    return LOSSES.build(options)
