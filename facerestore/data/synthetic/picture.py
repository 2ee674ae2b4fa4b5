"""What changes from one picture of a person to the next: pose, expression, light, place and camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facerestore.data.synthetic.streams import around, chance, stream


@dataclass(frozen=True)
class Light:
    """A lamp: `direction` to it (unit, picture's axes), linear `colour`."""

    direction: tuple[float, float, float]
    colour: tuple[float, float, float]


@dataclass(frozen=True)
class Picture:
    """Angles in radians; positive yaw turns to the right of the picture, positive pitch looks down."""

    yaw: float
    pitch: float
    roll: float
    distance: float  # factor on the frame's side
    shift: tuple[float, float]
    smile: float  # -0.4 .. 1
    open: float  # 0 .. 1
    gaze: tuple[float, float]  # radians right, down
    lids: float  # 1: open
    brows: float  # -1 .. 1: raised
    key: Light
    fill: Light
    rim: Light
    sky: tuple[float, float, float]  # light from above
    ground: tuple[float, float, float]  # and from below
    hardness: float
    noise: float
    vignette: float
    gamma: float


def draw_picture(seed: int, index: int) -> Picture:
    """Picture `index` of the world `seed`."""

    def rng(part: str) -> np.random.Generator:
        return stream(seed, "picture", index, part)

    return Picture(**_pose(rng("pose")), **_expression(rng("expression")), **_lights(rng("light")), **_camera(rng("camera")))


def _pose(rng: np.random.Generator) -> dict:
    return {
        "yaw": around(rng, 0, 0.23, 1.8),
        "pitch": around(rng, 0.0, 0.09),
        "roll": around(rng, 0, 0.035),
        "distance": around(rng, 1.0, 0.02),
        "shift": (around(rng, 0, 0.006), around(rng, 0, 0.006)),
    }


def _expression(rng: np.random.Generator) -> dict:
    smile = float(rng.uniform(0.35, 1)) if chance(rng, 0.62) else around(rng, 0.08, 0.12)
    shows_teeth = chance(rng, 0.65 if smile > 0.35 else 0.1)
    return {
        "smile": smile,
        "open": float(rng.uniform(0.3, 0.7)) * (1 if smile > 0.35 else 0.35) * shows_teeth,
        "gaze": (around(rng, 0, 0.1), around(rng, 0, 0.05)),
        "lids": around(rng, 0.92, 0.06),
        "brows": around(rng, 0.1, 0.35),
    }


def _lights(rng: np.random.Generator) -> dict:
    side = float(rng.choice([-1, 1]))
    azimuth, height = side * rng.uniform(0.1, 1.0), rng.uniform(0.2, 0.8)
    warmth = around(rng, 0.0, 0.07)
    strength, ambient = rng.uniform(0.75, 1.1), rng.uniform(0.16, 0.4)
    tint = rng.uniform(-0.05, 0.05, 3)

    def light(azimuth: float, height: float, strength: float, warmth: float) -> Light:
        direction = np.array([np.sin(azimuth) * np.cos(height), -np.sin(height), np.cos(azimuth) * np.cos(height)])
        colour = strength * np.array([1 + warmth, 1.0, 1 - 1.2 * warmth])
        return Light(tuple(direction.tolist()), tuple(colour.tolist()))

    return {
        "key": light(azimuth, height, strength, warmth),
        "fill": light(-side * rng.uniform(0.5, 1.1), rng.uniform(-0.1, 0.4), rng.uniform(0.1, 0.35), -warmth),
        "rim": light(-side * rng.uniform(2.0, 2.5), rng.uniform(0.2, 0.7), rng.uniform(0, 0.7), around(rng, 0, 0.1)),
        "sky": tuple((ambient * (1 + tint)).tolist()),
        "ground": tuple((ambient * 0.6 * (1 - tint)).tolist()),
        "hardness": float(rng.uniform(0.12, 0.5)),
    }


def _camera(rng: np.random.Generator) -> dict:
    return {
        "noise": float(rng.uniform(0.3, 1.6)),
        "vignette": float(rng.uniform(0, 0.25)),
        "gamma": around(rng, 1.0, 0.05),
    }
