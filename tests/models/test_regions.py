"""Regions of interest against a plain loop over samples."""

from __future__ import annotations

import math

import pytest
import torch

from facerestore.models.regions import roi_align


def bilinear(image: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """(C,) of (C, H, W) at a point; 0 beyond a pixel outside."""
    height, width = image.shape[-2:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return image.new_zeros(len(image))
    x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    x0, y0 = int(x), int(y)
    x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
    upper = image[:, y0, x0] * (1 - x + x0) + image[:, y0, x1] * (x - x0)
    lower = image[:, y1, x0] * (1 - x + x0) + image[:, y1, x1] * (x - x0)
    return upper * (1 - y + y0) + lower * (y - y0)


def looped(image: torch.Tensor, box: list[float], side: int) -> torch.Tensor:
    x1, y1, x2, y2 = box
    wide, high = max(x2 - x1, 1) / side, max(y2 - y1, 1) / side
    across, down = math.ceil(wide), math.ceil(high)
    out = image.new_zeros(len(image), side, side)
    for row in range(side):
        for column in range(side):
            for j in range(down):
                for i in range(across):
                    x, y = x1 + (column + (i + 0.5) / across) * wide, y1 + (row + (j + 0.5) / down) * high
                    out[:, row, column] += bilinear(image, x, y) / (across * down)
    return out


@pytest.mark.parametrize(
    "box", [[3, 4, 11, 12], [2.5, 1.25, 17.75, 18], [-4, -6, 9.5, 7.5], [10.2, 12.1, 25.4, 27.3], [5, 5, 5.2, 5.2]]
)
def test_it_is_the_mean_of_bilinear_samples(box):
    image = torch.rand(2, 3, 20, 18, generator=torch.Generator().manual_seed(1))
    boxes = torch.tensor([box, [0.0, 0.0, 8.0, 8.0]])
    found = roi_align(image, boxes, 6)
    assert torch.allclose(found[0], looped(image[0], box, 6), atol=1e-5)
    assert torch.allclose(found[1], looped(image[1], [0, 0, 8, 8], 6), atol=1e-5)


def test_gradients_reach_the_picture_within_the_box_alone():
    image = torch.rand(1, 1, 16, 16, requires_grad=True)
    roi_align(image, torch.tensor([[4.0, 4.0, 8.0, 8.0]]), 4).sum().backward()
    touched = image.grad[0, 0] != 0
    assert touched[4:8, 4:8].all()
    for across in (touched, touched.T):
        assert not across[:4].any() and not across[9:].any()
