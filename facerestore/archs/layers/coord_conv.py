"""Convolution that is told where it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BOUNDARY = 0.05  # heatmaps of outlines above it tell where outlines are
CORNER = 2**0.5  # the greatest radius


class CoordConv2d(nn.Module):
    """A convolution of the features and of their pixels' coordinates.

    Liu et al., An Intriguing Failing of Convolutional Neural Networks and the CoordConv Solution, NeurIPS 2018: the
    row and the column in [-1, 1], and the radius in [0, 1] with `radius`.  With `boundary` also row and column where the
    outlines of the face were found, elsewhere 0: Wang et al., Adaptive Wing Loss, ICCV 2019, section 5.

    forward: features (N, in_channels, H, W), and with `boundary` the heatmap (N, 1, H, W) of the outlines, to features
    (N, out_channels, H', W') and the last two of the coordinates (N, 2, H, W).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        radius: bool = True,
        boundary: bool = False,
    ):
        super().__init__()
        self.radius, self.boundary = radius, boundary
        coordinates = 2 + radius + 2 * boundary
        self.conv = nn.Conv2d(in_channels + coordinates, out_channels, kernel_size, stride, padding)

    def forward(self, x: Tensor, outlines: Tensor | None = None) -> tuple[Tensor, Tensor]:
        samples, _, height, width = x.shape
        rows = torch.linspace(-1, 1, height, dtype=x.dtype, device=x.device)[:, None].expand(height, width)
        columns = torch.linspace(-1, 1, width, dtype=x.dtype, device=x.device)[None].expand(height, width)
        coordinates = torch.stack([rows, columns, *([torch.hypot(rows, columns) / CORNER] if self.radius else [])])
        coordinates = coordinates.expand(samples, -1, -1, -1)
        if self.boundary:
            found = torch.where(outlines > BOUNDARY, coordinates[:, :2], 0)
            coordinates = torch.cat([coordinates, found], dim=1)
        return self.conv(torch.cat([x, coordinates], dim=1)), coordinates[:, -2:]
