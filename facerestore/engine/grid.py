"""The same pictures at every validation, side by side: a row for each, a column for each method."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from facerestore.engine.report import Picture

SIDE = 256  # pixels, of the largest pictures in a grid
GAP = 4
ROWS = 8


def columns(pictures: Sequence[Picture]) -> list[str]:
    """What the columns of :func:`grid` show, from the left."""
    return list(dict.fromkeys(method for picture in pictures for method in picture.images))


def grid(pictures: Sequence[Picture], side: int = SIDE) -> np.ndarray:
    """The pictures as one, RGB uint8 (H, W, 3): smaller ones enlarged to the row's size with their pixels left to be seen."""
    shown = columns(pictures)
    height, width = _cell([image.shape[:2] for picture in pictures for image in picture.images.values()], side)
    whole = np.full(((height + GAP) * len(pictures) - GAP, (width + GAP) * len(shown) - GAP, 3), 255, np.uint8)
    for row, picture in enumerate(pictures):
        for column, method in enumerate(shown):
            if method in picture.images:
                top, left = row * (height + GAP), column * (width + GAP)
                whole[top : top + height, left : left + width] = _fitted(picture.images[method], height, width)
    return whole


def _cell(shapes: Sequence[tuple[int, ...]], side: int) -> tuple[int, int]:
    """Height and width of a cell: those of the largest picture, its longer side at most `side`."""
    height, width = max(shapes, key=lambda s: s[0] * s[1])
    scale = min(side / max(height, width), 1)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def _fitted(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The picture in a cell's size, its proportions kept, on white."""
    scale = min(height / image.shape[0], width / image.shape[1])
    size = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    drawn = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA)
    cell = np.full((height, width, 3), 255, np.uint8)
    top, left = (height - drawn.shape[0]) // 2, (width - drawn.shape[1]) // 2
    cell[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
    return cell
