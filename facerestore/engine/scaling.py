"""Loss scaling for float16, whose gradients would vanish without: Micikevicius et al., Mixed Precision Training, ICLR 2018.

The scale belongs to what is back-propagated, so each phase has its own: the losses of a generator and of its discriminator are
of different sizes.  Where a phase steps several optimizers, they step together or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

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


class Together:
    """The optimizers of one phase as one, to torch's GradScaler: an infinite gradient of any of them skips all their steps.

    Optimizers that are fused take the decision on the device; for any other the host has to wait for it.

    Args:
        optimizers: those that step
        parameters: those of them that have a gradient now
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], parameters: Sequence[nn.Parameter]):
        self.optimizers = optimizers
        self.parameters = parameters
        self.param_groups = [{"params": parameters}]
        self._step_supports_amp_scaling = all(getattr(o, "_step_supports_amp_scaling", False) for o in optimizers)
        self.grad_scale: Tensor | None = None  # both set by the scaler where the optimizers decide for themselves
        self.found_inf: Tensor | None = None

    def step(self) -> None:
        for optimizer in self.optimizers:
            if self.found_inf is None:
                optimizer.step()
                continue
            optimizer.grad_scale, optimizer.found_inf = None, self.found_inf
            try:
                optimizer.step()
            finally:
                del optimizer.grad_scale, optimizer.found_inf
