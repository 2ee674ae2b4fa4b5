"""JPEG: by OpenCV's encoder, and as a differentiable function of tensors.

ITU-T T.81 (the tables are its annex K.1, the DCT its A.3.3) with JFIF's colours (ITU-T T.871), 4:2:0; Shin & Song,
JPEG-resistant Adversarial Images, NIPS Workshop on Machine Learning and Computer Security, 2017.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

# T.81, tables K.1 and K.2: rows are vertical frequencies
LUMINANCE = """
    16 11 10 16  24  40  51  61
    12 12 14 19  26  58  60  55
    14 13 16 24  40  57  69  56
    14 17 22 29  51  87  80  62
    18 22 37 56  68 109 103  77
    24 35 55 64  81 104 113  92
    49 64 78 87 103 121 120 101
    72 92 95 98 112 100 103  99"""
CHROMINANCE = """
    17 18 24 47 99 99 99 99
    18 21 26 66 99 99 99 99
    24 26 56 99 99 99 99 99
    47 66 99 99 99 99 99 99
    99 99 99 99 99 99 99 99
    99 99 99 99 99 99 99 99
    99 99 99 99 99 99 99 99
    99 99 99 99 99 99 99 99"""
# T.871: rows are Y, Cb, Cr of (R, G, B)
YCBCR = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
RGB = [[1.0, 0.0, 1.402], [1.0, -0.344136, -0.714136], [1.0, 1.772, 0.0]]


def sample_jpeg_quality(rng: np.random.Generator, quality_range: tuple[float, float]) -> int:
    """Uniform in the range, then truncated, as published."""
    return int(rng.uniform(*quality_range))


def apply_jpeg(image: np.ndarray, quality: float) -> np.ndarray:
    """Encoded and decoded by OpenCV.

    Args:
        image: (H, W, 3), RGB in 0..255; float is rounded and clipped first
        quality: 0..100, truncated to a whole number

    Returns:
        The same shape and type.
    """
    levels = image if image.dtype == np.uint8 else image.round().clip(0, 255).astype(np.uint8)
    settings = [cv2.IMWRITE_JPEG_QUALITY, int(quality)]
    settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(levels, cv2.COLOR_RGB2BGR), settings)
    decoded = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return decoded.astype(image.dtype, copy=False)


class DiffJPEG(nn.Module):
    """JPEG without its lossless part, for pictures on any device.  It has no weights.

    Computed in float32, also under autocast.  Sides are padded with black to multiples of 16.

    Args:
        smooth: round by round(x) + (x - round(x))^3 (Shin & Song), so that gradients pass; otherwise hard
        legacy: BasicSR's quantisation: rows and columns of the tables change places, and steps are no whole numbers in
            1..255, as an encoder's are
    """

    def __init__(self, smooth: bool = True, legacy: bool = False):
        super().__init__()
        self.smooth, self.legacy = smooth, legacy
        tables = torch.tensor([list(map(float, table.split())) for table in (LUMINANCE, CHROMINANCE, CHROMINANCE)])
        if legacy:
            tables = tables.reshape(3, 8, 8).transpose(1, 2).reshape(3, 64)
        self.register_buffer("tables", tables, persistent=False)
        self.register_buffer("dct", _dct_of_blocks(), persistent=False)
        self.register_buffer("ycbcr", torch.tensor(YCBCR)[..., None, None], persistent=False)
        self.register_buffer("rgb", torch.tensor(RGB)[..., None, None], persistent=False)

    def forward(self, images: Tensor, quality: Tensor | float) -> Tensor:
        """(N, 3, H, W), RGB in [0, 1], to the same.

        Args:
            images: the pictures
            quality: above 0, to 100 (with `legacy`, below it): one for all, or (N,); not truncated
        """
        with torch.autocast(images.device.type, enabled=False):
            return self._forward(images.float(), quality)

    def _forward(self, images: Tensor, quality: Tensor | float) -> Tensor:
        height, width = images.shape[2:]
        padded = F.pad(images * 255, (0, -width % 16, 0, -height % 16))
        y, cb, cr = _change_colours(padded, self.ycbcr).split(1, 1)
        chroma = F.avg_pool2d(torch.cat([cb, cr], 1), 2)  # 4:2:0; offsets of 128 are left out, here and below
        steps = self._steps(quality, images)
        y, chroma = self._quantise(y - 128, steps[:, :1]) + 128, self._quantise(chroma, steps[:, 1:])
        decoded = _change_colours(torch.cat([y, F.interpolate(chroma, scale_factor=2.0, mode="nearest")], 1), self.rgb)
        return decoded[..., :height, :width].clamp(0, 255) / 255

    def _steps(self, quality: Tensor | float, images: Tensor) -> Tensor:
        """Quantisation steps (N or 1, 3, 64) by the scale of the Independent JPEG Group: at quality 50, the tables."""
        quality = torch.as_tensor(quality, dtype=images.dtype, device=images.device).reshape(-1, 1, 1)
        scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
        steps = self.tables * scale
        return steps if self.legacy else (steps + 0.5).floor().clamp(1, 255)

    def _quantise(self, planes: Tensor, steps: Tensor) -> Tensor:
        """(N, C, H, W) to the same, by steps (N or 1, C, 64)."""
        n, c, h, w = planes.shape
        blocks = planes.reshape(n, c, h // 8, 8, w // 8, 8).transpose(3, 4).reshape(n, c, -1, 64)
        steps = steps.unsqueeze(2)
        levels = blocks @ self.dct.T / steps
        blocks = (self._round(levels) * steps) @ self.dct
        return blocks.reshape(n, c, h // 8, w // 8, 8, 8).transpose(3, 4).reshape(n, c, h, w)

    def _round(self, levels: Tensor) -> Tensor:
        whole = levels.round()
        return whole + (levels - whole) ** 3 if self.smooth else whole


def _dct_of_blocks() -> Tensor:
    """The orthogonal DCT-II of a block of 8 x 8 as one matrix (64, 64), on pixels row by row."""
    frequency, place = torch.arange(8.0, dtype=torch.float64)[:, None], torch.arange(8.0, dtype=torch.float64)
    line = torch.cos((2 * place + 1) * frequency * torch.pi / 16) / 2
    line[0] /= 2**0.5
    return torch.kron(line, line).float()


def _change_colours(planes: Tensor, matrix: Tensor) -> Tensor:
    """(N, 3, H, W) by a matrix (3, 3, 1, 1)."""
    return torch.stack([(planes * row).sum(1) for row in matrix], 1)
