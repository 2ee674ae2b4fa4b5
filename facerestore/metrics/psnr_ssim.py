"""PSNR and SSIM.

Source of the figures: BasicSR, basicsr/metrics/psnr_ssim.py, which takes pictures of 8 bits.  Here values are taken as
they are: round them to 8 bits before where a protocol asks for it.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor

from facerestore.errors import DataError
from facerestore.registry import METRICS

WINDOW, SIGMA = 11, 1.5  # of SSIM's Gaussian
Border = Annotated[int, Meta(ge=0, le=4096)]


@METRICS.register()
def calculate_psnr(image: Tensor, target: Tensor, *, crop_border: Border = 0, test_y_channel: bool = False) -> Tensor:
    """Peak signal-to-noise ratio in dB, 10 log10(1 / MSE): the mean is over channels and pixels.  Higher is better.

    Args:
        image: (N, 3, H, W), RGB in [0, 1]
        target: the same
        crop_border: pixels that are cut off every side first
        test_y_channel: whether the luma alone is compared

    Returns:
        (N,), float64; inf for identical pictures

    Raises:
        DataError: the shapes differ, or the crop leaves nothing
    """
    return -10 * mean_square_error(image, target, crop_border, test_y_channel).log10()


@METRICS.register()
def calculate_psnr_pt(image: Tensor, target: Tensor, *, crop_border: Border = 0, test_y_channel: bool = False) -> Tensor:
    """BasicSR's PSNR for tensors, 10 log10(1 / (MSE + 1e-8)): finite, 80 dB for identical pictures.  Higher is better.

    Args:
        image: (N, 3, H, W), RGB in [0, 1]
        target: the same
        crop_border: pixels that are cut off every side first
        test_y_channel: whether the luma alone is compared

    Returns:
        (N,), float64

    Raises:
        DataError: the shapes differ, or the crop leaves nothing
    """
    return -10 * (mean_square_error(image, target, crop_border, test_y_channel) + 1e-8).log10()


@METRICS.register("calculate_ssim_pt")  # BasicSR's for tensors has the same figures
@METRICS.register()
def calculate_ssim(image: Tensor, target: Tensor, *, crop_border: Border = 0, test_y_channel: bool = False) -> Tensor:
    """Structural similarity, at most 1.  Higher is better.

    Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, TIP 2004, eq. 13: in Gaussian
    windows of 11 x 11 pixels that lie wholly within the picture, their mean over positions and channels.

    Args:
        image: (N, 3, H, W), RGB in [0, 1]
        target: the same
        crop_border: pixels that are cut off every side first
        test_y_channel: whether the luma alone is compared

    Returns:
        (N,), float64

    Raises:
        DataError: the shapes differ, or the crop leaves less than a window
    """
    x, y = prepare(image, target, crop_border, test_y_channel, smallest=WINDOW)
    n = len(x)
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = blur(torch.cat((x, y, x * x, y * y, x * y))).split(n)
    c1, c2 = 0.01**2, 0.03**2
    variances = mean_xx - mean_x**2 + mean_yy - mean_y**2
    covariance = mean_xy - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1) * (2 * covariance + c2) / (variances + c2)
    return similarity.mean((1, 2, 3))


def luma(image: Tensor) -> Tensor:
    """Y of ITU-R BT.601 in studio swing, 16/255 to 235/255: from RGB in [0, 1], (N, 3, H, W), to (N, 1, H, W)."""
    red, green, blue = image.split(1, dim=1)
    return (65.481 * red + 128.553 * green + 24.966 * blue + 16) / 255


def prepare(image: Tensor, target: Tensor, crop_border: int, test_y_channel: bool, smallest: int = 1) -> tuple[Tensor, Tensor]:
    """Both pictures in float64, cropped, as luma where that is asked for; DataError where they cannot be compared."""
    if image.shape != target.shape:
        raise DataError(f"a picture of shape {tuple(image.shape)} cannot be compared with one of {tuple(target.shape)}")
    height, width = image.shape[-2:]
    if min(height, width) - 2 * crop_border < smallest:
        raise DataError(
            f"a border of {crop_border} leaves less than {smallest} pixels of a picture of {width} x {height}: "
            "lower crop_border"
        )
    pictures = [double(p[..., crop_border : height - crop_border, crop_border : width - crop_border]) for p in (image, target)]
    return tuple(map(luma, pictures)) if test_y_channel else tuple(pictures)


def double(image: Tensor) -> Tensor:
    return (image.cpu() if image.device.type == "mps" else image).double()  # MPS has no float64


def mean_square_error(image: Tensor, target: Tensor, crop_border: int, test_y_channel: bool) -> Tensor:
    x, y = prepare(image, target, crop_border, test_y_channel)
    return (x - y).square().mean((1, 2, 3))


def blur(image: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, H - 10, W - 10): a Gaussian, one axis after the other, at its valid positions."""
    taps = torch.arange(WINDOW, dtype=image.dtype, device=image.device) - WINDOW // 2
    taps = (-taps.square() / (2 * SIGMA**2)).exp()
    taps = (taps / taps.sum()).expand(image.shape[1], 1, 1, WINDOW)
    rows = F.conv2d(image, taps, groups=len(taps))
    return F.conv2d(rows, taps.mT, groups=len(taps))
