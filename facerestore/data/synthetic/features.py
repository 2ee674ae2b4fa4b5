"""The lines of a face, in the plane seen from straight ahead: lids, lips and brows.

Drawing and labels both come from here, so that a label cannot miss what is drawn.  `side` is -1 for the eye at the left of
the picture and +1 for the other; s = +1 is an eye's outer corner, s = -1 its inner one.
"""

from __future__ import annotations

import numpy as np

from facerestore.data.synthetic.identity import Person
from facerestore.data.synthetic.picture import Picture


def eye_centre(p: Person, side: int) -> tuple[float, float]:
    return side * 0.5 * p.eye_distance, 0.0


def eyeball(p: Person, side: int) -> tuple[float, float, float]:
    x, y = eye_centre(p, side)
    return x, y, -0.25 - 0.03 * p.deep_eyes


class Lids:
    """The opening of one eye."""

    def __init__(self, p: Person, q: Picture, side: int):
        self.side = side
        self.x, self.y = eye_centre(p, side)
        self.half = 0.262 * p.eye_width
        self.tilt = p.eye_tilt
        squint = 1 - 0.22 * max(q.smile, 0)
        self.up = 0.106 * p.eye_height * q.lids * (0.5 + 0.5 * squint)
        self.down = 0.068 * p.eye_height * squint * (0.45 + 0.55 * q.lids)

    def s(self, x: np.ndarray) -> np.ndarray:
        return self.side * (x - self.x) / self.half

    def line(self, s: np.ndarray) -> np.ndarray:
        """y of the line through both corners."""
        return self.y + 0.012 - self.tilt * s * self.half

    def upper(self, s: np.ndarray, beyond: float = 0.0) -> np.ndarray:
        """y of the upper lid's edge; `beyond` > 0 gives lines above it (creases)."""
        skew = np.clip(s + 0.16 * (1 - s * s), -1, 1)
        return self.line(s) - (self.up + beyond) * (1 - np.abs(skew) ** 2.3) - 0.3 * beyond

    def lower(self, s: np.ndarray) -> np.ndarray:
        skew = np.clip(s - 0.12 * (1 - s * s), -1, 1)
        return self.line(s) + self.down * (1 - np.abs(skew) ** 2.4)

    def opening(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """How far (x, y) is inside of the lids; negative outside."""
        s = self.s(x)
        inside = np.minimum(y - self.upper(s), self.lower(s) - y)
        return np.where(np.abs(s) < 1, inside, -np.hypot((np.abs(s) - 1) * self.half, y - self.line(s)))

    def points(self) -> np.ndarray:
        """(6, 2) in iBUG's order, clockwise from the corner at the left of the picture."""
        s = np.array([-1, -0.36, 0.36, 1]) * self.side
        x = self.x + self.side * s * self.half
        upper, lower, line = self.upper(s), self.lower(s), self.line(s)
        return np.stack([x[[0, 1, 2, 3, 2, 1]], [line[0], upper[1], upper[2], line[3], lower[2], lower[1]]], -1)


class Mouth:
    """Lips, and the opening between them."""

    def __init__(self, p: Person, q: Picture):
        smile, self.open = q.smile, q.open
        self.half = 0.41 * p.mouth_width * (1 + 0.17 * smile)
        self.y = 1.03 * p.mouth_height
        self.lift = 0.09 * smile + 0.02
        self.gap = 0.3 * q.open
        self.thick_up = 0.097 * p.upper_lip * (1 - 0.25 * max(smile, 0))
        self.thick_down = 0.125 * p.lower_lip * (1 - 0.2 * max(smile, 0))
        self.bow = p.cupid_bow

    def line(self, t: np.ndarray) -> np.ndarray:
        """y where closed lips meet; t = x / half."""
        return self.y - self.lift * (t * t - 0.35) + 0.009 * np.cos(np.clip(t, -1, 1) * 2 * np.pi) * (1 - t * t)

    def inner_upper(self, t: np.ndarray) -> np.ndarray:
        return self.line(t) - 0.22 * self.gap * np.maximum(1 - t * t, 0)

    def inner_lower(self, t: np.ndarray) -> np.ndarray:
        return self.line(t) + 0.78 * self.gap * np.maximum(1 - t * t, 0) ** 0.9

    def outer_upper(self, t: np.ndarray) -> np.ndarray:
        body = np.maximum(1 - np.abs(t) ** 1.5, 0) ** 0.85
        bow = 1 - 0.24 * self.bow * np.exp(-((t / 0.13) ** 2)) + 0.1 * self.bow * np.exp(-(((np.abs(t) - 0.24) / 0.13) ** 2))
        return self.inner_upper(t) - self.thick_up * body * bow

    def outer_lower(self, t: np.ndarray) -> np.ndarray:
        return self.inner_lower(t) + self.thick_down * np.maximum(1 - np.abs(t) ** 2.3, 0) ** 0.75

    def points(self) -> np.ndarray:
        """(20, 2) in iBUG's order: the outline from the left corner, clockwise, then the opening's."""
        outer, inner = np.array([-1, -0.62, -0.24, 0, 0.24, 0.62, 1]), np.array([-0.86, -0.3, 0, 0.3, 0.86])
        x = [outer, outer[5:0:-1], inner, inner[3:0:-1]]
        lines = (self.outer_upper, self.outer_lower, self.inner_upper, self.inner_lower)
        return np.concatenate([np.stack([t * self.half, line(t)], -1) for t, line in zip(x, lines, strict=True)])

    @property
    def bottom(self) -> float:
        return float(self.outer_lower(np.zeros(1))[0])

    @property
    def middle(self) -> float:
        """y of the opening's middle."""
        zero = np.zeros(1)
        return float(self.inner_upper(zero)[0] + self.inner_lower(zero)[0]) / 2

    def relief(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Height of the lips over the face, and the dip between them."""
        t = x / self.half
        inside = np.abs(t) < 1.1
        clipped = np.clip(t, -0.999, 0.999)
        top, bottom = self.outer_upper(clipped), self.outer_lower(clipped)
        upper, lower = self.inner_upper(clipped), self.inner_lower(clipped)
        high = np.clip((y - top) / np.maximum(upper - top, 0.02), 0, 1)
        low = np.clip((bottom - y) / np.maximum(bottom - lower, 0.02), 0, 1)
        roll = lambda h: np.sin(np.pi * np.minimum(h, 1) ** 0.75) * 0.75 + 0.25 * h  # noqa: E731
        fade = np.clip((1.05 - np.abs(t)) * 4, 0, 1)
        ridge = np.where(y < (upper + lower) / 2, 0.055 * roll(high), 0.07 * roll(low))
        between = np.exp(-(((y - (upper + lower) / 2) / (0.018 + 0.5 * self.gap)) ** 2))
        return inside * fade * (ridge - 0.03 * between)


class Brow:
    """The line of one brow and its thickness."""

    def __init__(self, p: Person, q: Picture, side: int):
        x, y = eye_centre(p, side)
        self.side = side
        self.inner, self.outer = x - side * 0.29, x + side * 0.33 * p.eye_width
        self.y = y - 0.33 * p.brow_height - 0.06 * q.brows
        self.arch, self.slope, self.thick = p.brow_arch, p.brow_slope, 0.062 * p.brow_thick

    def centre(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(x, y) of the middle line; t from 0 (nose) to 1 (temple)."""
        x = self.inner + (self.outer - self.inner) * t
        arch = np.sin(np.pi * np.clip(0.12 + 0.88 * t, 0, 1) ** 1.5)
        return x, self.y - 0.06 * self.arch * arch - self.slope * (t - 0.35) + 0.05 * np.maximum(t - 0.65, 0)

    def thickness(self, t: np.ndarray) -> np.ndarray:
        return self.thick * np.minimum(1, 0.55 + 3 * t) * np.clip(1.18 - t, 0.12, 0.8) / 0.8

    def points(self) -> np.ndarray:
        """(5, 2), from the left of the picture to the right."""
        t = np.linspace(0, 1, 5)
        return np.stack(self.centre(t if self.side > 0 else t[::-1]), -1)
