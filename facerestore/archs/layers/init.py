"""Initial weights."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def scaled_kaiming_(module: nn.Module, scale: float = 0.1) -> None:
    """Kaiming normal weights times `scale`, and no bias, in every convolution of `module`.

    He et al., Delving Deep into Rectifiers, ICCV 2015: standard deviation sqrt(2 / fan_in).  ESRGAN (section 3.1)
    scales it down, so that a residual branch starts near 0 and deep networks without batch norm can be trained.
    """
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.kaiming_normal_(conv.weight).mul_(scale)
            nn.init.zeros_(conv.bias)
