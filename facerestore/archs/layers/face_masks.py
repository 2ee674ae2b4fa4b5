"""From the heatmaps of landmarks to points, and to the two masks of a face that StarGAN v2's generator is given.

Choi et al., StarGAN v2, CVPR 2020, use the 98 landmarks of WFLW (Wu et al., Look at Boundary, CVPR 2018).  Source of the
figures: clovaai/stargan-v2, core/wing.py; there the shifts are scaled by whole multiples of 256, those of the eyes by none,
and one heatmap that is not finite empties the first mask and spoils the second.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from facerestore.errors import DataError

LANDMARKS = 98  # of WFLW
SIDE = 256  # of the heatmaps for which the table below is written
THRESHOLD = 0.1  # what is lower counts as nothing


class Region(NamedTuple):
    """Landmarks start ... stop - 1: their heatmaps, to a power, moved by rows (up is positive, at a side of 256)."""

    start: int
    stop: int
    up: int
    power: int


OUTLINE = (  # in the first mask alone; landmarks at the ends of chin, eyebrows and mouth are in none
    Region(8, 25, 0, 3),  # chin
    Region(34, 46, -7, 2),  # eyebrows
    Region(47, 51, -7, 2),
    Region(77, 82, -8, 4),  # upper lip
    Region(83, 88, 8, 4),  # lower lip
    Region(88, 96, -2, 3),  # inner lips
)
CENTRE = (  # in both masks
    Region(51, 52, 0, 1),  # nose
    Region(52, 55, 4, 1),
    Region(55, 60, 8, 4),  # nostrils
    Region(60, 76, -8, 3),  # eyes
    Region(60, 76, -24, 1),  # below the eyes
    Region(96, 98, 0, 1),  # pupils
)


def face_masks(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """The masks of the whole face, and of eyes and nose, each (N, 1, H, W) in [0, 1].

    Args:
        heatmaps: (N, 98, H, W), of any range; what is not a number counts as nothing

    Raises:
        DataError: there are not 98 landmarks
    """
    if heatmaps.shape[1] != LANDMARKS:
        raise DataError(f"the masks of a face are made of the heatmaps of {LANDMARKS} landmarks, not of {heatmaps.shape[1]}")
    peaks = stretched(truncated(heatmaps))
    centre = sum(moved(peaks, region) for region in CENTRE)
    outline = sum(moved(peaks, region) for region in OUTLINE)
    return (centre + outline).clamp(0, 1), centre.clamp(0, 1)


def landmarks_of(heatmaps: Tensor) -> Tensor:
    """Points (N, L, 2), x before y, in the pixels of heatmaps (N, L, H, W), the centre of the first pixel at (0.5, 0.5).

    The highest pixel of each, a quarter of a pixel towards the higher neighbour on either axis where it has all four
    (Newell et al., Stacked Hourglass Networks for Human Pose Estimation, ECCV 2016, section 3.3).
    """
    height, width = heatmaps.shape[-2:]
    flat = heatmaps.flatten(2)
    highest = flat.argmax(dim=2)
    x, y = highest % width, highest // width
    inside = (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)

    def rise(step: int) -> Tensor:
        """Whether the heatmap rises over that many places of the flattened picture: -1, 0 or 1."""
        after, before = (
            flat.gather(2, torch.where(inside, highest + way, highest)[..., None])[..., 0] for way in (step, -step)
        )
        return torch.sign(after - before)

    return torch.stack([x + 0.5 + rise(1) / 4, y + 0.5 + rise(width) / 4], dim=2)


def truncated(heatmaps: Tensor) -> Tensor:
    """Without what is below 0.1, or no number at all."""
    return torch.where(heatmaps >= THRESHOLD, heatmaps, 0)


def stretched(heatmaps: Tensor) -> Tensor:
    """Each channel from 0 at its lowest to 1 at its highest pixel."""
    low, high = heatmaps.amin((2, 3), keepdim=True), heatmaps.amax((2, 3), keepdim=True)
    return (heatmaps - low) / (high - low + 1e-6)


def moved(heatmaps: Tensor, region: Region) -> Tensor:
    """The sum (N, 1, H, W) of a region's heatmaps where it belongs; what leaves the picture comes in again opposite."""
    total = heatmaps[:, region.start : region.stop].pow(region.power).sum(1, keepdim=True)
    return shifted(total, round(region.up * heatmaps.shape[2] / SIDE))


def shifted(heatmaps: Tensor, up: int) -> Tensor:
    """Moved up by so many rows, or down where it is negative; what leaves the picture comes in again opposite."""
    return heatmaps.roll(-up, dims=2)
