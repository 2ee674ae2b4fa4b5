"""Masks for inpainting.  `sample_*_mask` draws the outlines, `make_mask` is a pure function of them.

A mask is uint8 (H, W): 255 where the picture is missing, 0 elsewhere.  Points are (x, y) in pixels.  Brush strokes and
free-form strokes are those of CodeFormer's training (Zhou et al., NeurIPS 2022), after Yu et al., Free-Form Image Inpainting
with Gated Convolution, ICCV 2019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw

Point = tuple[int, int]
IntRange = tuple[int, int]  # both ends are included


class BrushStroke(NamedTuple):
    """A line with round joints and ends."""

    vertices: tuple[Point, ...]
    width: int


class Segment(NamedTuple):
    """A straight line with round ends."""

    start: Point
    end: Point
    width: int


class BrushMask(NamedTuple):
    """Long zigzags of an even width."""

    height: int
    width: int
    strokes: tuple[BrushStroke, ...]


class FreeFormMask(NamedTuple):
    """Short strokes that wander, each segment of a width of its own."""

    height: int
    width: int
    segments: tuple[Segment, ...]


class PolygonMask(NamedTuple):
    """Filled polygons, each by its vertices."""

    height: int
    width: int
    polygons: tuple[tuple[Point, ...], ...]


Mask = BrushMask | FreeFormMask | PolygonMask


def make_mask(mask: Mask) -> np.ndarray:
    """uint8 (height, width), 0 or 255.  What lies beyond the picture is cut off."""
    if isinstance(mask, FreeFormMask):
        canvas = np.zeros((mask.height, mask.width), np.uint8)
        for start, end, width in mask.segments:
            cv2.line(canvas, start, end, 255, width)
        return canvas
    picture = Image.new("L", (mask.width, mask.height))
    pen = ImageDraw.Draw(picture)
    if isinstance(mask, BrushMask):
        for stroke in mask.strokes:
            _draw_stroke(pen, stroke)
    else:
        for polygon in mask.polygons:
            pen.polygon(polygon, fill=255)
    return np.array(picture)


def _draw_stroke(pen: ImageDraw.ImageDraw, stroke: BrushStroke) -> None:
    pen.line(stroke.vertices, fill=255, width=stroke.width)
    radius = stroke.width // 2
    for x, y in stroke.vertices:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)


def apply_mask(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A copy of (H, W, 3) in 0..255 that is white where `mask` is 255."""
    return np.where(mask[..., None] > 0, image.dtype.type(255), image)


def _sample_point(rng: np.random.Generator, height: int, width: int) -> Point:
    return int(rng.integers(width)), int(rng.integers(height))


def sample_brush_mask(
    rng: np.random.Generator,
    height: int,
    width: int,
    strokes: IntRange = (1, 3),
    steps: IntRange = (8, 27),
    brush_width: IntRange = (30, 69),
) -> BrushMask:
    """CodeFormer's strokes.

    Their steps turn about 72 degrees to either side in turn, and are an eighth of the diagonal long on average.

    Args:
        rng: what is drawn from
        height: of the picture
        width: of the picture
        strokes: how many
        steps: of a stroke
        brush_width: pixels, one for a stroke
    """
    count = rng.integers(*strokes, endpoint=True)
    drawn = (_sample_stroke(rng, height, width, steps, brush_width) for _ in range(count))
    return BrushMask(height, width, tuple(drawn))


def sample_growing_masks(
    rng: np.random.Generator, height: int, width: int, shares: Sequence[float], brush_width: IntRange = (30, 69)
) -> list[np.ndarray]:
    """Masks uint8 (height, width), 0 or 255, each of which holds the ones before it.

    CodeFormer's strokes, step by step, until the share that is asked for is covered: it is exceeded by one step at most.

    Args:
        rng: what is drawn from
        height: of the picture
        width: of the picture
        shares: of the picture's pixels, rising, each above 0 and below 1
        brush_width: in pixels of a picture of 512 pixels a side, and in proportion elsewhere
    """
    scaled = tuple(max(1, round(bound * min(height, width) / 512)) for bound in brush_width)
    picture = Image.new("L", (width, height))
    pen = ImageDraw.Draw(picture)
    masks: list[np.ndarray] = []
    while len(masks) < len(shares):
        (stroke,) = sample_brush_mask(rng, height, width, strokes=(1, 1), brush_width=scaled).strokes
        for step in pairwise(stroke.vertices):
            _draw_stroke(pen, BrushStroke(step, stroke.width))
            mask = np.array(picture)
            while len(masks) < len(shares) and (mask > 0).mean() >= shares[len(masks)]:
                masks.append(mask)
    return masks


def _sample_stroke(rng: np.random.Generator, height: int, width: int, steps: IntRange, brush_width: IntRange) -> BrushStroke:
    count = int(rng.integers(*steps, endpoint=True))
    spread = rng.uniform(0, 2 * math.pi / 12, 2)
    angles = 2 * math.pi / 5 + rng.uniform(-spread[0], spread[1], count)
    angles[::2] *= -1
    mean = math.hypot(height, width) / 8
    lengths = rng.normal(mean, mean // 2, count).clip(0, 2 * mean)
    vertices = [_sample_point(rng, height, width)]
    for dx, dy in zip((lengths * np.cos(angles)).tolist(), (lengths * np.sin(angles)).tolist(), strict=True):
        x, y = vertices[-1]
        vertices.append((int(min(max(x + dx, 0), width)), int(min(max(y + dy, 0), height))))
    return BrushStroke(tuple(vertices), int(rng.integers(*brush_width, endpoint=True)))


def sample_free_form_mask(
    rng: np.random.Generator,
    height: int,
    width: int,
    max_angle: int = 10,
    max_len: int = 100,
    max_width: int = 70,
    times: int = 10,
) -> FreeFormMask:
    """CodeFormer's `random_ff_mask`: strokes of one to five segments, each from the end of the last.

    Args:
        rng: what is drawn from
        height: of the picture
        width: of the picture
        max_angle: directions are 0.01 + 0, 1, ... max_angle - 1 radians; their negatives in every second stroke
        max_len: a segment has max_len - 10 to max_len + 9 pixels
        max_width: a segment is max_width - 25 to max_width + 4 pixels wide
        times: there are times - 5 to times - 1 strokes
    """
    segments = []
    for number in range(rng.integers(times - 5, times)):
        x, y = _sample_point(rng, height, width)
        for _ in range(rng.integers(1, 6)):
            angle = (0.01 + rng.integers(max_angle)) * (1 if number % 2 else -1)
            length, brush = 10 + rng.integers(max_len - 20, max_len), 5 + rng.integers(max_width - 30, max_width)
            end = int(x + length * math.cos(angle)), int(y + length * math.sin(angle))
            segments.append(Segment((x, y), end, int(brush)))
            x, y = end
    return FreeFormMask(height, width, tuple(segments))


def sample_polygon_mask(
    rng: np.random.Generator,
    height: int,
    width: int,
    polygons: IntRange = (1, 4),
    vertices: IntRange = (3, 12),
    radius_range: tuple[float, float] = (0.05, 0.3),
    convex_prob: float = 0.5,
) -> PolygonMask:
    """Irregular polygons about points of the picture: convex ones, with their vertices on an ellipse, and stars.

    Args:
        rng: what is drawn from
        height: of the picture
        width: of the picture
        polygons: how many
        vertices: of a polygon
        radius_range: the largest distance of a vertex from its polygon's middle, in shares of the picture's shorter side
        convex_prob: how many are convex; a star's vertices are at 0.3 to 1 of that distance
    """
    drawn = []
    for _ in range(rng.integers(*polygons, endpoint=True)):
        middle = _sample_point(rng, height, width)
        count = int(rng.integers(*vertices, endpoint=True))
        angles = 2 * math.pi * (np.arange(count) + rng.uniform(0, 0.9, count)) / count  # in order, so that no edges cross
        convex = rng.random() < convex_prob
        extent = np.array([1.0, rng.uniform(0.4, 1)]) if convex else rng.uniform(0.3, 1, (count, 1))
        offsets = rng.uniform(*radius_range) * min(height, width) * extent * np.stack([np.cos(angles), np.sin(angles)], 1)
        turn = rng.uniform(0, 2 * math.pi)
        offsets @= np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        drawn.append(tuple(map(tuple, (offsets + middle).round().astype(int).tolist())))
    return PolygonMask(height, width, tuple(drawn))
