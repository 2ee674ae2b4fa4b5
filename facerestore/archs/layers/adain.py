"""Adaptive instance normalisation."""

from __future__ import annotations

import torch
from torch import Tensor


def adaptive_instance_norm(content: Tensor, style: Tensor, eps: float = 1e-5) -> Tensor:
    """`content` with each channel's mean and deviation over the positions replaced by those of `style`.

    Huang and Belongie, Arbitrary Style Transfer in Real-Time with Adaptive Instance Normalization, ICCV 2017, eq. 8.
    The variance is the unbiased one, so there must be two positions or more; both are reckoned in float32.

    Args:
        content: features (N, C, H, W)
        style: features (N, C, h, w)
        eps: added to the variances

    Returns:
        (N, C, H, W), float32
    """
    (content_mean, content_std), (style_mean, style_std) = (_moments(feat.float(), eps) for feat in (content, style))
    return (content - content_mean) / content_std * style_std + style_mean


def _moments(feat: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(feat, dim=(2, 3), keepdim=True)
    return mean, (variance + eps).sqrt()
