"""Lips, teeth and what is behind them."""

from __future__ import annotations

import numpy as np

from facerestore.data.synthetic import features
from facerestore.data.synthetic.eyes import pixel_alpha
from facerestore.data.synthetic.scene import REGIONS, Scene
from facerestore.data.synthetic.skin import skin_tone
from facerestore.data.synthetic.texture import linear, sample_tile, smooth

TOOTH_EDGES = np.array([0.0, 0.105, 0.19, 0.275, 0.35, 0.41, 0.46])  # from the middle to the side


def paint_mouth(s: Scene) -> None:
    p, q = s.person, s.picture
    mouth = features.Mouth(p, q)
    t = np.linspace(-1, 1, 9)
    outline = np.concatenate([s.on_skin(t * mouth.half, f(t)) for f in (mouth.outer_upper, mouth.outer_lower)])
    at = s.window(outline, 0.1)
    x, y = s.fine[0][at], s.fine[1][at]
    t = np.clip(x / mouth.half, -1, 1)
    past = np.maximum(np.abs(x) - mouth.half, 0)
    top, upper, lower, bottom = (f(t) for f in (mouth.outer_upper, mouth.inner_upper, mouth.inner_lower, mouth.outer_lower))
    paint_lips(s, at, (x, y), (t, past), (top, upper, lower, bottom))
    if mouth.gap:
        paint_inside(s, at, mouth, x, y, upper, lower, past)
    seam = (upper + lower) / 2
    dark = np.exp(-(((y - seam) / 0.011) ** 2)) * smooth(1.0 - np.abs(x) / (mouth.half * 1.03), 0, 0.1) * (mouth.gap < 0.01)
    corner = np.exp(-((np.hypot(np.abs(x) - mouth.half, y - mouth.line(np.ones(1))[0]) / 0.035) ** 2))
    dark = np.clip(0.78 * dark + 0.3 * corner, 0, 0.9)
    s.image[at] *= 1 - dark[..., None] * np.float32([0.8, 0.95, 0.95])


def lip_colour(s: Scene) -> np.ndarray:
    p = s.person
    natural = skin_tone(p) * np.float32([0.82, 0.5, 0.52]) + np.float32([0.02, 0.004, 0.006])
    sticks = linear([(168, 38, 48), (196, 84, 92), (150, 52, 76), (186, 92, 72), (120, 32, 44)])
    stick = sticks[int(p.lipstick_hue * len(sticks)) % len(sticks)]
    return natural + 0.75 * p.lipstick * (stick - natural)


def paint_lips(s: Scene, at: tuple, xy: tuple, along: tuple, lines: tuple) -> None:
    p = s.person
    (x, y), (t, past), (top, upper, lower, bottom) = xy, along, lines
    soft = 0.02 * s.unit * (1 - 0.6 * p.lipstick) / 1.6 + 1
    edge = np.minimum(y - top, bottom - y) - past * 1.0
    cover = pixel_alpha(s, edge - 0.003, soft) * (0.88 + 0.12 * p.lipstick)
    light = s.light[at]
    creases = sample_tile("fibres", x * 1.1 + 0.25 * t * np.abs(t), (y - upper) * 0.35 + p.number * 0.19)
    low = y > (upper + lower) / 2
    inner = np.where(low, (y - lower) / np.maximum(bottom - lower, 0.02), (upper - y) / np.maximum(upper - top, 0.02))
    tone = 1 + 0.09 * creases - 0.16 * np.clip(1 - inner, 0, 1) ** 2 - 0.12 * ~low
    colour = lip_colour(s) * light * tone[..., None]
    wet = 0.05 + 0.1 * p.lipstick
    band = np.exp(-(((inner - 0.45) / 0.22) ** 2)) * low * np.exp(-((t / 0.55) ** 2))
    shine = wet * band * np.clip(0.9 + 0.9 * creases, 0, 3)
    colour = colour + shine[..., None] * light * 0.9
    s.over(colour, cover, None, at)
    region = s.region[at]
    region[(cover > 0.45) & ~low] = REGIONS.index("upper_lip")
    region[(cover > 0.45) & low] = REGIONS.index("lower_lip")


def paint_inside(
    s: Scene,
    at: tuple,
    mouth: features.Mouth,
    x: np.ndarray,
    y: np.ndarray,
    upper: np.ndarray,
    lower: np.ndarray,
    past: np.ndarray,
) -> None:
    """Dark, tongue, and a row of teeth that the upper lip half covers."""
    cover = pixel_alpha(s, np.minimum(y - upper, lower - y) - past)
    light = s.light[at] * 0.95
    t = x / mouth.half
    depth = np.clip((y - upper) / np.maximum(lower - upper, 1e-3), 0, 1)
    back = np.float32([0.05, 0.012, 0.012]) * (0.4 + depth)[..., None]
    tongue = smooth(depth, 0.5, 1.0) * (1 - smooth(np.abs(t), 0.4, 0.9))
    back = back + tongue[..., None] * np.float32([0.22, 0.06, 0.06])

    width = 1.02 + 0.1 * (s.person.number % 7) / 7
    ax = np.abs(x) / width
    gum = mouth.inner_upper(np.zeros(1))[0] - 0.02
    smile_arc = 0.05 * (t * t)
    edge = gum + np.minimum(0.175, 0.05 + 0.62 * mouth.gap) - smile_arc
    i = np.clip(np.searchsorted(TOOTH_EDGES, ax, side="right") - 1, 0, len(TOOTH_EDGES) - 2)
    left, right = TOOTH_EDGES[i], TOOTH_EDGES[i + 1]
    middle, half = (left + right) / 2, (right - left) / 2
    across = np.abs(ax - middle) / half
    short = np.array([0.0, 0.016, 0.004, 0.02, 0.026, 0.03])[i]
    tip = edge - short - 0.018 * np.clip(across, 0, 1.2) ** 4
    tooth = pixel_alpha(s, tip - y) * (ax < TOOTH_EDGES[-1])
    gap = 1 - 0.55 * np.exp(-(((1 - across) * half / 0.006) ** 2))
    shade = np.clip(1.02 - 0.75 * (ax / 0.46) ** 2.2, 0.12, 1) * gap * (0.84 + 0.16 * smooth(y - upper, 0.0, 0.06))
    enamel = np.float32([0.74, 0.7, 0.6]) * (0.92 + 0.1 * (1 - across**2))[..., None]
    colour = back + tooth[..., None] * (enamel * shade[..., None] - back)
    lip_shadow = 0.55 + 0.45 * smooth(y - upper, 0, 0.05)
    s.over((colour * lip_shadow[..., None] * light).astype(np.float32), cover, "mouth", at)
