"""Loss scaling for float16, whose gradients would vanish without: Micikevicius et al., Mixed Precision Training, ICLR 2018.

The scale belongs to what is back-propagated, so each phase has its own: the losses of a generator and of its discriminator are
of different sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

START = 2.0**15  # torch's own, 2^16, is more than a float16 can be, as a loss may be one


class LossScales:
    """The scale of each phase, by the networks that it updates.

    Args:
        device: where the losses are
        enabled: whether there is anything to scale
    """

    def __init__(self, device: torch.device, enabled: bool):
        self.device, self.enabled = device, enabled
        self._scalers: dict[str, torch.amp.GradScaler] = {}

    def of(self, networks: Sequence[str]) -> torch.amp.GradScaler:
        """The scaler of the phase that updates `networks`; it does nothing where nothing is to be scaled."""
        key = " ".join(sorted(networks))
        if key not in self._scalers:
            self._scalers[key] = torch.amp.GradScaler(self.device.type, init_scale=START, enabled=self.enabled)
        return self._scalers[key]

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """What must be remembered to go on with the same scales; waits for the device."""
        return {key: scaler.state_dict() for key, scaler in self._scalers.items()} if self.enabled else {}

    def load_state_dict(self, state: Mapping[str, dict[str, Any]]) -> None:
        """Take back what :meth:`state_dict` gave."""
        if self.enabled:
            self._scalers.clear()
            for key, values in state.items():
                self.of(key.split()).load_state_dict(values)


class Gradients:
    """The gradients of one phase as torch's GradScaler takes them: it looks for them in an optimizer's groups.

    Args:
        parameters: those that the phase updates
    """

    def __init__(self, parameters: Sequence[nn.Parameter]):
        self.param_groups = [{"params": parameters}]
