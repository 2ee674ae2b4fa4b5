"""The moving average against the published one (case train_ema, `legacy`), and where it is right instead."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from facerestore.config import load_options
from facerestore.engine import build_model
from facerestore.engine.distributed import World
from facerestore.engine.ema import averaged_copy, update_average
from facerestore.errors import OptionError
from tests import parity
from tests.engine.runs import DEBUG
from tests.engine.toys import planned, weights

CASE, STORED = parity.load("train_ema")


def network(seed: int) -> nn.Module:
    return parity.fill_(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(4, 2)), seed)


def test_published_average():
    config = CASE["config"]
    copied = averaged_copy(network(config["fill"]["ema_seed"]))
    update_average(copied, network(config["fill"]["seed"]), 0, buffers=False)
    for key, tensor in copied.state_dict().items():
        if f"copied.{key}" in STORED:
            assert parity.relative_error(tensor, STORED[f"copied.{key}"]) <= CASE["tolerance"][f"copied.{key}"]
    average = averaged_copy(network(config["fill"]["ema_seed"]))
    for i in range(config["updates"]):
        update_average(average, network(config["fill"]["seed"] + i), config["decay"], buffers=False)
    for key, tensor in average.state_dict().items():
        if f"after.{key}" in STORED:
            assert parity.relative_error(tensor, STORED[f"after.{key}"]) <= CASE["tolerance"][f"after.{key}"]


def test_running_statistics_are_averaged_too():
    live = network(1)
    average = averaged_copy(network(2))
    want = 0.9 * average[1].running_mean + 0.1 * live[1].running_mean
    live[1].num_batches_tracked.fill_(7)
    update_average(average, live, 0.9)
    torch.testing.assert_close(average[1].running_mean, want)
    assert average[1].num_batches_tracked == 7


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_the_ends_of_the_range(decay):
    live, average = network(1), averaged_copy(network(2))
    before = {k: v.clone() for k, v in average.state_dict().items()}
    update_average(average, live, decay)
    want = before if decay == 1 else live.state_dict()
    for key, tensor in average.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, want[key])


def test_the_copy_is_frozen_and_of_its_own():
    live = network(1)
    average = averaged_copy(live.train())
    assert not average.training and not any(p.requires_grad for p in average.parameters())
    live[0].weight.data.fill_(0)
    assert average[0].weight.abs().sum() > 0


def test_a_half_life_in_thousands_of_pictures():
    """Two batches of four are a half-life of eight pictures: the start then counts half."""
    model = build_model(load_options(DEBUG / "sr.yml", ["train.ema_decay=~", "train.ema_half_life_kimg=0.008"]))
    assert model.recipe.ema_decay**2 == pytest.approx(0.5)
    two = build_model(load_options(DEBUG / "sr.yml", ["train.ema_decay=~", "train.ema_half_life_kimg=0.008"]), World(0, 2))
    assert two.recipe.ema_decay == pytest.approx(0.5)


def test_a_decay_and_a_half_life_contradict_each_other():
    with pytest.raises(OptionError, match="give one"):
        load_options(DEBUG / "sr.yml", ["train.ema_half_life_kimg=10"])


def test_up_to_its_start_the_average_is_the_network():
    def plan(method, a, b, batch, it):
        with method.phase("a") as loss:
            loss["l_a"] = a(batch.x).square().mean()

    model = planned(plan, ema_decay=0.5, ema_start_iter=2)
    live = []
    for it in range(1, 4):
        model.step({"x": torch.ones(2, 3)}, it)
        live.append(weights(model, "net_a"))
        average = torch.cat([p.flatten() for p in model.ema["net_a"].parameters()])
        torch.testing.assert_close(average, live[-1] if it <= 2 else (live[1] + live[2]) / 2)
