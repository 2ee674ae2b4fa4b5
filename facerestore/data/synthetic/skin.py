"""Skin: its colour from melanin and blood, what grows and folds on it, and the light in it."""

from __future__ import annotations

import cv2
import numpy as np

from facerestore.data.synthetic import features
from facerestore.data.synthetic.camera import shadow
from facerestore.data.synthetic.head import CENTRE, gauss
from facerestore.data.synthetic.identity import HAIR_COLOURS, Person
from facerestore.data.synthetic.scene import REGIONS, Scene, gloss, irradiance
from facerestore.data.synthetic.streams import stream
from facerestore.data.synthetic.texture import SUB, fixed, linear, sample_tile, smooth

# of less to more melanin
TONES = [(236, 204, 188), (226, 186, 164), (204, 158, 130), (172, 124, 96), (128, 86, 64), (88, 58, 45)]
WRAP = (0.34, 0.16, 0.1)  # red light goes furthest under the skin
X_SPAN, Y_SPAN = (-1.35, 1.35), (-2.0, 2.1)  # what the plane of marks covers


def skin_tone(p: Person) -> np.ndarray:
    """Linear colour of plain skin."""
    tones = linear(TONES)
    at = p.melanin * (len(TONES) - 1)
    return np.array([np.interp(at, range(len(TONES)), tones[:, c]) for c in range(3)], np.float32)


def hair_colour(p: Person) -> np.ndarray:
    """Linear colour of the hair, grayed by age."""
    return linear(HAIR_COLOURS[p.hair][0]) * (1 - p.gray) + linear((176, 172, 168)) * p.gray


def beard_area(p: Person, s: Scene, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """0..1: where the person's kind of beard grows."""
    mouth = features.Mouth(p, s.picture)
    aside = np.abs(x)
    t = np.abs(x) / mouth.half
    along = np.clip(x / mouth.half, -1, 1)
    lip, chin_line = mouth.outer_upper(along), mouth.outer_lower(along)

    border = 1.42 - 0.124 * (1 + np.clip((aside - 0.3) / 0.75, 0, 1) ** 0.8) - 0.85 * np.clip(aside - 0.5, 0, 1)
    cheeks = smooth(y, border, border + 0.2)
    chin = smooth(y, mouth.bottom + 0.02, mouth.bottom + 0.12) * (1 - smooth(aside, 0.3, 0.42))
    top, end = lip - 0.17 + 0.16 * np.clip(np.minimum(t, 1.25) - 0.5, 0, 1), lip - 0.035 + 0.2 * smooth(t, 0.9, 1.2)
    moustache = smooth(y, top, top + 0.05) * (1 - smooth(y, end, end + 0.04)) * (1 - smooth(t, 1.05, 1.25))
    moustache *= 1 - 0.75 * np.exp(-((x / 0.025) ** 2))
    beyond = aside - mouth.half
    around = smooth(y, mouth.y - 0.02, mouth.y + 0.1) * smooth(beyond, 0, 0.05) * (1 - smooth(beyond, 0.1, 0.16))
    parts = {
        "none": (cheeks, moustache, chin),  # shaven, but a shade stays
        "stubble": (cheeks, moustache, chin),
        "full": (cheeks, moustache, chin, around),
        "moustache": (moustache,),
        "goatee": (moustache, chin, around),
    }[p.beard]
    off_lips = np.maximum.reduce([smooth(t, 0.95, 1.05), smooth(lip - y, 0, 0.03), smooth(y - chin_line, 0, 0.03)])
    return np.maximum.reduce(parts) * off_lips


def pigment(s: Scene, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Smooth colour (3, ...) of the skin at (x, y)."""
    p, q = s.person, s.picture
    tone = skin_tone(p)[:, None, None] * np.ones_like(x)
    clouds = sample_tile("clouds", x * 0.31 + 0.13 * p.number, y * 0.31 + 0.29)
    red = 0.35 * gauss(x, y, 0, 0.62, 0.22, 0.16) + 0.05 * clouds
    shade = 0.02 * clouds
    for side in (-1, 1):
        red += (0.4 + 0.5 * p.blush) * gauss(x, y, side * 0.64, 0.55, 0.3, 0.22)
        red += 0.3 * gauss(x, y, side * 0.5, -0.02, 0.28, 0.16)
        shade += (0.1 + 0.12 * p.age) * gauss(x, y, side * 0.42, 0.2, 0.19, 0.07)
        shade += 0.12 * gauss(x, y, side * 0.24, 0.03, 0.08, 0.1)
    red += 0.2 * gauss(x, y, 0, 1.62, 0.3, 0.2)
    strength = 0.3 * p.ruddy
    tint = np.stack([1 - 0.1 * strength * red, 1 - 1.0 * strength * red, 1 - 0.9 * strength * red])
    tone = tone * tint * (1 - shade) * np.float32([1, 0.99, 1.0])[:, None, None]
    if p.shadow:
        hue = linear([(120, 80, 60), (90, 70, 110), (70, 90, 110), (150, 90, 80)][p.number % 4])[:, None, None]
        for side in (-1, 1):
            lids = features.Lids(p, q, side)
            over = gauss(x, y, lids.x + side * 0.03, lids.y - 0.13, 0.25, 0.1)
            tone += 0.55 * p.shadow * over * (hue * 0.8 - tone)
    if p.domain:
        growth = beard_area(p, s, x, y)
        strength = {"none": 0.13, "stubble": 0.36, "full": 0.62}.get(p.beard, 0.45)
        dark = hair_colour(p)[:, None, None] * 0.55 + np.float32([0.01, 0.012, 0.016])[:, None, None]
        tone += strength * growth * (dark - tone)
    return tone.astype(np.float32)


def marks(s: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Freckles and moles (darkness 0..1), and wrinkles (height), on a plane over X_SPAN x Y_SPAN."""
    p, q = s.person, s.picture
    per_unit = s.unit * 0.9
    size = int((X_SPAN[1] - X_SPAN[0]) * per_unit), int((Y_SPAN[1] - Y_SPAN[0]) * per_unit)
    spots, lines = np.zeros(size[::-1], np.uint8), np.zeros(size[::-1], np.uint8)

    def at(points: np.ndarray) -> np.ndarray:
        return (np.asarray(points) - [X_SPAN[0], Y_SPAN[0]]) * per_unit - 0.5

    rng = stream(s.seed, "person", p.number, "marks")
    count = int(p.freckles * 320)
    where = np.stack([rng.normal(0, 0.5, 320), rng.normal(0.4, 0.26, 320)], -1)
    radii, depth = rng.uniform(0.006, 0.017, 320), rng.uniform(25, 80, 320)
    for point, radius, dark in zip(at(where[:count]), radii[:count], depth[:count], strict=True):
        cv2.circle(spots, fixed(point), int(radius * per_unit * (1 << SUB)), float(dark), -1, cv2.LINE_AA, SUB)
    where = rng.uniform((-0.8, -0.9), (0.8, 1.5), (6, 2))
    for point, radius in zip(at(where[: p.moles]), rng.uniform(0.012, 0.026, 6)[: p.moles], strict=True):
        cv2.circle(spots, fixed(point), int(radius * per_unit * (1 << SUB)), 150.0, -1, cv2.LINE_AA, SUB)

    def crease(x: np.ndarray, y: np.ndarray, depth: float, width: float) -> None:
        wobble = 0.008 * np.sin(x * 19 + y * 23 + rng.uniform(0, 6))
        curve = at(np.stack([x, y + wobble], -1))
        if depth > 0.02:
            cv2.polylines(
                lines, [fixed(curve)], False, min(255.0, 255 * depth), max(1, round(width * per_unit)), cv2.LINE_AA, SUB
            )

    t = np.linspace(-1, 1, 24)
    for i in range(4):
        reach = rng.uniform(0.4, 0.65)
        crease(
            reach * t + rng.uniform(-0.1, 0.1),
            -0.62 - 0.14 * i + 0.05 * t * t,
            0.6 * p.age * rng.uniform(0.3, 1) + 0.35 * max(q.brows, 0) * p.age,
            0.012,
        )
    for side in (-1, 1):
        lids = features.Lids(p, q, side)
        u = np.linspace(0, 1, 10)
        for angle in (-0.25, 0.1, 0.45):
            start = lids.x + side * (lids.half + 0.05)
            crease(
                start + side * 0.2 * u,
                lids.y + 0.02 + 0.2 * u * angle + 0.02 * u * u,
                (p.age * 0.8 + 0.25 * max(q.smile, 0) * (0.3 + p.age)) * 0.8,
                0.01,
            )
        crease(
            lids.x + side * lids.half * t * 0.85 - side * 0.03,
            lids.y + lids.down + 0.1 + 0.035 * (1 - t * t),
            0.25 + 0.5 * p.age,
            0.012,
        )
        crease(side * (0.06 + 0.02 * t), -0.28 + 0.1 * t, 0.1 + 0.6 * p.age * p.brow_ridge, 0.014)
    return spots, cv2.GaussianBlur(lines, (0, 0), max(0.4, 0.009 * per_unit))


def paint_head(s: Scene, cast: np.ndarray) -> None:
    """The head without eyes, brows and mouth.  `cast` (traced size) is what hair and glasses leave of the key light."""
    p, q, points = s.person, s.picture, s.traced.points
    normal = s.head.at(s.head.normals_last, points) @ s.camera.turn.T
    normal = np.ascontiguousarray(normal.transpose(2, 0, 1))
    occlusion = s.head.at(s.head.occlusion, points)
    to_light = (np.float32(q.key.direction) @ s.camera.turn).astype(np.float32)
    lit = shadow(s.head, points, to_light, q.hardness) * cast
    x, y = points[0] + CENTRE[0], points[1] + CENTRE[1]
    occlusion = occlusion * (0.55 + 0.45 * cast) * nostrils(p, x, y)
    light = irradiance(q, normal, occlusion, lit, WRAP)
    oily = 0.55 + 0.5 * gauss(x, y, 0, 0.4, 0.3, 0.4) + 0.3 * gauss(x, y, 0, -0.7, 0.7, 0.3) - 0.3 * p.age
    shine = (0.1 * gloss(q, normal, lit, 9) + 0.17 * gloss(q, normal, lit, 38)) * oily * (0.6 + 0.4 * p.melanin) * occlusion
    tone = pigment(s, x, y)

    fx, fy = s.fine
    pores = sample_tile("pores", fx * 0.7, fy * 0.7)
    mottle = sample_tile("clouds", fx * 1.3 + 0.7, fy * 1.3 + p.number * 0.37)
    spots, lines = marks(s)
    u = (fx - X_SPAN[0]) * spots.shape[1] / (X_SPAN[1] - X_SPAN[0]) - 0.5
    v = (fy - Y_SPAN[0]) * spots.shape[0] / (Y_SPAN[1] - Y_SPAN[0]) - 0.5
    dark = cv2.remap(spots, u, v, cv2.INTER_LINEAR).astype(np.float32) / 255
    fold = cv2.remap(lines, u, v, cv2.INTER_LINEAR).astype(np.float32) / 255
    emboss = np.zeros_like(fold)
    step = max(1, round(0.008 * s.unit))
    emboss[step:] = fold[:-step] - fold[step:]
    grain = 1 + p.texture * (0.026 * pores + 0.018 * mottle) - 0.5 * fold + 0.25 * emboss
    sparkle = np.clip(1 + 0.22 * p.texture * pores, 0, 3)
    colour = np.empty_like(s.image)
    s.light = np.empty_like(s.image)
    for c, absorbed in enumerate((0.5, 0.75, 0.85)):
        s.light[..., c] = s.enlarged(light[c])
        colour[..., c] = (
            s.enlarged(tone[c]) * s.light[..., c] * (grain * (1 - absorbed * dark)) + s.enlarged(shine[c]) * sparkle
        )
    s.over(colour, s.face, "skin")
    paint_nose_region(s)


def nostrils(p: Person, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The dark of the nostrils, as a factor on the light."""
    n = p.nose_length
    factor = np.ones_like(x)
    for side in (-1, 1):
        ax = side * x - 0.105 * p.nose_width
        ay = y - 0.735 * n - 0.25 * (side * x - 0.105)
        factor *= 1 - 0.85 * np.exp(-(((ax / (0.052 * p.nose_width)) ** 2 + (ay / 0.024) ** 2) ** 1.4))
    return factor


def paint_nose_region(s: Scene) -> None:
    """Only the label: where the nose is."""
    p = s.person
    x, y = s.fine
    n = p.nose_length
    half = np.interp(y, [-0.1, 0.3 * n, 0.6 * n, 0.7 * n, 0.8 * n], [0.09, 0.12, 0.26, 0.29, 0.2])
    inside = (np.abs(x) < half * p.nose_width) & (y > -0.05) & (y < 0.79 * n) & (s.face > 0.5)
    s.region[inside] = REGIONS.index("nose")
