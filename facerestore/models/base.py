"""What a training method is: the networks it trains, and one iteration written as phases.

A method says what is minimised.  Freezing, zeroing, backward, gradient exchange, clipping, stepping and logging are done by
the engine around each phase.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from facerestore.data.base import FaceDataset
from facerestore.data.batch import Batch
from facerestore.metrics.base import Codes
from facerestore.registry import ARCHS, Part

GeneratorNetwork = Annotated[nn.Module, Part(ARCHS, offers=("image",))]
DiscriminatorNetwork = Annotated[nn.Module, Part(ARCHS, offers=("logits",))]


class Terms(dict[str, Tensor]):
    """The loss terms of a phase, which are summed and back-propagated; `log` holds values that are only reported.

    A name that stands in both is minimised by the one and reported as the other (a term without its weight, say).

    Args:
        weigh: what the engine makes of a sum before it is back-propagated (its share of a batch, its scale)
    """

    def __init__(self, weigh: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self._weigh = weigh
        self.log: dict[str, Tensor] = {}
        self._done: set[str] = set()

    def __setitem__(self, name: str, term: Tensor) -> None:
        if name in self:
            raise KeyError(f"a phase has two terms called {name!r}")
        super().__setitem__(name, term)

    def __ior__(self, terms: Mapping[str, Tensor]) -> Terms:
        for name, term in terms.items():
            self[name] = term
        return self

    def backward(self) -> None:
        """Back-propagate the terms that are there, and free their graphs.  The phase does it at its end; a method may do it
        before where the next term needs a graph of its own."""
        pending = {name: term for name, term in self.items() if name not in self._done}
        if pending:
            total = torch.stack([term.float() for term in pending.values()]).sum()
            (self._weigh(total) if self._weigh else total).backward()
            self._done |= pending.keys()
            self.update({name: term.detach() for name, term in pending.items()})


class Turn(NamedTuple):
    """Iterations in which a method does something else than before: from `first` on, those that `every` divides."""

    first: int
    every: int = 1

    @classmethod
    def after(cls, iteration: int, every: int = 1) -> Turn:
        """The turn that begins with the next iteration after `iteration` that `every` divides."""
        return cls((iteration // every + 1) * every, every)

    def includes(self, it: int) -> bool:
        """Whether iteration `it` is one of them."""
        return it >= self.first and it % self.every == 0


class Engine(Protocol):
    """What the engine does for a method."""

    networks: dict[str, nn.Module]
    ema: dict[str, nn.Module]

    def phase(self, *networks: str) -> AbstractContextManager[Terms]: ...

    def draw(self, name: str, shape: Sequence[int], it: int) -> Tensor: ...

    def draw_shared(self, name: str, shape: Sequence[int], it: int) -> Tensor: ...

    def mean_over_processes(self, value: Tensor) -> Tensor: ...

    def gathered(self, value: Tensor) -> Tensor: ...


class Method(ABC):
    """The base of all methods.

    A constructor's parameters `network_X` are the networks, ready to use; its other keywords are the method's part of the
    `train` section.
    """

    optimizer_networks: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # optim_X -> the networks that it steps
    term_networks: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # keywords that do nothing without one of these networks
    averaged: ClassVar[tuple[str, ...]] = ("net_g",)  # networks of which a moving average is kept
    ema_decay: ClassVar[float] = 0.0  # where the options name none
    minimises_one_of: ClassVar[tuple[str, ...]] = ()  # losses of which training needs at least one
    reads: ClassVar[tuple[str, ...]] = ("lq", "gt")  # what training batches must hold
    needed_to_train: ClassVar[tuple[str, ...]] = ()  # networks and keywords that testing does without
    bundled: ClassVar[Mapping[str, str]] = {}  # networks also kept in one file, by their names there; see `save_bundle`
    spared_by: ClassVar[Mapping[str, str]] = {}  # networks that are not needed where the training data has this keyword
    differentiated_twice: ClassVar[tuple[str, ...]] = ()  # networks (`net_d`) whose gradients are penalised: never compiled
    makes_samples: ClassVar[bool] = False  # whether it has pictures to show that are made of nothing that a data set gives

    tells_codes: ClassVar[bool] = False  # whether it sees pictures as codes of a codebook

    engine: Engine  # set by the engine when the method is built

    @classmethod  # noqa: B027  (most methods have nothing to say)
    def check(cls, networks: Mapping[str, nn.Module], keywords: Mapping[str, Any], held: Collection[str] | None) -> None:
        """Refuse options for training, each right by itself, that do not go together; all do by default.

        Args:
            networks: without memory or weights, by `network_g`, ...
            keywords: the method's own, those that are given
            held: what a training batch holds; None where there is no data set

        Raises:
            OptionError: two of them exclude each other, or one needs what is not there
        """

    def check_data(self, data: FaceDataset) -> None:  # noqa: B027  (most methods take any)
        """DataError for a data set that does not fit the networks, as far as its options and the list of its pictures tell."""

    def check_weights(self, sets: Collection[FaceDataset], random: Collection[str]) -> None:  # noqa: B027  (most fit any)
        """Refuse weights, once all are loaded, that do not fit each other or the data sets.

        Args:
            sets: the data sets
            random: networks (`net_g`) whose weights are random on demand, to try out: they fit nothing

        Raises:
            CheckpointError, DataError: two networks, or a network and a data set, do not belong together
        """

    @abstractmethod
    def step(self, batch: Batch, it: int) -> None:
        """One iteration, `it` from 1, as a sequence of phases."""

    @abstractmethod
    def restore(self, batch: Batch, ema: bool = True) -> Tensor:
        """The restored pictures (N, 3, H, W) of a batch, in the data set's range."""

    def restorations(self, batch: Batch, ema: bool = True) -> dict[str, Tensor]:
        """The same by name, for methods that train several restorers side by side."""
        return {"restored": self.restore(batch, ema)}

    def restorers(self) -> tuple[str, ...]:
        """The names that :meth:`restorations` gives."""
        return ("restored",)

    def codes(self, batch: Batch, ema: bool = True) -> dict[str | None, Codes]:
        """The codes of the pictures by the names of :meth:`restorations`, as far as they come of codes, and those of the truth
        (`TRUTH`) where they are known, of a method that `tells_codes`."""
        raise NotImplementedError(f"{type(self).__name__} tells no codes")

    def samples(self, ema: bool = True) -> Tensor:
        """Pictures (N, 3, H, W) in [0, 1] that are made of nothing but fixed codes, of a method that `makes_samples`."""
        raise NotImplementedError(f"{type(self).__name__} makes no samples")

    def default_betas(self, optimizer: str) -> tuple[float, float]:
        """Adam's betas where the options name none."""
        return 0.9, 0.999

    def parameter_groups(self, optimizer: str, networks: Mapping[str, nn.Module]) -> list[tuple[list[nn.Parameter], float]]:
        """What an optimizer steps: groups of parameters, each with a factor on the learning rate of the options."""
        return [([p for network in networks.values() for p in network.parameters() if p.requires_grad], 1.0)]

    def turning_points(self) -> Mapping[str, Turn]:
        """Where iterations change, by what happens then ("generator starts"): `--preflight` runs some of each kind.

        Every keyword that counts iterations has its part in one of them.
        """
        return {}

    def state(self) -> dict[str, Any]:
        """What the method must remember from one iteration to the next, beside its networks.

        It is kept in attributes that a step assigns (`self.mean = ...`) and does not change in place: the slices of an
        accumulated batch walk side by side, and each must find it as it was.
        """
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        if state:
            raise ValueError(f"{type(self).__name__} remembers nothing, but the checkpoint holds {sorted(state)}")

    def phase(self, *networks: str) -> AbstractContextManager[Terms]:
        """A part of the iteration that updates `networks` ("g", "d", ...) and no others.

        Within it all other networks are frozen.  At its end the sum of its terms is back-propagated, gradients are exchanged
        between processes and clipped, and the networks' optimizers step.
        """
        return self.engine.phase(*networks)

    def draw(self, name: str, shape: Sequence[int], it: int) -> Tensor:
        """Unit normal numbers, a function of (seed, it, name); rows of the whole batch, of which each process gets its own."""
        return self.engine.draw(name, shape, it)

    def draw_shared(self, name: str, shape: Sequence[int], it: int) -> Tensor:
        """Numbers from [0, 1), the same on all processes: for decisions that all must take alike."""
        return self.engine.draw_shared(name, shape, it)

    def mean_over_processes(self, value: Tensor) -> Tensor:
        """`value` averaged over all processes, and over the slices of an accumulated batch: for running means that all must
        agree on.  Has no gradient."""
        return self.engine.mean_over_processes(value)

    def gathered(self, value: Tensor) -> Tensor:
        """The rows of all processes and slices in the batch's order: `value` has as many on each.  Has no gradient."""
        return self.engine.gathered(value)

    def inference_network(self, name: str, ema: bool) -> nn.Module:
        """The network `net_X`, or its moving average where there is one and it is asked for."""
        return self.engine.ema.get(name, self.engine.networks[name]) if ema else self.engine.networks[name]
