"""One iteration of any method: learning rates, phases, optimizers, averages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from facerestore.data.batch import Batch
from facerestore.engine import distributed
from facerestore.engine.batches import Normalisation, upload
from facerestore.engine.distributed import World
from facerestore.engine.ema import averaged_copy, update_average
from facerestore.engine.guard import Guard
from facerestore.engine.schedules import Schedule, constant, learning_rate
from facerestore.engine.seeds import seed_of
from facerestore.models.base import Method, Terms

PLAIN: Normalisation = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # to [0, 1]


@dataclass(frozen=True)
class Recipe:
    """How the engine runs an iteration, whatever the method."""

    seed: int = 0
    schedule: Schedule = constant
    warmup_iter: int = -1
    ema_decay: float = 0.0
    ema_buffers: bool = True
    clip_grad_norm: float | None = None
    precision: str = "fp32"
    channels_last: bool = False
    loss_limit: float | None = None


@dataclass
class TrainingModel:
    """A method with its networks, optimizers and averages: everything that an iteration needs and changes.

    `networks` and `ema` are by `net_g`, `net_d`, ...; `optimizers` by `optim_g`, ....
    """

    method: Method
    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    recipe: Recipe = Recipe()
    world: World = field(default_factory=World)
    normalisation: Normalisation = PLAIN  # mean and std of the training's pictures
    frozen: frozenset[str] = frozenset()  # networks that are looked through and never trained
    losses: dict[str, nn.Module] = field(default_factory=dict)  # the method's, by their keywords (`pixel_opt`)
    meta: dict[str, dict[str, Any]] = field(default_factory=dict)  # what each network's checkpoint says of it

    def __post_init__(self) -> None:
        self.trainable = {n: [p for p in net.parameters() if p.requires_grad] for n, net in self.networks.items()}
        self.terms: dict[str, Tensor] = {}
        self.passed_over = 0  # batches that the training did not go back to when it went back
        self.guard = Guard(self.world.device, self.recipe.loss_limit)
        names = [n for n in self.method.averaged if n in self.networks] if self.recipe.ema_decay > 0 else []
        self.ema = {n: averaged_copy(self.networks[n]) for n in names}
        self.method.engine = self
        self.train()

    def train(self, mode: bool = True) -> None:
        """Put the networks into training or evaluation mode; frozen ones are always evaluated."""
        for name, network in self.networks.items():
            network.train(mode and name not in self.frozen)

    def step(self, batch: Mapping[str, Any], it: int) -> dict[str, Tensor]:
        """The whole iteration `it` (from 1).  Returns its terms, detached and still on the device."""
        torch.manual_seed(seed_of(self.recipe.seed, it, self.world.rank))  # dropout and the like
        self._set_learning_rates(it)
        self.terms = {}
        self.guard.begin(it)
        trained = [net for name, net in self.networks.items() if name not in self.frozen]
        with self.guard.protecting([b for net in trained for b in net.buffers()]), self._remembering():
            self.method.step(self._on_device(batch), it)
            distributed.share_buffers(trained, self.world)
        for name, average in self.ema.items():
            decay = self.recipe.ema_decay
            update_average(average, self.networks[name], decay, self.recipe.ema_buffers, self.guard.skipping)
        self.guard.end()
        return self.terms

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        """What the method remembers stays as it was if the iteration is skipped."""
        before = {k: v.clone() for k, v in self.method.state().items() if isinstance(v, Tensor)}
        yield
        if before:
            now = self.method.state()
            kept = {k: torch.where(self.guard.skipping, v, now[k]) for k, v in before.items()}
            self.method.load_state(now | kept)

    @contextmanager
    def phase(self, *names: str) -> Iterator[Terms]:
        """See :meth:`facerestore.models.base.Method.phase`."""
        updated = ["net_" + n for n in names]
        parameters = [p for n in updated for p in self.trainable[n]]
        terms = Terms()
        with self._only_trainable(updated):
            with self.autocast():
                yield terms
            terms.backward()
        if terms:
            self.guard.see_terms(terms, [p.grad for p in parameters if p.grad is not None])
            self._update(updated, parameters)
        self.terms |= {k: v.detach() for k, v in (terms | terms.log).items()}

    def _update(self, updated: list[str], parameters: list[nn.Parameter]) -> None:
        """Exchange and clip the gradients of `parameters` and step their optimizers."""
        distributed.exchange_gradients(parameters, self.world)
        self.guard.see_gradients({n: [p.grad for p in self.trainable[n] if p.grad is not None] for n in updated})
        if self.recipe.clip_grad_norm:
            nn.utils.clip_grad_norm_(parameters, self.recipe.clip_grad_norm)
        for key, networks in self.method.optimizer_networks.items():
            if key in self.optimizers and not set(networks).isdisjoint(updated):
                self.guard.step(self.optimizers[key])
        for p in parameters:  # an optimizer that steps several networks must not find this phase's gradients again
            p.grad = None

    def draw(self, name: str, shape: Sequence[int], it: int) -> Tensor:
        """See :meth:`facerestore.models.base.Method.draw`."""
        device, rows = self.world.device, shape[0]
        generator = torch.Generator(device).manual_seed(seed_of(self.recipe.seed, it, name))
        whole = torch.randn((rows * self.world.size, *shape[1:]), generator=generator, device=device)
        return whole[rows * self.world.rank : rows * (self.world.rank + 1)]

    def draw_shared(self, name: str, shape: Sequence[int], it: int) -> Tensor:
        """See :meth:`facerestore.models.base.Method.draw_shared`."""
        generator = torch.Generator(self.world.device).manual_seed(seed_of(self.recipe.seed, it, name))
        return torch.rand(tuple(shape), generator=generator, device=self.world.device)

    def mean_over_processes(self, value: Tensor) -> Tensor:
        """See :meth:`facerestore.models.base.Method.mean_over_processes`."""
        return distributed.mean(value, self.world)

    def restore(self, batch: Mapping[str, Any], ema: bool = True) -> Tensor:
        """The restored pictures of a batch, in the data set's range."""
        with self.evaluating():
            return self.method.restore(self._on_device(batch), ema).float()

    def restorations(self, batch: Mapping[str, Any], ema: bool = True) -> dict[str, Tensor]:
        """The same by name, for methods with several restorers."""
        with self.evaluating():
            return {k: v.float() for k, v in self.method.restorations(self._on_device(batch), ema).items()}

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Networks in evaluation mode, no graph."""
        was_training = any(n.training for n in self.networks.values())
        self.train(False)
        try:
            with torch.no_grad(), self.autocast():
                yield
        finally:
            self.train(was_training)

    def autocast(self):
        if self.recipe.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.world.device.type, torch.bfloat16)

    def learning_rates(self) -> dict[str, float]:
        """The rate in force, by optimizer."""
        return {k: o.param_groups[0]["lr"] for k, o in self.optimizers.items()}

    def _set_learning_rates(self, it: int) -> None:
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.recipe.schedule, it, group["initial_lr"], self.recipe.warmup_iter)

    @contextmanager
    def _only_trainable(self, updated: list[str]) -> Iterator[None]:
        """Freeze every network that is not `updated`; thaw afterwards what was trainable when the model was built."""
        others = [p for n, ps in self.trainable.items() if n not in updated for p in ps]
        for p in others:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in others:
                p.requires_grad_(True)

    def _on_device(self, batch: Mapping[str, Any]) -> Batch:
        """The batch on the device, pictures that travelled as bytes in the range that the networks are trained in."""
        moved = upload(batch, self.world.device, *self.normalisation)
        if self.recipe.channels_last:
            for key, value in moved.items():
                if isinstance(value, Tensor) and value.dim() == 4:
                    moved[key] = value.contiguous(memory_format=torch.channels_last)
        return moved
