"""How much memory a training or a test takes, told without running it.

The model is built and stepped on tensors that have a shape and a type but no content, so that a network of any size costs
nothing; every piece of memory that would have been allocated is counted while it lives.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from facerestore.config import Options
from facerestore.config.checks import FUSED, optimizer_class
from facerestore.data.batch import Batch
from facerestore.engine.builder import build_model
from facerestore.engine.distributed import World
from facerestore.engine.guard import Guard
from facerestore.engine.training import TrainingModel
from facerestore.models.base import Terms
from facerestore.registry import ARCHS, MODELS, Registry, parameters_of, weight_files

Shapes = Mapping[str, tuple[int, int]]  # height and width by key of the batch
Labels = Mapping[str, tuple[int, ...]]  # shapes of what a sample holds beside its pictures; () of a class, a whole number


class LiveBytes(TorchDispatchMode):
    """Counts the memory of all tensors that operations make while it is active: what lives `now`, and its `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._count, result)
        return result

    def _count(self, tensor: Tensor) -> None:
        """Count a tensor's storage, which views share, until it is freed."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def freed(_: weakref.ref) -> None:
            del self._known[key]
            self.now -= size

        self._known[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)


@dataclass(frozen=True)
class Phases:
    """Bytes that iterations need beyond the model: pictures, activations, gradients."""

    peaks: dict[str, int]  # the highest during each phase
    gradients: dict[str, int]  # the gradients' part
    peak: int  # the highest at any time


def unallocated_model(options: Options) -> TrainingModel:
    """The model of `options` without memory; no file is read."""
    with torch.device("meta"):
        return build_model(_without_files(options), World(device=torch.device("meta")))


def measure_iterations(
    model: TrainingModel, batch_size: int, shapes: Shapes, iterations: Iterable[int], labels: Labels | None = None
) -> Phases:
    """Run `iterations` of an unallocated model without content.

    Raises:
        UserError, RuntimeError, ValueError: as with content, where shapes do not fit
    """
    with _without_content(model) as live:
        return count_phases(model, live, _batch(batch_size, shapes, labels), iterations)


def count_phases(model: TrainingModel, live: LiveBytes, batch: Batch, iterations: Iterable[int]) -> Phases:
    """Run `iterations` of a model that was made under `live`; the optimizers' steps are left out."""
    model.optimizers = {}
    resident = highest = live.now
    peaks: dict[str, int] = {}
    gradients: dict[str, int] = {}
    phase = model.phase

    @contextmanager
    def counted_phase(*names: str) -> Iterator[Terms]:
        nonlocal highest
        highest, live.peak = max(highest, live.peak), live.now
        with phase(*names) as terms:
            yield terms
        key = ", ".join(names)
        peaks[key] = max(peaks.get(key, 0), live.peak - resident)
        gradients[key] = sum(nbytes(p) for n in names for p in model.trainable["net_" + n])

    model.phase = counted_phase
    for it in iterations:
        model.step(batch, it)
    return Phases(peaks, gradients, max(highest, live.peak) - resident)


def measure_restoring(model: TrainingModel, batch_size: int, shapes: Shapes, labels: Labels | None = None) -> int:
    """Bytes that restoring a batch needs beyond the networks themselves."""
    with _without_content(model) as live:
        resident = live.now
        model.restorations(_batch(batch_size, shapes, labels))
        return live.peak - resident


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """What an optimizer will remember of all its weights, found by one step of its kind on a single number."""
    group = optimizer.param_groups[0]
    takes = inspect.signature(type(optimizer)).parameters
    trial = nn.Parameter(torch.zeros(2, 2, device="cpu"))
    trial.grad = torch.zeros_like(trial)
    twin = type(optimizer)([trial], **{k: v for k, v in group.items() if k in takes and k != "params"})
    twin.step()
    copies = sum(isinstance(v, Tensor) and v.shape == trial.shape for v in twin.state[trial].values())
    return copies * sum(nbytes(p) for g in optimizer.param_groups for p in g["params"])


def module_bytes(modules: Iterable[nn.Module]) -> int:
    """Weights and buffers."""
    return sum(nbytes(t) for m in modules for t in (*m.parameters(), *m.buffers()))


def nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@contextmanager
def _without_content(model: TrainingModel) -> Iterator[LiveBytes]:
    """Give an unallocated model tensors that seem to lie on the CPU, and count what is made of them."""
    with FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live:
        for module in (*model.networks.values(), *model.ema.values(), *model.losses.values()):
            module.to_empty(device="cpu")
        model.world = World()
        model.guard = Guard(model.world.device)
        model.trainable = {n: [p for p in net.parameters() if p.requires_grad] for n, net in model.networks.items()}
        yield live


def _batch(size: int, shapes: Shapes, labels: Labels | None = None) -> Batch:
    pictures = {key: torch.zeros(size, 3, height, width) for key, (height, width) in shapes.items()}
    kinds = {key: (shape, torch.float32 if shape else torch.long) for key, shape in (labels or {}).items()}
    return Batch(pictures | {key: torch.zeros(size, *shape, dtype=dtype) for key, (shape, dtype) in kinds.items()})


def _without_files(options: Options) -> Options:
    """The options with 'random' for every file of weights, batches in one slice, networks that are not compiled; without
    `fused` optimizers, which want memory at once."""

    def unfused(component: Mapping[str, Any]) -> dict[str, Any]:
        bare = {k: v for k, v in component.items() if k != "fused"}
        return bare | ({"fused": False} if optimizer_class(component["type"]) in FUSED else {})

    train = options.train and replace(
        options.train,
        accumulate=1,
        compile=False,
        method=_losses_without_files(options.train.method, options),
        optimizers={k: replace(o, component=unfused(o.component)) for k, o in options.train.optimizers.items()},
    )
    networks = {
        key: replace(n, weights=n.weights if n.weights in options.networks else None, component=_random(ARCHS, n.component))
        for key, n in options.networks.items()
    }
    val = replace(options.val, method=_losses_without_files(options.val.method, options))
    return replace(options, train=train, val=val, networks=networks, path=replace(options.path, pretrain={}))


def _losses_without_files(method: Mapping[str, Any], options: Options) -> dict[str, Any]:
    parts = {p.name: p.part for p in parameters_of(MODELS.get(options.model_type)) if p.part}
    return {k: _random(parts[k].registry, v) if k in parts and v is not None else v for k, v in method.items()}


def _random(registry: Registry, component: Mapping[str, Any]) -> dict[str, Any]:
    """A component, and those that are its parts, with 'random' for its files."""
    entry = registry.get(component["type"])
    nested = {p.name: p.part.registry for p in parameters_of(entry) if p.part and component.get(p.name) is not None}
    parts = {name: _random(inner, component[name]) for name, inner in nested.items()}
    return {**component, **parts, **dict.fromkeys(weight_files(entry), "random")}
