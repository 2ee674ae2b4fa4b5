"""What evaluation asks of a metric, and how it is told what was measured.

There are four kinds.  A function of (image, target) compares each picture with its truth.  A :class:`PictureMetric` looks
through a network, or at the picture alone.  A :class:`SetMetric` has one figure for a whole data set; these two may look at the
pictures' codes (:class:`Codes`) instead, of methods that tell them.  A :class:`TranslationMetric` compares a picture that was
translated to another domain with its source, and with that domain.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

S = TypeVar("S", bound="Statistics")
TRUTH = None  # among the names of methods: the pictures that all of them should have made


class Codes(NamedTuple):
    """What pictures are as codes of a codebook: (N, K) int64, each below `size`."""

    indices: Tensor
    size: int

    def of(self, i: int) -> Codes:
        """Those of picture `i`, (1, K)."""
        return Codes(self.indices[i : i + 1], self.size)

    def to(self, device: torch.device) -> Codes:
        """The same on another device."""
        return Codes(self.indices.to(device), self.size)


class Metric(nn.Module, ABC):
    """A metric that is more than a function."""

    needs_truth: bool = True  # whether it is left out where there is no truth
    reads_codes: ClassVar[bool] = False  # whether it takes codes (`Codes`) wherever others take pictures

    def open(self) -> None:
        """Get what it needs beyond weights, files and libraries, so that what is missing is told before anything runs."""

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """What must be the same for two figures to be compared, beside its keywords and weights: network, colours, sizes."""


class PictureMetric(Metric):
    """Figures of single pictures."""

    @abstractmethod
    def forward(self, image: Tensor, target: Tensor | None = None) -> Tensor:
        """Figures of pictures (N, 3, H, W), RGB in [0, 1]: (N,), float64; NaN for one that has none (no face in it), which
        evaluation leaves out of the mean and counts."""


class Statistics(Protocol):
    """What a set metric keeps of the pictures that it has seen.  It travels between processes: tensors, no network."""

    def add(self, features: Tensor) -> None:
        """Take the features (N, D) of N more pictures."""

    def merge(self: S, other: S) -> None:
        """Take what another has seen."""


class SetMetric(Metric):
    """A figure of a whole data set: of all restorations, against all truths or a stored reference.

    Evaluation asks for `statistics()` once for the restorations of each method and once for the truths, adds the features
    of every picture, merges what the processes have seen in their order, and calls `compute`.
    """

    @abstractmethod
    def statistics(self) -> Statistics:
        """Those of no picture yet."""

    @abstractmethod
    def features(self, image: Tensor) -> Tensor:
        """(N, D) features of RGB pictures (N, 3, H, W) in [0, 1]."""

    @abstractmethod
    def compute(self, restored: Statistics, truth: Statistics | None) -> float:
        """The figure; NaN where there are too few pictures for one.  `truth` is None where it is not needed."""


class TranslationMetric(Metric):
    """Figures of single translations of pictures between domains.

    Evaluation shows it real pictures first, as :meth:`seen` makes them small.
    """

    side = 64  # pixels of what is looked at
    learns = ""  # what :meth:`learn` does, where that takes its time

    def seen(self, pictures: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) as (N, 3, side, side)."""
        return F.interpolate(pictures.float(), (self.side, self.side), mode="area")

    @abstractmethod
    def learn(self, real: Sequence[Tensor], held_out: Sequence[Tensor]) -> float:
        """Get ready for some domains, of each of which there are `real` pictures (N, 3, side, side) to learn from, one at
        least, and others `held_out`.  Returns what of these the figures of translations compare with; NaN where there are too
        few of them."""

    @abstractmethod
    def forward(self, image: Tensor, source: Tensor, target: int) -> Tensor:
        """Figures of translations (N, 3, H, W) of `source` pictures to the domain `target`, RGB in [0, 1]: (N,), float64;
        NaN for one that has none."""


AnyMetric = Callable[[Tensor, Tensor], Tensor] | PictureMetric | SetMetric | TranslationMetric


def needs_truth(metric: AnyMetric) -> bool:
    """Whether a metric compares with the truth.  Functions do."""
    return metric.needs_truth if isinstance(metric, Metric) else True


def reads_codes(metric: AnyMetric) -> bool:
    """Whether a metric looks at codes in place of pictures."""
    return isinstance(metric, Metric) and metric.reads_codes
