"""Whether two states are the same to the bit, without keeping either."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from facerestore.engine.training import TrainingModel


def state_of(model: TrainingModel) -> dict[str, Any]:
    """All that a training carries from one iteration to the next (learning rates are functions of the iteration)."""
    return {
        **{name: network.state_dict() for name, network in model.networks.items()},
        **{f"average of {name}": average.state_dict() for name, average in model.ema.items()},
        **{key: optimizer.state_dict()["state"] for key, optimizer in model.optimizers.items()},
        "loss scales": model.loss_scales.state_dict(),
        "method": model.method.state(),
    }


def fingerprints(value: Any) -> dict[str, str]:
    """A digest of every tensor and number in nested dicts and lists, by its place ('net_g.conv.weight')."""
    return {place: _digest(leaf) for place, leaf in _leaves(value)}


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Places whose values are not the same, or that stand in one only."""
    return [place for place in dict.fromkeys((*one, *other)) if one.get(place) != other.get(place)]


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, (Mapping, list, tuple)):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inside in items:
            yield from _leaves(inside, f"{place}.{key}" if place else str(key))
    else:
        yield place, value


def _digest(value: Any) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return f"{value.dtype} {tuple(value.shape)} {hashlib.blake2b(raw.numpy(), digest_size=16).hexdigest()}"
