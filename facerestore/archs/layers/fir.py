"""FIR filters, with which StyleGAN2 resamples, and their bilinear stand-ins."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.errors import OptionError


class Fir(nn.Module):
    """Filters each channel by the outer product of `taps` with themselves, the sum scaled to 1.

    Karras et al., StyleGAN2, CVPR 2020, appendix B (bilinear filtering as Zhang, ICML 2019).  One depthwise
    convolution: what its stride leaves out is never computed.  On CPUs that takes less time than two passes of one axis
    each, whose features travel through memory twice, and than the filter composed with the neighbouring convolution's
    weights, which multiplies its products by four.

    The kernel is no part of the state dict.  forward: (N, C, H, W) to (N, C, H', W').
    """

    def __init__(self, taps: Sequence[float], padding: int, stride: int = 1, gain: float = 1.0):
        super().__init__()
        self.padding, self.stride = padding, stride
        self.register_buffer("kernel", gain * kernel(taps).flip(0, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.kernel.expand(x.shape[1], 1, -1, -1)
        return F.conv2d(x, weight, stride=self.stride, padding=self.padding, groups=x.shape[1])


class FirUpsample(nn.Module):
    """Doubles the side: zeros between the pixels, then the filter, as one transposed convolution.

    Pictures stay in their own precision: they are summed over all levels.  forward: (N, C, H, W) to (N, C, 2H, 2W).
    """

    def __init__(self, taps: Sequence[float]):
        super().__init__()
        self.padding = len(taps) // 2 - 1
        self.register_buffer("kernel", 4 * kernel(taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            weight = self.kernel.to(x.dtype).expand(x.shape[1], 1, -1, -1)
            return F.conv_transpose2d(x, weight, stride=2, padding=self.padding, groups=x.shape[1])


class BilinearUpsample(nn.Module):
    """Doubles the side.  (N, C, H, W) to (N, C, 2H, 2W)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def kernel(taps: Sequence[float]) -> Tensor:
    """The two-dimensional filter of sum 1.  OptionError where the taps are no filter or have a middle."""
    line = torch.tensor(taps, dtype=torch.get_default_dtype())
    if len(taps) % 2 or not sum(taps):
        raise OptionError(
            f"resample_kernel must be an even number of taps whose sum is not 0, such as 1, 3, 3, 1; not {list(taps)}",
            ("resample_kernel",),
        )
    return torch.outer(line, line) / sum(taps) ** 2
