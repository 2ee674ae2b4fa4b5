"""Gaussian and Poisson noise.  `sample_*` draws the parameters, which hold a seed; the noise is a pure function of them.

Wang et al., Real-ESRGAN, ICCVW 2021, section 3.1.  Arrays are float32 (H, W, 3), RGB in 0..255; tensors are float32
(N, 3, H, W), RGB in [0, 1], and every picture has parameters, and a seed, of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class GaussianNoise(NamedTuple):
    """The same for every picture."""

    sigma: float  # standard deviation in levels of 0..255, also for tensors
    gray: bool  # one map for all channels
    seed: int  # the map is drawn from it


class PoissonNoise(NamedTuple):
    """Shot noise: brighter pixels have more of it.

    A picture is taken as counts of 2^ceil(log2(distinct 8-bit values)) levels, so one of few colours gets more noise.
    """

    scale: float  # factor of the noise of those counts
    gray: bool  # the noise of the picture's luma, for all channels
    seed: int


Noise = GaussianNoise | PoissonNoise


def sample_gaussian_noise(rng: np.random.Generator, sigma_range: tuple[float, float], gray_prob: float = 0.0) -> GaussianNoise:
    """sigma uniform in `sigma_range` (levels of 0..255), gray with probability `gray_prob`."""
    return GaussianNoise(rng.uniform(*sigma_range), *_sample_gray_and_seed(rng, gray_prob))


def sample_poisson_noise(rng: np.random.Generator, scale_range: tuple[float, float], gray_prob: float = 0.0) -> PoissonNoise:
    """scale uniform in `scale_range`, gray with probability `gray_prob`."""
    return PoissonNoise(rng.uniform(*scale_range), *_sample_gray_and_seed(rng, gray_prob))


def _sample_gray_and_seed(rng: np.random.Generator, gray_prob: float) -> tuple[bool, int]:
    return rng.random() < gray_prob, int(rng.integers(2**63))


def apply_noise(image: np.ndarray, noise: Noise) -> np.ndarray:
    """float32 (H, W, 3) in 0..255, plus its noise, clipped."""
    noisy = image + make_noise(image, noise)
    return noisy.clip(0, 255, out=noisy)


def make_noise(image: np.ndarray, noise: Noise) -> np.ndarray:
    """The noise alone: float32, (H, W, 3), or (H, W, 1) where it is gray."""
    rng = np.random.default_rng(noise.seed)
    if isinstance(noise, GaussianNoise):
        return unit_normals(rng, (*image.shape[:2], 1 if noise.gray else 3)) * np.float32(noise.sigma)
    source = image @ np.array(LUMA, np.float32)[:, None] if noise.gray else image
    source = source.round().clip(0, 255)
    counts_per_level = poisson_levels(source) / 255
    counts = rng.poisson(source * counts_per_level)
    return ((counts / counts_per_level - source) * noise.scale).astype(np.float32)


def unit_normals(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """float32 numbers of mean 0 and standard deviation 1: each one of 65536 equally likely quantiles of the normal curve.

    They end at 4.32, which a picture of 8 bits does not show, and take a fifth of the time of exact ones.
    """
    return _normal_quantiles().take(rng.integers(len(_normal_quantiles()), size=shape, dtype=np.uint16))


@lru_cache(maxsize=1)
def _normal_quantiles() -> np.ndarray:
    quantiles = ndtri((np.arange(1 << 16) + 0.5) / (1 << 16))
    return (quantiles / quantiles.std()).astype(np.float32)


def poisson_levels(levels: np.ndarray) -> int:
    """The power of two at or above the number of distinct values of `levels`, whole numbers in 0..255."""
    distinct = np.count_nonzero(np.bincount(levels.astype(np.uint8).ravel(), minlength=256))
    return 1 << (int(distinct) - 1).bit_length()


def apply_noise_tensor(images: Tensor, noises: Sequence[Noise]) -> Tensor:
    """(N, 3, H, W) in [0, 1], plus the noise of each picture, clipped."""
    return (images + make_noise_tensor(images, noises)).clamp(0, 1)


def make_noise_tensor(images: Tensor, noises: Sequence[Noise]) -> Tensor:
    """The noise alone, (N, 3, H, W) in units of [0, 1].

    What a picture gets depends on it and its own parameters alone, not on its batch.  A seed gives other numbers than in
    `make_noise`, and other ones on a GPU than on the CPU.
    """
    drawn = [_draw(image, noise) for image, noise in zip(images, noises, strict=True)]
    return torch.stack([noise.expand_as(images[0]) for noise in drawn])


def _draw(image: Tensor, noise: Noise) -> Tensor:
    """(3, H, W), or (1, H, W) where it is gray."""
    generator = torch.Generator(image.device).manual_seed(noise.seed)
    if isinstance(noise, GaussianNoise):
        shape = (1 if noise.gray else 3, *image.shape[1:])
        return torch.randn(shape, generator=generator, device=image.device) * (noise.sigma / 255)
    source = (image * image.new_tensor(LUMA).view(3, 1, 1)).sum(0, True) if noise.gray else image
    source = (source * 255).round().clamp(0, 255)
    levels = _poisson_levels_tensor(source)
    source = source / 255
    return (torch.poisson(source * levels, generator=generator) / levels - source) * noise.scale


def _poisson_levels_tensor(levels: Tensor) -> Tensor:
    """`poisson_levels` without waiting for the device."""
    seen = torch.zeros(256, device=levels.device).index_fill(0, levels.long().flatten(), 1.0)
    _, exponent = torch.frexp(seen.sum() - 0.5)  # m - 1/2 = f 2^e with 1/2 <= f < 1: 2^e is the power at or above m
    return torch.ones_like(exponent) << exponent
