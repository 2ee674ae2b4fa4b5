"""The training in miniature: phases, validation, checkpoint and resume, and what is seen and measured of them."""

from __future__ import annotations

import gc
import logging
import math
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import torch

from facerestore.config import Options
from facerestore.config.schema import net_of
from facerestore.data.base import FaceDataset
from facerestore.data.batch import Batch
from facerestore.data.loader import worker_failures
from facerestore.engine import distributed
from facerestore.engine.builder import build_model, check_weights
from facerestore.engine.distributed import World
from facerestore.engine.logs import bytes_text, logger, number
from facerestore.engine.preflight.fingerprints import differing, fingerprints, state_of
from facerestore.engine.preflight.forecast import duration
from facerestore.engine.preflight.phases import Kind, Phase, kind_of, phases_of
from facerestore.engine.preflight.weights import weight_findings
from facerestore.engine.preflight.witness import Findings, Witness
from facerestore.engine.resume import resume_training
from facerestore.engine.trainer import Run, Validation, all_sets, check_sets
from facerestore.errors import UserError, first_line, listed


@dataclass
class Visit:
    """One iteration that was run: its seconds without waiting for data, its rates and terms."""

    it: int
    seconds: float
    rates: dict[str, float]
    terms: dict[str, float]


@dataclass
class Seen:
    """A phase, its iterations, and the most memory that was in use on any process, in bytes."""

    phase: Phase
    visits: list[Visit] = field(default_factory=list)
    memory: int = 0


@dataclass
class Cost:
    """What something took, and what it left on the disk."""

    seconds: float = 0.0
    bytes: int = 0


class Trial:
    """Runs a little of a training and keeps what was seen.

    Args:
        options: the watched options
        dataset: the training's pictures
        validation: those of its validation, of which few are taken
        folder: where checkpoints, pictures and curves go
        state_file: the checkpoint that the training would go on from
    """

    def __init__(
        self,
        options: Options,
        world: World,
        dataset: FaceDataset,
        validation: Validation,
        folder: Path,
        state_file: Path | None = None,
    ):
        self.options, self.world, self.folder, self.found = options, world, folder, Findings()
        few = {
            k: (section, pictures.first(2 * section.batch_size_per_gpu * world.size))
            for k, (section, pictures) in validation.items()
        }
        self.pictures, self.few = (sum(len(data) for _, data in sets.values()) for sets in (validation, few))
        self.start = 0
        with told("networks and losses"):
            self.model = build_model(options, world)
            check_sets(self.model, dataset, few)
            self.found.add(weight_findings(options, self.model))
            if state_file:
                self.start = self._resume(state_file)
            check_weights(options, self.model, all_sets(dataset, few))
        if self.start >= options.train.total_iter:
            raise UserError(f"{state_file}: all {options.train.total_iter} iterations are done: nothing is left to train")
        self.trainer = Run(options, folder, self.model, dataset, world, few)
        self.turns = self.model.method.turning_points()
        self.seen: list[Seen] = []
        self.seconds: dict[Kind, list[float]] = {}  # of iterations that had their batch, by what kind they are
        self.supply = 0.0  # seconds in which the loader makes a batch
        self.checkpoint, self.evaluation = Cost(), Cost()
        self.reserved = 0  # bytes that were taken of the device's memory

    def run(self) -> None:
        """Phase after phase; in the last one a checkpoint, a validation, and a resume that must change nothing."""
        self.supply = self._measure_supply()
        self.curves = self.trainer.open_curves(self.start, publish=False)
        witness = Witness(self.model)
        *phases, last = phases_of(self.options, self.turns, self.start)
        for phase in phases:
            with self._entered(phase) as batches:
                for it in phase.iterations:
                    self._step(batches, it, witness)
        it = last.iterations[0]
        with self._entered(last) as batches, repeatable_arithmetic(self.world):
            self._step(batches, it, witness)
            self._save(it)
            saved = fingerprints(state_of(self.model))
            self._validate(it)
            next_batch, terms = self._step(batches, it + 1, witness)
            went_on = fingerprints({"terms": terms, **state_of(self.model)})
        if self.curves:
            self.curves.close()
        self.found.add(witness.findings())
        self._tell_unreached()
        del witness
        self._check_resume(it, saved, fingerprints({"batch": next_batch}), went_on)

    def _measure_supply(self) -> float:
        """Seconds in which the loader makes a batch while nobody else is at work."""
        with self._told("reading batches"), closing(iter(self.trainer.loader(self.start))) as batches:
            next(batches)  # its workers have started
            count = 2 * max(self.options.datasets["train"].num_worker_per_gpu, 1)
            begin = time.perf_counter()
            for _ in range(count):
                next(batches)
            return (time.perf_counter() - begin) / count

    @contextmanager
    def _entered(self, phase: Phase) -> Iterator[Iterator[Batch]]:
        """The batches of a phase, from where the schedule is by then."""
        self.seen.append(Seen(phase))
        if self.world.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.world.device)
        with closing(iter(self.trainer.loader(phase.iterations[0] - 1))) as batches:
            yield batches
        used, reserved = memory_in_use(self.world)
        self.seen[-1].memory = max(distributed.gather(used, self.world))
        self.reserved = max(self.reserved, reserved)

    def _step(self, batches: Iterator[Batch], it: int, witness: Witness) -> tuple[Batch, dict[str, torch.Tensor]]:
        """One iteration as the trainer runs it, seen and measured.  Returns its batch and terms."""
        seen = self.seen[-1]
        with self._told(f"phase `{seen.phase.label}` (iteration {it})"):
            batch = next(batches)
            begin = self._now()
            with witness.watching():
                terms = self.model.step(batch, it)
            visit = Visit(it, self._now() - begin, self.model.learning_rates(), distributed.average(terms, self.world))
            if wrong := [name for name, value in visit.terms.items() if not math.isfinite(value)]:
                raise UserError(f"{listed(wrong)} is not a finite number")
        seen.visits.append(visit)
        self.seconds.setdefault(kind_of(self.turns, it), []).append(visit.seconds)
        self._report(visit)
        return batch, terms

    def _report(self, visit: Visit) -> None:
        due = self.trainer.due(visit.it)
        then = [what for what, comes in due._asdict().items() if comes]
        rates = [f"{key.replace('optim', 'lr')} {rate:.2e}" for key, rate in visit.rates.items()]
        terms = [f"{name} {number(value)}" for name, value in visit.terms.items()]
        logger.info(
            "phase `%s`, iteration %d (%.2g s): %s%s", self.seen[-1].phase.label, visit.it, visit.seconds,
            ", ".join(rates + terms), f"; then {', '.join(then)}" if then else "",
        )  # fmt: skip
        if self.curves:
            self.curves.write(visit.it, "losses", visit.terms)
            self.curves.write(visit.it, "learning rates", visit.rates)

    def _save(self, it: int) -> None:
        begin = self._now()
        with self._told(f"saving iteration {it}"):
            self.trainer.save(it)
        files = [*self.folder.glob(f"models/*_{it}.*"), self._state_file(it)]
        self.checkpoint = Cost(self._now() - begin, sum(f.stat().st_size for f in files))
        self.found.facts["checkpoint"] = f"{bytes_text(self.checkpoint.bytes)} in {duration(self.checkpoint.seconds)}"

    def _validate(self, it: int) -> None:
        begin = self._now()
        with self._told("validation"), quiet():
            self.trainer.validate(it, self.curves)
        distributed.wait_for_all(self.world)
        written = sum(f.stat().st_size for f in (self.folder / "visualization").rglob("*") if f.is_file())
        self.evaluation = Cost(self._now() - begin, written)
        taken = f"{self.few} of {self.pictures} pictures in {duration(self.evaluation.seconds)}"
        self.found.facts["validation"] = taken if self.few else "no data sets for it"

    def _tell_unreached(self) -> None:
        for label, turn in self.turns.items():
            if turn.first > self.options.train.total_iter:
                self.found.notes.append(f"`{label}` would begin with iteration {turn.first}: the training ends before")

    def _check_resume(self, it: int, saved: dict[str, str], next_batch: dict[str, str], went_on: dict[str, str]) -> None:
        """A fresh model takes up the checkpoint of `it`: its next iteration against that of the run that went on."""
        self.model = self.trainer.model = None  # so that there is room for another
        gc.collect()
        torch.cuda.empty_cache()
        with self._told(f"resume after iteration {it}"), repeatable_arithmetic(self.world):
            self.model = self.trainer.model = build_model(self.options, self.world)
            self._resume(self._state_file(it))
            before = differing(saved, fingerprints(state_of(self.model)))
            with closing(iter(self.trainer.loader(it))) as batches:
                batch = next(batches)
            before += differing(next_batch, fingerprints({"batch": batch}))
            terms = self.model.step(batch, it + 1)
            after = differing(went_on, fingerprints({"terms": terms, **state_of(self.model)}))
        before, after = (list(dict.fromkeys(chain(*distributed.gather(d, self.world)))) for d in (before, after))
        if before:
            self.found.problems.append(f"a resume after iteration {it} does not bring back {listed(before, 4)}")
        elif after and self.world.device.type == "cuda":
            self.found.notes.append("a resume brings back every bit, but this GPU's sums are not repeatable to the bit")
        elif after:
            self.found.problems.append(f"after a resume iteration {it + 1} ends with another {listed(after, 4)}")
        else:
            self.found.facts["resume"] = f"iteration {it + 1} is the same to the bit"

    def _resume(self, state_file: Path) -> int:
        """As the trainer does; networks that the options ignore only where they are not trained."""
        ignored = [k for k in self.options.path.ignore_resume_networks if net_of(k) in self.model.frozen]
        return resume_training(self.model, state_file, self.options.raw, ignored)

    def _state_file(self, it: int) -> Path:
        return self.folder / "training_states" / f"{it}.state"

    @contextmanager
    def _told(self, where: str) -> Iterator[None]:
        with told(where), worker_failures(self.options.datasets["train"].name):
            yield

    def _now(self) -> float:
        """Seconds on a clock, all work of the device done."""
        if self.world.device.type == "cuda":
            torch.cuda.synchronize(self.world.device)
        return time.perf_counter()


@contextmanager
def told(where: str) -> Iterator[None]:
    """What goes wrong within is one sentence that says where it happened."""
    try:
        yield
    except UserError as error:
        raise UserError(f"preflight, {where}: {error}") from error
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"preflight, {where}: the GPU's memory is full: lower `batch_size_per_gpu` or the pictures' size, or set "
            "`train.precision: bf16`"
        ) from error
    except Exception as error:  # a component's fault, or networks that do not fit together
        place = next((f for f in reversed(traceback.extract_tb(error.__traceback__)) if "facerestore" in f.filename), None)
        line = first_line(error)
        source = f" ({Path(place.filename).name}:{place.lineno})" if place else ""
        raise UserError(f"preflight, {where}: {type(error).__name__}: {line}{source}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Only warnings: what is said of a folder that will be removed helps nobody."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def repeatable_arithmetic(world: World) -> Iterator[None]:
    """Sums of a GPU in a fixed order, as far as its kernels can.  A CPU's always are."""
    if world.device.type != "cuda":
        yield
        return
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.use_deterministic_algorithms(False)


def memory_in_use(world: World) -> tuple[int, int]:
    """The most bytes in use, and taken: on the GPU since the last reset, or by this process since its start."""
    if world.device.type == "cuda":
        return torch.cuda.max_memory_allocated(world.device), torch.cuda.max_memory_reserved(world.device)
    resident = largest_process(resource.RUSAGE_SELF)
    return resident, resident


def largest_process(whose: int) -> int:
    """Bytes that this process (RUSAGE_SELF), or the largest of those that it has waited for (RUSAGE_CHILDREN), had in use."""
    return resource.getrusage(whose).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
