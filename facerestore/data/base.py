"""What every data set here is: named pictures, and samples that are a function of (seed, epoch, name, repeat).

So a sample does not depend on the number of workers or processes, on what was read before it, or on whether the run was
interrupted.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset


class SampleKey(NamedTuple):
    """Which sample: the picture's index, the epoch, and how often that picture came before in the same epoch."""

    index: int
    epoch: int = 0
    repeat: int = 0


class FaceDataset(Dataset, ABC):
    """The base of all data sets.

    Pictures leave it as uint8 tensors (3, H, W), RGB; on the device they are mapped to (x / 255 - mean) / std.
    """

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    seed: int = 0  # the run's manual_seed; set by who builds the loader

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """The picture's name: unique in the data set, and what its random draws are keyed by."""

    @abstractmethod
    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """One sample: uint8 arrays (H, W, 3) RGB under `gt`, `lq`, ...; paths; labels.  All chance comes from `rng`."""

    @property
    def image_range(self) -> tuple[float, float]:
        """The values that pictures have once they are on the device."""
        return (0 - self.mean[0]) / self.std[0], (1 - self.mean[0]) / self.std[0]

    def __getitem__(self, key: int | SampleKey) -> dict[str, Any]:
        index, epoch, repeat = key if isinstance(key, tuple) else (key, 0, 0)
        draws = (self.seed, epoch, zlib.crc32(self.name(index).encode()), repeat)
        sample = self.sample(index, np.random.default_rng(draws))
        return {k: _to_tensor(v) if isinstance(v, np.ndarray) else v for k, v in sample.items()}


def _to_tensor(array: np.ndarray) -> torch.Tensor:
    """(H, W, C) pictures to (C, H, W); other arrays as they are."""
    if array.dtype == np.uint8 and array.ndim == 3:
        array = array.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(array))
