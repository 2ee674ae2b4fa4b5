"""Drawn faces as a storage, so that every data set of stored pictures can do without any."""

from __future__ import annotations

import cv2

from facerestore.data.image_io import PictureError
from facerestore.data.synthetic import Face
from facerestore.data.synthetic.cache import CACHE
from facerestore.errors import OptionError

SPEEDY = [cv2.IMWRITE_PNG_COMPRESSION, 0]


class Drawn:
    """The faces of SyntheticFaceDataset with the same numbers, drawn when they are first read.

    Args:
        root: what the set is called in paths
        key: the option that named it, for errors
        count: how many faces
        size: side of a picture in pixels
        seed: which people
        start: number of the first face, so that one set can follow another
    """

    def __init__(self, root: str, key: str, count: int = 0, size: int = 128, seed: int = 0, start: int = 0):
        if count < 1 or not 32 <= size <= 4096 or seed < 0 or start < 0:
            raise OptionError(
                "drawn faces need a `count` of 1 or more, a `size` from 32 to 4096, and no negative `seed` or `start`",
                ("io_backend",),
            )
        self.root, self.count, self.side, self.seed, self.start = root, count, size, seed, start

    def names(self) -> list[str]:
        return [f"{self.start + i:06d}" for i in range(self.count)]

    def read(self, name: str) -> bytes:
        done, encoded = cv2.imencode(".png", self._face(name).image[..., ::-1], SPEEDY)
        if not done:
            raise PictureError(f"picture {self.path(name)} cannot be encoded")
        return encoded.tobytes()

    def parts(self, name: str) -> dict[str, tuple[float, float, float]]:
        """x, y and half length of eyes and mouth in pixels, as in :mod:`facerestore.data.components`."""
        boxes = self._face(name).boxes.items()
        return {part: ((x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / 2) for part, (x1, y1, x2, y2) in boxes}

    def size(self, name: str) -> int:
        return len(self.read(name))

    def changed(self, name: str) -> int:
        return 0

    def path(self, name: str) -> str:
        return f"{self.root}/{name}.png"

    def _face(self, name: str) -> Face:
        number = int(name)
        return CACHE.get(self.seed, number, self.side, number, None)
