"""Crops, flips and quarter turns.  `sample_*` draws the parameters, `apply_*` is a pure function of them and a picture.

So the ground truth and its low-resolution picture get the same, and any sample can be replayed.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np


class Crop(NamedTuple):
    """A rectangle in pixels."""

    top: int
    left: int
    height: int
    width: int

    def times(self, scale: int) -> Crop:
        """The same part of a picture that is `scale` times larger."""
        return Crop(*(scale * value for value in self))


class Flips(NamedTuple):
    """What to do, in this order."""

    horizontal: bool = False  # left and right change places
    vertical: bool = False  # top and bottom change places
    transpose: bool = False  # rows and columns change places; with the other two, a quarter turn


def sample_crop(rng: np.random.Generator, height: int, width: int, size: int) -> Crop:
    """A square of `size` anywhere in a picture of (height, width)."""
    top, left = rng.integers((height - size + 1, width - size + 1))
    return Crop(int(top), int(left), size, size)


def sample_resized_crop(
    rng: np.random.Generator, height: int, width: int, area: tuple[float, float], ratio: tuple[float, float]
) -> Crop:
    """A part of a picture of (height, width), to be resized to one size afterwards.

    Szegedy et al., Going Deeper with Convolutions, CVPR 2015, section 6, as torchvision draws it: its area is uniform, and
    the logarithm of its ratio too; what does not fit into the picture is drawn again, ten times at most.

    Args:
        area: least and largest, as shares of the picture's
        ratio: least and largest width / height
    """
    for _ in range(10):
        pixels = height * width * rng.uniform(*area)
        shape = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        crop_width, crop_height = round(math.sqrt(pixels * shape)), round(math.sqrt(pixels / shape))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top, left = rng.integers((height - crop_height + 1, width - crop_width + 1))
            return Crop(int(top), int(left), crop_height, crop_width)
    crop_width = max(1, min(width, round(height * ratio[1])))
    crop_height = max(1, min(height, round(width / ratio[0])))
    return Crop((height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width)


def apply_crop(image: np.ndarray, crop: Crop) -> np.ndarray:
    """The part of (H, W, ...) that `crop` names; a view."""
    return image[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]


def crop_to_multiple(image: np.ndarray, scale: int) -> np.ndarray:
    """(H, W, ...) without the last rows and columns, so that its sides are multiples of `scale`; a view."""
    height, width = image.shape[:2]
    return image[: height - height % scale, : width - width % scale]


def sample_flips(rng: np.random.Generator, use_hflip: bool = False, use_rot: bool = False) -> Flips:
    """Each with probability 1/2: `use_hflip` allows the first, `use_rot` the other two, both together all eight poses.

    Three numbers are drawn whatever is allowed, so that one option does not shift the draws that follow.
    """
    horizontal, vertical, transpose = (rng.random(3) < 0.5).tolist()
    return Flips(use_hflip and horizontal, use_rot and vertical, use_rot and transpose)


def crop_and_flips(crop: Crop | None, flips: Flips) -> dict[str, Any]:
    """What was drawn, in plain words and numbers; without the two flips that are only done by `use_rot` and were not."""
    place = {} if crop is None else {"crop": {"top": crop.top, "left": crop.left}}
    turned = {"upside down": flips.vertical, "transposed": flips.transpose}
    return {"mirrored": flips.horizontal} | {word: True for word, done in turned.items() if done} | place


def apply_flips(image: np.ndarray, flips: Flips) -> np.ndarray:
    """(H, W, ...) flipped; a view."""
    image = image[:, ::-1] if flips.horizontal else image
    image = image[::-1] if flips.vertical else image
    return image.swapaxes(0, 1) if flips.transpose else image
