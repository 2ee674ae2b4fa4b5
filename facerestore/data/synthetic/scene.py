"""A picture while it is painted: the canvas, the geometry under it, and the light."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from facerestore.data.synthetic.camera import Camera, Trace
from facerestore.data.synthetic.head import CENTRE, Head
from facerestore.data.synthetic.identity import Person
from facerestore.data.synthetic.picture import Picture

REGIONS = (
    "background", "skin", "left_brow", "right_brow", "left_eye", "right_eye", "glasses", "left_ear", "right_ear",
    "nose", "mouth", "upper_lip", "lower_lip", "neck", "cloth", "hair",
)  # fmt: skip

Window = tuple[slice, slice]


@dataclass
class Scene:
    """`side` is the working canvas's; `fine` (2, side, side) the x and y on the skin under every pixel of it."""

    seed: int
    index: int
    person: Person
    picture: Picture
    head: Head
    camera: Camera
    traced: Trace
    side: int
    image: np.ndarray = field(init=False)  # linear light
    region: np.ndarray = field(init=False)
    fine: np.ndarray = field(init=False)
    face: np.ndarray = field(init=False)  # coverage of the head
    light: np.ndarray = field(init=False)  # (side, side, 3) what falls on the skin

    def __post_init__(self) -> None:
        self.image = np.zeros((self.side, self.side, 3), np.float32)
        self.region = np.zeros((self.side, self.side), np.uint8)
        self.fine = np.stack([self.enlarged(self.traced.points[i] + CENTRE[i]) for i in (0, 1)])
        pixel = 1 / (self.side * self.camera.zoom)
        self.face = np.clip(0.5 - self.enlarged(self.traced.edge) / (1.5 * pixel), 0, 1)

    @property
    def unit(self) -> float:
        """Pixels of the canvas per distance between the pupils."""
        return self.side * self.camera.zoom

    def enlarged(self, low: np.ndarray) -> np.ndarray:
        """A map of the traced size at the canvas's size."""
        return cv2.resize(low, (self.side, self.side), interpolation=cv2.INTER_LINEAR)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) of the head to pixels (..., 2) of the canvas."""
        return self.camera.project(points) * self.side - 0.5

    def on_skin(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of the skin at (x, y)."""
        return self.pixels(self.head.on_skin(x, y))

    def window(self, points: np.ndarray, margin: float) -> Window:
        """The part of the canvas about pixels (N, 2), `margin` in distances between the pupils."""
        low = np.floor(points.min(0) - margin * self.unit).astype(int).clip(0, self.side - 2)
        high = np.ceil(points.max(0) + margin * self.unit).astype(int).clip(low + 2, self.side)
        return slice(low[1], high[1]), slice(low[0], high[0])

    def over(self, colour: np.ndarray, cover: np.ndarray, region: str | None = None, at: Window | None = None) -> None:
        """Paint linear `colour` (..., 3) with coverage (h, w) over a window of the canvas."""
        at = at or (slice(None), slice(None))
        target = self.image[at]
        target += cover[..., None] * (colour - target)
        if region:
            self.region[at][cover > 0.5] = REGIONS.index(region)

    def lamps(self) -> list:
        return [self.picture.key, self.picture.fill, self.picture.rim]


def irradiance(
    picture: Picture, normal: np.ndarray, occlusion: np.ndarray, shadow: np.ndarray, wrap: tuple[float, float, float]
) -> np.ndarray:
    """Light (3, ...) that falls on unit normals (3, ...); `wrap` lets it creep past the terminator, as under skin.

    `shadow` dims the key light, `occlusion` what comes from all around.
    """
    around = (0.5 - 0.5 * normal[1]) * occlusion, (0.5 + 0.5 * normal[1]) * occlusion
    light = np.empty((3, *normal.shape[1:]), np.float32)
    facing = [np.tensordot(np.float32(lamp.direction), normal, 1) for lamp in (picture.key, picture.fill, picture.rim)]
    for c, w in enumerate(wrap):
        light[c] = picture.sky[c] * around[0] + picture.ground[c] * around[1]
        for lamp, cos, lit in zip(
            (picture.key, picture.fill, picture.rim), facing, (shadow ** (1 - w), occlusion, occlusion), strict=True
        ):
            light[c] += lamp.colour[c] * np.clip((cos + w) / (1 + w), 0, 1) * lit
    return light


def gloss(picture: Picture, normal: np.ndarray, shadow: np.ndarray, sharpness: float) -> np.ndarray:
    """Blinn's highlight (3, ...) of the lamps on unit normals (3, ...), seen from the camera."""
    shine = np.zeros((3, *normal.shape[1:]), np.float32)
    graze = 0.6 + 2.2 * np.clip(1 - normal[2], 0, 1) ** 3
    for lamp, lit in ((picture.key, shadow), (picture.fill, 0.8), (picture.rim, 0.5)):
        half = np.float32(lamp.direction) + np.float32([0, 0, 1])
        half /= np.linalg.norm(half) + 1e-6
        peak = np.clip(np.tensordot(half, normal, 1), 0, 1) ** sharpness * graze * lit
        shine += np.float32(lamp.colour)[:, None, None] * peak
    return shine
