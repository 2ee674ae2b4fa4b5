"""From the head to the picture and back: pose, perspective, and the framing of FFHQ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facerestore.data.synthetic import features
from facerestore.data.synthetic.head import CENTRE, Head

DISTANCE = 13.0  # of the camera from the head's centre, in distances between the pupils (about 80 cm)


def rotation(yaw: float, pitch: float) -> np.ndarray:
    """Turn to the right of the picture by `yaw`, look down by `pitch` (radians)."""
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    return (nod @ turn).astype(np.float32)


@dataclass(frozen=True)
class Camera:
    """`turn` rotates the head about CENTRE; after perspective, `frame` (2, 3) maps to the picture, [0, 1] x [0, 1]."""

    turn: np.ndarray
    frame: np.ndarray

    def seen(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) of the head, rotated: x, y, and z towards the camera, relative to CENTRE."""
        return (np.asarray(points, np.float32) - CENTRE) @ self.turn.T

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) of the head to (..., 2) of the picture."""
        return self.to_picture(self.seen(points))

    def to_picture(self, seen: np.ndarray) -> np.ndarray:
        flat = seen[..., :2] * (DISTANCE / (DISTANCE - seen[..., 2:]))
        return flat @ self.frame[:, :2].T + self.frame[:, 2]

    @property
    def zoom(self) -> float:
        """Picture sides per distance between the pupils."""
        return float(np.sqrt(np.linalg.det(self.frame[:, :2])))

    def rays(self, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Of every pixel, `start` and `along` (3, side, side): the point at depth z is start + z * along, rotated back."""
        centres = (np.arange(side, dtype=np.float32) + 0.5) / side
        picture = np.stack(np.meshgrid(centres, centres), -1)
        inverse = np.linalg.inv(self.frame[:, :2])
        flat = ((picture - self.frame[:, 2]) @ inverse.T).astype(np.float32)
        zero = np.zeros_like(flat[..., :1])
        start = np.concatenate([flat, zero], -1) @ self.turn
        along = np.concatenate([-flat / DISTANCE, zero + 1], -1) @ self.turn
        return np.ascontiguousarray(start.transpose(2, 0, 1)), np.ascontiguousarray(along.transpose(2, 0, 1))


def aligned_camera(head: Head) -> Camera:
    """The camera that frames the face as FFHQ does (T. Karras et al., "A style-based generator architecture for generative
    adversarial networks", CVPR 2019, appendix): a square about the eyes and the mouth, upright along both.
    """
    q = head.picture
    plain = Camera(rotation(q.yaw, q.pitch), np.eye(2, 3, dtype=np.float32))
    left, right = (plain.project(head.on_skin(*features.eye_centre(head.person, side))) for side in (-1, 1))
    mouth = plain.project(head.on_skin(0.0, features.Mouth(head.person, q).y))
    eyes, between, down = (left + right) / 2, right - left, mouth - (left + right) / 2
    axis = between + np.array([down[1], -down[0]])
    axis *= max(2.0 * np.hypot(*between), 1.8 * np.hypot(*down)) / np.hypot(*axis)
    middle = eyes + 0.1 * down
    half = np.hypot(*axis) * q.distance
    angle = -np.arctan2(axis[1], axis[0]) + q.roll
    cos, sin = np.cos(angle) / (2 * half), np.sin(angle) / (2 * half)
    turn = np.array([[cos, -sin], [sin, cos]])
    shift = 0.5 + np.asarray(q.shift) - turn @ middle
    return Camera(plain.turn, np.column_stack([turn, shift]).astype(np.float32))


@dataclass(frozen=True)
class Trace:
    """What the rays met: skin `points` (3, S, S) relative to CENTRE, unrotated; `depth` z (S, S) towards the camera;
    `edge` (S, S): how far the ray stays outside (positive) or dips inside (negative) of the head.
    """

    points: np.ndarray
    depth: np.ndarray
    edge: np.ndarray


def trace(head: Head, camera: Camera, side: int, steps: int = 22) -> Trace:
    """March every ray to the skin; rays that miss it are left where they come nearest."""
    start, along = camera.rays(side)
    depth = np.full((side, side), 1.75, np.float32)
    best, nearest = depth.copy(), np.full_like(depth, 9.0)
    for step in range(steps):
        height = head.outside(start + depth * along)
        closer = height < nearest
        nearest, best = np.where(closer, height, nearest), np.where(closer, depth, best)
        depth = depth - height * (0.62 if step < steps - 4 else 0.45)
        np.maximum(depth, -1.6, out=depth)
    edge = nearest
    for inward in (0.06, 0.16, 0.35, 0.7):
        edge = np.minimum(edge, head.outside(start + (best - inward) * along))
    return Trace(start + best * along, best, edge)


def shadow(head: Head, points: np.ndarray, light: np.ndarray, softness: float, steps: int = 14) -> np.ndarray:
    """How much of a `light` (unit direction, head's frame) reaches skin `points` (3, ...): 1 all, 0 none."""
    lit = np.ones(points.shape[1:], np.float32)
    direction = light.reshape(3, *[1] * (points.ndim - 1))
    for way in np.geomspace(0.05, 0.9, steps).astype(np.float32):
        clearance = head.outside(points + way * direction) / (softness * way)
        np.minimum(lit, np.clip(0.5 + 0.5 * clearance, 0, 1), out=lit)
    return lit * lit * (3 - 2 * lit)
