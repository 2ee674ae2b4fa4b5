"""Losses: modules and functions of tensors.  A new one is a file with its class, one import below, and a YAML that names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from facerestore.registry import LOSSES

__all__ = ["build_loss"]


def build_loss(options: Mapping[str, Any]) -> nn.Module:
    """The loss of `{"type": ..., **keywords}`."""
    return LOSSES.build(options)
