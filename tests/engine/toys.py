"""Methods that are written down in a test: a plan of phases over linear maps."""

from __future__ import annotations

import torch
from torch import nn

from facerestore.engine.training import Recipe, TrainingModel
from facerestore.models.base import Method


class Planned(Method):
    """A method whose step is the function that it is made of; every network has an optimizer of its own."""

    optimizer_networks = {"optim_a": ("net_a",), "optim_b": ("net_b",)}
    averaged = ("net_a",)

    def __init__(self, plan):
        self.plan, self.remembered = plan, torch.zeros(())

    def step(self, batch, it):
        self.plan(self, self.engine.networks["net_a"], self.engine.networks["net_b"], batch, it)

    def restore(self, batch, ema=True):
        return self.inference_network("net_a", ema)(batch.x)

    def state(self):
        return {"remembered": self.remembered}

    def load_state(self, state):
        self.remembered = state["remembered"]


def planned(plan, optimizer=torch.optim.SGD, lr: float = 0.1, fused: bool | None = None, **recipe) -> TrainingModel:
    torch.manual_seed(0)
    networks = {n: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)) for n in ("net_a", "net_b")}
    optimizers = {k: optimizer(networks["net_" + k[-1]].parameters(), lr=lr, fused=fused) for k in Planned.optimizer_networks}
    for o in optimizers.values():
        o.param_groups[0]["initial_lr"] = lr
    return TrainingModel(Planned(plan), networks, optimizers, Recipe(**recipe))


def weights(model: TrainingModel, name: str | None = None) -> torch.Tensor:
    """All weights of a model, or of one of its networks, in a row."""
    networks = [model.networks[name]] if name else model.networks.values()
    return torch.cat([p.detach().flatten() for network in networks for p in network.parameters()])
