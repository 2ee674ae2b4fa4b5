"""A face taken badly: blurred, shrunk, noisy, compressed, and enlarged again.

    x = {[(y ⊗ k) ↓r + n_δ] JPEG_q} ↑r

(Li et al., Blind Face Restoration via Deep Multi-scale Component Dictionaries, ECCV 2020; Wang et al., GFP-GAN, CVPR 2021,
equation 10; Zhou et al., CodeFormer, NeurIPS 2022, section 4.1).  :class:`FaceDegradation` says how the parameters are drawn,
:func:`degrade` is a pure function of a picture and of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from facerestore.data.degradations.blur import Resizing, blur_and_resize, resize
from facerestore.data.degradations.jpeg import apply_jpeg, sample_jpeg_quality
from facerestore.data.degradations.kernels import Kernel, KernelType, Range, make_kernel, sample_kernel, sample_motion
from facerestore.data.degradations.noise import (
    GaussianNoise,
    Noise,
    PoissonNoise,
    apply_noise,
    sample_gaussian_noise,
    sample_poisson_noise,
)


class Degradation(NamedTuple):
    """How one picture is degraded: σ of the kernel, r, δ and q of the formula above, and what they go with."""

    kernel: Kernel
    factor: float  # side of the picture / side of the shrunk one
    resizing: Resizing = "bilinear"  # on the way down
    noise: Noise | None = None
    jpeg_quality: int | None = None  # None: no JPEG


@dataclass(frozen=True)
class FaceDegradation:
    """What degradations are drawn from; every number is uniform in its range.

    Args:
        kernel_list: types of kernels
        kernel_prob: how often each is chosen
        blur_kernel_size: side of the kernels in pixels, odd
        blur_sigma: standard deviations of the kernels in pixels
        downsample_range: side of the picture / side of the shrunk one
        noise_range: standard deviation of Gaussian noise in levels of 0..255; None for none
        jpeg_range: quality; None for no JPEG
        downsample_modes: how the picture is shrunk, each as often as the others
        gray_noise_prob: how often noise is the same in all channels
        poisson_prob: how often noise is Poisson's instead of Gauss's
        poisson_scale_range: strength of Poisson's noise
        motion_kernel_prob: how often a motion kernel takes the place of the others
        split_plateau_iso: how beta of `plateau_iso` is drawn; see :func:`sample_kernel`
    """

    kernel_list: tuple[KernelType, ...]
    kernel_prob: tuple[float, ...]
    blur_kernel_size: int
    blur_sigma: Range
    downsample_range: Range
    noise_range: Range | None = None
    jpeg_range: Range | None = None
    downsample_modes: tuple[Resizing, ...] = ("bilinear",)
    gray_noise_prob: float = 0.0
    poisson_prob: float = 0.0
    poisson_scale_range: Range = (0.05, 3.0)
    motion_kernel_prob: float = 0.0
    split_plateau_iso: bool = True

    def sample(self, rng: np.random.Generator) -> Degradation:
        """The parameters of one picture."""
        return Degradation(
            kernel=self._sample_kernel(rng),
            factor=rng.uniform(*self.downsample_range),
            resizing=self.downsample_modes[rng.integers(len(self.downsample_modes))],
            noise=self._sample_noise(rng),
            jpeg_quality=None if self.jpeg_range is None else sample_jpeg_quality(rng, self.jpeg_range),
        )

    def _sample_kernel(self, rng: np.random.Generator) -> Kernel:
        if rng.random() < self.motion_kernel_prob:
            return sample_motion(rng, self.blur_kernel_size)
        return sample_kernel(
            rng,
            self.kernel_list,
            self.kernel_prob,
            self.blur_kernel_size,
            self.blur_sigma,
            split_plateau_iso=self.split_plateau_iso,
        )

    def _sample_noise(self, rng: np.random.Generator) -> GaussianNoise | PoissonNoise | None:
        if rng.random() < self.poisson_prob:
            return sample_poisson_noise(rng, self.poisson_scale_range, self.gray_noise_prob)
        if self.noise_range is None:
            return None
        return sample_gaussian_noise(rng, self.noise_range, self.gray_noise_prob)


def degrade(image: np.ndarray, degradation: Degradation, size: tuple[int, int]) -> np.ndarray:
    """The degraded picture.

    Args:
        image: uint8 (H, W, 3), RGB
        degradation: its parameters
        size: (height, width) of the result

    Returns:
        float32 (height, width, 3), RGB in 0..255, not rounded: colour changes and :func:`to_levels` follow
    """
    height, width = image.shape[:2]
    small = (max(1, int(height // degradation.factor)), max(1, int(width // degradation.factor)))
    lq = blur_and_resize(image, make_kernel(degradation.kernel), small, degradation.resizing)
    if degradation.noise is not None:
        lq = apply_noise(lq, degradation.noise)
    if degradation.jpeg_quality is not None:
        lq = apply_jpeg(lq, degradation.jpeg_quality)
    return resize(lq, size)


def to_levels(image: np.ndarray) -> np.ndarray:
    """float32 in 0..255 to uint8: clipped, rounded half to even."""
    return cv2.convertScaleAbs(cv2.max(image, 0.0))
