"""What is behind: studio paper, lights out of focus, a wall with lettering, leaves."""

from __future__ import annotations

import cv2
import numpy as np

from facerestore.data.synthetic.scene import Scene
from facerestore.data.synthetic.streams import stream
from facerestore.data.synthetic.texture import linear, sample_tile

GRID = 256  # everything here is out of focus, so it is painted small, and the same for every size


def paint_background(s: Scene) -> None:
    rng = stream(s.seed, "picture", s.index, "background")
    kind = rng.choice(["paper", "lights", "wall", "leaves", "room"], p=[0.3, 0.17, 0.23, 0.12, 0.18])
    painted = {"paper": paper, "lights": lights, "wall": wall, "leaves": leaves, "room": room}[kind](rng)
    s.image[:] = cv2.resize(painted.astype(np.float32), (s.side, s.side), interpolation=cv2.INTER_CUBIC).clip(0, None)


def muted(rng: np.random.Generator, low: float, high: float, saturation: float) -> np.ndarray:
    """A linear colour that is not loud."""
    return linear(np.clip(rng.uniform(low, high) * (1 + saturation * rng.uniform(-1, 1, 3)), 0, 255))


def axes() -> tuple[np.ndarray, np.ndarray]:
    line = (np.arange(GRID, dtype=np.float32) + 0.5) / GRID
    return tuple(np.meshgrid(line, line))


def paper(rng: np.random.Generator) -> np.ndarray:
    x, y = axes()
    far = np.hypot(x - rng.uniform(0.2, 0.8), y - rng.uniform(0.1, 0.8))
    base = muted(rng, 60, 235, 0.22)
    clouds = sample_tile("clouds", x * 0.5 + rng.random(), y * 0.5 + rng.random())
    return base * (1.12 - rng.uniform(0.2, 0.8) * far + 0.05 * rng.random() * clouds)[..., None]


def lights(rng: np.random.Generator) -> np.ndarray:
    image = np.ones((GRID, GRID, 3), np.float32) * muted(rng, 20, 70, 0.4)
    count = rng.integers(14, 40)
    for _ in range(count):
        centre, radius = rng.integers(0, GRID, 2), int(rng.uniform(6, 20))
        disc = np.zeros((2 * radius + 9, 2 * radius + 9), np.float32)
        cv2.circle(disc, (radius + 4, radius + 4), radius, 1.0, -1, cv2.LINE_AA)
        cv2.circle(disc, (radius + 4, radius + 4), radius, 1.4, 1, cv2.LINE_AA)
        warm = linear(rng.choice([(255, 200, 120), (255, 150, 80), (180, 210, 255), (255, 240, 220), (230, 120, 140)]))
        glow = cv2.GaussianBlur(disc, (0, 0), 1.0)[..., None] * warm * np.float32(rng.uniform(0.06, 0.4))
        low, high = np.maximum(centre - radius - 4, 0), np.minimum(centre + radius + 5, GRID)
        (x0, y0), (x1, y1), (ox, oy) = low, high, low - (centre - radius - 4)
        image[y0:y1, x0:x1] += glow[oy : oy + y1 - y0, ox : ox + x1 - x0]
    return image


def wall(rng: np.random.Generator) -> np.ndarray:
    """A press wall: rows of words, out of focus."""
    base, ink = muted(rng, 190, 245, 0.05), muted(rng, 20, 140, 0.7)
    if rng.random() < 0.4:
        base, ink = muted(rng, 20, 70, 0.3), muted(rng, 170, 240, 0.2)
    cover = np.zeros((GRID, GRID), np.float32)
    size = rng.uniform(0.8, 1.9)
    letters = "".join(chr(65 + c) for c in rng.integers(0, 26, 24))
    for row in range(-1, int(6 / size) + 2):
        start = int(rng.uniform(-90, 0))
        for word in range(4):
            text = letters[word * 5 : word * 5 + rng.integers(3, 7)]
            corner = int(start + word * 118 * size), int((row + 0.8) * 48 * size)
            font, thick = int(rng.choice([0, 2, 3])), max(2, int(4 * size))
            cv2.putText(cover, text, corner, font, size, 1.0, thick, cv2.LINE_AA)
    cover = cv2.GaussianBlur(cover, (0, 0), rng.uniform(1.5, 5))[..., None]
    x, y = axes()
    return (base + cover * (ink - base)) * (0.95 - 0.3 * rng.random() * np.hypot(x - 0.4, y - 0.4))[..., None]


def leaves(rng: np.random.Generator) -> np.ndarray:
    image = np.ones((GRID, GRID, 3), np.float32) * linear((58, 82, 44))
    for _ in range(140):
        colour = linear(np.array([rng.uniform(40, 190), rng.uniform(80, 210), rng.uniform(30, 110)]))
        centre = rng.integers(-10, GRID + 10, 2).tolist()
        axes_ = rng.integers(5, 26, 2).tolist()
        cv2.ellipse(image, centre, axes_, float(rng.uniform(0, 180)), 0, 360, colour.tolist(), -1, cv2.LINE_AA)
    x, y = axes()
    glow = np.exp(-(((x - rng.random()) / 0.4) ** 2) - (y / 0.5) ** 2)[..., None]
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(4, 9)) + 0.5 * glow * linear((255, 250, 214))


def room(rng: np.random.Generator) -> np.ndarray:
    """Panels, a window, shelves: boxes at several distances from the focus."""
    image = np.ones((GRID, GRID, 3), np.float32) * muted(rng, 60, 200, 0.15)
    for _ in range(rng.integers(5, 12)):
        x, y = rng.integers(-30, GRID, 2)
        w, h = rng.integers(16, 110, 2)
        cv2.rectangle(image, (int(x), int(y)), (int(x + w), int(y + h)), muted(rng, 30, 245, 0.25).tolist(), -1, cv2.LINE_AA)
    edge = int(rng.integers(0, GRID))
    image[:, edge : edge + rng.integers(30, 90)] *= 1.6
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(4, 10))
