"""One iteration of any method: learning rates, phases, optimizers, averages."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from facerestore.data.batch import Batch
from facerestore.engine import distributed
from facerestore.engine.batches import Normalisation, sliced, upload
from facerestore.engine.distributed import World
from facerestore.engine.ema import averaged_copy, update_average
from facerestore.engine.guard import Guard
from facerestore.engine.scaling import Gradients, LossScales
from facerestore.engine.schedules import Schedule, constant, learning_rate
from facerestore.engine.seeds import seed_of
from facerestore.engine.slices import Slices
from facerestore.losses.regularizers import scaled_gradients
from facerestore.metrics.base import Codes
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
    ema_start_iter: int = 0
    clip_grad_norm: float | None = None
    precision: str = "fp32"
    channels_last: bool = False
    loss_limit: float | None = None
    accumulate: int = 1  # slices of a batch
    compiled: bool = False  # whether the networks were, for the shapes of training

    def decay_at(self, it: int) -> float:
        """The averages' decay in iteration `it`: up to the first that counts they are the networks themselves."""
        return self.ema_decay if it > self.ema_start_iter else 0.0


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
    learnt_from: dict[str, Any] = field(default_factory=dict)  # what the file of all networks says of the training's pictures

    def __post_init__(self) -> None:
        self.trainable = {n: [p for p in net.parameters() if p.requires_grad] for n, net in self.networks.items()}
        self._unfrozen = list(self.trainable)  # networks that are not frozen now
        self.terms: dict[str, Tensor] = {}
        self.passed_over = 0  # batches that the training did not go back to when it went back
        self.guard = Guard(self.world.device, self.recipe.loss_limit)
        self.slices = Slices(self.recipe.accumulate, self.world.device)
        self.loss_scales = LossScales(self.world.device, self.recipe.precision == "fp16")
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
        self._seed(seed_of(self.recipe.seed, it, self.world.rank))  # dropout and the like
        self._set_learning_rates(it)
        self.terms = {}
        self.guard.begin(it)
        trained = [net for name, net in self.networks.items() if name not in self.frozen]
        with self.guard.protecting([b for net in trained for b in net.buffers()]), self._remembering():
            self._run_slices(sliced(self._on_device(batch), self.slices.count), it)
            distributed.share_buffers(trained, self.world)
        decay = self.recipe.decay_at(it)
        for name, average in self.ema.items():
            update_average(average, self.networks[name], decay, self.recipe.ema_buffers, self.guard.skipping)
        self.guard.end()
        return self.terms

    def _run_slices(self, slices: Sequence[Batch], it: int) -> None:
        """Walk the slices of the batch through the method."""
        # Each slice finds what the method remembers as it was, and all of them assign the same.
        methods = [self.method, *(copy.copy(self.method) for _ in slices[1:])]
        try:
            self.slices.run(lambda i: methods[i].step(slices[i], it))
        except BaseException:
            self._abandon()
            raise

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        """What the method remembers stays as it was if the iteration is skipped."""
        device = self.world.device  # where a method's first value need not be yet
        before = {k: v.to(device, copy=True) for k, v in self.method.state().items() if isinstance(v, Tensor)}
        yield
        if before:
            now = self.method.state()
            kept = {k: torch.where(self.guard.skipping, v, now[k].to(device)) for k, v in before.items()}
            self.method.load_state(now | kept)

    @contextmanager
    def phase(self, *names: str) -> Iterator[Terms]:
        """See :meth:`facerestore.models.base.Method.phase`."""
        updated = ["net_" + n for n in names]
        scaler = self.loss_scales.of(updated)
        terms = Terms(partial(self._weigh, scaler))
        self._freeze_all_but(updated)
        with self.autocast(), scaled_gradients(self._scale(scaler)):
            yield terms
        terms.backward()
        self._thaw()
        self.slices.meet(names, terms, partial(self._end_phase, updated))

    def _scale(self, scaler: torch.amp.GradScaler) -> Tensor | None:
        return scaler.scale(torch.ones((), device=self.world.device)) if scaler.is_enabled() else None

    def _weigh(self, scaler: torch.amp.GradScaler, total: Tensor) -> Tensor:
        """A slice's part of the whole batch's loss, scaled where the arithmetic needs it."""
        return scaler.scale(total if self.slices.count == 1 else total / self.slices.count)

    def _end_phase(self, updated: list[str], slices: list[Terms]) -> None:
        """Update the networks, once the gradients of all slices are there, and note the terms."""
        terms = mean_of_all(slices)
        if terms:
            self._update(updated, terms)
        self.terms |= terms | mean_of_all([s.log for s in slices])

    def _update(self, updated: list[str], terms: Mapping[str, Tensor]) -> None:
        """Exchange, unscale and clip the gradients that `terms` left in the `updated` networks; step their optimizers."""
        parameters = [p for n in updated for p in self.trainable[n]]
        self.guard.see_terms(terms, [p.grad for p in parameters if p.grad is not None])
        distributed.exchange_gradients(parameters, self.world)
        scaler = self.loss_scales.of(updated)
        scale = self._scale(scaler) if any(p.grad is not None for p in parameters) else None
        if scale is not None:
            scaler.unscale_(Gradients(parameters))
        by_network = {n: [p.grad for p in self.trainable[n] if p.grad is not None] for n in updated}
        self.guard.see_gradients(by_network, scale)
        if self.recipe.clip_grad_norm:
            nn.utils.clip_grad_norm_(parameters, self.recipe.clip_grad_norm)
        for key, networks in self.method.optimizer_networks.items():
            if key in self.optimizers and not set(networks).isdisjoint(updated):
                self.guard.step(self.optimizers[key])
        if scale is not None:
            scaler.update()
        for p in parameters:  # an optimizer that steps several networks must not find this phase's gradients again
            p.grad = None

    def draw(self, name: str, shape: Sequence[int], it: int) -> Tensor:
        """See :meth:`facerestore.models.base.Method.draw`."""
        device, rows = self.world.device, shape[0]
        generator = torch.Generator(device).manual_seed(seed_of(self.recipe.seed, it, name))
        parts = self.world.size * self.slices.count
        part = self.world.rank * self.slices.count + self.slices.current
        whole = torch.randn((rows * parts, *shape[1:]), generator=generator, device=device)
        return whole[rows * part : rows * (part + 1)]

    def draw_shared(self, name: str, shape: Sequence[int], it: int) -> Tensor:
        """See :meth:`facerestore.models.base.Method.draw_shared`."""
        generator = torch.Generator(self.world.device).manual_seed(seed_of(self.recipe.seed, it, name))
        return torch.rand(tuple(shape), generator=generator, device=self.world.device)

    def mean_over_processes(self, value: Tensor) -> Tensor:
        """See :meth:`facerestore.models.base.Method.mean_over_processes`."""
        return self._meet("mean", value.detach(), lambda values: distributed.mean(mean_of(values), self.world))

    def gathered(self, value: Tensor) -> Tensor:
        """See :meth:`facerestore.models.base.Method.gathered`."""
        return self._meet("gather", value.detach(), lambda values: distributed.rows_of_all(torch.cat(values), self.world))

    def _meet(self, where: str, value: Tensor, settle: Callable[[list[Tensor]], Tensor]) -> Tensor:
        """See :meth:`Slices.meet`.  The others walk meanwhile: what this slice's phase has frozen must not be so for them."""
        mine = self._unfrozen
        self._thaw()
        settled = self.slices.meet(where, value, settle)
        self._freeze_all_but(mine)
        return settled

    def restore(self, batch: Mapping[str, Any], ema: bool = True) -> Tensor:
        """The restored pictures of a batch, in the data set's range."""
        with self.evaluating():
            return self.method.restore(self._on_device(batch), ema).float()

    def restorations(self, batch: Mapping[str, Any], ema: bool = True) -> dict[str, Tensor]:
        """The same by name, for methods with several restorers."""
        with self.evaluating():
            return {k: v.float() for k, v in self.method.restorations(self._on_device(batch), ema).items()}

    def codes(self, batch: Mapping[str, Any], ema: bool = True) -> dict[str | None, Codes]:
        """The codes behind the restored pictures and of the truth, on the CPU, of a method that `tells_codes`."""
        with self.evaluating():
            return {k: v.to(torch.device("cpu")) for k, v in self.method.codes(self._on_device(batch), ema).items()}

    def samples(self, ema: bool = True) -> Tensor:
        """Pictures (N, 3, H, W) in [0, 1], on the CPU, of a method that `makes_samples`."""
        with self.evaluating():
            return self.method.samples(ema).float().cpu()

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Networks in evaluation mode, no graph."""
        was_training = any(n.training for n in self.networks.values())
        self.train(False)
        try:
            with torch.no_grad(), self.autocast(), self._uncompiled():
                yield
        finally:
            self.train(was_training)

    def autocast(self):
        if self.recipe.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.world.device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}[self.recipe.precision])

    def _uncompiled(self):
        """Pictures to restore come in many sizes, for each of which a compiled network would be compiled anew."""
        return torch.compiler.set_stance("force_eager") if self.recipe.compiled else nullcontext()

    def _seed(self, seed: int) -> None:
        """As torch.manual_seed, which notes the call's whole stack for every kind of device that is not in use."""
        torch.default_generator.manual_seed(seed)
        if self.world.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def learning_rates(self) -> dict[str, float]:
        """The rate in force, by optimizer."""
        return {k: o.param_groups[0]["lr"] for k, o in self.optimizers.items()}

    def _set_learning_rates(self, it: int) -> None:
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.recipe.schedule, it, group["initial_lr"], self.recipe.warmup_iter)

    def _freeze_all_but(self, updated: list[str]) -> None:
        self._unfrozen = updated
        for name, parameters in self.trainable.items():
            for p in parameters:
                p.requires_grad = name in updated

    def _abandon(self) -> None:
        """After an error: no gradient of a phase that did not come to its end is left to the next."""
        self._thaw()
        for p in (p for parameters in self.trainable.values() for p in parameters):
            p.grad = None

    def _thaw(self) -> None:
        """Make trainable again what was so when the model was built."""
        self._freeze_all_but(list(self.trainable))

    def _on_device(self, batch: Mapping[str, Any]) -> Batch:
        """The batch on the device, pictures that travelled as bytes in the range that the networks are trained in."""
        moved = upload(batch, self.world.device, *self.normalisation)
        if self.recipe.channels_last:
            for key, value in moved.items():
                if isinstance(value, Tensor) and value.dim() == 4:
                    moved[key] = value.contiguous(memory_format=torch.channels_last)
        return moved


def mean_of(values: list[Tensor]) -> Tensor:
    """The mean of the slices' values."""
    return values[0] if len(values) == 1 else torch.stack(values).mean(0)


def mean_of_all(slices: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The means of the slices' values by name, detached."""
    return {k: mean_of([values[k].detach() for values in slices]) for k in slices[0]}
