"""What a training tells its user: lines in a log file and on the screen, a progress bar, curves."""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from facerestore.config.schema import Warned
from facerestore.engine.grid import columns, grid
from facerestore.engine.report import Picture
from facerestore.engine.wandb_run import WandbRun
from facerestore.files import atomic_write

logger = logging.getLogger("facerestore")
Curves = dict[str, dict[str, list[tuple[int, float]]]]
LOSSES = "losses"  # the chart of what a training logs
OF_TRAINING = (LOSSES, "learning rates")  # charts; all others are a validation's
VALIDATED = "validation is done"  # the chart of a record without values, after all else that a validation writes


class _BarHandler(logging.Handler):
    """Writes above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)


def start_logging(is_main: bool = True, file: Path | None = None) -> None:
    """Send the project's log to the screen and, where given, to a file.  Processes beside the first only warn."""
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(logging.INFO if is_main else logging.WARNING)
    logger.propagate = False
    _attach(_BarHandler())
    if file and is_main:
        file.parent.mkdir(parents=True, exist_ok=True)
        _attach(logging.FileHandler(file, encoding="utf-8"))


def _attach(handler: logging.Handler) -> None:
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.addHandler(handler)


def log_notes(notes: Iterable[str], is_main: bool = True) -> None:
    """What a reader should know about the options; the first process alone says it."""
    for note in notes if is_main else ():
        logger.log(logging.WARNING if isinstance(note, Warned) else logging.INFO, "%s", note)


def progress_bar(total: int, start: int = 0, what: str = "", unit: str = "it", shown: bool = True, timed: bool = True) -> tqdm:
    """A bar on a screen; in a file the log's own lines say how far it is.  Its speed and the time left are the bar's own where
    it is `timed`, and else what it is told."""
    shown = shown and sys.stderr.isatty()
    form = None if timed else "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
    return tqdm(total=total, initial=start, desc=what, unit=unit, disable=not shown, dynamic_ncols=True, bar_format=form)


def number(value: float) -> str:
    """A value as one reads it: 0.0123, 23.46, 1.2e-05."""
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.3e}"


class CurveWriter:
    """Curves of a run: `metrics.jsonl` (one line for each record), TensorBoard's files, Weights & Biases.

    Args:
        folder: the run's
        tensorboard: whether TensorBoard's files are written
        from_iteration: the last one that counts of what an earlier run wrote
        wandb: the run there, where one was begun
        repeats: whether the validation of that last iteration comes again, so that of it only the training's own curves count
    """

    def __init__(
        self,
        folder: Path,
        tensorboard: bool,
        from_iteration: int = 0,
        wandb: WandbRun | None = None,
        repeats: bool = False,
    ):
        self.path = folder / "metrics.jsonl"
        last = _forget_after(self.path, from_iteration, repeats)
        self.board, self.wandb = None, wandb
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tb_logger"), purge_step=from_iteration + (not repeats))
            for record in last if repeats else ():  # TensorBoard forgets an iteration as a whole
                self._draw(record)

    def write(self, it: int, chart: str, values: dict[str, float]) -> None:
        """Append one point to every curve of `chart` ('losses', 'val/faces', ...); values that are not finite are left out."""
        record = {"iter": it, "chart": chart, "values": {k: v for k, v in values.items() if math.isfinite(v)}}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self._draw(record)
        if self.wandb:
            self.wandb.log(it, _named(record))

    def _draw(self, record: dict) -> None:
        for name, value in _named(record).items() if self.board else ():
            self.board.add_scalar(name, value, record["iter"])

    def validated(self, it: int) -> None:
        """Note that the validation of iteration `it` is over, with all that it writes."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"iter": it, "chart": VALIDATED, "values": {}}) + "\n")

    def show(self, it: int, name: str, pictures: Sequence[Picture]) -> None:
        """The pictures of a validation set side by side, in TensorBoard."""
        if self.board and pictures:
            tag = f"{name}: {', '.join(columns(pictures))}"
            self.board.add_image(tag, grid(pictures), it, dataformats="HWC")

    def close(self) -> None:
        if self.board:
            self.board.close()
        if self.wandb:
            self.wandb.close()


def _named(record: dict) -> dict[str, float]:
    return {f"{record['chart']}/{name}": value for name, value in record["values"].items()}


def _records(path: Path) -> list[dict]:
    """The records of a metrics file; lines that were cut off or damaged are left out."""
    if not path.is_file():
        return []
    lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    records = [record for record in map(_record, lines) if record]
    if len(records) < len(lines):
        logger.warning("%s: %d lines are cut off or damaged, and left out", path, len(lines) - len(records))
    return records


def _record(line: str) -> dict | None:
    """What stands in a line; None where that is no record."""
    try:
        found = json.loads(line)
        values = {str(k): float(v) for k, v in found["values"].items()}
        return {"iter": int(found["iter"]), "chart": str(found["chart"]), "values": values}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


def _forget_after(path: Path, iteration: int, repeats: bool) -> list[dict]:
    """Drop what an interrupted run wrote after the checkpoint from which it goes on, and of a validation that it `repeats`.

    Returns the records of that iteration.
    """
    kept = [r for r in _records(path) if r["iter"] <= iteration]
    if repeats:
        kept = [r for r in kept if r["iter"] < iteration or r["chart"] in OF_TRAINING]
    atomic_write(path, "".join(json.dumps(r) + "\n" for r in kept))
    return [r for r in kept if r["iter"] == iteration]


def validated(folder: Path, it: int) -> bool:
    """Whether the validation of iteration `it` has come to its end."""
    return any(r["iter"] == it and r["chart"] == VALIDATED for r in _records(folder / "metrics.jsonl"))


def read_curves(folder: str | os.PathLike) -> Curves:
    """The curves of a run: chart -> series -> points (iteration, value)."""
    curves: Curves = {}
    for record in _records(Path(folder) / "metrics.jsonl"):
        for name, value in record["values"].items():
            curves.setdefault(record["chart"], {}).setdefault(name, []).append((record["iter"], value))
    return curves


def peak_memory(device: torch.device) -> int:
    """The most bytes that were in use so far: tensors on a GPU, the whole process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def bytes_text(count: float) -> str:
    """Bytes as one reads them: '11.2 GiB'."""
    units = iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while count >= 1000 and unit != "TiB":
        count, unit = count / 1024, next(units)
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
