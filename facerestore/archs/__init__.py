"""Networks.  A new one is a file with its class, one import below, and a YAML that names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from facerestore.archs import (  # noqa: F401  (each registers its class)
    arcface,
    codeformer,
    facial_component_discriminator,
    fan,
    gfpgan,
    msrresnet,
    restoreformer,
    rrdbnet,
    srgan_discriminator,
    srresnet,
    srvgg,
    stargan2,
    stylegan2,
    stylegan2_discriminator,
    stylegan2_sft,
    unet_discriminator,
    vgg_style_discriminator,
    vqgan,
    vqgan_discriminator,
)
from facerestore.registry import ARCHS

__all__ = ["build_network"]


def build_network(options: Mapping[str, Any]) -> nn.Module:
    """The network of `{"type": ..., **keywords}`, files that its own keywords name (`decoder_load_path`) loaded."""
    return ARCHS.build(options)
