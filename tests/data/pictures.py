"""Pictures that anyone can rebuild, and folders of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from facerestore.data.image_io import write_image


def waves(seed: int, h: int, w: int, noise: float, levels: int = 6) -> np.ndarray:
    """The test picture of the parity cases: cosine waves and noise, uint8 (h, w, 3)."""
    state = np.random.RandomState(seed)
    y, x = np.mgrid[:h, :w]
    image = np.full((h, w, 3), 127.5)
    for channel in range(3):
        for _ in range(levels):
            amplitude = state.uniform(8, 28)
            fx, fy = state.randint(0, levels), state.randint(0, levels)
            phase = state.uniform(0, 2 * np.pi)
            image[..., channel] += amplitude * np.cos(2 * np.pi * (fx * x / w + fy * y / h) + phase)
    image += noise * state.standard_normal((h, w, 3))
    return image.round().clip(0, 255).astype(np.uint8)


def folder(root: Path, names: list[str], h: int = 24, w: int = 20, extension: str = ".png") -> Path:
    """One picture of its own for each name."""
    for seed, name in enumerate(names):
        write_image(root / f"{name}{extension}", waves(seed, h, w, noise=20.0))
    return root


def truncate(path: Path, share: float = 0.5) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def encode(image: np.ndarray, extension: str) -> bytes:
    return cv2.imencode(extension, image)[1].tobytes()
