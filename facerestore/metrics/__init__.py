"""Measures of pictures.  A new one is a file with its function or class, one import below, and a YAML that names it.

The simplest metric is a function of (image, target), float tensors (N, 3, H, W), RGB in [0, 1], that returns N values; its
options are keyword-only.  One that needs a network, or no truth, or all pictures of a data set, is a class: see base.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from facerestore.metrics.base import AnyMetric, Metric
from facerestore.metrics.codes import CodeAccuracy, CodebookUsage
from facerestore.metrics.fid import FID, KID
from facerestore.metrics.identity import DlibIdentityDistance, IdentityDistance, LandmarkDistance
from facerestore.metrics.lpips import LPIPSDistance
from facerestore.metrics.niqe import NIQE, calculate_niqe
from facerestore.metrics.psnr_ssim import calculate_psnr, calculate_psnr_pt, calculate_ssim
from facerestore.metrics.pyiqa import PyIQA
from facerestore.metrics.translation import DomainAgreement, Layout, calculate_difference
from facerestore.registry import METRICS

__all__ = [
    "FID",
    "KID",
    "NIQE",
    "CodeAccuracy",
    "CodebookUsage",
    "DlibIdentityDistance",
    "DomainAgreement",
    "IdentityDistance",
    "LPIPSDistance",
    "LandmarkDistance",
    "Layout",
    "PyIQA",
    "build_metric",
    "calculate_difference",
    "calculate_niqe",
    "calculate_psnr",
    "calculate_psnr_pt",
    "calculate_ssim",
]


def build_metric(options: Mapping[str, Any]) -> AnyMetric:
    """The metric of `{"type": ..., **keywords}`, ready to measure.

    Raises:
        UserError: a file or a library that it needs is missing
    """
    metric = METRICS.build(options)
    if isinstance(metric, Metric):
        metric.open()
    return metric
