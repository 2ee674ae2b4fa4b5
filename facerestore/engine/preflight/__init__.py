"""`train.py --preflight`: a training in miniature, by the trainer's own code, in a folder that is removed.

Two iterations wherever the schedule turns, a validation of a few pictures, a checkpoint, and a resume from it; then what was
seen, and what the whole training will take.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from facerestore.config import Options
from facerestore.engine import distributed
from facerestore.engine.distributed import World
from facerestore.engine.preflight.reads import OptionReads
from facerestore.engine.preflight.summary import summary
from facerestore.engine.preflight.trial import Trial, told
from facerestore.engine.run_folder import run_folder, state_to_resume
from facerestore.engine.trainer import open_data
from facerestore.errors import UserError, listed

# Keys that are read where nobody watches: by the command line, before there is a training, and by test.py.
READ_BY_THE_COMMAND_LINE = (("num_gpu",), ("dist_params", "backend"))
READ_BY_TESTS = (("path", "results_root"), ("val", "suffix"), ("val", "pbar"))


def preflight(options: Options, world: World, auto_resume: bool = False) -> None:
    """Run a little of everything that the training of `options` will do, and print what was seen.

    Raises:
        UserError: something is or would go wrong; the message says what, and in which phase
    """
    reads = OptionReads(options, (*READ_BY_THE_COMMAND_LINE, *READ_BY_TESTS))
    with told("data"):
        dataset, validation = open_data(reads.options)
    target = run_folder(reads.options)
    state_file = state_to_resume(reads.options, target, auto_resume)
    with temporary_folder(existing(target), world) as folder:
        trial = Trial(reads.options, world, dataset, validation, folder, state_file)
        trial.run()
    _account_for_keys(reads, trial)
    if world.is_main:
        print(summary(trial, existing(target)))
        if problems := trial.found.problems:
            raise UserError(f"preflight of {options.source}: {'; '.join(problems)}")


def _account_for_keys(reads: OptionReads, trial: Trial) -> None:
    """Whether every key of the file was read."""
    if any(getattr(network, "upscale", None) for network in trial.model.networks.values()):
        reads.read.add(("scale",))  # the network was held against it when the options were loaded
    if names := reads.unread_names():
        trial.found.problems.append(f"nobody reads {listed([f'`{name}`' for name in names])}")
    else:
        trial.found.facts["options"] = f"{len(reads.keys())} keys, all read"


@contextmanager
def temporary_folder(parent: Path, world: World) -> Iterator[Path]:
    """A folder beside the run's own, the same for all processes, that is removed in the end."""
    made = None
    if world.is_main:
        try:
            made = tempfile.TemporaryDirectory(prefix=".preflight_", dir=parent)
        except OSError as error:
            raise UserError(f"{parent}: the run's folder cannot be made there: {error.strerror or error}") from None
    try:
        yield Path(distributed.gather(made and made.name, world)[0])
    finally:
        if made:
            made.cleanup()


def existing(path: Path) -> Path:
    """The nearest folder above `path` that is there."""
    return next(p for p in path.resolve().parents if p.is_dir())
