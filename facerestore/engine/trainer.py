"""The training of one option file, from its first iteration or its last checkpoint to its last iteration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from facerestore.config import Options
from facerestore.config.schema import DatasetOptions
from facerestore.config.tree import to_yaml
from facerestore.data.base import FaceDataset
from facerestore.data.loader import Loader, training_loader, worker_failures
from facerestore.engine import distributed
from facerestore.engine.best import best_directions, best_so_far, keep_best
from facerestore.engine.builder import build_model
from facerestore.engine.distributed import World
from facerestore.engine.evaluation import dataset_of, evaluate, evaluation_sets, how_timed, look_at_samples, page
from facerestore.engine.grid import ROWS as GRID_ROWS
from facerestore.engine.logs import (
    LOSSES,
    CurveWriter,
    bytes_text,
    log_notes,
    logger,
    number,
    peak_memory,
    progress_bar,
    read_curves,
    start_logging,
    validated,
)
from facerestore.engine.measuring import build_metrics, protocols
from facerestore.engine.pace import Clock
from facerestore.engine.recovery import Recovery
from facerestore.engine.resume import resume_training, save_training, saved_iterations
from facerestore.engine.run_folder import begun_by_this_job, note_job, prepare_folder, restarted, run_folder, state_to_resume
from facerestore.engine.scaling import START as FIRST_SCALE
from facerestore.engine.scores import DatasetScores, directions, log_means, protocol_of
from facerestore.engine.stopping import exit_code, stop_signals
from facerestore.engine.training import TrainingModel
from facerestore.engine.wandb_run import WandbRun, project_of, require_wandb
from facerestore.errors import OptionError
from facerestore.files import atomic_write

Validation = dict[str, tuple[DatasetOptions, FaceDataset]]  # by the key in `datasets`

EARLY = (1, 10)  # the iterations of a run that are always told: that it moves, and how long it will take


def train(options: Options, world: World, auto_resume: bool = False) -> int:
    """Train what `options` say; results go to experiments/NAME.

    Returns the program's exit code: 0 at the end of the training, 130 or 143 where Ctrl-C or SIGTERM has stopped it before.
    """
    dataset, validation = open_data(options)
    folder = run_folder(options)
    model = build_model(options, world)
    check_sets(model, dataset, validation)
    model.learnt_from = dataset.facts()
    begun = world.is_main and begun_by_this_job(folder)
    goes_on = distributed.any_process(auto_resume or restarted() or begun, world)
    found = state_to_resume(options, folder, goes_on) if world.is_main else None
    state_file = distributed.gather(found, world)[0]  # all go on from one checkpoint, whatever each of them sees
    in_place = state_file is not None and state_file.parent.parent.resolve() == folder.resolve()
    unstarted = goes_on and not saved_iterations(folder)  # it was stopped before its first checkpoint
    again = unstarted and state_file is None and folder.exists()
    held = prepare_folder(folder, keep=in_place or unstarted) if world.is_main else None
    distributed.wait_for_all(world)
    try:
        if world.is_main:
            note_job(folder, running=True)
        start_logging(world.is_main, folder / f"train_{options.name}.log")
        if again:
            logger.info("nothing was saved yet: starting from the beginning")
        code = _train_in(folder, options, model, dataset, validation, state_file)
        if world.is_main and not code:
            note_job(folder, running=False)
        return code
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
    with options.naming("datasets", "train"):
        len(dataset)
    return dataset, validation


def check_sets(model: TrainingModel, dataset: FaceDataset, validation: Validation) -> None:
    """DataError where a data set does not fit the method's networks."""
    for data in (dataset, *(d for _, d in validation.values())):
        model.method.check_data(data)


def _train_in(
    folder: Path,
    options: Options,
    model: TrainingModel,
    dataset: FaceDataset,
    validation: Validation,
    state_file: Path | None,
) -> int:
    """Resume where there is something to resume, and train to the end; see :func:`train`."""
    world = model.world
    if world.is_main:
        atomic_write(folder / "options.yml", to_yaml(options.raw))
    log_notes(options.notes, world.is_main)
    start = 0
    if state_file:
        start = resume_training(model, state_file, options.raw, options.path.ignore_resume_networks)
        logger.info("going on after iteration %d (%s)", start, state_file)
    run = Run(options, folder, model, dataset, world, validation)
    if start >= options.train.total_iter and not run.missed_validation(start):
        logger.info("all %d iterations are done: there is nothing left to train", options.train.total_iter)
        return 0
    _log_setup(model, dataset, options)
    return run.loop(start)


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
        self.metrics = build_metrics(self.options, self.world) if self.validation else {}
        self.directions = best_directions(self.options)
        self.suffix = f".{self.options.logger.checkpoint_format}"
        self.recovery = Recovery(self.options, self.folder, self.dataset)

    def loop(self, start: int) -> int:
        """From the iteration after `start` to the last one, with as many returns as it takes; see :func:`train`."""
        at: int | None = start
        with stop_signals() as asked:
            while at is not None and not distributed.any_process(bool(asked), self.world):
                at = self._train_from(at, asked)
        if at is None:
            return 0
        logger.info("stopped after iteration %d; --auto_resume goes on from the last checkpoint", at)
        return exit_code(asked, self.world)

    def _train_from(self, start: int, asked: Sequence[int]) -> int | None:
        """Train from the iteration after `start` on, until it is `asked` to stop.

        Returns the iteration after which it has stopped, or to which it went back, or None at the end.
        """
        total = self.options.train.total_iter
        missed = self.missed_validation(start)
        curves = self.open_curves(start, repeats=missed)
        if missed:
            self.validate(start, curves)
        bar = progress_bar(total, start, self.options.name, shown=self.world.is_main, timed=False)
        clock = Clock()
        goes_on_after = None
        name = self.options.datasets["train"].name
        with closing(iter(self.loader(start))) as batches, worker_failures(name):
            for it in range(start + 1, total + 1):
                batch = next(batches)
                clock.waited()
                terms = self.model.step(batch, it)
                bar.update()

                due = self.due(it)
                stopping = distributed.any_process(bool(asked), self.world)
                if due.report or stopping or it - start in EARLY:
                    values = distributed.average(terms, self.world)
                    if curves and (due.report or it == 1):  # a run that was resumed has the points of one that was not
                        curves.write(it, LOSSES, values)
                        curves.write(it, "learning rates", self.model.learning_rates())
                    self._report(it, values, clock, bar, it > start + 1)
                    sound, reason = self._examine(it, values)
                    if reason:
                        goes_on_after = self.recovery.go_back(self.model, it, reason, values)
                        break
                with clock.paused():
                    if (due.save or stopping) and sound:
                        self.save(it)
                    if stopping:  # nobody waits for a validation then: it is made up for
                        goes_on_after = it
                        break
                    if due.validation:
                        self.validate(it, curves)
                clock.stepped()
        bar.close()
        if curves:
            curves.close()
        return goes_on_after

    def _examine(self, it: int, values: dict[str, float]) -> tuple[bool, str | None]:
        """Whether the last iteration was sound, so that a checkpoint may be written, and why the training must go back."""
        found, reason = self.recovery.examine(self.model, it, values)
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
        """Whether the run ended after the checkpoint of iteration `start` and before the end of the validation that follows."""
        if not start or not self.due(start).validation:
            return False
        return distributed.any_process(self.world.is_main and not validated(self.folder, start), self.world)

    def open_curves(self, start: int, publish: bool = True, repeats: bool = False) -> CurveWriter | None:
        """The run's curves up to iteration `start`, to go on from there; the first process writes them.

        Where it does not `publish`, they stay on this machine; where it `repeats` the validation of that iteration, that one's
        are left out.
        """
        if not self.world.is_main:
            return None
        logger_options, run = self.options.logger, None
        if publish and project_of(logger_options):
            run = WandbRun(logger_options, self.folder, self.options.name, self.options.raw)
        return CurveWriter(self.folder, logger_options.use_tb_logger, start, run, repeats)

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

    def _report(self, it: int, values: dict[str, float], clock: Clock, bar: tqdm, foreseen: bool) -> None:
        """Say how far the training is, and where it is `foreseen`, how long it will take: the first iteration tells nothing."""
        speed, waiting = clock.read()
        images = speed * self.options.datasets["train"].batch_size_per_gpu * self.world.size
        memory = bytes_text(peak_memory(self.world.device))
        pace = f"{images:.1f} img/s, {waiting:.0%} waiting for data, {memory}"
        if foreseen:
            pace += f", left {timedelta(seconds=round((self.options.train.total_iter - it) / speed))}"
        bar.set_postfix_str(pace, refresh=False)
        lr = ", ".join(f"{key.replace('optim', 'lr')} {rate:.2e}" for key, rate in self.model.learning_rates().items())
        logger.info("iter %d, %s, %s, %s", it, pace, lr, ", ".join(f"{k} {number(v)}" for k, v in values.items()))

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
        reached: dict[str, str] = {}  # the best figures so far, to be read in the report
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
            best = best_so_far(read_curves(self.folder), result, directions(val)) if curves else {}
            log_means(result, best)
            reached |= {f"{result.name}, {m}: {k}": text for m, by_metric in best.items() for k, text in by_metric.items()}
        if self.world.is_main and val.keep_best:
            keep_best(self.folder, self.model, it, results, self.directions, self.suffix)
        if self.world.is_main:
            sheet = self.folder / "visualization" / f"samples_{it}.png"
            results += look_at_samples(self.model, sheet if val.save_img else None)
        if curves and val.report:
            measured = {**protocols(self.options, self.metrics), **how_timed(self.options, self.world)}
            so_far = {"iteration": f"{it} of {self.options.train.total_iter}", **reached}
            page(self.folder, self.options, results, read_curves(self.folder), measured, so_far)
        if curves:
            curves.validated(it)


def _divides(every: int | None, it: int) -> bool:
    return every is not None and it % every == 0


def _log_setup(model: TrainingModel, dataset: FaceDataset, options: Options) -> None:
    section = options.datasets["train"]
    batch = section.batch_size_per_gpu * model.world.size
    logger.info(
        "%s: %s, batches of %d, %d iterations, processes: %d, on %s",
        section.name, dataset.extent(), batch, options.train.total_iter, model.world.size, model.world.device,
    )  # fmt: skip
    if contents := dataset.contents():
        logger.info("%s", contents)
    for name, network in model.networks.items():
        size = sum(p.numel() for p in network.parameters())
        logger.info("%s: %s, %s parameters%s", name, type(network).__name__, f"{size:,}",
                    ", frozen" if name in model.frozen else "")  # fmt: skip
    logger.info("%s", ", ".join(_arithmetic(model, section.batch_size_per_gpu)))


def _arithmetic(model: TrainingModel, batch: int) -> list[str]:
    """How an iteration is computed, in the order in which it happens."""
    recipe = model.recipe
    found = [f"precision {recipe.precision}" + (f" (loss scale {FIRST_SCALE:g} at first)" if model.loss_scales.enabled else "")]
    if recipe.accumulate > 1:
        found.append(f"accumulate {recipe.accumulate} x {batch // recipe.accumulate} pictures")
    found += ["compiled"] * recipe.compiled + ["channels_last"] * recipe.channels_last
    found += [f"{key} {type(optimizer).__name__}" for key, optimizer in model.optimizers.items()]
    if model.ema:
        half = math.log(0.5) / math.log(recipe.ema_decay) if recipe.ema_decay < 1 else math.inf
        found.append(f"averages (EMA) with a decay of {recipe.ema_decay:g}: half-life {half:.4g} iterations")
    return found
