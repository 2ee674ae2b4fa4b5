"""Convolution with spectral normalisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SpectralNormConv2d(nn.Module):
    """A convolution without bias whose weight is divided by its greatest singular value.

    Miyato et al., Spectral Normalization for Generative Adversarial Networks, ICLR 2018, algorithm 1: `weight_u` and
    `weight_v` approach the leading singular vectors by one power iteration for each pass in training mode; the gradient
    flows through sigma = u^T W v with u and v held constant.

    Keys and figures are those of `torch.nn.utils.spectral_norm`, with which the published checkpoints were stored.
    Unlike it, a network that has been run can be copied (no computed weight is left on the module), and sigma is
    float32 under autocast.

    forward: (N, in_channels, H, W) to (N, out_channels, H', W').
    """

    compilable = False  # a compiled pass keeps u and v for its gradient without the clones below, and the next pass moves them

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0):
        super().__init__()
        self.stride, self.padding = stride, padding
        initial = nn.Conv2d(in_channels, out_channels, kernel_size, bias=False).weight
        self.weight_orig = nn.Parameter(initial.detach())
        self.register_buffer("weight_u", F.normalize(torch.randn(out_channels), dim=0, eps=1e-12))
        self.register_buffer("weight_v", F.normalize(torch.randn(initial[0].numel()), dim=0, eps=1e-12))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight_orig / self.sigma(), stride=self.stride, padding=self.padding)

    def sigma(self) -> Tensor:
        """The estimate of the weight's greatest singular value; in training mode after one more power iteration."""
        matrix = self.weight_orig.flatten(1)
        with torch.autocast(matrix.device.type, enabled=False):
            if self.training:
                self.iterate(matrix.detach())
            # Clones: another pass may iterate further before this one is back-propagated.
            return torch.dot(self.weight_u.clone(), torch.mv(matrix, self.weight_v.clone()))

    @torch.no_grad()
    def iterate(self, matrix: Tensor) -> None:
        self.weight_v.copy_(F.normalize(torch.mv(matrix.t(), self.weight_u), dim=0, eps=1e-12))
        self.weight_u.copy_(F.normalize(torch.mv(matrix, self.weight_v), dim=0, eps=1e-12))
