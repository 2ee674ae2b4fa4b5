"""NIQE, a figure of a picture without its truth.

Mittal, Soundararajan and Bovik, Making a "Completely Blind" Image Quality Analyzer, IEEE Signal Processing Letters 2013.
A picture's brightness, locally normalised, has statistics that hardly differ between undistorted photographs; the figure
is how far a picture's are from theirs.

`niqe_pristine.npz` holds the mean and the covariance that the authors fitted to undistorted photographs (their release
for MATLAB; taken from the package basicsr 1.4.2, niqe_pris_params.npz, on PyPI).  Source of the figures: BasicSR,
basicsr/metrics/niqe.py.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import gammaln
from torch import Tensor

from facerestore.data.resize import imresize
from facerestore.errors import DataError
from facerestore.metrics.base import PictureMetric
from facerestore.metrics.psnr_ssim import Border, double, luma
from facerestore.registry import METRICS

Colours = Literal["y", "gray"]

BLOCK = 96  # pixels, of the larger of the two scales
RADIUS, SIGMA = 3, 7 / 6  # of the Gaussian under which brightness is normalised
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # horizontal, vertical and the two diagonals
EXPONENTS = np.linspace(0.2, 10, 9801)  # among which a fit chooses


@METRICS.register("calculate_niqe")
class NIQE(PictureMetric):
    """Natural image quality evaluator, without a truth.  Lower is better; photographs have 2 to 5."""

    needs_truth = False

    def __init__(self, crop_border: Border = 0, convert_to: Colours = "y"):
        """
        Args:
            crop_border: pixels that are cut off every side first
            convert_to: what is looked at: luma in studio swing (y, MATLAB's), or 0.299 R + 0.587 G + 0.114 B (gray)
        """
        super().__init__()
        self.crop_border, self.convert_to = crop_border, convert_to

    def forward(self, image: Tensor, target: Tensor | None = None) -> Tensor:
        return calculate_niqe(image, crop_border=self.crop_border, convert_to=self.convert_to)

    def protocol(self) -> dict[str, Any]:
        colours = {"y": "Y of BT.601 in studio swing", "gray": "gray, 0.299 R + 0.587 G + 0.114 B"}[self.convert_to]
        return {"colours": f"{colours}, rounded to whole levels", "reference": "the authors' fit (niqe_pristine.npz)"}


def calculate_niqe(image: Tensor, *, crop_border: int = 0, convert_to: Colours = "y") -> Tensor:
    """NIQE of each picture.  Lower is better.

    Args:
        image: (N, 3, H, W), RGB in [0, 1]
        crop_border: pixels that are cut off every side first
        convert_to: what is looked at: luma in studio swing (y), or gray

    Returns:
        (N,), float64; NaN where fewer than two blocks of the picture hold anything at all

    Raises:
        DataError: two blocks of 96 x 96 pixels do not fit into the picture
    """
    height, width = (side - 2 * crop_border for side in image.shape[-2:])
    if min(height, width) < BLOCK or (height // BLOCK) * (width // BLOCK) < 2:
        raise DataError(
            f"a picture of {image.shape[-1]} x {image.shape[-2]} is too small for NIQE with crop_border {crop_border}: "
            f"it takes two blocks of {BLOCK} x {BLOCK} pixels"
        )
    levels = brightness(double(image), convert_to)
    levels = levels[:, crop_border : crop_border + height, crop_border : crop_border + width]
    return torch.stack([distance_to_pristine(plane) for plane in levels.round()])


def brightness(image: Tensor, convert_to: Colours) -> Tensor:
    """(N, 3, H, W), RGB in [0, 1], to (N, H, W) in [0, 255]."""
    if convert_to == "y":
        return 255 * luma(image)[:, 0]
    red, green, blue = image.unbind(1)
    return 255 * (0.299 * red + 0.587 * green + 0.114 * blue)


def distance_to_pristine(plane: Tensor) -> Tensor:
    """Eq. 10: the distance of the Gaussian of a picture's features, plane (H, W) in [0, 255], from that of photographs."""
    plane = plane[: plane.shape[0] // BLOCK * BLOCK, : plane.shape[1] // BLOCK * BLOCK]
    half = imresize(plane, scale=0.5)
    rows = torch.cat([features(blocks(normalised(p), size)) for p, size in ((plane, BLOCK), (half, BLOCK // 2))], dim=1)
    whole = rows[~rows.isnan().any(1)]  # a flat block has no statistics
    if len(whole) < 2:
        return rows.new_tensor(float("nan"))
    mean, covariance = (torch.from_numpy(a).to(rows) for a in pristine())
    away = mean - rows.nanmean(0)
    return (away @ torch.linalg.pinv((covariance + whole.T.cov()) / 2, hermitian=True) @ away).sqrt()


def normalised(plane: Tensor) -> Tensor:
    """Eq. 1: (H, W) less its local mean, over its local deviation plus 1."""
    mean, square = blur(torch.stack((plane, plane.square())))
    return (plane - mean) / ((square - mean.square()).abs().sqrt() + 1)


def blur(planes: Tensor) -> Tensor:
    """(N, H, W) under a Gaussian of 7 x 7, one axis after the other, the borders repeated."""
    taps = torch.arange(-RADIUS, RADIUS + 1, dtype=planes.dtype, device=planes.device)
    taps = (-taps.square() / (2 * SIGMA**2)).exp()
    taps = (taps / taps.sum()).view(1, 1, 1, -1)
    padded = F.pad(planes[:, None], (RADIUS,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, taps), taps.mT)[:, 0]


def blocks(plane: Tensor, size: int) -> Tensor:
    """(H, W) as (N, size, size)."""
    return plane.unfold(0, size, size).unfold(1, size, size).flatten(0, 1)


def features(blocks: Tensor) -> Tensor:
    """(N, h, w) to (N, 18): the fits of each block's values, and of their products with those of four neighbours.

    Neighbours of a block's border are those of the opposite one, as in the authors' release.
    """
    products = [blocks * blocks.roll(shift, (1, 2)) for shift in NEIGHBOURS]
    alpha, left, right = fit(torch.stack([blocks, *products], dim=1).flatten(2))
    mean = (right - left) * (torch.lgamma(2 / alpha) - torch.lgamma(1 / alpha)).exp()  # eq. 8
    of_values = torch.stack((alpha, (left + right) / 2), dim=-1)[:, 0]
    of_products = torch.stack((alpha, mean, left, right), dim=-1)[:, 1:]
    return torch.cat((of_values, of_products.flatten(1)), dim=1)


def fit(samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Exponent and left and right scale of the asymmetric generalised Gaussian (eq. 7) of samples (..., n).

    By moments: Lasmar, Stitou and Berthoumieu, Multiscale Skewed Heavy Tailed Model for Texture Analysis, ICIP 2009.
    """
    square = samples.square()
    left, right = (((square * side).sum(-1) / side.sum(-1)).sqrt() for side in ((samples < 0).double(), (samples > 0).double()))
    skew = left / right
    ratio = samples.abs().mean(-1).square() / square.mean(-1) * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    exponents, ratios = (torch.from_numpy(a).to(samples) for a in (EXPONENTS, moment_ratios()))
    above = torch.searchsorted(ratios, ratio).clamp(1, len(ratios) - 1)
    nearest = above - (ratio - ratios[above - 1] <= ratios[above] - ratio).long()
    alpha = torch.where(ratio.isnan(), ratio, exponents[nearest])
    scale = ((torch.lgamma(1 / alpha) - torch.lgamma(3 / alpha)) / 2).exp()
    return alpha, left * scale, right * scale


@lru_cache(maxsize=1)
def moment_ratios() -> np.ndarray:
    """E|x|² / E x² of a generalised Gaussian with each of the exponents, with which it rises."""
    return np.exp(2 * gammaln(2 / EXPONENTS) - gammaln(1 / EXPONENTS) - gammaln(3 / EXPONENTS))


@lru_cache(maxsize=1)
def pristine() -> tuple[np.ndarray, np.ndarray]:
    """Mean (36,) and covariance (36, 36) of undistorted photographs' features."""
    with resources.files(__package__).joinpath("niqe_pristine.npz").open("rb") as file, np.load(file) as arrays:
        return arrays["mean"], arrays["covariance"]
