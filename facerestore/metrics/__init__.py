"""Measures of pictures.  A new one is a file with its function, one import below, and a YAML that names it.

A metric is a function of (image, target), float tensors (N, 3, H, W), RGB in [0, 1], that returns N values; its options
are keyword-only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from facerestore.metrics.psnr_ssim import calculate_psnr, calculate_psnr_pt, calculate_ssim
from facerestore.registry import METRICS

__all__ = ["build_metric", "calculate_psnr", "calculate_psnr_pt", "calculate_ssim"]


def build_metric(options: Mapping[str, Any]) -> Callable[[Tensor, Tensor], Tensor]:
    """The metric of `{"type": ..., **keywords}`."""
    return METRICS.build(options)
