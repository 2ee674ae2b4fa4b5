"""What stands for libraries and networks that the tests do without."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

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

    def embedding_of_whole(self, image: np.ndarray) -> np.ndarray:
        return image.mean((0, 1))

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


class Brightness(nn.Module):
    """A figure (N, 1), as pyiqa's networks return; a difference where there is a truth."""

    def forward(self, image, target=None):
        return (image if target is None else image - target).mean((1, 2, 3))[:, None]


class StandInPyIQA(ModuleType):
    """pyiqa's interface, as far as it is used; `made` holds the keywords of every metric that was made."""

    def __init__(self) -> None:
        super().__init__("pyiqa")
        self.made: list[dict[str, str]] = []

    def list_models(self) -> list[str]:
        return ["musiq", "ssim", "offline"]

    def create_metric(self, name: str, device=None, **keywords: str) -> SimpleNamespace:
        self.made.append(keywords)
        if name == "offline":
            raise OSError("no route to host\nand more")
        return SimpleNamespace(net=Brightness(), metric_mode="FR" if name == "ssim" else "NR")
