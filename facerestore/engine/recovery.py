"""What follows when a training diverges: the batch is kept for inspection, and the training goes back.

It goes on from its last checkpoint with batches that it has not seen yet, as after the spikes of Chowdhery et al., PaLM:
Scaling Language Modeling with Pathways, JMLR 2023, section 5.1: the same batches would lead to the same place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import default_collate

from facerestore.checkpoint import write_torch
from facerestore.config import Options
from facerestore.data.base import FaceDataset
from facerestore.data.sampler import StreamSampler
from facerestore.engine import distributed
from facerestore.engine.guard import Findings
from facerestore.engine.logs import logger, number
from facerestore.engine.resume import latest_state, resume_training
from facerestore.engine.training import TrainingModel
from facerestore.errors import UserError, listed

MAX_KEPT = 10  # batches of a run that are kept


@dataclass
class Recovery:
    """Judges what the guard has found, and takes a training back where it must."""

    options: Options
    folder: Path
    dataset: FaceDataset
    returns: int = 0  # to the last checkpoint

    def examine(self, model: TrainingModel, it: int, values: Mapping[str, float]) -> tuple[Findings, str | None]:
        """What was found up to iteration `it`, and why the training must go back, if it must.  All processes must call it.

        `values` are the terms of that iteration.
        """
        found, train = model.guard.read(model.world), self.options.train
        if found.first is None:
            return found, None
        logger.warning("%s", _told(found, it, values))
        self._keep_batch(model, found)
        if found.beyond:
            return found, f"{listed(list(found.beyond))} went beyond `train.loss_limit` ({train.loss_limit:g})"
        names = listed(list(found.not_finite))
        if found.longest >= train.skip_limit:
            return found, f"{names} was not a finite number in {found.longest} iterations in a row"
        if found.in_a_row and it == train.total_iter:
            return found, f"{names} is not a finite number at the end"
        return found, None

    def go_back(self, model: TrainingModel, it: int, reason: str, values: Mapping[str, float]) -> int:
        """Put the last checkpoint back; returns its iteration.  `values` are the terms of iteration `it`.

        Raises:
            UserError: there is none, or going back to it has not helped before
        """
        world = model.world
        state_file = distributed.gather(latest_state(self.folder) if world.is_main else None, world)[0]
        advice = "a lower learning rate or `train.clip_grad_norm`"
        if state_file is None:
            begun = self.options.path.resume_state
            raise UserError(
                f"iteration {it}: {reason}: the training diverged before its first checkpoint "
                f"({', '.join(f'{name} is {number(value)}' for name, value in values.items())} now), and there is none to go "
                f"back to; start again {f'from {begun} ' if begun else ''}with {advice}, or a larger `train.loss_limit`"
            )
        if self.returns == self.options.train.rollback_limit:
            raise UserError(
                f"iteration {it}: {reason}: the training diverged, and did so after each of {self.returns} returns to "
                f"iteration {state_file.stem}; resume (--auto_resume) with {advice}"
            )
        self.returns += 1
        passed_over = model.passed_over
        start = resume_training(model, state_file, self.options.raw)
        model.passed_over = passed_over + it - start
        model.guard.restart()
        logger.warning("iteration %d: %s: going back to iteration %d, and on with other batches", it, reason, start)
        return start

    def saved(self) -> None:
        """A checkpoint was written: what comes after it is judged anew."""
        self.returns = 0

    def _keep_batch(self, model: TrainingModel, found: Findings) -> None:
        """Write the batch with which it began, of all processes together: it is a function of the iteration."""
        world = model.world
        path = self.folder / f"diverged_{found.first}.pth"
        if not world.is_main or len(list(self.folder.glob("diverged_*.pth"))) >= MAX_KEPT:
            return
        section = self.options.datasets["train"]
        number = found.first - 1 + model.passed_over
        stream = StreamSampler(
            len(self.dataset),
            section.batch_size_per_gpu * world.size,
            self.options.manual_seed,
            shuffle=section.use_shuffle,
            enlarge_ratio=section.dataset_enlarge_ratio,
            crops_per_image=section.crops_per_image,
        )
        keys = stream.batch(number)
        content = {
            "iteration": found.first,
            "batch_number": number,
            "not_finite": dict(found.not_finite),
            "beyond_limit": dict(found.beyond),
            "names": [self.dataset.name(key.index) for key in keys],
            "batch": default_collate([self.dataset[key] for key in keys]),
        }
        write_torch(path, content)
        logger.warning("the batch of iteration %d is in %s", found.first, path)


def _now(name: str, it: int, values: Mapping[str, float]) -> str:
    return f" (iteration {it}: {number(values[name])})" if name in values else ""


def _told(found: Findings, it: int, values: Mapping[str, float]) -> str:
    parts = [f"{name} not finite from iteration {first} on" for name, first in found.not_finite.items()]
    parts += [
        f"{name} beyond the limit from iteration {first} on{_now(name, it, values)}" for name, first in found.beyond.items()
    ]
    skipped = f"; iterations skipped: {found.skipped}" if found.skipped else ""
    return f"up to iteration {it}: {', '.join(parts)}{skipped}"
