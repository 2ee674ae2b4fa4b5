"""RGB to YCbCr and back: ITU-R BT.601 with the ranges of digital video (Y in 16..235), as MATLAB's rgb2ycbcr.

Pictures are (..., 3).  uint8 gives uint8, rounded and clipped to 0..255.  Float in [0, 1] gives float32 in units of
255, which is not clipped: a colour that RGB cannot show has values outside of [0, 1].
"""

from __future__ import annotations

import numpy as np

# Rows: Y, Cb, Cr of (R, G, B) in [0, 1], in units of 1/255 (BT.601, 2.5.1 and 2.5.2 with 8 bits)
FROM_RGB = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])
OFFSET = np.array([16.0, 128.0, 128.0])
TO_RGB = np.linalg.inv(FROM_RGB)


def rgb_to_ycbcr(image: np.ndarray) -> np.ndarray:
    """(..., 3) RGB to (..., 3) YCbCr of the same type."""
    return _from_levels(_to_unit(image) @ FROM_RGB.T + OFFSET, image.dtype)


def rgb_to_y(image: np.ndarray) -> np.ndarray:
    """(..., 3) RGB to its luma (...), of the same type."""
    return _from_levels(_to_unit(image) @ FROM_RGB[0] + OFFSET[0], image.dtype)


def ycbcr_to_rgb(image: np.ndarray) -> np.ndarray:
    """(..., 3) YCbCr to (..., 3) RGB of the same type."""
    return _from_levels((_to_unit(image) * 255 - OFFSET) @ TO_RGB.T * 255, image.dtype)


def _to_unit(image: np.ndarray) -> np.ndarray:
    return image / 255.0 if image.dtype == np.uint8 else image.astype(np.float64)


def _from_levels(levels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """0..255 to uint8, or to float in units of 255."""
    if dtype == np.uint8:
        return levels.round().clip(0, 255).astype(np.uint8)
    return (levels / 255).astype(np.float32)
