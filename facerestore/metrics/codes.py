"""Figures of codes, of methods that see pictures as codes of a codebook (VQGAN, CodeFormer).

Zhou et al., Towards Robust Blind Face Restoration with Codebook Lookup Transformer (CodeFormer), NeurIPS 2022, section 3.2:
restoration is the prediction of the codes that the VQGAN gives the clean face.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from facerestore.errors import DataError
from facerestore.metrics.base import Codes, PictureMetric, SetMetric
from facerestore.registry import METRICS


@METRICS.register("calculate_code_accuracy")
class CodeAccuracy(PictureMetric):
    """Share of a picture's codes that are those of the truth.  Higher is better."""

    reads_codes = True

    def __init__(self):
        super().__init__()

    def forward(self, image: Codes, target: Codes | None = None) -> Tensor:
        """(N,), in [0, 1]; DataError where the two are not codes of equally many positions of one codebook."""
        if image.size != target.size or image.indices.shape != target.indices.shape:
            raise DataError(
                f"{_words(image)} cannot be compared with {_words(target)} of the truth: they are two VQGANs'; name the codes "
                "and the VQGAN of one training"
            )
        return (image.indices == target.indices).double().mean(1)

    def protocol(self) -> dict[str, Any]:
        return {"compared": "codes of the restored face, position by position, with the VQGAN's of the truth"}


def _words(codes: Codes) -> str:
    return f"{codes.indices.shape[1]} codes of {codes.size}"


class CodeCounts:
    """How often each code was seen."""

    def __init__(self) -> None:
        self.counts: Tensor | None = None  # (size,), once there are any

    def add(self, features: Tensor) -> None:
        """Take the counts (N, size) of N more pictures."""
        seen = features.sum(0)
        self.counts = seen if self.counts is None else self.counts + seen

    def merge(self, other: CodeCounts) -> None:
        """Take what another has seen."""
        if other.counts is not None:
            self.add(other.counts[None])


@METRICS.register("calculate_codebook_usage")
class CodebookUsage(SetMetric):
    """How much of the codebook the pictures of a data set use.  Higher is better."""

    reads_codes, needs_truth = True, False

    def __init__(self, unit: Literal["share", "perplexity"] = "share"):
        """
        Args:
            unit: share of the codes that occur, or exp of the codes' entropy: how many would be as even
        """
        super().__init__()
        self.unit = unit

    def statistics(self) -> CodeCounts:
        return CodeCounts()

    def features(self, image: Codes) -> Tensor:
        """(N, size): how often each code occurs in each picture."""
        return torch.stack([torch.bincount(row, minlength=image.size) for row in image.indices.cpu()]).double()

    def compute(self, restored: CodeCounts, truth: CodeCounts | None) -> float:
        if restored.counts is None:
            return float("nan")
        if self.unit == "share":
            return float((restored.counts > 0).double().mean())
        return float(torch.special.entr(restored.counts / restored.counts.sum()).sum().exp())

    def protocol(self) -> dict[str, Any]:
        return {"counted": "codes at all positions of all pictures"}
