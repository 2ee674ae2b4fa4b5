"""What takes part in a training: modules that are called, parameters that get a gradient and move."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from facerestore.engine.training import TrainingModel
from facerestore.errors import listed


@dataclass
class Findings:
    """What is wrong with a training, and what its reader should know; one sentence each."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)  # what is right, by what it is about

    def add(self, other: Findings) -> None:
        self.problems += other.problems
        self.notes += other.notes
        for what, fact in other.facts.items():
            self.facts[what] = f"{self.facts[what]}; {fact}" if what in self.facts else fact


class Witness:
    """Sees the iterations of `model` that run within :meth:`watching`."""

    def __init__(self, model: TrainingModel):
        self.model = model
        self.called: set[nn.Module] = set()
        self.stepped: set[nn.Parameter] = set()  # by an optimizer, with a gradient
        self.start = {p: p.detach().cpu().clone() for ps in model.trainable.values() for p in ps}

    @contextmanager
    def watching(self) -> Iterator[None]:
        hooks = [register_module_forward_pre_hook(lambda module, _: self.called.add(module))]
        hooks += [optimizer.register_step_pre_hook(self._before_step) for optimizer in self.model.optimizers.values()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        self.stepped.update(p for group in optimizer.param_groups for p in group["params"] if p.grad is not None)

    def findings(self) -> Findings:
        """What of the networks and losses has done its part, and what has not."""
        found = Findings()
        parts = {**{f"network_{n.removeprefix('net_')}": m for n, m in self.model.networks.items()}, **self.model.losses}
        for key, module in parts.items():
            if self.called.isdisjoint(module.modules()):
                found.problems.append(f"`{key}` is used in no phase of the training")
        for name, network in self.model.networks.items():
            if self.model.trainable[name]:
                found.add(self._learning(name, network))
            else:
                found.facts[name] = "frozen"
        used = [key for key, loss in self.model.losses.items() if not self.called.isdisjoint(loss.modules())]
        found.facts["losses"] = f"{listed(used)}: in use" if used else "none"
        return found

    def _learning(self, name: str, network: nn.Module) -> Findings:
        found, trainable = Findings(), {n: p for n, p in network.named_parameters() if p in self.start}
        without = [n for n, p in trainable.items() if p not in self.stepped]
        still = [n for n, p in trainable.items() if p in self.stepped and torch.equal(p.detach().cpu(), self.start[p])]
        wrong = [n for n, p in trainable.items() if not p.isfinite().all()]
        count = len(trainable)
        if len(without) == count:
            found.problems.append(f"{name} is to be trained and got no gradient in any phase")
        elif without:
            found.notes.append(f"{name}: {len(without)} of {count} parameters never got a gradient ({listed(without, 3)})")
        if still and len(still) == count:
            found.problems.append(f"{name} did not move in any phase, though its optimizer stepped: is its `lr` 0?")
        elif still:
            found.notes.append(
                f"{name}: {len(still)} of {count} parameters did not move though their optimizer stepped ({listed(still, 3)})"
            )
        if wrong:
            found.problems.append(f"{name}: {listed(wrong, 3)} is not finite any more after the last phase")
        fixed = sum(1 for p in network.parameters() if p not in self.start)
        share = f"{count - len(without)} of {count}" if without else f"all {count}"
        found.facts[name] = f"{share} parameters got a gradient" + (f", {fixed} are fixed" if fixed else "")
        return found
