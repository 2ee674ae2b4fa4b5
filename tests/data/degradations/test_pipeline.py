"""The whole degradation, against its published steps taken one by one in OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from facerestore.data.degradations.jpeg import apply_jpeg
from facerestore.data.degradations.kernels import make_kernel
from facerestore.data.degradations.noise import GaussianNoise, PoissonNoise, make_noise
from facerestore.data.degradations.pipeline import Degradation, FaceDegradation, degrade, to_levels
from tests.data.pictures import waves

PICTURE = waves(seed=7, h=128, w=128, noise=6.0, levels=12)


def step_by_step(image: np.ndarray, degradation: Degradation, side: int) -> np.ndarray:
    lq = cv2.filter2D(image.astype(np.float32), -1, make_kernel(degradation.kernel))
    small = int(len(image) // degradation.factor)
    lq = cv2.resize(lq, (small, small), interpolation=cv2.INTER_LINEAR)
    if degradation.noise:
        lq = np.clip(lq + make_noise(lq, degradation.noise), 0, 255)
    if degradation.jpeg_quality is not None:
        lq = apply_jpeg(lq, degradation.jpeg_quality)
    return cv2.resize(lq, (side, side), interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize("side", [128, 64])
def test_it_is_its_steps(side):
    options = FaceDegradation(
        kernel_list=("iso", "aniso", "plateau_aniso"),
        kernel_prob=(0.4, 0.4, 0.2),
        blur_kernel_size=21,
        blur_sigma=(0.1, 5.0),
        downsample_range=(0.8, 8.0),
        noise_range=(0.0, 20.0),
        jpeg_range=(30.0, 100.0),
    )
    rng = np.random.default_rng(0)
    compressed = []
    for _ in range(25):
        drawn = options.sample(rng)
        compressed.append(np.abs(degrade(PICTURE, drawn, (side, side)) - step_by_step(PICTURE, drawn, side)).mean())
        drawn = drawn._replace(jpeg_quality=None)
        mine, published = degrade(PICTURE, drawn, (side, side)), step_by_step(PICTURE, drawn, side)
        assert mine.dtype == np.float32 and np.abs(mine - published).max() < 0.05, drawn
    # A hundredth of a level may round the other way, and JPEG carry that into a block of its own
    assert np.median(compressed) < 1e-3 and np.mean(compressed) < 0.1


def test_every_choice_is_drawn():
    options = FaceDegradation(
        kernel_list=("iso",),
        kernel_prob=(1.0,),
        blur_kernel_size=11,
        blur_sigma=(1.0, 2.0),
        downsample_range=(1.0, 4.0),
        noise_range=(1.0, 2.0),
        jpeg_range=None,
        downsample_modes=("area", "bicubic"),
        gray_noise_prob=0.5,
        poisson_prob=0.5,
        poisson_scale_range=(0.1, 0.2),
        motion_kernel_prob=0.5,
    )
    rng = np.random.default_rng(1)
    drawn = [options.sample(rng) for _ in range(60)]
    assert {d.resizing for d in drawn} == {"area", "bicubic"} and {d.kernel.type for d in drawn} == {"iso", "motion"}
    assert {type(d.noise) for d in drawn} == {GaussianNoise, PoissonNoise} and {d.noise.gray for d in drawn} == {True, False}
    assert all(d.jpeg_quality is None and 1 <= d.factor <= 4 for d in drawn)
    for d in drawn[:8]:
        assert degrade(PICTURE, d, (128, 128)).shape == (128, 128, 3)


def test_a_picture_shrinks_to_one_pixel_at_least():
    kernel = FaceDegradation(("iso",), (1.0,), 5, (1.0, 1.0), (500.0, 500.0))
    assert degrade(PICTURE, kernel.sample(np.random.default_rng(0)), (128, 128)).shape == (128, 128, 3)


def test_levels_are_clipped_and_rounded_half_to_even():
    assert to_levels(np.float32([-3.0, 0.5, 1.5, 254.6, 300.0]).reshape(1, 5, 1)).ravel().tolist() == [0, 0, 2, 255, 255]
