"""What is known of a drawn face, and `render_face`, which draws it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from facerestore.data.synthetic import features
from facerestore.data.synthetic.head import CENTRE
from facerestore.data.synthetic.identity import DOMAINS, Person, draw_person
from facerestore.data.synthetic.picture import draw_picture
from facerestore.data.synthetic.render import paint
from facerestore.data.synthetic.scene import REGIONS, Scene

Box = tuple[float, float, float, float]

JAW, BROWS, NOSE = [*range(16, -1, -1)], [*range(26, 16, -1)], [27, 28, 29, 30, 35, 34, 33, 32, 31]
EYES, LIPS = [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40], [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55]
OPENING = [64, 63, 62, 61, 60, 67, 66, 65]
MIRRORED = np.array(JAW + BROWS + NOSE + EYES + LIPS + OPENING)  # point i of the mirror image is the picture's MIRRORED[i]
MIRRORED5 = np.array([1, 0, 2, 4, 3])
MIRRORED_REGIONS = {name: name.replace("left", "*").replace("right", "left").replace("*", "right") for name in REGIONS}


@dataclass(frozen=True)
class Face:
    """A drawn portrait.  Coordinates are pixels, (0, 0) the middle of the first; left and right as seen in the picture.

    Attributes:
        image: uint8 (S, S, 3), RGB
        points5: (5, 2) left and right eye, tip of the nose, left and right corner of the mouth
        landmarks68: (68, 2) in iBUG's order (jaw, brows, nose, eyes, mouth)
        boxes: `left_eye`, `right_eye`, `mouth` as squares (x1, y1, x2, y2) about the landmarks, 1.4 times their extent and
            at least 1/16 of the picture (GFPGAN's parts)
        regions: uint8 (S, S), for every pixel the index in `REGIONS` of what covers most of it (below 48 pixels, thin parts
            such as the eyes may cover most of none)
        domain: index in `DOMAINS`
        identity: the person's number
        attributes: style, hair, beard, glasses, age, smile, yaw, ...
    """

    image: np.ndarray
    points5: np.ndarray
    landmarks68: np.ndarray
    boxes: dict[str, Box]
    regions: np.ndarray
    domain: int
    identity: int
    attributes: dict[str, Any]

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """Of every region its uint8 mask (S, S), 0 or 255; each pixel belongs to exactly one."""
        return {name: np.where(self.regions == i, 255, 0).astype(np.uint8) for i, name in enumerate(REGIONS)}

    def mirrored(self) -> Face:
        """The face in a mirror: x becomes S - 1 - x, left and right change their names."""
        last = self.image.shape[1] - 1

        def flip(points: np.ndarray, order: np.ndarray) -> np.ndarray:
            return np.stack([last - points[order, 0], points[order, 1]], -1)

        names = np.array([REGIONS.index(MIRRORED_REGIONS[name]) for name in REGIONS], np.uint8)
        return replace(
            self,
            image=np.ascontiguousarray(self.image[:, ::-1]),
            points5=flip(self.points5, MIRRORED5),
            landmarks68=flip(self.landmarks68, MIRRORED),
            boxes={MIRRORED_BOX[k]: (last - x2, y1, last - x1, y2) for k, (x1, y1, x2, y2) in self.boxes.items()},
            regions=names[self.regions[:, ::-1]],
            attributes=self.attributes | {"yaw": -self.attributes["yaw"]},
        )


MIRRORED_BOX = {"left_eye": "right_eye", "right_eye": "left_eye", "mouth": "mouth"}


def render_face(seed: int, index: int, size: int = 512, person: int | None = None, domain: int | None = None) -> Face:
    """Draw picture `index` of the world `seed`.

    The same arguments give the same picture in every process; another `size` samples the same scene more or less finely.

    Args:
        seed: which world of people and pictures, from 0
        index: which picture (pose, expression, light, place), from 0
        size: side of the picture in pixels, from 32
        person: who is shown; by default person number `index`, so that everyone is seen once
        domain: index in `DOMAINS` that overrules the person's own

    Returns:
        The picture and its labels.
    """
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index are at least 0, not {seed} and {index}")
    if size < 32:
        raise ValueError(f"the smallest face is 32 pixels wide, not {size}")
    number = index if person is None else person
    who, picture = draw_person(seed, number, domain), draw_picture(seed, index)
    scene, image = paint(seed, index, who, picture, size)
    landmarks = landmarks68(scene, size)
    return Face(
        image=image,
        points5=points5(scene, size),
        landmarks68=landmarks,
        boxes=part_boxes(landmarks, size),
        regions=region_map(scene, size),
        domain=who.domain,
        identity=number,
        attributes=attributes(who) | {"smile": picture.smile, "open": picture.open, "yaw": picture.yaw, "pitch": picture.pitch},
    )


def attributes(p: Person) -> dict[str, Any]:
    return {
        "domain": DOMAINS[p.domain], "age": p.age, "style": p.style, "hair": p.hair, "gray": p.gray, "beard": p.beard,
        "glasses": p.glasses, "iris": p.iris, "melanin": p.melanin,
    }  # fmt: skip


def landmarks68(s: Scene, size: int) -> np.ndarray:
    """iBUG's 68 points."""
    p, q = s.person, s.picture
    lids = [features.Lids(p, q, side) for side in (-1, 1)]
    brows = [features.Brow(p, q, side).points() for side in (-1, 1)]
    n = p.nose_length
    bridge = np.stack([np.zeros(4), np.array([-0.02, 0.2, 0.42, 0.63]) * n], -1)
    base = np.stack([np.array([-0.22, -0.11, 0, 0.11, 0.22]) * p.nose_width, np.array([0.72, 0.76, 0.78, 0.76, 0.72]) * n], -1)
    mouth = features.Mouth(p, q).points()
    inner = np.concatenate([*brows, bridge, base, lids[0].points(), lids[1].points(), mouth])
    skin = s.camera.project(s.head.on_skin(*inner.T))
    return (np.concatenate([jaw(s), skin]) * size - 0.5).astype(np.float32)


def jaw(s: Scene) -> np.ndarray:
    """(17, 2) of the picture: from ear to ear by way of the chin, where the head seen from straight ahead ends."""
    angle = np.radians(np.linspace(-100, 100, 17))[:, None]  # from straight down
    ahead = np.radians(np.linspace(2, 75, 60))
    d = np.stack(np.broadcast_arrays(np.sin(angle) * np.cos(ahead), np.cos(angle) * np.cos(ahead), np.sin(ahead)))
    points = (d * s.head.at(s.head.radius, d.astype(np.float32))).transpose(1, 2, 0)
    furthest = (np.hypot(points[..., 0], points[..., 1]) + 0.12 * points[..., 2]).argmax(1)
    return s.camera.project(points[np.arange(17), furthest] + CENTRE)


def points5(s: Scene, size: int) -> np.ndarray:
    p, q = s.person, s.picture
    mouth = features.Mouth(p, q)
    ends = mouth.line(np.array([-1.0, 1.0]))
    eyes = [
        ((lid.upper(np.zeros(1)) + lid.lower(np.zeros(1)))[0] / 2, lid.x) for lid in (features.Lids(p, q, i) for i in (-1, 1))
    ]
    x = np.array([eyes[0][1], eyes[1][1], 0, -mouth.half, mouth.half])
    y = np.array([eyes[0][0], eyes[1][0], 0.63 * p.nose_length, *ends])
    return (s.camera.project(s.head.on_skin(x, y)) * size - 0.5).astype(np.float32)


def part_boxes(landmarks: np.ndarray, size: int) -> dict[str, Box]:
    boxes = {}
    for name, part in (("left_eye", slice(36, 42)), ("right_eye", slice(42, 48)), ("mouth", slice(48, 68))):
        points = landmarks[part]
        x, y = points.mean(0).tolist()
        half = max(1.4 * float(np.ptp(points, axis=0).max()) / 2, size / 32)
        boxes[name] = (x - half, y - half, x + half, y + half)
    return boxes


def region_map(s: Scene, size: int) -> np.ndarray:
    """The canvas's regions at the picture's size: of every pixel the one that covers most of it."""
    best, winner = np.zeros((size, size), np.uint8), np.zeros((size, size), np.uint8)
    for i in np.unique(s.region).tolist():
        share = cv2.resize(np.where(s.region == i, 255, 0).astype(np.uint8), (size, size), interpolation=cv2.INTER_AREA)
        winner[share > best] = i
        np.maximum(best, share, out=best)
    return winner
