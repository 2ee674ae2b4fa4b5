"""What every data set here is: named pictures, and samples that are a function of (seed, epoch, name, repeat).

So a sample does not depend on the number of workers or processes, on what was read before it, or on whether the run was
interrupted.
"""

from __future__ import annotations

import logging
import zlib
from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from msgspec import Meta
from torch.utils.data import Dataset

from facerestore.data.image_io import PictureError
from facerestore.errors import DataError

log = logging.getLogger("facerestore")

Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
Width = Annotated[float, Meta(ge=1e-3, le=10)]
Mean = tuple[Share, Share, Share]
Std = tuple[Width, Width, Width]
Scale = Annotated[int, Meta(ge=1, le=64)]  # side of the ground truth / side of the low-resolution picture
Side = Annotated[int, Meta(ge=1, le=16_384)]  # of a picture, in pixels
OnBadImage = Literal["stop", "skip"]


class SampleKey(NamedTuple):
    """Which sample: the picture's index, the epoch, and how often that picture came before in the same epoch."""

    index: int
    epoch: int = 0
    repeat: int = 0


class FaceDataset(Dataset, ABC):
    """The base of all data sets.

    Pictures leave it as uint8 tensors (3, H, W), RGB; on the device they are mapped to (x / 255 - mean) / std.
    """

    mean: Mean = (0.0, 0.0, 0.0)
    std: Std = (1.0, 1.0, 1.0)
    provides: ClassVar[frozenset[str]] = frozenset({"lq", "gt"})  # the pictures of a sample
    on_bad_image: OnBadImage = "stop"
    seed: int = 0  # the run's manual_seed; set by who builds the loader

    def __init__(self, mean: Mean | None = None, std: Std | None = None, on_bad_image: OnBadImage = "stop"):
        self.mean, self.std, self.on_bad_image = mean or self.mean, std or self.std, on_bad_image
        self._reported: set[str] = set()  # unreadable pictures that the log knows of

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """The picture's name: unique in the data set, and what its random draws are keyed by."""

    @abstractmethod
    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """One sample: uint8 arrays (H, W, 3) RGB under `gt`, `lq`, ...; paths; labels.  All chance comes from `rng`."""

    def extent(self) -> str:
        """How much there is, as a log says it."""
        return f"{len(self)} pictures"

    def contents(self) -> str:
        """Of what kinds the pictures are, as a log says it; nothing where they are all of one."""
        return ""

    def facts(self) -> dict[str, Any]:
        """What files of weights that learnt from it should say of it (numbers, text, lists of them); nothing by default."""
        return {}

    def explain(self, key: SampleKey) -> dict[str, Any]:
        """What chance decided about the sample of `key`, in plain words and numbers; nothing by default."""
        return {}

    def picture_shapes(self) -> dict[str, tuple[int, int]]:
        """Height and width of a sample's pictures by their key; empty where only the files tell."""
        return {}

    def truth_size(self, index: int) -> tuple[int, int] | None:
        """Height and width of one picture's ground truth, without decoding it; None where that is not known."""
        return self.picture_shapes().get("gt")

    def label_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the numbers that a sample holds beside its pictures (`loc_left_eye`: (4,)), by their key; () of a class."""
        return {}

    def rng(self, key: SampleKey) -> np.random.Generator:
        """What the draws of a sample come from."""
        return np.random.default_rng(
            (self.seed, key.epoch, zlib.crc32(self.name(key.index).encode(errors="surrogateescape")), key.repeat)
        )

    def load(self, key: SampleKey) -> dict[str, Any]:
        """The sample of `key`, its arrays as tensors; PictureError where the picture cannot be read."""
        return _to_tensors(self.sample(key.index, self.rng(key)))

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        """The sample of `key`; under `on_bad_image: skip`, the next readable picture with the draws of `key`."""
        key = SampleKey(*key) if isinstance(key, tuple) else SampleKey(key)
        if self.on_bad_image == "stop":
            try:
                return self.load(key)
            except PictureError as error:
                raise PictureError(f"{error}, or set datasets.train.on_bad_image: skip") from None
        for step in range(len(self)):
            try:
                return _to_tensors(self.sample((key.index + step) % len(self), self.rng(key)))
            except PictureError as error:
                self._passed_over(error)
        raise DataError("not one picture of the data set can be read; the log names each")

    def first(self, count: int) -> FaceDataset:
        """The data set's first pictures alone: what `--preflight` evaluates."""
        return FirstPictures(self, count)

    def _passed_over(self, error: PictureError) -> None:
        """Name an unreadable picture in the log, once."""
        if str(error) not in self._reported:
            self._reported.add(str(error))
            log.warning("%s (skipped: the next picture takes its place)", error)


class FirstPictures(FaceDataset):
    """The first `count` pictures of a data set."""

    def __init__(self, whole: FaceDataset, count: int):
        super().__init__(whole.mean, whole.std, whole.on_bad_image)
        self.whole, self.count, self.seed = whole, count, whole.seed

    def __len__(self) -> int:
        return min(self.count, len(self.whole))

    def name(self, index: int) -> str:
        return self.whole.name(index)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        return self.whole.sample(index, rng)

    def load(self, key: SampleKey) -> dict[str, Any]:
        return self.whole.load(key)


class PictureDataset(FaceDataset):
    """A data set of stored pictures, which are known by their names."""

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """The pictures, in the data set's order; the first look lists the storage."""

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]


def _to_tensors(sample: dict[str, Any]) -> dict[str, Any]:
    return {k: _to_tensor(v) if isinstance(v, np.ndarray) else v for k, v in sample.items()}


def _to_tensor(array: np.ndarray) -> torch.Tensor:
    """(H, W, C) pictures to (C, H, W); other arrays as they are.  Memory of its own, whoever keeps the array."""
    if array.dtype == np.uint8 and array.ndim == 3:
        array = array.transpose(2, 0, 1)
    return torch.from_numpy(array.copy(order="C"))
