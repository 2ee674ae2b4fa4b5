"""Brows and beards: short hairs on the skin."""

from __future__ import annotations

import numpy as np

from facerestore.data.synthetic import features
from facerestore.data.synthetic.head import CENTRE
from facerestore.data.synthetic.scene import REGIONS, Scene
from facerestore.data.synthetic.skin import beard_area, hair_colour
from facerestore.data.synthetic.streams import stream
from facerestore.data.synthetic.texture import smooth, strokes


def fewer(s: Scene, count: int) -> int:
    """Hairs to draw on a canvas of this size: where they are thinner than a pixel, fewer and wider ones look the same."""
    return max(8, int(count * np.clip(s.side / 1024, 0.3, 1)))


def grown(s: Scene, x: np.ndarray, y: np.ndarray, dx: np.ndarray, dy: np.ndarray, lift: float, bend: np.ndarray) -> np.ndarray:
    """Pixels (N, 4, 2) of hairs that start on the skin at (x, y), run along (dx, dy) and lift off it."""
    k = np.linspace(0, 1, 4)
    px = x[:, None] + dx[:, None] * k - (bend * dy)[:, None] * k * k
    py = y[:, None] + dy[:, None] * k + (bend * dx)[:, None] * k * k
    root = s.head.on_skin(x, y)
    z = root[:, 2:3] + (s.head.on_skin(px[:, -1], py[:, -1])[:, 2:3] - root[:, 2:3]) * k + lift * k
    return s.pixels(np.stack([px, py, z], -1))


def paint_brows(s: Scene) -> None:
    p, q = s.person, s.picture
    colour = hair_colour(p) * (0.42 if p.hair in ("blond", "dark blond", "red") else 0.6) * (1 - 0.25 * p.gray)
    for side in (-1, 1):
        brow = features.Brow(p, q, side)
        rng = stream(s.seed, "person", p.number, "brow", side + 1)
        total = int(420 * p.brow_dense)
        t, v = rng.uniform(0, 1, total) ** 0.95, rng.uniform(-1, 1, total)
        angle, length = rng.normal(0, 0.13, total), rng.uniform(0.75, 1.15, total)
        shade, bend = rng.uniform(0.55, 1, total), rng.normal(0, 0.12, total)
        keep = fewer(s, total)
        t, v, angle, length, shade, bend = (a[:keep] for a in (t, v, angle, length, shade, bend))
        x, y = brow.centre(t)
        thick = brow.thickness(t)
        y = y + v * thick
        # upright near the nose, along the brow further out; the upper hairs lean down, the lower ones up
        lean = np.interp(t, [0, 0.12, 0.4, 1.0], [1.05, 0.7, 0.32, -0.25]) + 0.35 * v * smooth(t, 0.1, 0.5) + angle
        long = length * (0.075 + 0.5 * thick) * np.interp(t, [0, 0.2, 1], [0.85, 1.1, 0.8])
        fade = shade * np.clip(1.25 - 0.5 * np.abs(v), 0, 1) * smooth(t, -0.06, 0.25)
        paths = grown(s, x, y, side * np.cos(lean) * long, -np.sin(lean) * long, 0.012, side * bend)
        at = s.window(paths.reshape(-1, 2), 0.05)
        origin = np.array([at[1].start, at[0].start])
        width = 0.0095 * s.unit * total / keep
        cover = strokes(s.image[at].shape[:2], paths - origin, min(width, 2.5), 0.8 * fade)
        region = s.region[at].copy()
        brightness = s.light[at]
        under = body_of_brow(s, brow, at) * 0.42 * p.brow_dense
        s.over(colour * brightness * 1.1, under, None, at)
        s.over(colour * brightness * 0.8, cover, None, at)
        s.region[at] = region
        label(s, at, body_of_brow(s, brow, at) > 0.25, "left_brow" if side < 0 else "right_brow")


def body_of_brow(s: Scene, brow: features.Brow, at: tuple) -> np.ndarray:
    """0..1: how far inside the brow a pixel is."""
    x, y = s.fine[0][at], s.fine[1][at]
    t = (x - brow.inner) / (brow.outer - brow.inner)
    _, middle = brow.centre(np.clip(t, 0, 1))
    thick = brow.thickness(np.clip(t, 0, 1))
    ends = smooth(t, -0.08, 0.12) * (1 - smooth(t, 0.92, 1.06))
    return (1 - smooth(np.abs(y - middle) / thick, 0.55, 1.35)) * ends


def label(s: Scene, at: tuple, inside: np.ndarray, region: str) -> None:
    s.region[at][inside & (s.face[at] > 0.5)] = REGIONS.index(region)


def faces_camera(s: Scene, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether the skin at (x, y) is there, and turned to the camera."""
    root = s.head.on_skin(x, y)
    normal = s.head.at(s.head.normals_last, np.ascontiguousarray((root - CENTRE).T))
    return ((normal @ s.camera.turn.T)[:, 2] > 0.12) & (root[:, 2] > -1.1)


def paint_beard(s: Scene) -> None:
    p = s.person
    if p.beard == "none":
        return
    stubble = p.beard == "stubble"
    rng = stream(s.seed, "person", p.number, "beard")
    total = 9000 if stubble else 11000
    x, y = rng.uniform(-1.05, 1.05, total), rng.uniform(0.5, 1.8, total)
    pick, length, angle = rng.random(total), rng.uniform(0.6, 1.2, total), rng.normal(0, 0.3, total)
    shade, bend = rng.uniform(0.5, 1, total), rng.normal(0, 0.35, total)
    keep = fewer(s, total)
    chosen = np.flatnonzero((pick[:keep] < beard_area(p, s, x[:keep], y[:keep])) & faces_camera(s, x[:keep], y[:keep]))
    x, y, length, angle, shade, bend = (a[chosen] for a in (x, y, length, angle, shade, bend))
    long = length * (0.022 if stubble else 0.085 + 0.05 * smooth(y, 1.2, 1.7))
    mouth = features.Mouth(p, s.picture)
    over_lip = y < mouth.y - 0.03
    down = np.pi / 2 - np.where(over_lip, 0.9, 0.35) * np.clip(x / 0.4, -1, 1) + angle
    paths = grown(s, x, y, np.cos(down) * long, np.sin(down) * long, 0.01 if stubble else 0.035, bend)
    if not len(paths):
        return
    at = s.window(paths.reshape(-1, 2), 0.05)
    origin = np.array([at[1].start, at[0].start])
    width = min(0.008 * s.unit * np.sqrt(total / keep), 2.5)
    shape = s.image[at].shape[:2]
    brightness = s.light[at] + 0.15
    groups = ((0, 0.35, 0.85), (1, 0.6, 0.7), (2, 1.25, 0.5))
    for part, tone, strength in groups:
        some = slice(part, None, 3)
        cover = strokes(shape, paths[some] - origin, width, strength * shade[some] * (0.7 if stubble else 1), 2)
        region = s.region[at].copy()
        s.over(hair_colour(p) * tone * brightness, cover * np.minimum(1, s.face[at] + 1), None, at)
        s.region[at] = region
