"""What stands for libraries and networks that the tests do without."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from facerestore.archs.outputs import Encoder, EncoderOutput


class StandInFaces:
    """Finds three points where a picture is brightest, and its mean colour as an identity; nothing in the dark."""

    eyes = (0, 1)

    def landmarks(self, image: np.ndarray) -> np.ndarray | None:
        if image.max() < 100:
            return None
        y, x = np.unravel_index(image.sum(2).argmax(), image.shape[:2])
        return np.array([(x, y), (x + 4.0, y + 3.0), (x, y + 8.0)])

    def embedding(self, image: np.ndarray) -> np.ndarray | None:
        return None if image.max() < 100 else image.mean((0, 1))

    def protocol(self) -> dict[str, str]:
        return {"network": "stand-in"}

    encoder_protocol = protocol


class TinyIdentity(Encoder):
    """An identity network of one convolution; forward: (N, channels, H, W) in [-1, 1] to `embedding` (N, 4)."""

    def __init__(self, channels: int = 1):
        """
        Args:
            channels: of its input
        """
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3)

    def forward(self, x: Tensor) -> EncoderOutput:
        return EncoderOutput(embedding=self.conv(x).mean((2, 3)))
