"""The page that a preflight ends with."""

from __future__ import annotations

import os
import resource
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch

from facerestore.engine.logs import bytes_text
from facerestore.engine.preflight.forecast import Forecast, occurrences
from facerestore.engine.preflight.phases import count_kinds
from facerestore.engine.preflight.trial import Trial, largest_process


def summary(trial: Trial, target: Path) -> str:
    """What was seen, what the whole training will take, and what its reader should know.  Results will go below `target`."""
    forecast = forecast_of(trial)
    notes, free = list(trial.found.notes), shutil.disk_usage(target).free
    if forecast.disk > free:
        notes.append(
            f"the disk will be full: {bytes_text(forecast.disk)} are to be written and {bytes_text(free)} are free; "
            "set `logger.keep_checkpoints`, or save less often"
        )
    if forecast.waiting > 0.2 * (forecast.computing + forecast.waiting):
        workers = trial.options.datasets["train"].num_worker_per_gpu
        notes.append(
            f"the training waits for data: a batch takes {trial.supply:.2g} s to make; "
            f"raise `num_worker_per_gpu` from {workers} (this machine has {os.cpu_count()} processors)"
        )
    facts = {
        **trial.found.facts,
        "time": forecast.time(),
        "memory": memory(trial),
        "disk": f"{forecast.files()}, {bytes_text(free)} free",
    }
    width = max(map(len, facts))
    lines = ["", *phase_table(trial), "", *(f"{k:{width}}  {v}" for k, v in facts.items()), *(f"note: {n}" for n in notes)]
    return "\n".join([*lines, *([] if trial.found.problems else ["preflight: all is well"])])


def phase_table(trial: Trial) -> list[str]:
    """A row for each phase, in the order of the schedule."""
    rows: list[Sequence[str]] = [("phase", "iterations", "s/iteration", "memory", "learning rates")]
    for seen in trial.seen:
        visits = seen.visits
        rates = ", ".join(f"{k.removeprefix('optim_')} {rate:.2e}" for k, rate in visits[-1].rates.items())
        its = ", ".join(f"{v.it}" for v in visits)
        rows.append((seen.phase.label, its, f"{visits[-1].seconds:.3f}", bytes_text(seen.memory), rates))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    right = ("<", "<", ">", ">")
    return ["  ".join([*(f"{c:{a}{w}}" for c, a, w in zip(row, right, widths, strict=False)), row[4]]) for row in rows]


def forecast_of(trial: Trial) -> Forecast:
    """What was measured, times how often the schedule has it."""
    train, every, start = trial.options.train, trial.options.logger, trial.start
    # The first iteration of a kind pays for what is made once.
    seconds = {kind: statistics.median(times[1:] or times) for kind, times in trial.seconds.items()}
    checkpoints = occurrences(every.save_checkpoint_freq, start, train.total_iter)
    share = trial.pictures / max(trial.few, 1)
    return Forecast(
        kinds=count_kinds(trial.turns, start, train.total_iter),
        seconds=seconds,
        supply=trial.supply,
        beside=trial.options.datasets["train"].num_worker_per_gpu > 0,
        validations=occurrences(trial.options.val.val_freq, start, train.total_iter) if trial.pictures else 0,
        validation_seconds=trial.evaluation.seconds * share,
        validation_bytes=round(trial.evaluation.bytes * share),
        checkpoints=checkpoints,
        kept=min(checkpoints, every.keep_checkpoints or checkpoints),
        checkpoint_seconds=trial.checkpoint.seconds,
        checkpoint_bytes=trial.checkpoint.bytes,
    )


def memory(trial: Trial) -> str:
    """The most that was in use, of what there is."""
    device = trial.world.device
    peak = bytes_text(max(seen.memory for seen in trial.seen))
    if device.type == "cuda":
        whole = torch.cuda.get_device_properties(device).total_memory
        return f"peak {peak} in tensors, {bytes_text(trial.reserved)} taken of the GPU's {bytes_text(whole)}"
    workers = largest_process(resource.RUSAGE_CHILDREN)
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    beside = (
        f", {bytes_text(workers)} in the largest loader worker" if trial.options.datasets["train"].num_worker_per_gpu else ""
    )
    return f"peak {peak} in this process{beside}; the machine has {bytes_text(whole)}"
