"""Eyes: white, iris, pupil, lids and lashes."""

from __future__ import annotations

import numpy as np

from facerestore.data.synthetic import features
from facerestore.data.synthetic.identity import IRIS_COLOURS
from facerestore.data.synthetic.scene import Scene, Window, irradiance
from facerestore.data.synthetic.skin import skin_tone
from facerestore.data.synthetic.streams import stream
from facerestore.data.synthetic.texture import linear, sample_tile, smooth, strokes

BALL = 0.2  # radius of an eyeball
IRIS = 0.108  # and of an iris
PUPIL = 0.38  # of a pupil, over the iris's


def paint_eyes(s: Scene, cast: np.ndarray) -> None:
    for side in (-1, 1):
        lids = features.Lids(s.person, s.picture, side)
        at = s.window(s.on_skin(*lids.points().T), 0.2)
        x, y = s.fine[0][at], s.fine[1][at]
        light = s.enlarged(cast)[at]
        paint_lid(s, lids, at, x, y)
        paint_ball(s, lids, at, x, y, light)
        paint_rims(s, lids, at, x, y)
        paint_lashes(s, lids, at)


def pixel_alpha(s: Scene, distance: np.ndarray, soft: float = 1.0) -> np.ndarray:
    """Coverage of what lies `distance` (in distances between the pupils) inside of an edge."""
    return np.clip(0.5 + distance * s.unit / (1.6 * soft), 0, 1)


def paint_lid(s: Scene, lids: features.Lids, at: Window, x: np.ndarray, y: np.ndarray) -> None:
    """The crease over the upper lid, and the lid's own shade."""
    p = s.person
    u = lids.s(x)
    near = np.clip(1.25 - np.abs(u), 0, 1)
    above = lids.upper(u, beyond=0.055 + 0.02 * p.deep_eyes) - y
    width = 0.014
    crease = np.exp(-((above / width) ** 2)) * smooth(near, 0.05, 0.5) * p.crease
    over = np.exp(-(((above - 0.03) / 0.03) ** 2)) * smooth(near, 0.05, 0.6) * p.crease
    image = s.image[at]
    image *= (1 - 0.5 * crease)[..., None] ** np.float32([0.8, 1, 1]) * (1 + 0.06 * over)[..., None]
    lid = smooth(-above, 0.0, 0.02) * smooth(lids.upper(u) - y, -0.02, 0.0) * (np.abs(u) < 1.1)
    image *= (1 - 0.1 * lid)[..., None]


def paint_ball(s: Scene, lids: features.Lids, at: Window, x: np.ndarray, y: np.ndarray, cast: np.ndarray) -> None:
    """What the lids leave open: the white, the iris turned to the camera, and what is mirrored in it."""
    q = s.picture
    bx, by = (x - lids.x) / BALL, (y - lids.y) / BALL
    normal = np.stack([bx, by, np.sqrt(np.clip(1 - bx * bx - by * by, 0.05, 1))])
    seen = np.tensordot(s.camera.turn, normal, 1).astype(np.float32)
    u = lids.s(x)
    under_lid = 0.36 + 0.64 * smooth(y - lids.upper(u), -0.005, 0.075)
    light = irradiance(q, seen, under_lid * 0.9, np.minimum(cast, under_lid), (0.25, 0.2, 0.18))

    yaw, pitch = q.gaze[0] - 0.55 * q.yaw, q.gaze[1] - 0.4 * q.pitch  # eyes keep to the camera, more or less
    dx, dy = (bx - np.sin(yaw) * np.cos(pitch)) * BALL, (by - np.sin(pitch)) * BALL
    rho = np.hypot(dx, dy) / IRIS
    pixel = 1 / (s.unit * IRIS)
    inside = 1 - smooth(rho, 0.94 - pixel, 1.05 + pixel)
    colour = white_of_eye(s, u, bx, by) * (1 - inside) + iris(s, dx, dy, rho, pixel) * inside
    wet = np.exp(-(((lids.lower(u) - y - 0.012) / 0.006) ** 2)) * (np.abs(u) < 0.85)
    colour = (colour + 0.12 * wet) * light + highlights(s, dx, dy, rho, pixel)
    cover = pixel_alpha(s, lids.opening(x, y))
    s.over(np.moveaxis(colour, 0, -1), cover, "left_eye" if lids.side < 0 else "right_eye", at)


def white_of_eye(s: Scene, u: np.ndarray, bx: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Colour (3, ...): gray rather than white, reddish in the corners, flesh in the inner one."""
    veins = sample_tile("clouds", bx * 0.9, by * 0.5 + s.person.number * 0.1)
    white = np.float32([0.55, 0.525, 0.5])[:, None, None] * (1 - 0.05 * np.abs(veins))
    white = white * (1 - np.float32([0.1, 0.34, 0.34])[:, None, None] * smooth(np.abs(u), 0.45, 1.05))
    flesh = smooth(-u, 0.8, 0.98)
    return white * (1 - flesh) + np.float32([0.55, 0.2, 0.17])[:, None, None] * flesh


def iris(s: Scene, dx: np.ndarray, dy: np.ndarray, rho: np.ndarray, pixel: float) -> np.ndarray:
    """Colour (3, ...): fibres, a warmer collar about the pupil, a dark rim.  `rho` is 1 at the rim."""
    p = s.person
    fibres = sample_tile("fibres", np.arctan2(dy, dx) / (2 * np.pi) + 0.1 * p.number, rho * 0.12)
    collar = np.exp(-(((rho - 0.5) / 0.12) ** 2))
    tone = (0.85 + 0.28 * fibres + 0.35 * collar) * (1 - 0.72 * smooth(rho, 0.72, 1.0))
    warm = np.float32([0.3, 0.0, -0.35])[:, None, None] * (0.25 if p.iris in ("gray", "blue") else 0.7)
    to_key = s.picture.key.direction
    bowl = 1 - 0.45 * (dx * to_key[0] + dy * to_key[1]) / IRIS  # light falls on the far wall
    colour = 1.4 * linear(IRIS_COLOURS[p.iris][0])[:, None, None] * tone * (1 + warm * collar) * bowl
    pupil = np.clip(0.5 + (PUPIL - rho) / (2 * pixel), 0, 1)
    return colour * (1 - pupil) + 0.006 * pupil


def highlights(s: Scene, dx: np.ndarray, dy: np.ndarray, rho: np.ndarray, pixel: float) -> np.ndarray:
    """Windows and lamps mirrored in the cornea."""
    rng = stream(s.seed, "picture", s.index, "catchlight")
    square, size = rng.random() < 0.5, rng.uniform(0.11, 0.18)
    shine = np.zeros((3, *dx.shape), np.float32)
    for lamp, big, strong in ((s.picture.key, size, 1.0), (s.picture.fill, 0.6 * size, 0.3)):
        half = np.float32(lamp.direction) + np.float32([0, 0, 1])
        half /= np.linalg.norm(half)
        cx, cy = half[0] * 1.0, half[1] * 0.85 - 0.1
        ax, ay = np.abs(dx / IRIS - cx), np.abs(dy / IRIS - cy)
        distance = np.maximum(ax, ay) if square else np.hypot(ax, ay)
        spot = np.clip(0.5 + (big - distance) / (2 * pixel), 0, 1)
        shine += strong * 1.3 * spot * np.float32(lamp.colour)[:, None, None]
    return shine + 0.05 * np.exp(-(((dy / IRIS + 0.45) / 0.3) ** 2)) * (rho < 1) * np.float32(s.picture.sky)[:, None, None]


def paint_rims(s: Scene, lids: features.Lids, at: Window, x: np.ndarray, y: np.ndarray) -> None:
    """The lids' thickness: dark lash line above, moist rim below."""
    p = s.person
    u = lids.s(x)
    within = smooth(1.06 - np.abs(u), 0, 0.12)
    up, low = y - lids.upper(u), lids.lower(u) - y
    line = np.exp(-(((up + 0.004) / (0.011 + 0.009 * p.liner)) ** 2)) * within
    wing = p.liner * np.exp(-(((up + 0.006) / 0.016) ** 2)) * smooth(u, 0.2, 1.0) * smooth(1.16 - u, 0, 0.1)
    dark = np.clip((0.6 + 0.3 * p.liner) * line + 0.5 * wing, 0, 0.95)
    image = s.image[at]
    image *= 1 - dark[..., None] * np.float32([0.86, 0.92, 0.94])
    rim = np.exp(-(((low + 0.008) / 0.009) ** 2)) * within * (np.abs(u) < 1)
    flesh = skin_tone(p) * np.float32([0.95, 0.7, 0.66])
    image += (0.4 * rim)[..., None] * (flesh * s.light[at] - image)
    under = np.exp(-(((low + 0.022) / 0.012) ** 2)) * within
    image *= (1 - (0.16 + 0.2 * p.liner) * under)[..., None]


def paint_lashes(s: Scene, lids: features.Lids, at: Window) -> None:
    p = s.person
    rng = stream(s.seed, "person", p.number, "lashes", lids.side + 1)
    shape = s.image[at].shape[:2]
    origin = np.array([at[1].start, at[0].start], np.float32)
    for upper, count, length, strength in ((True, 90, 0.07 * p.lashes, 0.62), (False, 50, 0.034 * p.lashes, 0.3)):
        u = np.sort(rng.uniform(-0.85, 1.0, count))
        x = lids.x + lids.side * u * lids.half
        y = lids.upper(u) if upper else lids.lower(u)
        root = s.head.on_skin(x, y)
        long = length * (0.55 + 0.45 * smooth(u, -0.9, 0.7)) * rng.uniform(0.7, 1.1, count)
        fan = lids.side * (0.15 + 0.75 * u) + rng.normal(0, 0.12, count)
        k = np.linspace(0, 1, 5)[None, :, None]
        out = np.stack([fan * 0.7, np.full(count, 0.15 if upper else 0.5), np.ones(count)], -1)[:, None]
        curl = np.stack([fan * 0.6, np.full(count, -1.5 if upper else 0.9), np.zeros(count)], -1)[:, None]
        path = root[:, None] + long[:, None, None] * (0.55 * k * out + 0.62 * k * k * curl)
        cover = strokes(shape, s.pixels(path) - origin, 0.0055 * s.unit, strength * rng.uniform(0.7, 1, count))
        s.over(np.float32([0.012, 0.009, 0.008]), cover, None, at)
