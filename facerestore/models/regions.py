"""Parts of faces, cut out of pictures by their boxes."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def roi_align(images: Tensor, boxes: Tensor, side: int) -> Tensor:
    """The regions in `boxes`, each resampled to `side` pixels a side; differentiable with respect to the pictures.

    He et al., Mask R-CNN, ICCV 2017, section 3: a pixel of the result is the mean of bilinear samples that lie evenly in its
    part of the box, as many in each direction as it has pixels there.  Bilinear samples of a grid are separable: a region
    is one product with a matrix for the rows and one with another for the columns.

    Args:
        images: (N, C, H, W)
        boxes: (N, 4) x1, y1, x2, y2 in pixels, one for each picture, pixel i being at i (torchvision's `aligned=False`, which
            GFPGAN uses: with boxes of borders, as data.components has them, a crop lies half a pixel further right and down; a
            side is one pixel at least).  What lies outside of the picture is 0.
        side: of the result

    Returns:
        (N, C, side, side)
    """
    height, width = images.shape[-2:]
    x1, y1, x2, y2 = boxes.float().unbind(1)
    rows, columns = sampling(y1, y2, side, height), sampling(x1, x2, side, width)
    with torch.autocast(images.device.type, enabled=False):
        regions = rows[:, None] @ images.float() @ columns[:, None].mT
    return regions.to(images.dtype)


def sampling(begin: Tensor, end: Tensor, count: int, length: int) -> Tensor:
    """How much each of `length` pixels of an axis counts in each of `count` pixels between `begin` and `end`, (N,) both.

    Returns:
        (N, count, length)
    """
    cell = (end - begin).clamp_min(1) / count
    most = math.ceil(length / count)  # samples of a pixel where the box is as long as the picture, and in longer ones
    samples = cell.ceil().clamp(1, most)[:, None]
    number = torch.arange(most, device=begin.device)
    within = (number + 0.5) / samples  # (N, most), of the cell
    share = (number < samples) / samples
    starts = begin[:, None] + cell[:, None] * torch.arange(count, device=begin.device)
    places = starts[..., None] + cell[:, None, None] * within[:, None]  # (N, count, most)
    inside = (places >= -1) & (places <= length)
    pixels = torch.arange(length, device=begin.device)
    near = (1 - (places.clamp(0, length - 1)[..., None] - pixels).abs()).clamp_min(0)
    return (near * (inside * share[:, None])[..., None]).sum(2)
