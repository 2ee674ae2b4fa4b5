"""Blur and shrinking in one step, against OpenCV's two."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from facerestore.data.degradations import blur
from facerestore.data.degradations.blur import blur_and_resize, separable_terms, trimmed
from facerestore.data.degradations.kernels import Kernel, make_kernel
from tests.data.pictures import waves

PICTURE = waves(seed=3, h=96, w=128, noise=20.0)
KERNELS = {
    "iso": Kernel("iso", 21, sigma_x=3.0),
    "narrow": Kernel("iso", 41, sigma_x=0.3),
    "rotated": Kernel("aniso", 21, sigma_x=4.0, sigma_y=1.2, rotation=0.7),
    "thin": Kernel("aniso", 41, sigma_x=9.0, sigma_y=0.3, rotation=-0.8),
    "plateau": Kernel("plateau_aniso", 15, sigma_x=2.0, sigma_y=3.0, rotation=0.4, beta=1.5),
    "sinc": Kernel("sinc", 21, cutoff=1.1),
    "motion": Kernel("motion", 31, length=25.0, rotation=0.5, bend=0.6),
    "skew": Kernel("skew", 21, sigma_x=2.0, sigma_y=4.0, rotation=-0.7, skew=(0.7, 0.1, -0.2, 0.5)),
}


def by_opencv(
    image: np.ndarray, kernel: np.ndarray, size: tuple[int, int], interpolation: int = cv2.INTER_LINEAR
) -> np.ndarray:
    blurred = cv2.filter2D(image.astype(np.float32), -1, kernel)
    return blurred if blurred.shape[:2] == size else cv2.resize(blurred, size[::-1], interpolation=interpolation)


@pytest.mark.parametrize("size", [(96, 128), (120, 160), (64, 85), (31, 43), (12, 16), (3, 1)], ids=str)
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("way", ["sparse", "fourier"])
def test_it_is_opencvs_blur_and_resize(name, size, way, monkeypatch):
    monkeypatch.setattr(blur, "FOURIER_COST", 1e9 if way == "sparse" else 0)
    kernel = make_kernel(KERNELS[name])
    result = blur_and_resize(PICTURE, kernel, size)
    assert result.dtype == np.float32 and result.shape == (*size, 3)
    assert np.abs(result - by_opencv(PICTURE, kernel, size)).max() < 0.03


@pytest.mark.parametrize("resizing", ["area", "bicubic"])
def test_other_ways_of_shrinking(resizing):
    kernel = make_kernel(KERNELS["rotated"])
    result = blur_and_resize(PICTURE, kernel, (40, 50), resizing)
    assert np.abs(result - by_opencv(PICTURE, kernel, (40, 50), blur.INTERPOLATION[resizing])).max() < 0.03


def test_a_kernel_larger_than_the_picture():
    picture = waves(seed=4, h=9, w=7, noise=20.0)
    kernel = make_kernel(Kernel("iso", 41, sigma_x=8.0))
    for size in [(4, 3), (9, 7)]:
        assert np.abs(blur_and_resize(picture, kernel, size) - by_opencv(picture, kernel, size)).max() < 0.03


def test_kernels_are_as_short_as_they_can_be():
    assert len(trimmed(make_kernel(Kernel("iso", 41, sigma_x=0.1)))) == 1
    assert len(trimmed(make_kernel(Kernel("iso", 41, sigma_x=1.0)))) <= 11
    assert len(trimmed(make_kernel(Kernel("iso", 41, sigma_x=10.0)))) == 41
    assert len(separable_terms(make_kernel(KERNELS["iso"]))[0]) == 1
    rotated = make_kernel(Kernel("aniso", 21, sigma_x=4.0, sigma_y=2.5, rotation=0.7))
    columns, rows = separable_terms(rotated)
    assert 1 < len(rows) < 10
    assert np.abs(np.einsum("tr,tc->rc", columns, rows) - rotated).sum() < blur.NEGLIGIBLE


def test_results_do_not_depend_on_threads():
    kernels = [make_kernel(k) for k in KERNELS.values()]
    found = []
    for threads in (1, 4):
        cv2.setNumThreads(threads)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        found.append([blur_and_resize(PICTURE, k, size) for k in kernels for size in [(96, 128), (30, 40)]])
        torch.set_num_threads(before)
    cv2.setNumThreads(-1)
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))
