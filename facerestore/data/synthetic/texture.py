"""Colour space, tiles of noise, and strokes: what the parts of a picture are painted with."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from facerestore.data.synthetic.streams import stream

SUB = 4  # bits of a pixel's fraction in OpenCV's drawing calls


def linear(srgb: np.ndarray | tuple[float, ...]) -> np.ndarray:
    """sRGB in 0..255 to linear light in 0..1."""
    return (np.asarray(srgb, np.float32) / 255) ** np.float32(2.2)


@lru_cache(maxsize=8)
def noise_tile(kind: str, side: int = 256) -> np.ndarray:
    """A tile of noise that repeats without a seam, mean 0 and deviation 1; the same in every process.

    Args:
        kind: "clouds" (1/f), "pores" (a narrow band), or "fibres" (long along y)
        side: its side
    """
    fy, fx = np.meshgrid(np.fft.fftfreq(side) * side, np.fft.fftfreq(side) * side, indexing="ij")
    f = np.hypot(fx, fy)
    if kind == "clouds":
        spectrum = 1 / np.maximum(f, 1.5) ** 1.4 * (f < side / 4)
    elif kind == "pores":
        spectrum = np.exp(-(((f - side / 7) / (side / 14)) ** 2)) + 0.3 * np.exp(-(((f - side / 20) / (side / 40)) ** 2))
    else:
        spectrum = np.exp(-((fy / 5) ** 2)) * np.exp(-((fx / (side / 5)) ** 2)) * (np.abs(fx) > 3)
    phases = np.fft.fft2(stream(0, "tile", kind, side).standard_normal((side, side)))
    noise = np.fft.ifft2(phases * spectrum).real
    noise = np.cbrt(noise) if kind == "fibres" else noise
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def sample_tile(kind: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Noise at (x, y), where 1 is a whole tile."""
    tile = noise_tile(kind)
    side = np.float32(tile.shape[0])
    return cv2.remap(
        tile, x.astype(np.float32) * side, y.astype(np.float32) * side, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
    )


def smooth(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def fixed(points: np.ndarray) -> np.ndarray:
    """Pixel coordinates for OpenCV's drawing calls with `shift=SUB`."""
    return np.round(np.clip(points, -4000, 4000) * (1 << SUB)).astype(np.int32)


def polygon(side: tuple[int, int], points: np.ndarray) -> np.ndarray:
    """Coverage (H, W), 0..1, of the polygon through (N, 2) pixel points."""
    mask = np.zeros(side, np.uint8)
    cv2.fillPoly(mask, [fixed(points)], 255, cv2.LINE_AA, SUB)
    return mask.astype(np.float32) / 255


def strokes(
    side: tuple[int, int], points: np.ndarray, width: float, strength: np.ndarray | float = 1.0, layers: int = 3
) -> np.ndarray:
    """Coverage (H, W), 0..1, of fine hairs.

    Args:
        side: of the canvas
        points: pixels (N, K, 2), a polyline each
        width: in pixels; what is thinner than a pixel is drawn paler instead
        strength: of each (N,)
        layers: hairs of one layer replace each other, hairs of different layers add up
    """
    strength = np.broadcast_to(np.asarray(strength, np.float32), len(points))
    level = np.clip(strength * min(1.0, width) * 255, 0, 255).astype(int).tolist()
    thickness, lines = max(1, round(width)), fixed(points)
    bare = np.ones(side, np.float32)
    for first in range(layers):
        canvas = np.zeros(side, np.uint8)
        for line, value in zip(lines[first::layers], level[first::layers], strict=True):
            cv2.polylines(canvas, [line], False, value, thickness, cv2.LINE_AA, SUB)
        bare *= 1 - canvas.astype(np.float32) / 255
    return 1 - bare
