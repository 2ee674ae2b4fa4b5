"""The head as a surface: for every direction from its centre, how far the skin is.

Units are the distance between the pupils.  x points to the right of the picture, y down, z to the viewer, and the origin lies
between the eyes.  A head is star-shaped seen from `CENTRE`, so that one map of radii over the stereographic plane

    (u, v) = (x, y) / (|p| + z),        p = point - CENTRE

holds all of it, without a seam in front.  The map is a soft maximum of three ellipsoids (cranium, face, jaw), to which bones,
sockets, lids, nose, lips and folds are added as smooth bumps.
"""

from __future__ import annotations

import cv2
import numpy as np

from facerestore.data.synthetic import features
from facerestore.data.synthetic.identity import Person
from facerestore.data.synthetic.picture import Picture

CENTRE = np.array([0.0, 0.25, -1.15], np.float32)
EXTENT = 1.45  # the map covers |u|, |v| <= EXTENT; |(u, v)| = 1 is 90 degrees from straight ahead


def gauss(x: np.ndarray, y: np.ndarray, x0: float, y0: float, sx: float, sy: float) -> np.ndarray:
    """A bump of height 1 at (x0, y0)."""
    return np.exp(-(((x - x0) / sx) ** 2) - ((y - y0) / sy) ** 2)


def ellipsoid(at: tuple[float, float, float], radii: tuple[float, float, float], d: np.ndarray) -> np.ndarray:
    """How far along unit directions `d` (3, ...) from CENTRE, which it must hold, an ellipsoid ends."""
    radii = np.asarray(radii, np.float32)
    w = d / radii[:, None, None]
    q = (np.asarray(at, np.float32) - CENTRE) / radii
    a, b, c = (w * w).sum(0), np.tensordot(q, w, 1), float(q @ q) - 1
    return (b + np.sqrt(b * b - a * c)) / a


def soft_max(values: list[np.ndarray], sharpness: float) -> np.ndarray:
    """log sum exp(k x) / k: the larger, with a smooth seam."""
    peak = np.maximum.reduce(values)
    return peak + np.log(sum(np.exp(sharpness * (v - peak)) for v in values)) / sharpness


def skull(p: Person, drop: float, d: np.ndarray) -> np.ndarray:
    """Radii of cranium, face and jaw.  `drop` is how far the open mouth lowers the jaw."""
    w, j = p.width, p.jaw
    return soft_max(
        [
            ellipsoid((0, -0.5, -1.3), (1.18 * w, 1.33 * p.crown, 1.24), d),
            ellipsoid((0, 0.3, -1.05), (1.1 * w, 1.2, 0.98), d),
            ellipsoid((0, 0.78 + 0.4 * drop, -0.98), (0.97 * w * j, 0.93 * p.length + 0.5 * drop, 0.86), d),
        ],
        9.0,
    )


def bones(p: Person, drop: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height of what stands out of the plain skull."""
    chin = 1.62 * p.length + drop
    height = (0.13 + p.chin_forward) * gauss(x, y, 0, chin, 0.34 * p.chin_width, 0.24)
    height += 0.05 * gauss(x, y, 0, 1.0, 0.42, 0.4)  # the arch of the teeth
    height += (0.02 + 0.05 * p.brow_ridge) * gauss(x, y, 0, -0.27, 0.62, 0.13)
    for sign in (-1, 1):
        height += 0.11 * p.cheekbone * gauss(x, y, sign * 0.66, 0.36, 0.3, 0.24)
        height += 0.1 * (p.jaw - 0.6) * gauss(x, y, sign * 0.78, 1.08 * p.length, 0.25, 0.32)
        height -= 0.05 * gauss(x, y, sign * 1.0, -0.45, 0.22, 0.4)  # temples
        height -= 0.03 * p.hollow * gauss(x, y, sign * 0.66, 0.86, 0.2, 0.26)
    return height


def nose(p: Person, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height of the nose: a profile along its ridge, falling off to both sides, and two wings."""
    n, out = p.nose_length, p.nose_out
    tip = 0.55 * n  # before it is raised along the radius, which also lowers it
    along = [-0.35, -0.12, 0.02, 0.3 * n, 0.5 * n, tip, tip + 0.07, tip + 0.12, tip + 0.19, tip + 0.27]
    rise = [0.0, 0.035, 0.065, 0.17 * out, 0.25 * out, 0.31 * out, 0.28 * out, 0.16 * out, 0.035, 0.0]
    wide = [0.13, 0.1, 0.09 * p.bridge, 0.105 * p.bridge, 0.125, 0.135 * p.nose_tip, 0.12, 0.1, 0.1, 0.1]
    # A natural cubic would overshoot at the tip; linear pieces, rounded by a blur along y, do not
    grid = np.linspace(-0.6, 1.2, 361, dtype=np.float32)
    soft = [cv2.GaussianBlur(np.interp(grid, along, v).astype(np.float32), (1, 0), 0, None, 5.0)[:, 0] for v in (rise, wide)]
    profile, width = (np.interp(y, grid, v).astype(np.float32) for v in soft)
    height = profile * np.exp(-(np.abs(x / width) ** 2.1))
    height += 0.45 * profile * np.exp(-((x / (2.1 * width)) ** 2))  # sides slope into the cheeks
    for sign in (-1, 1):
        height += 0.13 * out * gauss(x, y, sign * 0.185 * p.nose_width, tip + 0.045, 0.085 * p.nose_width, 0.085)
    return height


class Head:
    """The surface of one person with one expression.

    Args:
        person: whose head
        picture: with which expression
        side: cells of the map along an axis; more resolves the same head more finely
    """

    def __init__(self, person: Person, picture: Picture, side: int):
        self.person, self.picture, self.side = person, picture, side
        axis = np.linspace(-EXTENT, EXTENT, side, dtype=np.float32)
        u, v = np.meshgrid(axis, axis)
        square = u * u + v * v
        self.directions = np.stack([2 * u, 2 * v, 1 - square]) / (1 + square)
        drop = 0.22 * picture.open
        front = np.clip(self.directions[2] * 3, 0, 1)
        radius = skull(person, drop, self.directions)
        for part in (lambda x, y: bones(person, drop, x, y), self._eyes, lambda x, y: nose(person, x, y), self._relief):
            radius = radius + front * part(*self._xy(radius))
        self.radius = radius.astype(np.float32)
        self.points = self.directions * self.radius
        self.normals = self._normals()
        self.normals_last = np.ascontiguousarray(self.normals.transpose(1, 2, 0))
        self.occlusion = self._occlusion()

    def _xy(self, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.directions[0] * radius + CENTRE[0], self.directions[1] * radius + CENTRE[1]

    def _eyes(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Sockets sink, and in them the lids bulge over the eyeballs."""
        p = self.person
        height = np.zeros_like(x)
        for side in (-1, 1):
            x0, y0 = features.eye_centre(p, side)
            height -= (0.1 + 0.03 * p.deep_eyes) * gauss(x, y, x0 * 0.96, y0, 0.3, 0.19)
            height -= 0.05 * gauss(x, y, side * 0.22, -0.02, 0.1, 0.15)
            ball = np.maximum(1 - ((x - x0) / 0.3) ** 2 - ((y - y0 - 0.01) / 0.2) ** 2, 0)
            height += 0.1 * ball * (2 - ball) * ball
        return height

    def _relief(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Height of lips, philtrum and the folds of the face."""
        p, q = self.person, self.picture
        mouth = features.Mouth(p, q)
        height = mouth.relief(x, y)
        middle = mouth.y
        height -= 0.022 * gauss(x, y, 0, 0.83, 0.055, 0.09)  # philtrum
        height += 0.012 * (gauss(x, y, -0.075, 0.85, 0.04, 0.1) + gauss(x, y, 0.075, 0.85, 0.04, 0.1))
        height -= 0.035 * gauss(x, y, 0, mouth.bottom + 0.11, 0.3, 0.08)  # fold over the chin
        height -= p.cleft * 0.03 * gauss(x, y, 0, 1.62 * p.length, 0.035, 0.1)
        fold = 0.025 + 0.03 * p.age + 0.045 * max(q.smile, 0)
        for sign in (-1, 1):
            height -= 0.03 * gauss(x, y, sign * (mouth.half + 0.05), middle - 0.02 - 0.1 * q.smile, 0.06, 0.08)
            height += 0.06 * max(q.smile, 0) * gauss(x, y, sign * 0.56, 0.52, 0.22, 0.2)  # cheeks rise
            line = 0.27 + 0.24 * (np.clip(y, 0.6, 1.3) - 0.62) / 0.55 * (1 + 0.25 * max(q.smile, 0))
            along = np.exp(-(((y - 0.86) / 0.24) ** 2))
            side = (sign * x - line) / 0.06
            height -= fold * along * np.where(side < 0, np.exp(-(side**2)), np.exp(-((side / 2.2) ** 2))) * 0.8
            height += fold * along * np.exp(-(((side - 2) / 2) ** 2))
            height -= (0.012 + 0.03 * p.age) * gauss(x, y, sign * 0.44, 0.235, 0.2, 0.045)  # under the eyes
            height -= 0.03 * gauss(x, y, sign * (0.265 * p.nose_width), 0.62 * p.nose_length, 0.035, 0.09)  # wings
            height -= 0.05 * gauss(x, y, sign * 0.09 * p.nose_width, 0.725 * p.nose_length + 0.005, 0.05, 0.03)  # nostrils
        return height

    def _normals(self) -> np.ndarray:
        """Outward unit normals (3, side, side)."""
        du = np.gradient(self.points, axis=2)
        dv = np.gradient(self.points, axis=1)
        normal = np.cross(du, dv, axis=0)
        return (normal / np.linalg.norm(normal, axis=0)).astype(np.float32)

    def _occlusion(self) -> np.ndarray:
        """How much of the sky a point sees, about: hollows lie under the mean of their surroundings."""
        open_sky = np.ones_like(self.radius)
        for angle, strength in ((0.035, 2.6), (0.09, 1.5)):
            hollow = cv2.GaussianBlur(self.radius, (0, 0), angle / (2 * EXTENT) * self.side) - self.radius
            open_sky -= np.clip(hollow * strength / angle * 0.1, -0.06, 0.5)
        return np.clip(open_sky, 0.2, 1.1)

    def at(self, field: np.ndarray, points: np.ndarray) -> np.ndarray:
        """The values of a map (side, side[, C]) at points (3, ...) given relative to CENTRE."""
        x, y, z = points
        cells = (self.side - 1) / (2 * EXTENT)
        over = cells / np.maximum(np.sqrt(x * x + y * y + z * z) + z, 1e-3)
        middle = np.float32((self.side - 1) / 2)
        u, v = (x * over + middle).astype(np.float32), (y * over + middle).astype(np.float32)
        flat = u.reshape(-1, u.shape[-1]) if u.ndim > 1 else u.reshape(1, -1)
        out = cv2.remap(field, flat, v.reshape(flat.shape), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return out.reshape(u.shape + field.shape[2:])

    def outside(self, points: np.ndarray) -> np.ndarray:
        """Height of points (3, ...), relative to CENTRE, over the skin; negative inside."""
        return np.sqrt((points * points).sum(0)) - self.at(self.radius, points)

    def on_skin(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Points (..., 3) of the skin that lie at (x, y) seen from straight ahead."""
        x, y = np.broadcast_arrays(np.asarray(x, np.float32), np.asarray(y, np.float32))
        flat = np.stack([x - CENTRE[0], y - CENTRE[1], np.zeros_like(x)])
        low, high = np.full(x.shape, -0.2, np.float32), np.full(x.shape, 2.2, np.float32)
        for _ in range(12):
            flat[2] = (low + high) / 2
            out = self.outside(flat) > 0
            low, high = np.where(out, low, flat[2]), np.where(out, flat[2], high)
        return np.stack([x, y, (low + high) / 2 + CENTRE[2]], -1)
