"""Colour changes of the degraded picture (GFPGAN 4.1; its published data set): shift, gray, jitter.

`sample_*` draws the parameters; `apply_color` is a pure function of a float32 picture (H, W, 3), RGB in 0..255, and of them.
The adjustments are torchvision's (`adjust_brightness`, ...), which clip to the range after each.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import cv2
import numpy as np

Adjustment = Literal["brightness", "contrast", "saturation", "hue"]
ADJUSTMENTS: tuple[Adjustment, ...] = ("brightness", "contrast", "saturation", "hue")
Range = tuple[float, float]

ADJUSTED_GRAY = np.array([0.2989, 0.587, 0.114], np.float32)  # torchvision's luma; BT.601 has 0.299


class Color(NamedTuple):
    """What to do, in this order."""

    shift: tuple[float, float, float] | None = None  # levels of 0..255 added to R, G, B
    gray: bool = False
    adjustments: tuple[tuple[Adjustment, float], ...] = ()  # in their order, each with its factor (hue: turns)


def sample_shift(rng: np.random.Generator, shift: float) -> tuple[float, float, float]:
    """One uniform number of ±shift for each channel, in levels of 0..255."""
    return tuple(rng.uniform(-shift, shift, 3).tolist())


def sample_adjustments(
    rng: np.random.Generator, ranges: dict[Adjustment, Range | None]
) -> tuple[tuple[Adjustment, float], ...]:
    """All adjustments that have a range, in a random order, each with a uniform factor."""
    order = [ADJUSTMENTS[i] for i in rng.permutation(len(ADJUSTMENTS))]
    factors = {name: rng.uniform(*ranges[name]) for name in ADJUSTMENTS if ranges.get(name)}
    return tuple((name, factors[name]) for name in order if name in factors)


def apply_color(image: np.ndarray, color: Color) -> np.ndarray:
    """float32 (H, W, 3), RGB in 0..255, changed as `color` says; in 0..255."""
    if color.shift:
        image = _clipped(cv2.add(image, (*color.shift, 0.0)))
    if color.gray:
        image = to_gray(image)
    for name, factor in color.adjustments:
        image = ADJUST[name](image, factor)
    if color.gray and color.adjustments:  # whose rounding would bring back a trace of colour
        image = cv2.merge([cv2.extractChannel(image, 0)] * 3)
    return image


def to_gray(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) float32 or uint8 to its luma in three equal channels, of the same type."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Towards black."""
    return _clipped(image * np.float32(factor))


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Towards the picture's mean luma."""
    mean = float(np.dot(ADJUSTED_GRAY, cv2.mean(image)[:3]))
    return _clipped(image * np.float32(factor) + np.float32((1 - factor) * mean))


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Towards each pixel's luma."""
    mixing = factor * np.eye(3) + (1 - factor) * ADJUSTED_GRAY
    return _clipped(cv2.transform(image, mixing))


def adjust_hue(image: np.ndarray, factor: float) -> np.ndarray:
    """Around the circle of hues by `factor` turns, in ±0.5."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)  # of float pictures: hue in degrees, value in the picture's own scale
    cv2.add(hsv, (360 * (factor % 1), 0, 0, 0), dst=hsv)  # the way back takes 0 to 720 degrees
    return _clipped(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


ADJUST = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}


def _clipped(image: np.ndarray) -> np.ndarray:
    return np.clip(image, 0, 255, out=image)
