"""Initial weights."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def scaled_kaiming_(module: nn.Module, scale: float = 0.1) -> None:
    """Kaiming normal weights times `scale`, and no bias, in every convolution and dense layer of `module`.

    He et al., Delving Deep into Rectifiers, ICCV 2015: standard deviation sqrt(2 / fan_in).  ESRGAN (section 3.1)
    scales it down, so that a residual branch starts near 0 and deep networks without batch norm can be trained.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight).mul_(scale)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
