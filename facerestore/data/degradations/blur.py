"""Blur and shrink a picture in one step.

A blurred picture that is shrunk bilinearly is read at two rows and two columns for each pixel of the result, so most of it is
never needed.  A kernel is a sum of few separable ones (its singular value decomposition), for which blur and sampling together
are one sparse matrix from the left and one from the right: a Gaussian is one such term, a rotated one a handful.  Where that
would cost more (little shrinking, many terms), the picture is blurred whole by its Fourier transform.  Both agree with
`cv2.filter2D` and `cv2.resize` to within a few hundredths of a level.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from scipy.sparse import csr_array

Resizing = Literal["area", "bilinear", "bicubic"]
INTERPOLATION = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}

# What may be left out of a kernel whose values sum to 1: no pixel changes by more than this part of 255, and most by far less.
NEGLIGIBLE = 4e-4
# What the Fourier transforms cost for each value of the picture, in multiply-adds of the sparse products (measured).
FOURIER_COST = 32


def blur_and_resize(
    image: np.ndarray, kernel: np.ndarray, size: tuple[int, int], resizing: Resizing = "bilinear"
) -> np.ndarray:
    """Correlate a picture with a kernel, edges mirrored without repeating them, and resize the result.

    Args:
        image: (H, W, 3), uint8 or float32; values keep their scale
        kernel: (k, k), k odd, sum 1
        size: (height, width) of the result
        resizing: as OpenCV does it, without a low-pass filter of its own

    Returns:
        float32 (height, width, 3)
    """
    kernel = trimmed(kernel)
    if len(kernel) == 1:
        return resize(image.astype(np.float32), size, resizing)
    if resizing == "bilinear":
        columns, rows = separable_terms(kernel)
        if _sparse_cost(image.shape, size, rows) < FOURIER_COST * image.size:
            return _blur_sampled(image, columns, rows, size)
    return resize(_blur_whole(image, kernel), size, resizing)


def resize(image: np.ndarray, size: tuple[int, int], resizing: Resizing = "bilinear") -> np.ndarray:
    """(H, W, 3) float32 to (height, width, 3), by OpenCV."""
    if image.shape[:2] == tuple(size):
        return image
    return cv2.resize(image, (size[1], size[0]), interpolation=INTERPOLATION[resizing])


def trimmed(kernel: np.ndarray) -> np.ndarray:
    """The kernel without the outer rings that hold next to nothing (a narrow Gaussian in a large square)."""
    distance = np.abs(np.arange(len(kernel)) - len(kernel) // 2)
    rings = np.bincount(np.maximum.outer(distance, distance).ravel(), np.abs(kernel).ravel())  # what each ring holds
    outside = rings.sum() - np.cumsum(rings)
    cut = int(distance[0] - np.argmax(outside <= NEGLIGIBLE / 10))
    kernel = kernel[cut : len(kernel) - cut, cut : len(kernel) - cut]
    return kernel / kernel.sum()


def separable_terms(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Filters along columns and along rows, (terms, k) each, whose outer products sum to the kernel: as few as will do."""
    columns, rows = kernel.sum(1, keepdims=True), kernel.sum(0, keepdims=True)
    if np.abs(kernel - columns * rows).sum() <= NEGLIGIBLE:  # a kernel of one term is the product of its marginals
        return columns.T, rows
    left, strengths, right = np.linalg.svd(kernel)
    # The residual's absolute sum is at most k times its Euclidean norm.
    residuals = len(kernel) * np.sqrt(np.cumsum(strengths[::-1] ** 2))[::-1]
    terms = int((residuals > NEGLIGIBLE).sum())
    scale = np.sqrt(strengths[:terms, None])
    return left.T[:terms] * scale, right[:terms] * scale


def _sparse_cost(shape: tuple[int, ...], size: tuple[int, int], filters: np.ndarray) -> int:
    """Multiply-adds of the two products."""
    terms, taps = filters.shape
    return terms * (taps + 1) * shape[2] * size[0] * (shape[1] + size[1])


def _blur_sampled(image: np.ndarray, columns: np.ndarray, rows: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The blurred picture where bilinear sampling looks, and nowhere else."""
    (height, width, channels), (out_height, out_width) = image.shape, size
    down = _blur_and_sample(height, out_height, columns)  # (terms * out_height, height)
    across = _blur_and_sample(width, out_width, rows)  # (terms * out_width, width)
    terms = len(rows)
    # All terms side by side, so that the second product sums over them too.
    joined = csr_array(
        (
            across.data.reshape(terms, out_width, -1).swapaxes(0, 1).ravel(),
            (across.indices.reshape(terms, out_width, -1) + width * np.arange(terms)[:, None, None]).swapaxes(0, 1).ravel(),
            across.indptr[: out_width + 1] * terms,
        ),
        shape=(out_width, terms * width),
    )
    shrunk = down @ image.reshape(height, -1).astype(np.float32)
    shrunk = shrunk.reshape(terms, out_height, width, channels).transpose(0, 2, 1, 3).reshape(terms * width, -1)
    return np.ascontiguousarray((joined @ shrunk).reshape(out_width, out_height, channels).swapaxes(0, 1))


def _blur_and_sample(length: int, out_length: int, filters: np.ndarray) -> csr_array:
    """(filters * out_length, length): blur one axis by each filter, then sample it bilinearly as `cv2.resize` does."""
    count, taps = filters.shape
    place = np.clip((np.arange(out_length) + 0.5) * (length / out_length) - 0.5, 0, length - 1)
    first = np.minimum(place.astype(int), length - 1)
    share = (place - first)[:, None]  # of the second of the two pixels
    padded = np.pad(filters, ((0, 0), (1, 1)))
    weights = (1 - share) * padded[:, None, 1:] + share * padded[:, None, :-1]
    index = _mirrored(first[:, None] + np.arange(taps + 1) - taps // 2, length)
    return csr_array(
        (weights.astype(np.float32).ravel(), np.tile(index.ravel(), count), np.arange(count * out_length + 1) * (taps + 1)),
        shape=(count * out_length, length),
    )


def _mirrored(index: np.ndarray, length: int) -> np.ndarray:
    """Indices beyond the edges, thrown back without repeating the edge (as often as it takes)."""
    period = max(2 * (length - 1), 1)
    index = index % period
    return np.minimum(index, period - index)


def _blur_whole(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The picture blurred at its own size, by the correlation theorem."""
    (height, width), radius = image.shape[:2], len(kernel) // 2
    padded = cv2.copyMakeBorder(image, radius, radius, radius, radius, cv2.BORDER_REFLECT_101)
    size = [cv2.getOptimalDFTSize(n) for n in padded.shape[:2]]
    transfer = cv2.dft(_placed(kernel, size))
    planes = []
    for plane in cv2.split(padded):
        spectrum = cv2.dft(_placed(plane, size))
        spectrum = cv2.mulSpectrums(spectrum, transfer, 0, conjB=True)
        planes.append(cv2.idft(spectrum, flags=cv2.DFT_SCALE | cv2.DFT_REAL_OUTPUT)[:height, :width])
    return cv2.merge(planes)


def _placed(plane: np.ndarray, size: list[int]) -> np.ndarray:
    """A plane at the top left of zeros."""
    canvas = np.zeros(size, np.float32)
    canvas[: plane.shape[0], : plane.shape[1]] = plane
    return canvas
