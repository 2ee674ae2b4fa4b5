"""Bicubic resizing as MATLAB does it (the low-resolution pictures of super-resolution benchmarks) and as Pillow does.

Both interpolate with R. Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 29(6), 1981,
a = -1/2, and stretch the kernel by 1 / scale when they shrink a picture, so that it does not alias.  MATLAB mirrors the
borders, Pillow leaves out what lies beyond them; and Pillow rounds to uint8 after each axis.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Picture = TypeVar("Picture", np.ndarray, Tensor)


def imresize(
    image: Picture, scale: float | None = None, size: tuple[int, int] | None = None, antialias: bool = True
) -> Picture:
    """MATLAB's `imresize(image, scale or size, 'bicubic')`.

    Args:
        image: array (H, W) or (H, W, C), or tensor (..., H, W).  uint8 is rounded and clipped at the end; float keeps
            its type and is not clipped, so a sharp edge may overshoot.
        scale: output side / input side, the output's side rounded up
        size: the output's (height, width), instead of `scale`
        antialias: whether the kernel is stretched when the picture shrinks

    Returns:
        The same kind and type as `image`.
    """
    if (scale is None) == (size is None):
        raise ValueError("imresize takes either a scale or a size")
    if isinstance(image, Tensor):
        return _resize(image, scale, size, antialias)
    planes = torch.from_numpy(np.ascontiguousarray(image if image.ndim == 2 else image.transpose(2, 0, 1)))
    resized = _resize(planes, scale, size, antialias).numpy()
    return resized if image.ndim == 2 else np.ascontiguousarray(resized.transpose(1, 2, 0))


def _resize(planes: Tensor, scale: float | None, size: tuple[int, int] | None, antialias: bool) -> Tensor:
    """(..., H, W): rows @ planes @ columns^T."""
    lengths = planes.shape[-2:]
    # For scales of 1/2 and 1/4 the weights are dyadic: in double precision, 8-bit sums are exact on any machine
    dtype = planes.dtype if planes.is_floating_point() else torch.float64
    rows, columns = (
        torch.from_numpy(
            resize_matrix(n, size[i], size[i] / n, antialias)
            if size
            else resize_matrix(n, math.ceil(n * scale - 1e-9), scale, antialias)  # 0.1 * 30 is a little over 3
        ).to(planes.device, dtype)
        for i, n in enumerate(lengths)
    )
    resized = rows @ planes.to(dtype) @ columns.T
    return resized if planes.is_floating_point() else resized.round().clamp(0, 255).to(planes.dtype)


@lru_cache(maxsize=64)
def resize_matrix(length: int, out_length: int, scale: float, antialias: bool = True) -> np.ndarray:
    """The weights (out_length, length) of one axis.  Each row sums to 1; beyond the border lies the mirror image."""
    stretch = min(scale, 1.0) if antialias else 1.0
    centre = (np.arange(out_length) + 0.5) / scale - 0.5  # pixel centres of the output, in pixels of the input
    reach = 2 / stretch
    taps = np.floor(centre - reach)[:, None] + np.arange(math.ceil(2 * reach) + 2)
    weights = _cubic((centre[:, None] - taps) * stretch)
    weights /= weights.sum(1, keepdims=True)
    mirrored = taps.astype(int) % (2 * length)
    mirrored = np.minimum(mirrored, 2 * length - 1 - mirrored)
    matrix = np.zeros((out_length, length))
    np.add.at(matrix, (np.arange(out_length)[:, None], mirrored), weights)
    return matrix


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel, eq. (15): a = -1/2."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def pil_resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pillow's bicubic `resize` of a uint8 array (H, W) or (H, W, 3) to (height, width)."""
    return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
