"""Glasses: rims, bridge and arms in space, reflections on the lenses, and the shadow that they throw."""

from __future__ import annotations

import cv2
import numpy as np

from facerestore.data.synthetic import features
from facerestore.data.synthetic.scene import REGIONS, Scene
from facerestore.data.synthetic.streams import stream
from facerestore.data.synthetic.texture import SUB, fixed, linear, polygon

FRAMES = [(30, 26, 26), (66, 40, 28), (150, 120, 70), (96, 98, 106), (120, 30, 40), (34, 50, 84)]
POWERS = {"round": 2.0, "oval": 2.3, "square": 4.5}


def rims(s: Scene) -> list[np.ndarray]:
    """Both lenses' outlines, (N, 3) of the head."""
    p = s.person
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    power = 2 / POWERS[p.glasses]
    tall = {"round": 0.36, "oval": 0.28, "square": 0.29}[p.glasses]
    nose_z = float(s.head.on_skin(0.0, 0.08)[2])
    outlines = []
    for side in (-1, 1):
        cos, sin = np.cos(turn), np.sin(turn)
        x0, y0 = features.eye_centre(p, side)
        x = x0 * 1.06 + 0.4 * np.sign(cos) * np.abs(cos) ** power
        y = y0 + 0.06 + tall * np.sign(sin) * np.abs(sin) ** power
        z = nose_z + 0.1 - 0.1 * x * x
        outlines.append(np.stack([x, y, z], -1))
    return outlines


def arms(s: Scene) -> list[np.ndarray]:
    lines = []
    for side, rim in zip((-1, 1), rims(s), strict=True):
        hinge = rim[np.argmax(side * rim[:, 0])] + np.float32([side * 0.02, -0.1, -0.02])
        ear = np.float32([side * 1.14 * s.person.width, -0.06, -1.1])
        lines.append(hinge + np.linspace(0, 1, 8)[:, None] * (ear - hinge))
    return lines


def bridge(s: Scene) -> np.ndarray:
    left, right = rims(s)
    a, b = left[np.argmax(left[:, 0])], right[np.argmin(right[:, 0])]
    t = np.linspace(0, 1, 9)[:, None]
    return a + t * (b - a) + np.sin(np.pi * t) * np.float32([0, -0.05, 0.04]) - np.float32([0, 0.06, 0])


def outline_cover(s: Scene, offset: np.ndarray, width: float) -> np.ndarray:
    """Coverage of rims and bridge, moved by `offset` of the head."""
    canvas = np.zeros((s.side, s.side), np.uint8)
    thickness = max(1, round(width * s.unit))
    for rim in rims(s):
        cv2.polylines(canvas, [fixed(s.pixels(rim + offset))], True, 255, thickness, cv2.LINE_AA, SUB)
    cv2.polylines(canvas, [fixed(s.pixels(bridge(s) + offset))], False, 255, thickness, cv2.LINE_AA, SUB)
    return canvas.astype(np.float32) / 255


def glasses_shadow(s: Scene, side: int) -> np.ndarray:
    """What the frame leaves of the key light, as a (side, side) factor."""
    if s.person.glasses == "none":
        return np.ones((side, side), np.float32)
    to = np.float32(s.picture.key.direction) @ s.camera.turn
    cover = cv2.resize(outline_cover(s, -0.16 * to / max(0.4, float(to[2])), 0.05), (side, side), interpolation=cv2.INTER_AREA)
    return 1 - 0.55 * cv2.GaussianBlur(cover, (0, 0), max(0.6, 0.018 * s.camera.zoom * side))


def paint_glasses(s: Scene) -> None:
    p = s.person
    if p.glasses == "none":
        return
    rng = stream(s.seed, "person", p.number, "frame")
    colour, width = linear(FRAMES[rng.integers(len(FRAMES))]), rng.uniform(0.025, 0.055)
    key = np.float32(s.picture.key.colour).mean() * 0.6 + 0.25
    for rim in rims(s):
        outline = s.pixels(rim)
        at = s.window(outline, 0.05)
        inside = polygon(s.image[at].shape[:2], outline - [at[1].start, at[0].start])
        yy, xx = np.mgrid[at[0], at[1]].astype(np.float32)
        centre = outline.mean(0)
        along = ((xx - centre[0]) * 0.8 + (yy - centre[1]) * 0.6) / s.unit
        glare = np.exp(-(((along + 0.17) / 0.07) ** 2)) + 0.6 * np.exp(-(((along + 0.02) / 0.03) ** 2))
        glare = glare * np.clip(0.5 - (yy - centre[1]) / (0.6 * s.unit), 0, 1)
        s.image[at] *= 1 - 0.05 * inside[..., None]
        s.image[at] += (0.09 * glare * inside)[..., None] * np.float32(s.picture.sky) * 2
    covers = [outline_cover(s, np.zeros(3), width), arm_cover(s, width)]
    for cover in covers:
        shine = cv2.GaussianBlur(cover, (0, 0), max(0.5, 0.007 * s.unit))
        lift = np.clip(shine - np.roll(shine, max(1, round(0.012 * s.unit)), 0), 0, 1)
        s.over(colour * key + (0.5 * lift)[..., None] * key, cover)
        s.region[cover > 0.5] = REGIONS.index("glasses")


def arm_cover(s: Scene, width: float) -> np.ndarray:
    canvas = np.zeros((s.side, s.side), np.uint8)
    low = s.traced.depth.shape[0] / s.side
    for line in arms(s):
        pixels = s.pixels(line)
        u, v = (np.clip((pixels[:, i] + 0.5) * low, 0, s.traced.depth.shape[0] - 1).astype(int) for i in (0, 1))
        hidden = (s.traced.edge[v, u] < 0) & (s.camera.seen(line)[:, 2] < s.traced.depth[v, u] - 0.08)
        shown = pixels[: int(np.argmax(hidden))] if hidden.any() else pixels
        if len(shown) > 1:
            cv2.polylines(canvas, [fixed(shown)], False, 255, max(1, round(width * s.unit)), cv2.LINE_AA, SUB)
    return canvas.astype(np.float32) / 255
