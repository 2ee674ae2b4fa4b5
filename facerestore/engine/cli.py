"""The command lines of train.py and test.py.

What the user can mend is told in one sentence, and ends with exit code 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import torch.distributed as dist

from facerestore.config import Options, load_options
from facerestore.engine import distributed
from facerestore.engine.distributed import World
from facerestore.engine.logs import start_logging
from facerestore.errors import OptionError, UserError, first_line


def train_main(arguments: list[str] | None = None) -> int:
    from facerestore.engine.dry_run import dry_run_training
    from facerestore.engine.trainer import train

    parser = _parser("Train what an option file says.")
    parser.add_argument("--auto_resume", "--auto-resume", action="store_true", help="go on from the run's last checkpoint")
    parser.add_argument(
        "--debug",
        action="store_true",
        help="16 iterations under the name debug_NAME: each printed, every eighth validated and saved",
    )
    parser.add_argument(
        "--preflight",
        action="store_true",
        help="run two iterations of every phase, a validation, a checkpoint and a resume in a temporary folder, "
        "and say what is wrong and what time, memory and disk the training will take",
    )
    given = parser.parse_args(arguments)
    work = _preflight if given.preflight else train
    return _run(given, lambda options, world: work(options, world, given.auto_resume), dry_run_training)


def test_main(arguments: list[str] | None = None) -> int:
    from facerestore.engine.dry_run import dry_run_testing
    from facerestore.engine.tester import test

    given = _parser("Restore, measure and report what an option file says.").parse_args(arguments)
    return _run(given, test, dry_run_testing)


def _preflight(options: Options, world: World, auto_resume: bool) -> None:
    from facerestore.engine.dry_run import print_options
    from facerestore.engine.preflight import preflight

    if world.is_main:
        print_options(options)
    preflight(options, world, auto_resume)


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("-opt", "--opt", required=True, metavar="FILE", help="the option file (YAML)")
    parser.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="train.optim_g.lr=2e-4; as many as you like"
    )
    parser.add_argument(
        "--force_yml",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="the same, as BasicSR has it: train:total_iter=9",
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm"], default="none", help="who started the processes")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)  # old launchers pass it
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check all options; print them with their defaults, the networks' sizes and the memory that is needed; and stop",
    )
    return parser


def _run(given: argparse.Namespace, work: Callable[[Options, World], int | None], dry_run: Callable[[Options], None]) -> int:
    """Load the options and do the work.

    Returns 0, or 2 after one sentence on what to mend, 1 where another process of the job has died, 130 after Ctrl-C, or what
    the work itself returns where it was stopped.
    """
    try:
        options = load_options(given.opt, [*given.set, *given.force_yml])
        if getattr(given, "debug", False):
            options = load_options(given.opt, [*given.set, *given.force_yml, *_debug_overrides(options)])
        if given.dry_run:
            dry_run(options)
            return 0
        world = distributed.start(given.launcher, options.dist_params.backend, options.num_gpu)
        start_logging(world.is_main)
        return work(options, world) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a folder without room or rights, a path through a file
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if not lost_another(error):
            raise
        print(
            f"error: another process of this job has died, and this one cannot go on ({first_line(error)}); "
            "torchrun --max-restarts=N brings all of them back, and they go on from the last checkpoint",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        distributed.stop()


def lost_another(error: RuntimeError) -> bool:
    """Whether an exchange failed as another process was not there any more."""
    if not dist.is_initialized():
        return False
    gone = ("connection closed by peer", "connection reset by peer", "broken pipe", "remote process exited")
    return isinstance(error, dist.DistNetworkError) or any(words in str(error).lower() for words in gone)


def _debug_overrides(options: Options) -> list[str]:
    if options.train is None:
        raise OptionError(f"{options.source}: has no `train` section; to test, run test.py")
    name = options.name if options.name.startswith("debug_") else f"debug_{options.name}"
    return [f"name={name}", "train.total_iter=16", "val.val_freq=8", "logger.print_freq=1",
            "logger.save_checkpoint_freq=8"]  # fmt: skip
