"""Whether a restored face is still the same person's, and its parts in the same places.

Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR 2019: a network that was trained so maps
pictures of one person to vectors of nearly one direction.  Source of the figures: GFPGAN, gfpgan/models/gfpgan_model.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from facerestore.errors import OptionError
from facerestore.metrics.base import PictureMetric
from facerestore.metrics.faces import LandmarkFinder, dlib_faces, mtcnn_faces
from facerestore.registry import ARCHS, METRICS, Part, WeightFile

Unit = Literal["cosine", "degrees", "euclidean", "l1"]
GRAY = (0.2989, 0.5870, 0.1140)  # of R, G and B, as GFPGAN weighs them


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Of embeddings (..., C): 1 for one direction, 0 for a right angle."""
    return F.cosine_similarity(a.double(), b.double(), dim=-1)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # of embeddings (..., C), in float64
    "cosine": lambda a, b: 1 - cosine_similarity(a, b),
    "degrees": lambda a, b: cosine_similarity(a, b).clamp(-1, 1).acos().rad2deg(),
    "euclidean": lambda a, b: torch.linalg.vector_norm(a.double() - b.double(), dim=-1),
    "l1": lambda a, b: (a.double() - b.double()).abs().mean(-1),
}


@METRICS.register("calculate_identity_distance")
class IdentityDistance(PictureMetric):
    """How far an identity network sees the restored face from the true one.  Lower is better.

    Whole pictures go through the network, so that they must be aligned faces, as it was trained on.
    """

    weight_files = {"weights": WeightFile(module="network", required=True, doc="file of the identity network, or 'random'")}

    def __init__(
        self,
        network: Annotated[nn.Module, Part(ARCHS, offers=("embedding",))],
        unit: Unit = "cosine",
        colours: Literal["gray", "rgb"] = "gray",
        size: Annotated[int, Meta(ge=8, le=4096)] = 128,
    ):
        """
        Args:
            network: the identity network: pictures in [-1, 1] to embeddings (N, C)
            unit: 1 - cosine similarity, the angle in degrees, the Euclidean distance, or the mean absolute difference
            colours: whether it takes gray pictures (N, 1, H, W), as GFPGAN's ArcFace does, or RGB
            size: side of the pictures that it takes
        """
        super().__init__()
        self.network, self.unit, self.colours, self.size = network, unit, colours, size
        self.network.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> IdentityDistance:
        return super().train(False)

    def open(self) -> None:
        found = self.embed(torch.zeros(1, 3, self.size, self.size))
        if found.dim() != 2:
            kind = type(self.network).__name__
            raise OptionError(
                f"{kind} is no identity network: its embeddings {tuple(found.shape)} are not (N, C)", ("network",)
            )

    @torch.no_grad()
    def forward(self, image: Tensor, target: Tensor | None = None) -> Tensor:
        return DISTANCES[self.unit](self.embed(image), self.embed(target)).cpu()

    @torch.no_grad()
    def embed(self, image: Tensor) -> Tensor:
        """RGB pictures (N, 3, H, W) in [0, 1] to embeddings (N, C)."""
        return self.network(network_input(2 * image - 1, self.colours, self.size)).embedding

    def protocol(self) -> dict[str, Any]:
        channels = "gray, 0.2989 R + 0.587 G + 0.114 B" if self.colours == "gray" else "RGB"
        return {"colours": f"{channels}, bilinear to {self.size} x {self.size} without antialiasing"}


@METRICS.register("calculate_identity_similarity")
class IdentitySimilarity(IdentityDistance):
    """How alike an identity network finds the restored face and the true one: the cosine of the two embeddings, the identity
    score (IDS) of CodeFormer's tables.  Higher is better.

    Whole pictures go through the network, so that they must be aligned faces, as it was trained on.
    """

    def __init__(
        self,
        network: Annotated[nn.Module, Part(ARCHS, offers=("embedding",))],
        colours: Literal["gray", "rgb"] = "gray",
        size: Annotated[int, Meta(ge=8, le=4096)] = 128,
    ):
        """
        Args:
            network: the identity network: pictures in [-1, 1] to embeddings (N, C)
            colours: whether it takes gray pictures (N, 1, H, W), as GFPGAN's ArcFace does, or RGB
            size: side of the pictures that it takes
        """
        super().__init__(network, "cosine", colours, size)

    def forward(self, image: Tensor, target: Tensor | None = None) -> Tensor:
        return 1 - super().forward(image, target)


def network_input(image: Tensor, colours: Literal["gray", "rgb"], size: int) -> Tensor:
    """RGB (N, 3, H, W) as an identity network takes it: gray or not, (N, 1 or 3, size, size)."""
    if colours == "gray":
        image = sum(share * channel for share, channel in zip(GRAY, image.split(1, dim=1), strict=True))
    return F.interpolate(image, size=(size, size), mode="bilinear", align_corners=False)


@METRICS.register("calculate_dlib_identity_distance")
class DlibIdentityDistance(PictureMetric):
    """How far dlib sees the restored face from the true one.  Lower is better.

    Not a number where a face is sought in each picture, and none is found in one of the two.  dlib's network was trained for
    the Euclidean distance: two pictures of one person lie within 0.6.  Needs the extra `faces`.
    """

    def __init__(self, unit: Unit = "cosine", aligned: bool = False):
        """
        Args:
            unit: 1 - cosine similarity, the angle in degrees, the Euclidean distance, or the mean absolute difference
            aligned: whether pictures are aligned faces, which are taken whole; else a face is sought and aligned in each, and
                in less than some 100 pixels none is found
        """
        super().__init__()
        self.unit, self.aligned = unit, aligned

    def open(self) -> None:
        dlib_faces()

    def forward(self, image: Tensor, target: Tensor | None = None) -> Tensor:
        faces = dlib_faces()
        look = faces.embedding_of_whole if self.aligned else faces.embedding
        return for_each_pair(image, target, look, DISTANCES[self.unit])

    def protocol(self) -> dict[str, Any]:
        return {"colours": "RGB, 8 bits", **dlib_faces().encoder_protocol()}


@METRICS.register("calculate_dlib_identity_similarity")
class DlibIdentitySimilarity(DlibIdentityDistance):
    """How alike dlib finds the restored face and the true one: the cosine of the two embeddings.  Higher is better.

    Not a number where a face is sought in each picture, and none is found in one of the two.  Needs the extra `faces`.
    """

    def __init__(self, aligned: bool = False):
        """
        Args:
            aligned: whether pictures are aligned faces, which are taken whole; else a face is sought and aligned in each, and
                in less than some 100 pixels none is found
        """
        super().__init__("cosine", aligned)

    def forward(self, image: Tensor, target: Tensor | None = None) -> Tensor:
        return 1 - super().forward(image, target)


@METRICS.register("calculate_landmark_distance")
class LandmarkDistance(PictureMetric):
    """Mean distance of the restored face's landmarks from the true one's.  Lower is better.

    Not a number where no face is found in one of the two.  Needs the extra `faces`.
    """

    def __init__(self, points: Literal["dlib_68", "mtcnn_5"] = "dlib_68", unit: Literal["pixels", "eyes"] = "pixels"):
        """
        Args:
            points: dlib's 68 landmarks, or MTCNN's eyes, nose and corners of the mouth
            unit: pixels, or the distance of the true face's eyes (of their outer corners, of dlib's points)
        """
        super().__init__()
        self.find, self.unit = {"dlib_68": dlib_faces, "mtcnn_5": mtcnn_faces}[points], unit

    def open(self) -> None:
        self.find()

    def forward(self, image: Tensor, target: Tensor | None = None) -> Tensor:
        finder: LandmarkFinder = self.find()

        def distance(found: Tensor, true: Tensor) -> Tensor:
            left, right = (true[i] for i in finder.eyes)
            scale = torch.dist(left, right) if self.unit == "eyes" else 1.0
            return torch.linalg.vector_norm(found - true, dim=-1).mean() / scale

        return for_each_pair(image, target, finder.landmarks, distance)

    def protocol(self) -> dict[str, Any]:
        return {"colours": "RGB, 8 bits", **self.find().protocol()}


def for_each_pair(
    image: Tensor,
    target: Tensor,
    look: Callable[[np.ndarray], np.ndarray | None],
    distance: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """(N,), float64: the distance of what `look` sees in a picture and in its truth; NaN where it sees nothing in one."""
    figures = []
    for pair in zip(image, target, strict=True):
        seen = [look(as_bytes(picture)) for picture in pair]
        blank = any(s is None for s in seen)
        figures.append(float("nan") if blank else float(distance(*(torch.from_numpy(s) for s in seen))))
    return torch.tensor(figures, dtype=torch.float64)


def as_bytes(picture: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] to uint8 (H, W, 3)."""
    levels = picture.detach().cpu().clamp(0, 1).mul(255).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(1, 2, 0).numpy())
