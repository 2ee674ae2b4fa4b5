"""The folder of a run, experiments/NAME: who trains in it, and whether a training goes on in it or begins anew."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from itertools import chain, count
from pathlib import Path
from typing import IO

from facerestore.config import Options
from facerestore.engine.logs import logger
from facerestore.engine.resume import latest_state
from facerestore.errors import UserError
from facerestore.files import atomic_write, remove_unfinished

JOB_FILE = ".torchrun_id"


def run_folder(options: Options) -> Path:
    """Where the run's results go."""
    return Path(options.path.experiments_root) / options.name


def state_to_resume(options: Options, folder: Path, auto_resume: bool) -> Path | None:
    """The run's own last checkpoint before the one that the options name: a restarted run goes on, not back."""
    own = latest_state(folder) if auto_resume else None
    named = Path(options.path.resume_state) if options.path.resume_state else None
    return own or named


def restarted() -> bool:
    """Whether torchrun (--max-restarts) has started the processes again after one of them died: then a run goes on."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def begun_by_this_job(folder: Path) -> bool:
    """Whether the run in `folder` was begun under torchrun's present run id, and has not come to its end.

    Where there are several machines, torchrun counts restarts on each: that of the first process may not know of any.
    """
    try:
        return job() is not None and (folder / JOB_FILE).read_text(encoding="utf-8").strip() == job()
    except (OSError, UnicodeDecodeError):  # there is no run, or another launcher's
        return False


def note_job(folder: Path, running: bool) -> None:
    """Keep torchrun's run id in the run's folder while it is `running`."""
    if running and job():
        atomic_write(folder / JOB_FILE, job())
    else:
        (folder / JOB_FILE).unlink(missing_ok=True)


def job() -> str | None:
    """The run id that torchrun was given or has made up; None where it has none, and "none" for all runs alike."""
    found = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return None if found == "none" else found


def prepare_folder(folder: Path, keep: bool) -> IO[str]:
    """Make the run's folder and hold it.  One that is there already is moved aside, unless the run goes on in it.

    Returns a file; while it is open, no other run of this name starts.
    """
    if folder.exists():
        held = hold_folder(folder)
        if keep:
            for path, _, _ in os.walk(folder):
                remove_unfinished(path)
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
