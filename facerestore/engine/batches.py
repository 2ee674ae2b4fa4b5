"""Batches on the device.  Pictures travel as bytes and become numbers there."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from facerestore.data.batch import Batch
from facerestore.errors import UserError

Normalisation = tuple[Sequence[float], Sequence[float]]  # mean and std by channel, of values in [0, 1]


def upload(batch: Mapping[str, Any], device: torch.device, mean: Sequence[float], std: Sequence[float]) -> Batch:
    """Move a batch to the device; uint8 pictures become (x / 255 - mean) / std, all else stays as it is."""
    moved = Batch()
    for key, value in batch.items():
        if isinstance(value, Tensor):
            value = value.to(device, non_blocking=True)
            if value.dtype == torch.uint8 and value.dim() == 4 and value.shape[1] == 3:  # a mask is no picture
                value = _normalised(value, mean, std)
        moved[key] = value
    return moved


def sliced(batch: Batch, count: int) -> list[Batch]:
    """A batch cut into `count` batches, by its samples.

    Raises:
        UserError: it cannot be cut into equal parts
    """
    if count == 1:
        return [batch]
    whole = next(len(v) for v in batch.values() if isinstance(v, Tensor) and v.dim())
    if whole % count:
        raise UserError(f"`train.accumulate`: a batch of {whole} cannot be cut into {count} equal slices")
    rows = whole // count
    parts = [slice(i * rows, (i + 1) * rows) for i in range(count)]
    return [Batch({k: v[part] if _has_rows(v, whole) else v for k, v in batch.items()}) for part in parts]


def _has_rows(value: Any, count: int) -> bool:
    """Whether a batch's entry has something for each of `count` samples."""
    return (isinstance(value, list) or (isinstance(value, Tensor) and value.dim() > 0)) and len(value) == count


def _normalised(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    if tuple(mean) == (0, 0, 0) and tuple(std) == (1, 1, 1):
        return images.float() / 255
    m, s = _channels(mean, images), _channels(std, images)
    return (images.float() / 255 - m) / s


def to_unit_range(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Restored pictures back to [0, 1], clamped and rounded to the 8-bit levels that are written and measured."""
    unit = images * _channels(std, images) + _channels(mean, images)
    return unit.clamp(0, 1).mul(255).round().div(255)


def _channels(values: Sequence[float], like: Tensor) -> Tensor:
    return _on_device(tuple(values), like.device)


@functools.lru_cache(maxsize=32)
def _on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(1, C, 1, 1), sent to the device once: a copy in every step would wait for it."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)
