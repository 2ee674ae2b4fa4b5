"""Neck, ears and clothes."""

from __future__ import annotations

import cv2
import numpy as np

from facerestore.data.synthetic.head import CENTRE
from facerestore.data.synthetic.scene import REGIONS, Scene, gloss, irradiance
from facerestore.data.synthetic.skin import WRAP, skin_tone
from facerestore.data.synthetic.streams import stream
from facerestore.data.synthetic.texture import linear, polygon, sample_tile, smooth

FABRICS = [
    (28, 30, 36),
    (232, 230, 226),
    (58, 72, 104),
    (120, 36, 42),
    (92, 104, 92),
    (168, 150, 128),
    (70, 60, 78),
    (40, 84, 110),
]


class Neck:
    """A column under the head that widens into the shoulders, in the body's frame: x, y in the picture's plane."""

    def __init__(self, s: Scene):
        top = s.camera.seen(np.float32([0, 1.0, -1.2]))
        self.top, self.bottom = float(top[0]), 0.45 * float(top[0])
        self.half = 0.74 * s.person.neck

    def middle(self, y: np.ndarray) -> np.ndarray:
        return np.interp(y, [1.0, 2.4], [self.top, self.bottom])

    def width(self, y: np.ndarray) -> np.ndarray:
        """Half of it at height y."""
        slope = np.maximum(y - 1.62, 0)
        return self.half * (1 + 0.05 * (y - 1.3) ** 2) + 0.35 * slope**2 + 1.6 * np.maximum(y - 1.85, 0) ** 1.3


def body_plane(s: Scene, side: int, first: int = 0) -> np.ndarray:
    """x and y of the plane through the head's centre, unrotated, under a (side, side) picture's pixels from row `first`."""
    centres = (np.arange(side, dtype=np.float32) + 0.5) / side
    picture = np.stack(np.meshgrid(centres, centres[first:])) - s.camera.frame[:, 2, None, None]
    inverse = np.linalg.inv(s.camera.frame[:, :2]).astype(np.float32)
    return np.tensordot(inverse, picture.astype(np.float32), 1) + CENTRE[:2, None, None]


def rows_below(s: Scene, y: float) -> int:
    """The first row of the canvas that may show the body plane at `y` or below, whatever the roll."""
    x0, x1 = s.camera.frame[1, :2]
    return int(np.clip((s.camera.frame[1, 2] + x1 * (y - CENTRE[1]) - 2.2 * abs(x0)) * s.side, 0, s.side - 8))


def neck_depth(s: Scene, side: int) -> np.ndarray:
    """z towards the camera of the neck; far behind where there is none."""
    x, y = body_plane(s, side)
    neck = Neck(s)
    across = (x - neck.middle(y)) / neck.half
    inside = (np.abs(across) < 1) & (y > 0.9)
    return np.where(inside, -0.1 + 0.7 * np.sqrt(np.clip(1 - across**2, 0, 1)), -9).astype(np.float32)


def paint_neck(s: Scene, cast: np.ndarray) -> None:
    """Lit as skin is, in the shadow of the chin."""
    low = cast.shape[0]
    x, y = body_plane(s, low)
    neck = Neck(s)
    half = neck.width(y)
    across = np.clip((x - neck.middle(y)) / half, -1, 1)
    normal = np.stack(
        [across * 0.95, np.full_like(x, 0.12) - 0.5 * smooth(y, 1.7, 2.1), np.sqrt(np.clip(1 - across**2 * 0.9, 0.02, 1))]
    )
    tendon = np.exp(-(((np.abs(x - neck.middle(y)) - 0.42 + 0.2 * (y - 1.6)) / 0.07) ** 2)) * np.sign(x - neck.middle(y))
    normal[0] += 0.16 * tendon
    normal /= np.linalg.norm(normal, axis=0)
    under = cv2.resize(s.face, (low, low), interpolation=cv2.INTER_AREA)
    drop = int(0.2 * s.unit * low / s.side)
    to = s.picture.key.direction
    moved = cv2.warpAffine(under, np.float32([[1, 0, -to[0] * drop * 1.2], [0, 1, drop * (0.7 - 0.6 * to[1])]]), (low, low))
    shade = cv2.GaussianBlur(moved, (0, 0), max(0.8, 0.09 * s.unit * low / s.side))
    light = irradiance(s.picture, normal.astype(np.float32), (1 - 0.6 * shade) * 0.85, (1 - 0.9 * shade) * cast, WRAP)
    shine = 0.06 * gloss(s.picture, normal.astype(np.float32), 1 - shade, 10)
    tone = skin_tone(s.person)[:, None, None] * np.float32([1.0, 0.95, 0.93])[:, None, None]
    if s.person.beard in ("stubble", "full"):
        growth = 0.3 * (1 - smooth(y, 1.65, 1.95))
        tone = tone * (1 - growth)
    colour = np.stack([s.enlarged(c) for c in tone * light + shine], -1)
    first = rows_below(s, 0.9)
    px, py = body_plane(s, s.side, first)
    grain = 1 + s.person.texture * 0.025 * sample_tile("pores", px * 0.5, py * 0.5)
    cover = np.clip(0.5 + (neck.width(py) - np.abs(px - neck.middle(py))) * s.unit / 2, 0, 1) * (py > 0.9)
    s.over(colour[first:] * grain[..., None], cover, "neck", (slice(first, None), slice(None)))


def neckline(kind: str, x: np.ndarray, depth: float) -> np.ndarray:
    """y where a garment ends, at a distance `x` from its middle."""
    if kind == "round":
        return 2.22 + depth - 0.6 * smooth(x, 0.25, 0.7)
    if kind == "v":
        return 2.5 + depth - 0.85 * np.clip(x / 0.62, 0, 1.15)
    if kind == "high":
        return 1.98 + depth - 0.3 * smooth(x, 0.2, 0.8)
    return 2.3 + depth - 0.62 * np.clip(x / 0.6, 0, 1.1)  # open shirt


def woven(pattern: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where the second colour of a fabric shows, 0..1."""
    if pattern == "plain":
        return np.zeros_like(x)
    across, down = smooth(np.sin(x * 34), 0.1, 0.5), smooth(np.sin(y * 34 + 3 * x), 0.1, 0.5)
    return {"upright": across, "level": down, "checks": np.maximum(across, down)}[pattern]


def paint_clothes(s: Scene) -> None:
    """A neckline with its seam, and a fabric with its weave and folds."""
    rng = stream(s.seed, "picture", s.index, "clothes")
    kind = rng.choice(["round", "v", "high", "shirt"])
    fabric, second = (linear(FABRICS[i]) for i in rng.choice(len(FABRICS), 2, replace=False))
    pattern = rng.choice(["plain", "upright", "level", "checks"], p=[0.5, 0.16, 0.18, 0.16])
    phase, depth = float(rng.uniform(0, 1)), float(rng.uniform(0, 0.15))
    first = rows_below(s, 1.4)
    at = slice(first, None), slice(None)
    x, y = body_plane(s, s.side, first)
    aside = np.abs(x - 0.8 * Neck(s).middle(y).astype(np.float32))
    shoulder = 1.6 + 0.42 * (np.clip(aside, 0.6, 2.5) - 0.6) ** 0.8
    line = np.stack([neckline(kind, aside, depth), shoulder])
    below = y - line.max(0) - np.log1p(np.exp(-16 * np.abs(line[0] - line[1]))) / 16  # the lower of both, its corner rounded
    cover = np.clip(0.5 + below * s.unit / 2.5, 0, 1)

    folds = sample_tile("clouds", x * 0.22 + phase, y * 0.1 + phase)
    normal = np.stack([x / 2.2 + 0.2 * folds, np.full_like(x, -0.55), np.full_like(x, 0.8)])
    normal /= np.linalg.norm(normal, axis=0)
    lit = np.ones_like(x)
    light = np.moveaxis(irradiance(s.picture, normal, lit * 0.8, lit, (0.1, 0.1, 0.1)), 0, -1)
    weave = 1 + 0.1 * sample_tile("pores", x * 0.9, y * 0.9)
    seam = 1 - 0.35 * np.exp(-(((below - 0.11) / 0.009) ** 2)) + 0.12 * np.exp(-(((below - 0.05) / 0.035) ** 2))
    shade = weave * seam * (1 + 0.08 * folds) * (0.6 + 0.4 * smooth(below, 0.0, 0.12))
    colour = (fabric + 0.7 * woven(pattern, x, y)[..., None] * (second - fabric)) * light * shade[..., None]
    on_neck = smooth(below, -0.1, 0.0) * (s.region[at] == REGIONS.index("neck"))
    s.image[at] *= (1 - 0.4 * on_neck)[..., None]
    s.over(colour, cover, "cloth", at)


def ear_outline(s: Scene, side: int) -> np.ndarray:
    """(N, 3) of the head: an egg that stands off the head backwards."""
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    size = s.person.ears
    sin = np.sin(turn)
    across = 0.27 * size * np.cos(turn) * np.where(sin > 0, 1 - 0.38 * sin, 1 + 0.08 * sin)
    out = np.float32([side * 0.62, 0, -0.78])
    reach = float(s.head.at(s.head.radius, np.float32([side, 0, 0])))
    middle = CENTRE + np.float32([side * 0.96 * reach, 0.01, 0.02]) + 0.14 * size * out
    lean = np.stack([-0.045 * side * sin, 0.47 * size * sin, -0.054 * sin], -1) * size
    return middle + across[:, None] * out + lean


def ears_covered(s: Scene) -> bool:
    """Whether the hair hides them."""
    return s.person.style in ("long", "wavy", "curly", "bob", "fringe")


def paint_ears(s: Scene, cast: np.ndarray) -> None:
    """Each a flat shape whose rim and hollow follow from the distance to its edge."""
    if ears_covered(s):
        return
    for side in (-1, 1):
        outline = s.pixels(ear_outline(s, side))
        at = s.window(outline, 0.06)
        shape = s.image[at].shape[:2]
        origin = np.array([at[1].start, at[0].start])
        cover = polygon(shape, outline - origin)
        if not cover.any():
            continue
        inward = cv2.distanceTransform((cover > 0.5).astype(np.uint8), cv2.DIST_L2, 3) / s.unit
        inward = cv2.GaussianBlur(inward, (0, 0), max(0.5, 0.012 * s.unit))
        rim = np.sin(np.clip(inward / 0.075, 0, 1) * np.pi)
        height = (0.05 * rim - 0.06 * smooth(inward, 0.06, 0.13)).astype(np.float32)
        gx, gy = cv2.Sobel(height, -1, 1, 0) * s.unit / 8, cv2.Sobel(height, -1, 0, 1) * s.unit / 8
        facing = s.camera.turn @ np.float32([side * 0.75, -0.05, 0.66])
        normal = np.stack([facing[0] - gx, facing[1] - gy, np.full_like(gx, facing[2])]).astype(np.float32)
        normal /= np.linalg.norm(normal, axis=0)
        hollow = 1 - 0.5 * smooth(inward, 0.05, 0.12)
        dim = s.enlarged(cast)[at]
        light = irradiance(s.picture, normal, hollow * dim, hollow * dim, (0.45, 0.18, 0.12))
        tone = skin_tone(s.person) * np.float32([1.02, 0.84, 0.82])
        shine = 0.05 * gloss(s.picture, normal, dim, 12)
        colour = np.moveaxis(light, 0, -1) * tone + np.moveaxis(shine, 0, -1)
        s.over(colour, cover, "left_ear" if side < 0 else "right_ear", at)


def paint_earrings(s: Scene) -> None:
    """A small ball or drop under each ear lobe."""
    if not s.person.earrings or ears_covered(s):
        return
    gold = linear((222, 178, 92)) if s.person.number % 2 else linear((214, 214, 220))
    radius = 0.04 + 0.02 * (s.person.number % 3)
    for side in (-1, 1):
        lobe = ear_outline(s, side)[11]
        centre = s.pixels(lobe + np.float32([side * 0.03, 0.02 + radius, 0.05]))
        at = s.window(centre[None], radius + 0.03)
        yy, xx = np.mgrid[at[0], at[1]].astype(np.float32)
        dx, dy = (xx - centre[0]) / (radius * s.unit), (yy - centre[1]) / (radius * s.unit)
        far = np.hypot(dx, dy)
        cover = np.clip(0.5 + (1 - far) * radius * s.unit / 1.5, 0, 1)
        normal = np.stack([dx, dy, np.sqrt(np.clip(1 - far**2, 0.02, 1))]).astype(np.float32)
        shine = gloss(s.picture, normal, np.ones_like(dx), 30)
        band = 0.35 + 0.5 * np.sin(normal[1] * 5) ** 2
        s.over(np.moveaxis(gold[:, None, None] * band + 0.8 * shine, 0, -1), cover, None, at)
