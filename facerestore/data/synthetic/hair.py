"""Hair: strands that grow on the scalp, are combed, fall, and lie over the head.

Every strand is a short simulation: from its root it leaves along the comb's direction, is drawn down by its weight, and slides
over the head where it meets it.  Strands are grouped in locks, which lets them part and shine together.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import cKDTree

from facerestore.data.synthetic.head import CENTRE
from facerestore.data.synthetic.identity import Person
from facerestore.data.synthetic.scene import Scene
from facerestore.data.synthetic.skin import hair_colour
from facerestore.data.synthetic.streams import stream
from facerestore.data.synthetic.texture import SUB, fixed, smooth

KNOTS = 16  # points of a strand
CURLED = 36  # and of one that curls


@dataclass(frozen=True)
class Style:
    """How hair is cut and worn.  Lengths in distances between the pupils."""

    count: int  # strands in the largest picture
    length: float
    weight: float  # how fast it bends down
    lift: float  # how steeply it leaves the scalp
    comb: str  # "part" | "crown" | "side" | "back" | "forward" | "wild"
    thick: float  # of the whole over the scalp
    lock: float = 0.5  # how far strands keep to their lock
    wave: float = 0.0  # amplitude
    waves: float = 0.0  # turns along a strand
    curl: float = 0.0  # amplitude of a helix
    fringe: float = 0.0  # length of the hair over the forehead
    sides: float = 1.0  # length at the sides over the length on top


STYLES = {
    "long": Style(5200, 3.3, 0.36, 0.2, "part", 0.13, 0.45, 0.03, 1.0),
    "wavy": Style(5200, 3.2, 0.32, 0.3, "part", 0.18, 0.6, 0.07, 2.6),
    "curly": Style(4600, 2.7, 0.26, 0.6, "part", 0.3, 0.85, 0.05, 2.0, 0.055),
    "bob": Style(4800, 2.1, 0.36, 0.25, "part", 0.16, 0.4, 0.02, 1.0),
    "fringe": Style(7600, 3.1, 0.36, 0.2, "part", 0.14, 0.2, 0.02, 1.0, 0.0, 0.92),
    "bun": Style(6500, 1.1, 0.12, 0.05, "back", 0.07, 0.4, 0.01, 1.0),
    "short": Style(9000, 0.55, 0.05, 0.75, "crown", 0.15, 0.5, 0.02, 0.7, 0.0, 0.0, 0.45),
    "side": Style(8600, 0.85, 0.08, 0.8, "side", 0.19, 0.6, 0.03, 0.8, 0.0, 0.0, 0.38),
    "quiff": Style(8600, 0.7, 0.0, 1.4, "back", 0.17, 0.65, 0.03, 0.7, 0.0, 0.0, 0.3),
    "crop": Style(11000, 0.2, 0.0, 0.8, "forward", 0.06, 0.3, 0.0, 0.0, 0.0, 0.0, 0.6),
    "tousled": Style(8000, 0.75, 0.09, 0.9, "wild", 0.24, 0.75, 0.07, 1.6, 0.0, 0.0, 0.7),
}


def hairline(p: Person, azimuth: np.ndarray) -> np.ndarray:
    """y of the border of the scalp; azimuth 0 ahead, pi / 2 at the ears, pi behind."""
    low = 0.12 if p.domain else 0.0
    turns = [0, 0.25, 0.5, 0.68, 0.85, 1.05, 1.22, 1.4, 1.6, 1.9, 2.4, np.pi]
    lines = [-1.14, -1.14, -1.08, -0.95, -0.72, -0.35, low, low - 0.1, 0.15, 0.7, 1.0, 1.05]
    back = p.recede * np.interp(azimuth, [0, 0.4, 0.75, 1.1], [0.12, 0.3, 0.26, 0.0])
    return np.interp(azimuth, turns, lines) - back


def on_scalp(p: Person, points: np.ndarray) -> np.ndarray:
    """How far points (..., 3) of the head lie above the hairline."""
    azimuth = np.arctan2(np.abs(points[..., 0]), points[..., 2] + 1.2)
    return hairline(p, azimuth) - points[..., 1]


class Strands:
    """All strands of a head: `paths` (N, KNOTS, 3), the order they lie in, and their tones."""

    def __init__(self, s: Scene, style: Style):
        p = s.person
        self.style = style
        rng = stream(s.seed, "person", p.number, "strands")
        total = int(style.count * 2.3)
        share = np.clip(s.side / 1024, 0.27, 1)
        ball = fibonacci(total)
        draws = rng.random((9, total)).astype(np.float32)
        keep = np.random.default_rng(0).permutation(total)[: int(total * share)]
        self.widen = float(np.sqrt(1 / share))
        ball, draws = ball[np.sort(keep)], draws[:, np.sort(keep)]
        reach = s.head.at(s.head.radius, ball.T.copy())
        roots = ball * reach[:, None] + CENTRE
        above = on_scalp(p, roots) + 0.1 * (draws[0] - 0.5)
        chosen = above > 0
        self.above = above[chosen]
        roots, draws, ball = roots[chosen].astype(np.float32), draws[:, chosen], ball[chosen]
        self.draws = draws
        self.rank = draws[1]  # 0: deepest layer, 1: on top
        self.paths = self._grow(s, roots, ball, above[chosen])

    def _grow(self, s: Scene, roots: np.ndarray, out: np.ndarray, above: np.ndarray) -> np.ndarray:
        p, style, draws = s.person, self.style, self.draws
        part = 0.62 * p.parting
        azimuth = np.arctan2(np.abs(roots[:, 0]), roots[:, 2] + 1.2)
        top = smooth(-roots[:, 1], 0.35, 1.1)
        length = style.length * (0.82 + 0.36 * draws[2]) * (style.sides + (1 - style.sides) * top)
        comb = combed(style, p, roots, out, part, draws)
        weight = np.full(len(roots), style.weight, np.float32)
        lift = style.lift * np.clip(0.4 + 0.8 * top, 0, 1)
        if style.fringe:
            ahead = (azimuth < 0.72) & (roots[:, 2] > -0.75)
            length = np.where(ahead, style.fringe * (0.84 + 0.16 * draws[2]) + 1.1 * above, length)
            spread = np.stack([0.25 * roots[:, 0], np.full(len(roots), 0.6), np.ones(len(roots))], -1)
            comb = np.where(ahead[:, None], spread, comb)
        edge = 0.35 + 0.65 * smooth(above, 0.0, 0.3)
        depth = style.thick * p.volume * (0.15 + 0.85 * self.rank) * edge
        direction = unit(unit(comb) + lift[:, None] * out)
        step = (length / (KNOTS - 1))[:, None]
        path = np.empty((len(roots), KNOTS, 3), np.float32)
        path[:, 0] = roots
        position = roots
        for k in range(1, KNOTS):
            down = np.float32([0, 1, 0]) * (weight * (0.5 + k / KNOTS))[:, None]
            direction = unit(direction + down + 0.1 * unit(comb) * (k < 5))
            position = position + step * direction
            position = pushed_out(s, position, depth * min(1.0, k / 3))
            path[:, k] = position
        return self._styled(path, out)

    def _styled(self, path: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Locks, waves and curls."""
        style, draws = self.style, self.draws
        count = len(path)
        guides = np.arange(0, count, 14)
        near = guides[cKDTree(path[guides, 0]).query(path[:, 0])[1]]
        along = np.linspace(0, 1, KNOTS, dtype=np.float32)[None, :, None]
        guide = path[near] + 0.45 * (path[:, :1] - path[near][:, :1])
        path = path + style.lock * np.minimum(1, 1.6 * along) * (guide - path) * (0.6 + 0.4 * draws[3, :, None, None])
        if style.curl:
            path, along = finer(path, CURLED), np.linspace(0, 1, CURLED, dtype=np.float32)[None, :, None]
        tangent = np.gradient(path, axis=1)
        side = unit(np.cross(tangent, (path - CENTRE)))
        phase = 2 * np.pi * (0.85 * draws[4, near] + 0.15 * draws[4])[:, None, None]
        grow = np.minimum(1, 2.2 * along)
        swing = np.sin(2 * np.pi * style.waves * along + phase)
        path = path + style.wave * (0.7 + 0.6 * draws[5, near, None, None]) * grow * swing * side
        if style.curl:
            turn = 2 * np.pi * 5 * along + phase
            path = path + style.curl * grow * (np.sin(turn) * side + np.cos(turn) * unit(path - CENTRE))
        stray = (draws[6] > 0.96)[:, None, None] * (draws[7] - 0.5)[:, None, None]
        path = path + stray * 0.5 * along**2 * (side + 0.4 * out[:, None])
        self.near = near
        return path


def finer(path: np.ndarray, knots: int) -> np.ndarray:
    """(N, K, 3) with `knots` points along each strand."""
    at = np.linspace(0, path.shape[1] - 1, knots)
    low = np.minimum(at.astype(int), path.shape[1] - 2)
    share = (at - low).astype(np.float32)[None, :, None]
    return path[:, low] * (1 - share) + path[:, low + 1] * share


def fibonacci(count: int) -> np.ndarray:
    """`count` directions (N, 3), evenly over the sphere."""
    i = np.arange(count) + 0.5
    y = 1 - 2 * i / count
    turn = i * np.pi * (3 - np.sqrt(5))
    around = np.sqrt(1 - y * y)
    return np.stack([around * np.sin(turn), y, around * np.cos(turn)], -1).astype(np.float32)


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-6)


def combed(style: Style, p: Person, roots: np.ndarray, out: np.ndarray, part: float, draws: np.ndarray) -> np.ndarray:
    """Where the comb points at every root."""
    x, y, z = roots.T
    one = np.ones_like(x)
    if style.comb == "part":
        side = np.where(x > part, 1.0, -1.0)
        flow = np.stack([side * one, 0.1 * one, -0.55 + 0.25 * z], -1)
    elif style.comb == "crown":
        flow = roots - np.float32([0.12 * np.sign(p.parting + 1e-3), -1.55, -1.75])
        flow[:, 0] += 0.5 * np.sign(p.parting + 1e-3) * (z > -0.6)
    elif style.comb == "side":
        sign = np.sign(p.parting + 1e-3)
        across = np.where(sign * x > -0.35, sign, -sign)
        flow = np.stack([across, 0.15 * one + 0.8 * (y > -0.7), 0.1 - 0.3 * one], -1)
    elif style.comb == "back":
        flow = np.stack([0.15 * x, -0.25 * one + 0.6 * (y > -0.6) * (style.sides < 1), -one], -1)
    elif style.comb == "forward":
        flow = np.stack([0.3 * x, 0.35 * one, one * (0.9 - 0.6 * (y > -0.6))], -1)
    else:
        flow = roots - np.float32([0, -1.6, -1.7]) + 1.3 * (draws[[6, 7, 8]].T - 0.5)
    return flow - 0.9 * (flow * out).sum(-1, keepdims=True) * out


def pushed_out(s: Scene, points: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Points (N, 3) that are nearer to the skin than `depth` are moved out to it."""
    from_centre = points - CENTRE
    far = np.linalg.norm(from_centre, axis=-1)
    least = s.head.at(s.head.radius, np.ascontiguousarray(from_centre.T)) + depth
    scale = np.where((far < least) & (points[:, 1] < 1.3), least / far, 1)
    return CENTRE + from_centre * scale[:, None]


@dataclass
class HairLayer:
    """A painted layer: linear `colour` (H, W, 3) and `cover` (H, W)."""

    colour: np.ndarray
    cover: np.ndarray


def draw_hair(s: Scene, body_depth: np.ndarray) -> tuple[HairLayer | None, HairLayer | None]:
    """Hair behind and before the head and neck, whose depth (z towards the camera, traced size) decides."""
    if s.person.style == "bald":
        return None, None
    strands = Strands(s, STYLES[s.person.style])
    seen = s.camera.seen(strands.paths)
    pixels = s.camera.to_picture(seen) * s.side - 0.5
    low = body_depth.shape[0] / s.side
    u, v = (np.clip((pixels[..., i] + 0.5) * low, 0, body_depth.shape[0] - 1).astype(int) for i in (0, 1))
    before = seen[..., 2] > cv2.dilate(body_depth, np.ones((5, 5)))[v, u] - 0.1
    order = np.argsort(seen[..., 2].mean(1) + 0.7 * strands.rank, kind="stable")
    light = strand_light(s, strands, seen, pixels)
    hidden = ~before
    hidden[:, 1:] |= hidden[:, :-1].copy()  # a knot further, so that no gap opens between the layers
    back = draw_layer(s, strands, pixels, order, hidden, light)
    front = draw_layer(s, strands, pixels, order, before, light)
    back.colour *= 0.55
    return back, front


def strand_light(s: Scene, strands: Strands, seen: np.ndarray, pixels: np.ndarray, cells: int = 72) -> np.ndarray:
    """Light (cells, cells, 4) on hair: RGB of what is scattered, and the strength of the sheen.

    J. Kajiya, T. Kay, "Rendering fur with three dimensional textures", SIGGRAPH 1989, eqs. (14) and (16), averaged over cells.
    """
    q = s.picture
    tangent = unit(np.gradient(seen, axis=1))
    normal = unit(seen * np.float32([1, 0.6, 1]) + np.float32([0, 0, 0.2]))
    values = np.zeros((*seen.shape[:2], 4), np.float32)
    for lamp in s.lamps():
        to = np.float32(lamp.direction)
        cos = tangent @ to
        facing = np.clip((normal @ to + 0.35) / 1.35, 0, 1)
        scattered = np.sqrt(np.clip(1 - cos * cos, 0, 1)) * facing
        values[..., :3] += 0.8 * scattered[..., None] * np.float32(lamp.colour)
        half = to + np.float32([0, 0, 1])
        half /= np.linalg.norm(half) + 1e-6
        sheen = np.sqrt(np.clip(1 - (tangent @ half + 0.08) ** 2, 0, 1)) ** 60 * facing
        values[..., 3] += sheen * float(np.mean(lamp.colour))
    up = 0.5 - 0.5 * normal[..., 1:2]
    values[..., :3] += np.float32(q.sky) * up + np.float32(q.ground) * (1 - up)
    at = np.clip((pixels + 0.5) / s.side * cells, 0, cells - 1).astype(int)
    flat = (at[..., 1] * cells + at[..., 0]).ravel()
    weight = np.repeat(0.1 + strands.rank**2, seen.shape[1])
    sums = [np.bincount(flat, weight, cells * cells)]
    sums += [np.bincount(flat, weight * values[..., c].ravel(), cells * cells) for c in range(4)]
    grid = np.stack(sums, -1).reshape(cells, cells, 5).astype(np.float32)
    fine, wide = (cv2.GaussianBlur(grid, (0, 0), sigma) for sigma in (0.8, 3.0))
    grid = fine + 0.02 * wide
    return grid[..., 1:] / np.maximum(grid[..., :1], 1e-6)


def draw_layer(
    s: Scene, strands: Strands, pixels: np.ndarray, order: np.ndarray, shown: np.ndarray, light: np.ndarray
) -> HairLayer:
    """The stretches of the strands that are `shown` (N, KNOTS), the deepest first."""
    draws, rank = strands.draws, strands.rank
    deep = rank < 0.3  # they fill what the others leave open: wider, darker, and shorter at both ends
    tone = 62 + 60 * rank**1.5 + 60 * (draws[7] - 0.5) + 36 * (draws[3, strands.near] - 0.5)
    warm = 128 + 70 * (draws[8] - 0.5) + 50 * (draws[5, strands.near] - 0.5)
    tone[deep] *= 0.63 if not strands.style.fringe else 0.8  # a fringe is thin: its depths are lit
    shown = shown.copy()
    shown[deep, :2] = shown[deep, -2:] = False
    shown[deep & (strands.above < 0.16)] = False

    # while it is drawn, the channels are tone, warmth and coverage
    canvas = np.zeros((s.side, s.side, 3), np.uint8)
    width = 0.0055 * s.unit * strands.widen
    thickness = np.where(deep, max(2, round(2.2 * width)), max(1, round(width))).tolist()
    colours = np.stack([tone, warm, np.full_like(tone, 255)], -1).clip(1, 255).astype(int).tolist()
    place = np.empty(len(order), int)
    place[np.concatenate([order[deep[order]], order[~deep[order]]])] = np.arange(len(order))
    which, first, last = stretches(shown)
    sequence = np.argsort(place[which], kind="stable")
    lines = fixed(pixels)
    for i, a, b in zip(*(v[sequence].tolist() for v in (which, first, last)), strict=True):
        cv2.polylines(canvas, [lines[i, a:b]], False, colours[i], thickness[i], cv2.LINE_AA, SUB)

    cover = canvas[..., 2].astype(np.float32) / 255
    painted = canvas[..., :2] / np.maximum(canvas[..., 2:], np.float32(1)) * np.float32(255 / 128)
    lit = cv2.resize(light, (s.side, s.side), interpolation=cv2.INTER_CUBIC)
    base = hair_colour(s.person)
    level = painted[..., 0] ** np.float32(1.6)
    colour = (base * 1.45) * level[..., None] * lit[..., :3]
    colour[..., 0] *= 0.86 + 0.14 * painted[..., 1]
    colour[..., 2] *= 1.2 - 0.2 * painted[..., 1]
    colour += (0.36 * lit[..., 3] * level)[..., None] * (0.45 * base / base.max() + 0.25)
    return HairLayer(np.maximum(colour, 0), cover)


def stretches(shown: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, begin and end of every stretch of True in (N, K) that holds at least two."""
    edge = np.diff(np.pad(shown.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    row, begin = np.nonzero(edge == 1)
    end = np.nonzero(edge == -1)[1]
    long = end - begin > 1
    return row[long], begin[long], end[long]
