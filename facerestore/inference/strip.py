"""Pictures side by side, each under its label."""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

PAPER, INK = (255, 255, 255), (32, 33, 36)
SMALLEST = 128  # pixels: smaller pictures are enlarged, so that their labels have room


def labelled_strip(pictures: Mapping[str, np.ndarray], gap: int = 4) -> np.ndarray:
    """One uint8 picture (H, W, 3), RGB.

    Args:
        pictures: uint8 (h, w, 3) by label, of any sizes; each is drawn as large as the last one
        gap: white pixels between them
    """
    height, width = next(reversed(pictures.values())).shape[:2]
    factor = math.ceil(SMALLEST / min(height, width))
    size = (factor * width, factor * height)
    font = ImageFont.load_default(size=max(14, size[0] // 16))
    head = 2 * gap + sum(font.getmetrics())
    strip = Image.new("RGB", (len(pictures) * (size[0] + gap) - gap, head + size[1]), PAPER)
    draw = ImageDraw.Draw(strip)
    for i, (label, picture) in enumerate(pictures.items()):
        left = i * (size[0] + gap)
        draw.text((left + gap, gap), label, INK, font)
        strip.paste(Image.fromarray(cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST)), (left, head))
    return np.array(strip)
