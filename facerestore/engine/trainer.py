"""The training of one option file, from its first iteration or its last checkpoint to its last iteration."""

from __future__ import annotations

import fcntl
import math
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, count
from pathlib import Path
from typing import IO, NamedTuple

from facerestore.config import Options
from facerestore.config.schema import DatasetOptions
from facerestore.config.tree import to_yaml
from facerestore.data.base import FaceDataset
from facerestore.data.loader import Loader, training_loader, worker_failures
from facerestore.engine import distributed
from facerestore.engine.best import best_directions, best_so_far, keep_best
from facerestore.engine.builder import build_model
from facerestore.engine.distributed import World
from facerestore.engine.evaluation import (
    DatasetScores,
    dataset_of,
    directions,
    evaluate,
    evaluation_sets,
    how_timed,
    log_means,
    look_at_samples,
    page,
    protocol_of,
)
from facerestore.engine.grid import ROWS as GRID_ROWS
from facerestore.engine.logs import (
    CurveWriter,
    bytes_text,
    log_notes,
    logger,
    number,
    peak_memory,
    progress_bar,
    read_curves,
    start_logging,
)
from facerestore.engine.measuring import build_metrics, protocols
from facerestore.engine.recovery import Recovery
from facerestore.engine.resume import latest_state, resume_training, save_training, saved_iterations
from facerestore.engine.training import TrainingModel
from facerestore.engine.wandb_run import WandbRun, project_of, require_wandb
from facerestore.errors import OptionError, UserError
from facerestore.files import atomic_write, remove_unfinished

Validation = dict[str, tuple[DatasetOptions, FaceDataset]]  # by the key in `datasets`


def train(options: Options, world: World, auto_resume: bool = False) -> None:
    """Train what `options` say; results go to experiments/NAME."""
    dataset, validation = open_data(options)
    folder = run_folder(options)
    model = build_model(options, world)
    refuse_data(model, dataset, validation)
    auto_resume = auto_resume or restarted()
    found = state_to_resume(options, folder, auto_resume) if world.is_main else None
    state_file = distributed.gather(found, world)[0]  # all go on from one checkpoint, whatever each of them sees
    goes_on = state_file is not None and state_file.parent.parent.resolve() == folder.resolve()
    unstarted = auto_resume and not saved_iterations(folder)  # it was stopped before its first checkpoint
    held = prepare_folder(folder, keep=goes_on or unstarted) if world.is_main else None
    distributed.wait_for_all(world)
    try:
        _train_in(folder, options, model, dataset, validation, state_file)
    finally:
        if held is not None:
            held.close()


def open_data(options: Options) -> tuple[FaceDataset, Validation]:
    """The training's data set and those of its validation; OptionError where there is nothing to train.

    Their pictures are listed: a wrong folder is refused before weights are fetched and an earlier run is moved aside.
    """
    if options.train is None:
        raise OptionError(f"{options.source}: has no `train` section; to test, run test.py")
    if "train" not in options.datasets:
        raise OptionError(f"{options.source}: datasets: needs an entry `train`")
    require_wandb(options.logger)
    dataset = dataset_of(options.datasets["train"], options)
    validation = evaluation_sets(options, ("val",))
    for data in (dataset, *(d for _, d in validation.values())):
        len(data)
    return dataset, validation


def refuse_data(model: TrainingModel, dataset: FaceDataset, validation: Validation) -> None:
    """DataError where a data set does not fit the method's networks."""
    for data in (dataset, *(d for _, d in validation.values())):
        model.method.refuse_data(data)


def run_folder(options: Options) -> Path:
    """Where the run's results go."""
    return Path(options.path.experiments_root) / options.name


def _train_in(
    folder: Path,
    options: Options,
    model: TrainingModel,
    dataset: FaceDataset,
    validation: Validation,
    state_file: Path | None,
) -> None:
    """Resume where there is something to resume, and train to the end."""
    world = model.world
    if world.is_main:
        atomic_write(folder / "options.yml", to_yaml(options.raw))
    start_logging(world.is_main, folder / f"train_{options.name}.log")
    log_notes(options.notes, world.is_main)
    start = 0
    if state_file:
        start = resume_training(model, state_file, options.raw, options.path.ignore_resume_networks)
        logger.info("going on after iteration %d (%s)", start, state_file)
    run = Run(options, folder, model, dataset, world, validation)
    if start >= options.train.total_iter and not run.missed_validation(start):
        logger.info("all %d iterations are done: there is nothing left to train", options.train.total_iter)
        return
    _log_setup(model, dataset, options)
    run.loop(start)


class Due(NamedTuple):
    """What follows an iteration."""

    report: bool
    save: bool
    validation: bool


@dataclass
class Run:
    """What one training holds on to while it lasts."""

    options: Options
    folder: Path
    model: TrainingModel
    dataset: FaceDataset
    world: World
    validation: Validation

    def __post_init__(self) -> None:
        self.model.method.check_data(self.dataset)
        self.metrics = build_metrics(self.options, self.world) if self.validation else {}
        self.directions = best_directions(self.options)
        self.suffix = f".{self.options.logger.checkpoint_format}"
        self.recovery = Recovery(self.options, self.folder, self.dataset)

    def loop(self, start: int) -> None:
        """From the iteration after `start` to the last one, with as many returns as it takes."""
        at: int | None = start
        while at is not None:
            at = self._train_from(at)

    def _train_from(self, start: int) -> int | None:
        """Train from the iteration after `start` on.  Returns the one to go back to, or None at the end."""
        total = self.options.train.total_iter
        curves = self.open_curves(start)
        if self.missed_validation(start):
            self.validate(start, curves)
        bar = progress_bar(total, start, self.options.name, shown=self.world.is_main)
        clock = _Clock()
        back_to = None
        name = self.options.datasets["train"].name
        with closing(iter(self.loader(start))) as batches, stop_signals() as asked_to_stop, worker_failures(name):
            for it in range(start + 1, total + 1):
                batch = next(batches)
                clock.waited()
                terms = self.model.step(batch, it)
                bar.update()

                due = self.due(it)
                stopping = distributed.any_process(bool(asked_to_stop), self.world)
                if due.report or stopping or it == start + 1:
                    self._report(it, terms, clock, curves, bar)
                    sound, reason = self._examine(it)
                    if reason:
                        back_to = self.recovery.go_back(self.model, it, reason)
                        break
                with clock.paused():
                    if (due.save or stopping) and sound:
                        self.save(it)
                    if due.validation:
                        self.validate(it, curves)
                if stopping and it < total:
                    logger.info("stopped after iteration %d; --auto_resume goes on from the last checkpoint", it)
                    break
                clock.stepped()
        bar.close()
        if curves:
            curves.close()
        return back_to

    def _examine(self, it: int) -> tuple[bool, str | None]:
        """Whether the last iteration was sound, so that a checkpoint may be written, and why the training must go back."""
        found, reason = self.recovery.examine(self.model, it)
        if found.in_a_row and not reason:
            logger.warning("iteration %d was skipped: no checkpoint is written of it", it)
        return not found.in_a_row, reason

    def due(self, it: int) -> Due:
        """What follows iteration `it`; all of it the last one."""
        every, last = self.options.logger, it == self.options.train.total_iter
        save = last or _divides(every.save_checkpoint_freq, it)
        return Due(
            report=save or _divides(every.print_freq, it),
            save=save,
            validation=last or _divides(self.options.val.val_freq, it),
        )

    def missed_validation(self, start: int) -> bool:
        """Whether the run was killed after the checkpoint of iteration `start` and before the validation that follows it."""
        if not start or not self.metrics or not self.due(start).validation:
            return False
        charts = read_curves(self.folder) if self.world.is_main else {}
        done = {chart.split(": ")[0] for chart, series in charts.items() for points in series.values() if start in dict(points)}
        names = {section.name or section.type for section, _ in self.validation.values()}
        return distributed.any_process(self.world.is_main and not names <= done, self.world)

    def open_curves(self, start: int, publish: bool = True) -> CurveWriter | None:
        """The run's curves up to iteration `start`, to go on from there; the first process writes them.

        Where it does not `publish`, they stay on this machine.
        """
        if not self.world.is_main:
            return None
        logger_options, run = self.options.logger, None
        if publish and project_of(logger_options):
            run = WandbRun(logger_options, self.folder, self.options.name, self.options.raw)
        return CurveWriter(self.folder, logger_options.use_tb_logger, start, run)

    def loader(self, start: int) -> Loader:
        """Batches from that of iteration `start + 1` on, without end."""
        section = self.options.datasets["train"]
        return training_loader(
            self.dataset,
            batch_size=section.batch_size_per_gpu,
            num_workers=section.num_worker_per_gpu,
            seed=self.options.manual_seed,
            rank=self.world.rank,
            world_size=self.world.size,
            start_batch=start + self.model.passed_over,
            shuffle=section.use_shuffle,
            enlarge_ratio=section.dataset_enlarge_ratio,
            crops_per_image=section.crops_per_image,
            pin_memory=self.world.device.type == "cuda",
            name=section.name,
        )

    def _report(self, it: int, terms: dict, clock: _Clock, curves: CurveWriter | None, bar) -> None:
        values = distributed.average(terms, self.world)
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        speed, waiting = clock.read()
        images = speed * self.options.datasets["train"].batch_size_per_gpu * self.world.size
        rates = self.model.learning_rates()
        if curves:
            curves.write(it, "losses", finite)
            curves.write(it, "learning rates", rates)
        memory = bytes_text(peak_memory(self.world.device))
        bar.set_postfix_str(f"{images:.1f} img/s, {waiting:.0%} waiting for data, {memory} at most", refresh=False)
        lr = ", ".join(f"{key.replace('optim', 'lr')} {rate:.2e}" for key, rate in rates.items())
        left = timedelta(seconds=round((self.options.train.total_iter - it) / speed))
        losses = ", ".join(f"{k} {number(v)}" for k, v in values.items())
        logger.info("iter %d, %.1f img/s, left %s, %s, %s", it, images, left, lr, losses)

    def save(self, it: int) -> None:
        """Write the checkpoint of iteration `it`."""
        if self.world.is_main:
            keep = self.options.logger.keep_checkpoints
            save_training(self.folder, self.model, it, self.options.raw, keep, self.suffix)
        self.recovery.saved()
        distributed.wait_for_all(self.world)

    def validate(self, it: int, curves: CurveWriter | None) -> None:
        """Restore and measure every validation set."""
        val = self.options.val
        results: list[DatasetScores] = []
        rows = min(GRID_ROWS, val.report_pictures) if self.options.logger.use_tb_logger else 0
        for key, (section, dataset) in self.validation.items():
            save_to = self.folder / "visualization"
            if len(self.validation) > 1:  # pictures of several sets may have one name
                save_to /= section.name or key
            protocol = protocol_of(val, self.metrics, save_to, f"_{it}", bar=False, apart=True, shown=rows)
            result = evaluate(self.model, section, dataset, protocol)
            results.append(result)
            if curves:
                for metric, by_method in result.by_metric().items():
                    curves.write(it, f"{result.name}: {metric}", by_method)
                curves.show(it, result.name, result.first(rows))
            log_means(result, best_so_far(read_curves(self.folder), result, directions(val)) if curves else None)
        if self.world.is_main and val.keep_best:
            keep_best(self.folder, self.model, it, results, self.directions, self.suffix)
        if self.world.is_main:
            sheet = self.folder / "visualization" / f"samples_{it}.png"
            results += look_at_samples(self.model, sheet if val.save_img else None)
        if curves and val.report:
            measured = {**protocols(self.options, self.metrics), **how_timed(self.options, self.world)}
            page(self.folder, self.options, results, read_curves(self.folder), measured)


class _Clock:
    """How fast iterations go, and what share of the time they wait for data."""

    def __init__(self) -> None:
        self.started = self.mark = time.perf_counter()
        self.waiting, self.iterations = 0.0, 0  # since the last reading

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens within takes no time."""
        start = time.perf_counter()
        yield
        self.started += time.perf_counter() - start

    def waited(self) -> None:
        """A batch has come: an iteration begins."""
        self.waiting += time.perf_counter() - self.mark
        self.iterations += 1

    def stepped(self) -> None:
        """The iteration is over: the wait for the next batch begins."""
        self.mark = time.perf_counter()

    def read(self) -> tuple[float, float]:
        """Iterations a second and the share spent waiting, since the last call."""
        elapsed = max(time.perf_counter() - self.started, 1e-9)
        result = self.iterations / elapsed, self.waiting / elapsed
        self.started, self.waiting, self.iterations = time.perf_counter(), 0.0, 0
        return result


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that is filled when SIGTERM or SIGINT asks to stop; a second SIGINT stops at once."""
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)
        logger.info("%s: stopping after this iteration", signal.Signals(number).name)

    before = {s: signal.signal(s, note) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _divides(every: int | None, it: int) -> bool:
    return every is not None and it % every == 0


def state_to_resume(options: Options, folder: Path, auto_resume: bool) -> Path | None:
    """The run's own last checkpoint before the one that the options name: a restarted run goes on, not back."""
    own = latest_state(folder) if auto_resume else None
    named = Path(options.path.resume_state) if options.path.resume_state else None
    return own or named


def restarted() -> bool:
    """Whether torchrun (--max-restarts) has started the processes again after one of them died: then a run goes on."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def prepare_folder(folder: Path, keep: bool) -> IO[str]:
    """Make the run's folder and hold it.  One that is there already is moved aside, unless the run goes on in it.

    Returns a file; while it is open, no other run of this name starts.
    """
    if folder.exists():
        held = hold_folder(folder)
        if keep:
            for part in ("models", "training_states", "."):
                remove_unfinished(folder / part)
            return held
        aside = _unused(folder.with_name(f"{folder.name}_archived_{time.strftime('%Y%m%d_%H%M%S')}"))
        os.rename(folder, aside)
        held.close()
        logger.warning("%s was there already and is now %s", folder, aside)
    folder.mkdir(parents=True)
    return hold_folder(folder)


def hold_folder(folder: Path) -> IO[str]:
    """Lock a run's folder for this process; UserError where another one trains in it.

    The lock is the process's own (lockf): loader workers, which outlive a killed training for seconds, do not share it.
    """
    file = open(folder / ".lock", "a+", encoding="utf-8")  # noqa: SIM115  (open while the run lasts)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise UserError(
            f"{folder}: another run of this name is training there ({holder}): stop it, or give this one another `name`"
        ) from None
    except OSError as error:
        logger.warning("%s cannot be locked (%s): see to it that no other run has this name", folder, error.strerror)
    file.truncate(0)
    file.write(f"process {os.getpid()} of {socket.gethostname()}")
    file.flush()
    return file


def _unused(path: Path) -> Path:
    """`path`, or `path_2`, ... where it is taken."""
    numbered = (path.with_name(f"{path.name}_{n}") for n in count(2))
    return next(p for p in chain([path], numbered) if not p.exists())


def _log_setup(model: TrainingModel, dataset: FaceDataset, options: Options) -> None:
    section = options.datasets["train"]
    batch = section.batch_size_per_gpu * model.world.size
    logger.info(
        "%s: %d pictures, batches of %d, %d iterations, processes: %d, on %s",
        section.name, len(dataset), batch, options.train.total_iter, model.world.size, model.world.device,
    )  # fmt: skip
    for name, network in model.networks.items():
        size = sum(p.numel() for p in network.parameters())
        logger.info("%s: %s, %s parameters%s", name, type(network).__name__, f"{size:,}",
                    ", frozen" if name in model.frozen else "")  # fmt: skip
