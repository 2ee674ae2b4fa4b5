"""Learning rates by iteration against the published schedulers (case train_schedulers)."""

from __future__ import annotations

import numpy as np
import pytest

from facerestore.engine.schedules import learning_rate
from facerestore.errors import OptionError
from facerestore.registry import SCHEDULES
from tests import parity

CASE, STORED = parity.load("train_schedulers")


@pytest.mark.parametrize("call", CASE["config"]["calls"], ids=lambda call: call["name"])
def test_published_rates(call):
    # The published multi-step scheduler never leaves the warm-up's last rate: figures that `legacy` brings back.
    legacy = {"legacy": True} if call["name"] == "multistep_warmup" else {}
    schedule = SCHEDULES.build(call["scheduler"] | legacy)
    rates = [[learning_rate(schedule, it, lr, call.get("warmup_iter", -1)) for lr in call["lr"]] for it in call["report"]]
    key = f"lr.{call['name']}"
    assert parity.relative_error(np.array(rates), STORED[key]) <= CASE["tolerance"][key]


def test_after_a_warmup_the_schedule_is_what_it_is_without():
    schedule = SCHEDULES.build({"type": "MultiStepLR", "milestones": [5, 20], "gamma": 0.5})
    assert [learning_rate(schedule, it, 1.0, 10) for it in (1, 5, 9)] == [0.1, 0.5, 0.9]
    assert [learning_rate(schedule, it, 1.0, 10) for it in (10, 20, 21)] == [0.5, 0.5, 0.25]


def test_past_its_periods_the_cosine_stays_at_its_least():
    schedule = SCHEDULES.build(
        {"type": "CosineAnnealingRestartLR", "periods": [4, 4], "restart_weights": [1, 0.5], "eta_min": 0.1}
    )
    assert schedule.ends_at == 8
    assert schedule(8, 1.0) == schedule(9, 1.0) == schedule(10_000, 1.0) == pytest.approx(0.1)


def test_steps_and_lines():
    step = SCHEDULES.build({"type": "StepLR", "step_size": 3, "gamma": 0.5})
    assert [step(p, 1.0) for p in (0, 2, 3, 6)] == [1, 1, 0.5, 0.25]
    line = SCHEDULES.build({"type": "LinearLR", "total_iters": 4, "end_factor": 0.5, "start_iter": 2})
    assert [line(p, 2.0) for p in (0, 2, 4, 6, 9)] == [2, 2, 1.5, 1, 1]


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(OptionError, match="one for each"):
        SCHEDULES.build({"type": "CosineAnnealingRestartLR", "periods": [4, 4], "restart_weights": [1]})
