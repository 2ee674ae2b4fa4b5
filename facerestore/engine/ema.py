"""The exponential moving average of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def averaged_copy(network: nn.Module) -> nn.Module:
    """A copy that is only looked through."""
    return copy.deepcopy(network).requires_grad_(False).eval()


@torch.no_grad()
def update_average(
    average: nn.Module, network: nn.Module, decay: float, buffers: bool = True, skipping: Tensor | None = None
) -> None:
    """average <- decay * average + (1 - decay) * network, in all parameters and floating-point buffers.

    Without its buffers (`buffers=False`, as published) the average of a network with batch normalisation is another network:
    its statistics never leave their start.  Counters and other whole numbers are copied.  Where the flag `skipping` is set, the
    average stays as it is; the host need not know.  Without a decay it is the network, to the bit: skipped or not.
    """
    mine, theirs = list(average.parameters()), list(network.parameters())
    if buffers:
        for own, live in zip(average.buffers(), network.buffers(), strict=True):
            if own.is_floating_point():
                mine.append(own)
                theirs.append(live)
            else:
                own.copy_(live)
    if skipping is None or decay == 0:
        torch._foreach_lerp_(mine, theirs, 1 - decay)
    else:
        share = torch.where(skipping, 0.0, 1 - decay)
        torch._foreach_lerp_(mine, theirs, [share.to(own.dtype) for own in mine])
