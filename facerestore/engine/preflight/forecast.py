"""How long a training will take and how much it will write, from what a few of its iterations took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from facerestore.engine.logs import bytes_text
from facerestore.engine.preflight.phases import Kind, nearest_kind


@dataclass(frozen=True)
class Forecast:
    """What one thing takes, times how often it comes.

    Args:
        kinds: iterations of each kind
        seconds: of one iteration of a kind, as far as measured, its batch being there
        supply: seconds in which the loader makes a batch
        beside: whether it does so beside the training (by workers) and not in between
        validations: how many
        validation_seconds: of one
        validation_bytes: of the pictures that one writes
        checkpoints: how many are written
        kept: how many of them stay
        checkpoint_seconds: of one
        checkpoint_bytes: of one
    """

    kinds: Mapping[Kind, int]
    seconds: Mapping[Kind, float]
    supply: float
    beside: bool
    validations: int
    validation_seconds: float
    validation_bytes: int
    checkpoints: int
    kept: int
    checkpoint_seconds: float
    checkpoint_bytes: int

    @property
    def computing(self) -> float:
        """Seconds of all iterations, if they never waited for data."""
        return sum(n * nearest_kind(kind, self.seconds) for kind, n in self.kinds.items())

    @property
    def waiting(self) -> float:
        """Seconds of all iterations in which they wait for data."""
        if not self.beside:
            return self.supply * sum(self.kinds.values())
        return sum(n * max(0.0, self.supply - nearest_kind(kind, self.seconds)) for kind, n in self.kinds.items())

    @property
    def disk(self) -> int:
        """Bytes that the run's folder grows to: a checkpoint is whole before an old one goes."""
        written = min(self.kept + 1, self.checkpoints)
        return written * self.checkpoint_bytes + self.validations * self.validation_bytes

    def time(self) -> str:
        training = self.computing + self.waiting
        validation, checkpoints = self.validations * self.validation_seconds, self.checkpoints * self.checkpoint_seconds
        return (
            f"{sum(self.kinds.values()):,} iterations: about {duration(training + validation + checkpoints)} "
            f"(training {duration(training)}, of which {self.waiting / max(training, 1e-9):.0%} waiting for data; "
            f"validation {duration(validation)}; checkpoints {duration(checkpoints)})"
        )

    def files(self) -> str:
        text = f"checkpoints {bytes_text(self.checkpoint_bytes)} each, {self.kept:,} kept"
        if self.validation_bytes:
            text += f"; pictures {bytes_text(self.validation_bytes)} at each of {self.validations:,} validations"
        return f"{text}: {bytes_text(self.disk)} in all"


def occurrences(every: int | None, start: int, total: int) -> int:
    """How often something comes from iteration `start + 1` to `total`: at every multiple, and at the end."""
    if every is None:
        return 1
    return total // every - start // every + (total % every > 0)


def duration(seconds: float) -> str:
    """A time in its two largest units: '6 d 3 h', '12 min 5 s', '0.4 s'."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    left, parts = round(seconds), []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, length)
        if number or parts:
            parts.append(f"{number} {unit}")
    return " ".join(p for p in parts[:2] if not p.startswith("0 "))
