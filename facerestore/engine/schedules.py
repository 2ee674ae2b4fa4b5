"""Learning rates as functions of the iteration: nothing is remembered, so a resumed run cannot differ.

`schedule(position, base)` is the rate at `position` (0 in the first iteration), where `base` is the optimizer's own.
The formulas are torch's (MultiStepLR, StepLR, LinearLR) and, for the cosine with restarts, SGDR's (Loshchilov and Hutter
2017, eq. 5), with a weight for each period as BasicSR has it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from typing import Annotated

from msgspec import Meta

from facerestore.errors import OptionError
from facerestore.registry import SCHEDULES, Iteration, Period

Schedule = Callable[[int, float], float]
Factor = Annotated[float, Meta(ge=0, le=100)]  # of a learning rate


@SCHEDULES.register()
class MultiStepLR:
    """The rate is multiplied by `gamma` at every milestone.

    Args:
        milestones: iterations after which the rate falls; one that stands twice counts twice
        gamma: the factor
        legacy: let the warm-up's last rate stay, and milestones within it be lost, as the published scheduler does
    """

    ends_at = None

    def __init__(self, milestones: list[Iteration], gamma: Factor = 0.1, legacy: bool = False):
        self.milestones, self.gamma, self.legacy = sorted(milestones), gamma, legacy

    def __call__(self, position: int, base: float) -> float:
        return base * self.gamma ** bisect_right(self.milestones, position)

    def turns(self) -> dict[str, int]:
        return {f"milestone {m}": m + 1 for m in self.milestones}

    def after_warmup(self, position: int, base: float, warmup: int) -> float:
        """The published rate after a warm-up: its last value, times `gamma` for every milestone since."""
        since = bisect_right(self.milestones, position) - bisect_right(self.milestones, warmup - 2)
        return base * (warmup - 1) / warmup * self.gamma**since


@SCHEDULES.register()
class MultiStepRestartLR:
    """As MultiStepLR, but at every restart the rate begins anew at `base` times a weight.

    Args:
        milestones: iterations after which the rate falls; one that stands twice counts twice
        gamma: the factor
        restarts: iterations at which the rate begins anew
        restart_weights: the share of the base rate with which each restart begins
    """

    ends_at = None

    def __init__(
        self,
        milestones: list[Iteration],
        gamma: Factor = 0.1,
        restarts: tuple[Iteration, ...] = (0,),
        restart_weights: tuple[Factor, ...] = (1.0,),
    ):
        _same_length(restarts, restart_weights, "restarts", "restart_weights")
        self.milestones, self.gamma = sorted(milestones), gamma
        self.restarts, self.weights = restarts, restart_weights

    def __call__(self, position: int, base: float) -> float:
        latest = bisect_right(self.restarts, position) - 1
        since, weight = (self.restarts[latest], self.weights[latest]) if latest >= 0 else (-1, 1.0)
        steps = sum(since < m <= position for m in self.milestones)
        return base * weight * self.gamma**steps

    def turns(self) -> dict[str, int]:
        return {f"milestone {m}": m + 1 for m in self.milestones} | {f"restart {r}": r + 1 for r in self.restarts}


@SCHEDULES.register()
class CosineAnnealingRestartLR:
    """Within each period the rate falls along half a cosine from its (weighted) base to `eta_min`.

    Args:
        periods: lengths of the periods in iterations
        restart_weights: the weight of each period
        eta_min: the least rate
    """

    def __init__(
        self,
        periods: Annotated[list[Period], Meta(min_length=1)],
        restart_weights: tuple[Factor, ...] = (1.0,),
        eta_min: Annotated[float, Meta(ge=0, le=1)] = 0.0,
    ):
        _same_length(periods, restart_weights, "periods", "restart_weights")
        self.periods, self.weights, self.eta_min = periods, restart_weights, eta_min
        self.ends = list(accumulate(periods))

    @property
    def ends_at(self) -> int:
        return self.ends[-1]

    def __call__(self, position: int, base: float) -> float:
        position = min(position, self.ends_at)
        k = min(sum(end < position for end in self.ends), len(self.ends) - 1)
        share = (position - (self.ends[k] - self.periods[k])) / self.periods[k]
        return self.eta_min + self.weights[k] * 0.5 * (base - self.eta_min) * (1 + math.cos(math.pi * share))

    def turns(self) -> dict[str, int]:
        return {f"period {k}": end + 2 for k, end in enumerate(self.ends[:-1], 2)}


@SCHEDULES.register()
class StepLR:
    """The rate is multiplied by `gamma` every `step_size` iterations.

    Args:
        step_size: iterations between two steps
        gamma: the factor
    """

    ends_at = None

    def __init__(self, step_size: Period, gamma: Factor = 0.1):
        self.step_size, self.gamma = step_size, gamma

    def __call__(self, position: int, base: float) -> float:
        return base * self.gamma ** (position // self.step_size)

    def turns(self) -> dict[str, int]:
        return {"first step of the rate": self.step_size + 1}


@SCHEDULES.register()
class LinearLR:
    """The rate moves on a straight line from `start_factor` to `end_factor` times its base.

    Args:
        total_iters: iterations until the end is reached
        start_factor: where the line begins
        end_factor: where it ends
        start_iter: iterations before it begins to move
    """

    def __init__(self, total_iters: Period, start_factor: Factor = 1.0, end_factor: Factor = 0.0, start_iter: Iteration = 0):
        self.total_iters, self.start_iter = total_iters, start_iter
        self.start_factor, self.end_factor = start_factor, end_factor

    @property
    def ends_at(self) -> int:
        return self.start_iter + self.total_iters

    def __call__(self, position: int, base: float) -> float:
        share = min(max(position - self.start_iter, 0) / self.total_iters, 1.0)
        return base * (self.start_factor + (self.end_factor - self.start_factor) * share)

    def turns(self) -> dict[str, int]:
        return {"rate begins to move": self.start_iter + 2, "rate stays": self.ends_at + 2}


def constant(position: int, base: float) -> float:
    """The rate stays where it is."""
    return base


def learning_rate(schedule: Schedule, it: int, base: float, warmup_iter: int = -1) -> float:
    """The rate in iteration `it` (from 1): a linear rise up to `warmup_iter`, the schedule from there on."""
    if it < warmup_iter:
        return base / warmup_iter * it
    if warmup_iter > 0 and isinstance(schedule, MultiStepLR) and schedule.legacy:
        return schedule.after_warmup(it - 1, base, warmup_iter)
    return schedule(it - 1, base)


def rate_turns(schedule: Schedule, warmup_iter: int = -1) -> dict[str, int]:
    """The first iterations at which the rate takes another course, by what happens then."""
    turns = {} if schedule is constant else schedule.turns()
    return turns | ({"warm-up ends": warmup_iter} if warmup_iter > 1 else {})


def _same_length(one: list | tuple, other: list | tuple, name: str, other_name: str) -> None:
    if len(one) != len(other):
        raise OptionError(f"`{name}` has {len(one)} entries and `{other_name}` {len(other)}: give one for each", (name,))
