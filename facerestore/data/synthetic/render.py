"""The painter: from (seed, index) to a portrait with its labels."""

from __future__ import annotations

import cv2
import numpy as np

from facerestore.data.synthetic.background import paint_background
from facerestore.data.synthetic.body import neck_depth, paint_clothes, paint_earrings, paint_ears, paint_neck
from facerestore.data.synthetic.camera import aligned_camera, trace
from facerestore.data.synthetic.eyes import paint_eyes
from facerestore.data.synthetic.glasses import glasses_shadow, paint_glasses
from facerestore.data.synthetic.hair import HairLayer, draw_hair, on_scalp
from facerestore.data.synthetic.head import CENTRE, Head
from facerestore.data.synthetic.identity import Person
from facerestore.data.synthetic.mouth import paint_mouth
from facerestore.data.synthetic.picture import Picture
from facerestore.data.synthetic.scene import REGIONS, Scene
from facerestore.data.synthetic.skin import hair_colour, paint_head
from facerestore.data.synthetic.streams import stream
from facerestore.data.synthetic.texture import sample_tile, smooth
from facerestore.data.synthetic.whiskers import paint_beard, paint_brows

OVERSAMPLING = 2  # the canvas's side over the picture's


def paint(seed: int, index: int, person: Person, picture: Picture, size: int) -> tuple[Scene, np.ndarray]:
    """The painted scene, and its picture: uint8 (size, size, 3), RGB."""
    low = max(size, 96)
    head = Head(person, picture, int(np.clip(0.75 * low, 128, 400)))
    camera = aligned_camera(head)
    scene = Scene(seed, index, person, picture, head, camera, trace(head, camera, low), OVERSAMPLING * size)
    body = np.maximum(np.where(scene.traced.edge < 0, scene.traced.depth, -9), neck_depth(scene, low))
    back, front = draw_hair(scene, body)
    cast = hair_shadow(scene, front, low) * glasses_shadow(scene, low)

    paint_background(scene)
    put(scene, back)
    paint_neck(scene, cast)
    paint_clothes(scene)
    paint_ears(scene, cast)
    paint_earrings(scene)
    paint_head(scene, cast)
    paint_scalp(scene)
    paint_eyes(scene, cast)
    paint_mouth(scene)
    paint_brows(scene)
    paint_beard(scene)
    paint_glasses(scene)
    put(scene, front)
    return scene, developed(scene, size)


def put(s: Scene, layer: HairLayer | None) -> None:
    if layer is not None:
        s.over(layer.colour, layer.cover, "hair")


def hair_shadow(s: Scene, front: HairLayer | None, side: int) -> np.ndarray:
    """What the hair leaves of the key light on the skin, as a (side, side) factor."""
    if front is None:
        return np.ones((side, side), np.float32)
    cover = cv2.resize(front.cover, (side, side), interpolation=cv2.INTER_AREA)
    unit = s.camera.zoom * side
    to = s.picture.key.direction
    moved = cv2.warpAffine(
        cover, np.float32([[1, 0, -0.1 * unit * to[0]], [0, 1, 0.06 * unit - 0.08 * unit * to[1]]]), (side, side)
    )
    return 1 - 0.75 * cv2.GaussianBlur(moved, (0, 0), max(0.7, 0.05 * unit))


def paint_scalp(s: Scene) -> None:
    """Skin under hair takes the hair's colour; a shaved head a shade of it."""
    p = s.person
    points = np.moveaxis(s.traced.points, 0, -1) + CENTRE
    above = s.enlarged(on_scalp(p, points).astype(np.float32))
    if p.style == "bald":
        grain = sample_tile("pores", s.fine[0] * 0.9, s.fine[1] * 0.9)
        cover = 0.2 * (1 - 0.5 * p.gray) * smooth(above, -0.02, 0.3) * np.clip(1 + 0.5 * grain, 0, 2)
        s.image *= 1 - (cover * s.face)[..., None]
        return
    s.region[(above > 0.05) & (s.face > 0.5)] = REGIONS.index("hair")
    s.over(hair_colour(p) * 0.3 * s.light, s.face * 0.9 * smooth(above, -0.02, 0.14))


def exposure(s: Scene) -> float:
    """As a camera's: half way from the light as it is to a face of middle brightness."""
    face = s.image[::4, ::4].mean(-1)[(s.face > 0.9)[::4, ::4]]
    return float(np.clip(0.3 / face.mean(), 0.3, 3)) ** 0.55 if face.size else 1.0


def developed(s: Scene, size: int) -> np.ndarray:
    """Linear light on the canvas to sRGB in the picture: exposure, vignette, shoulder, grain."""
    q = s.picture
    light = cv2.resize(s.image, (size, size), interpolation=cv2.INTER_AREA)
    line = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    light *= (1 - q.vignette * 1.6 * (line[:, None] ** 2 + line**2))[..., None]
    light = np.maximum(light, 0) * exposure(s)
    knee = 0.6
    light = np.where(light > knee, knee + (1 - knee) * (1 - np.exp(-(light - knee) / (1 - knee))), light)
    image = light ** np.float32(1 / (2.2 * q.gamma)) * 255
    noise = stream(s.seed, "picture", s.index, "grain", size).standard_normal((size, size, 1), np.float32)
    return np.clip(image + q.noise * noise + 0.5, 0, 255).astype(np.uint8)
