"""Skipped iterations where batches are cut into slices, losses are scaled and averages start late, on one process and two."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from facerestore.models.sr import SRModel
from tests.engine.runs import ROOT, same
from tests.engine.runs import weights as saved
from tests.engine.toys import planned, weights

RECIPES = {
    "plain": {},
    "slices": {"accumulate": 2},
    "float16": {"precision": "fp16"},
    "all": {"accumulate": 2, "precision": "fp16", "clip_grad_norm": 0.5},
}
NO_NUMBER, OVERFLOW = 2, 3  # iterations


def troubled(method, a, b, batch, it):
    """The loss is no number in one iteration; its gradient is too large for float16 in another."""
    with method.phase("a") as loss:
        x = batch.x.where(torch.tensor(it != NO_NUMBER) | (batch.row < 7)[:, None], math.nan)
        loss["l_a"] = (1e4 if it == OVERFLOW else 1.0) * a(x).float().mean()
    with method.phase("b") as loss:
        loss["l_b"] = b(batch.x).float().square().mean()
        method.remembered = method.remembered + method.mean_over_processes(loss["l_b"])


def model_of(recipe: dict, optimizer=torch.optim.Adam, fused: bool | None = None):
    model = planned(troubled, optimizer, 1e-2, fused, ema_decay=0.5, **recipe)
    for network in (*model.networks.values(), *model.ema.values()):
        network.append(nn.BatchNorm1d(3, affine=False))
    return model


def a_batch(it: int, scale: float = 1.0) -> dict:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(it))
    return {"x": scale * x, "row": torch.arange(8)}


def everything(model) -> list[torch.Tensor]:
    networks = [*model.networks.values(), *model.ema.values()]
    found = [t for network in networks for t in network.state_dict().values()]
    found += [t for o in model.optimizers.values() for s in o.state.values() for t in s.values()]
    return [t.clone() for t in [*found, model.method.remembered]]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.mark.parametrize("fused", [None, True])
@pytest.mark.parametrize("start", [0, 2])
@pytest.mark.parametrize("recipe", RECIPES)
def test_one_slice_that_is_no_number_leaves_everything_as_it_was(recipe, start, fused):
    model = model_of({**RECIPES[recipe], "ema_start_iter": start}, fused=fused)
    model.step(a_batch(1), 1)
    before = everything(model)
    model.step(a_batch(2), NO_NUMBER)
    assert equal(before, everything(model))
    found = model.guard.read(model.world)
    assert (found.skipped, found.in_a_row, found.first) == (1, 1, NO_NUMBER)
    model.step(a_batch(4), 4)
    after = everything(model)
    assert not equal(before, after) and all(t.isfinite().all() for t in after)
    assert model.guard.read(model.world).in_a_row == 0


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
@pytest.mark.parametrize("recipe", ["float16", "all"])
def test_an_overflow_leaves_everything_as_it_was_and_is_no_fault(recipe, optimizer):
    model = model_of(RECIPES[recipe], optimizer)
    model.step(a_batch(1), 1)
    before = everything(model)
    assert all(v.isfinite() for v in model.step(a_batch(3), OVERFLOW).values())
    assert equal(before, everything(model))
    found = model.guard.read(model.world)
    assert (found.skipped, found.in_a_row, found.first) == (0, 0, None)
    assert {k: s["scale"] for k, s in model.loss_scales.state_dict().items()} == {"net_a": 2.0**14, "net_b": 2.0**15}


def test_a_gradient_that_overflows_at_any_scale_is_a_fault():
    def plan(method, a, b, batch, it):
        with method.phase("a") as loss:
            x = a(batch.x).float()
            loss["l_a"] = (x - x.detach()).abs().sum().sqrt() * 0 + x.mean()  # a number with a slope of 0 / 0

    model = planned(plan, precision="fp16")
    before = weights(model)
    for it in range(1, 17):  # 2^15 is halved until it is 1/2
        model.step(a_batch(it), it)
    assert model.guard.read(model.world).first is None
    for it in range(17, 20):
        model.step(a_batch(it), it)
    found = model.guard.read(model.world)
    assert (found.skipped, found.in_a_row, dict(found.not_finite)) == (3, 3, {"gradient of net_a": 17})
    assert torch.equal(before, weights(model))


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_from_the_phase_that_finds_no_number_on_nothing_changes(optimizer):
    def plan(method, a, b, batch, it):
        with method.phase("a") as loss:
            loss["l_a"] = a(batch.x).mean()
        with method.phase("b") as loss:
            loss["l_b"] = b(batch.x).mean() * (math.nan if it == NO_NUMBER else 1.0)
        method.remembered = method.remembered + 1
        with method.phase("a") as loss:
            loss["l_again"] = a(batch.x).square().mean()

    def once(method, a, b, batch, it):
        with method.phase("a") as loss:
            loss["l_a"] = a(batch.x).mean()

    model, first_alone = (planned(p, optimizer, 1e-2, ema_decay=0.5) for p in (plan, once))
    model.step(a_batch(1), 1)
    first_alone.networks["net_a"].load_state_dict(model.networks["net_a"].state_dict())
    first_alone.optimizers["optim_a"].load_state_dict(copy.deepcopy(model.optimizers["optim_a"].state_dict()))
    b, average = weights(model, "net_b"), copy.deepcopy(model.ema["net_a"].state_dict())
    for m in (model, first_alone):
        m.step(a_batch(2), NO_NUMBER)
    assert torch.equal(weights(model, "net_b"), b) and model.method.remembered == 1
    torch.testing.assert_close(model.ema["net_a"].state_dict(), average, rtol=0, atol=0)
    assert torch.equal(weights(model, "net_a"), weights(first_alone, "net_a"))  # its first phase was over


def test_what_was_found_is_read_in_one_transfer(monkeypatch):
    model = model_of({})
    model.step(a_batch(2), NO_NUMBER)
    reads, tolist = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: (reads.append(self.shape), tolist(self))[1])
    found = model.guard.read(model.world)
    assert len(reads) == 1
    assert dict(found.not_finite) == {"l_a": 2, "gradient of net_a": 2}


def test_without_scales_the_same_gradient_is_taken():
    model = model_of({"accumulate": 2}, torch.optim.SGD)
    before = weights(model, "net_a")
    model.step(a_batch(3), OVERFLOW)
    assert not torch.equal(before, weights(model, "net_a"))


def test_up_to_its_start_the_average_is_the_network_to_the_bit():
    model = model_of({"ema_start_iter": 5, "accumulate": 2})
    for it in range(1, 6):
        model.step(a_batch(it), it)
        torch.testing.assert_close(model.ema["net_a"].state_dict(), model.networks["net_a"].state_dict(), rtol=0, atol=0)


def test_the_limit_holds_for_the_mean_of_the_batch():
    def plan(method, a, b, batch, it):
        with method.phase("a") as loss:
            loss["l_a"] = a(batch.x).float().mean() * 0 + batch.row.float().mean()

    found = []
    for limit in (3.4, 3.6):  # the rows' mean is 3.5, of which the second slice alone has 5.5
        model = planned(plan, accumulate=2, loss_limit=limit)
        model.step(a_batch(1), 1)
        found.append(dict(model.guard.read(model.world).beyond))
    assert found == [{"l_a": 1}, {}]


def test_a_run_in_float16_and_slices_that_went_back_is_resumed_to_the_bit(tmp_path, train, monkeypatch):
    step = SRModel.step

    def spoilt(self, batch, it):
        if it in (5, 6) and not self.engine.passed_over:
            batch.lq = batch.lq * math.nan
        step(self, batch, it)

    monkeypatch.setattr(SRModel, "step", spoilt)
    settings = ["train.precision=fp16", "train.accumulate=2", "train.skip_limit=2", "train.scheduler=~", "name=run",
                "train.ema_start_iter=4", "train.total_iter=8", "logger.save_checkpoint_freq=2"]  # fmt: skip
    words = [word for setting in settings for word in ("--set", setting)]
    assert "in 2 iterations in a row: going back to iteration 4" in train(*words)
    folder = tmp_path / "experiments/run"
    through, last = saved(folder, 8), folder / "training_states/8.state"
    whole = torch.load(last, weights_only=True)
    last.unlink()  # as if killed after iteration 6, which came after the return
    assert "going on after iteration 6" in train(*words, "--auto_resume")
    assert same(through, saved(folder, 8))
    resumed = torch.load(last, weights_only=True)
    assert resumed["loss_scales"] == whole["loss_scales"] and resumed["passed_over"] == whole["passed_over"] == 2
    for one, other in zip(*(s["optimizers"]["optim_g"]["state"].values() for s in (whole, resumed)), strict=True):
        assert same({"state": one}, {"state": other})


ON_TWO = """
import sys
import torch
from facerestore.engine import distributed
from tests.engine.test_skipping import NO_NUMBER, OVERFLOW, RECIPES, a_batch
from tests.engine.test_skipping import model_of_two as model_of
world = distributed.start(num_gpu=0)
model = model_of(RECIPES[sys.argv[1]] | {"accumulate": int(sys.argv[2])}, world)
rows = slice(4 * world.rank, 4 * world.rank + 4) if world.size > 1 else slice(None)
for it in (1, NO_NUMBER, OVERFLOW, 4):
    model.step({k: v[rows] for k, v in a_batch(it).items()}, it)
found = model.guard.read(world)
values = [p.detach() for n in (*model.networks.values(), *model.ema.values()) for p in n.parameters()]
scales = {k: s["scale"] for k, s in model.loss_scales.state_dict().items()}
torch.save({"values": values, "skipped": found.skipped, "scales": scales}, f"{sys.argv[3]}_{world.rank}.pth")
distributed.stop()
"""


def model_of_two(recipe: dict, world):
    """Without batch statistics, which are of each part."""
    model = planned(troubled, torch.optim.SGD, 1e-2, None, ema_decay=0.5, **recipe)
    model.world = world
    return model


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["plain", "float16"])
def test_two_processes_of_which_one_has_no_number_skip_alike(tmp_path, recipe):
    (tmp_path / "run.py").write_text(ON_TWO)
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for start, accumulate, name in ((torchrun, "2", "two"), ([sys.executable], "1", "one")):
        command = [*start, str(tmp_path / "run.py"), recipe, accumulate, str(tmp_path / name)]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    whole, first, second = (torch.load(tmp_path / f"{n}.pth") for n in ("one_0", "two_0", "two_1"))
    assert equal(first["values"], second["values"])
    assert first["scales"] == second["scales"] == whole["scales"]
    assert first["skipped"] == second["skipped"] == whole["skipped"] == 1
    torch.testing.assert_close(first["values"], whole["values"], rtol=0, atol=1e-5 if recipe == "plain" else 1e-3)
