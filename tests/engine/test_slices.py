"""A batch in slices gives the weights and terms of the whole batch."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from facerestore.config import load_options
from facerestore.data.batch import Batch
from facerestore.engine import build_model
from facerestore.engine.batches import sliced
from facerestore.engine.distributed import World
from facerestore.errors import OptionError, UserError
from facerestore.losses.regularizers import r1_penalty
from tests.engine.runs import DEBUG, same
from tests.engine.runs import weights as saved
from tests.engine.toys import planned, weights


def batches(count: int = 3, rows: int = 8):
    generator = torch.Generator().manual_seed(5)
    return [{"x": torch.randn(rows, 3, generator=generator), "path": [f"{i}" for i in range(rows)]} for _ in range(count)]


def adversaries(method, a, b, batch, it):
    """Phases that see what the one before changed, several terms, one back-propagated early, a lazy regulariser, a draw, a
    running mean, and a value that is only reported."""
    noise = method.draw("noise", batch.x.shape, it)
    with method.phase("b") as loss:
        loss["l_real"] = nn.functional.softplus(-b(batch.x)).mean()
        loss.backward()
        loss["l_fake"] = nn.functional.softplus(b(a(noise).detach())).mean()
        loss.log["real"] = b(batch.x).mean()
    if it % 2 == 0:
        with method.phase("b") as loss:
            x = batch.x.clone().requires_grad_()
            loss["l_r1"] = r1_penalty(b(x), x)
    with method.phase("a") as loss:
        image = a(noise)
        length = method.mean_over_processes(image.square().mean())
        method.remembered = method.remembered + 0.5 * (length - method.remembered)
        loss["l_gan"] = nn.functional.softplus(-b(image)).mean()
        loss["l_length"] = (image.square().mean() - method.remembered) * 0.1
    with method.phase("a", "b"):
        assert not batch.x.requires_grad


@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize("recipe", [{}, {"clip_grad_norm": 0.05, "ema_decay": 0.5}])
def test_slices_are_the_whole(count, recipe):
    whole, cut = planned(adversaries, **recipe), planned(adversaries, accumulate=count, **recipe)
    for it, batch in enumerate(batches(), 1):
        one, other = whole.step(batch, it), cut.step(batch, it)
        assert one.keys() == other.keys()
        for name in one:
            torch.testing.assert_close(other[name], one[name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights(cut), weights(whole), rtol=0, atol=1e-6)
    torch.testing.assert_close(cut.method.remembered, whole.method.remembered)
    assert (weights(whole) - weights(planned(adversaries))).abs().max() > 1e-2
    for name in whole.ema:
        torch.testing.assert_close(cut.ema[name].state_dict(), whole.ema[name].state_dict(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "network",
    ["{type: MSRResNet, num_feat: 8, num_block: 1, upscale: 4}", "{type: RRDBNet, num_in_ch: 3, num_out_ch: 3, num_feat: 8, "
     "num_block: 1, num_grow_ch: 4}"],
    ids=["MSRResNet", "RRDBNet"],
)  # fmt: skip
def test_networks_without_batch_statistics(network):
    def trained(accumulate: int) -> dict[str, torch.Tensor]:
        overrides = [f"network_g={network}", f"train.accumulate={accumulate}", "train.optim_g.lr=1e-4"]
        model = build_model(load_options(DEBUG / "sr.yml", overrides))
        generator = torch.Generator().manual_seed(0)
        for it in range(1, 6):
            pictures = torch.randint(0, 256, (4, 3, 48, 48), dtype=torch.uint8, generator=generator)
            model.step({"gt": pictures, "lq": pictures[..., ::4, ::4].contiguous()}, it)
        return model.networks["net_g"].state_dict()

    whole, cut = trained(1), trained(4)
    assert max((whole[k] - cut[k]).abs().max() for k in whole) <= 1e-5


def test_draws_of_slices_and_processes_are_rows_of_one():
    seen = []

    def plan(method, a, b, batch, it):
        seen.append(method.draw("z", (len(batch.x), 2), it))

    whole = planned(plan).draw("z", (8, 2), 1)
    for rank in range(2):
        model = planned(plan, accumulate=2)
        model.world = World(rank, 2)
        model.step({"x": torch.zeros(4, 3)}, 1)
    assert torch.equal(torch.cat(seen), whole)


def test_slices_take_turns_and_hold_what_is_theirs():
    order = []

    def plan(method, a, b, batch, it):
        for name in "ab":
            with method.phase(name) as loss:
                order.append((name, *batch.path))
                loss["l_" + name] = (a if name == "a" else b)(batch.x).mean()

    planned(plan, accumulate=2).step({"x": torch.zeros(4, 3), "path": list("1234"), "scale": 4}, 1)
    assert order == [("a", "1", "2"), ("a", "3", "4"), ("b", "1", "2"), ("b", "3", "4")]


def test_an_error_in_one_slice_ends_the_step_and_the_next_one_works():
    def plan(method, a, b, batch, it):
        with method.phase("a") as loss:
            if it == 1 and method.engine.slices.current == 1:
                raise ValueError("in the second slice")
            loss["l_a"] = a(batch.x).square().mean()

    model = planned(plan, accumulate=3)
    with pytest.raises(ValueError, match="in the second slice"):
        model.step({"x": torch.ones(6, 3)}, 1)
    assert all(p.requires_grad for n in model.networks.values() for p in n.parameters())
    before = weights(model)
    model.step({"x": torch.ones(6, 3)}, 2)
    expected = planned(plan)
    expected.step({"x": torch.ones(6, 3)}, 2)
    assert not torch.equal(before, weights(model))
    torch.testing.assert_close(weights(model), weights(expected))
    assert sum(t.name.startswith("slice") for t in threading.enumerate()) >= 3


def test_networks_that_are_used_before_the_phases_are_not_frozen_by_another_slice():
    def plan(method, a, b, batch, it):
        image = a(batch.x)
        with method.phase("b") as loss:
            method.mean_over_processes(image.mean())
            loss["l_b"] = b(a(batch.x)).square().mean()  # `a` is frozen here, in every slice
        judged = b(batch.x)
        with method.phase("a") as loss:
            loss["l_a"] = (image * image).mean()
            assert not any(p.requires_grad for p in b.parameters())
        with method.phase("b") as loss:
            loss["l_more"] = judged.square().mean() * 0 + b(batch.x).mean()

    whole, cut = planned(plan), planned(plan, accumulate=4)
    for it, batch in enumerate(batches(), 1):
        torch.testing.assert_close(cut.step(batch, it), whole.step(batch, it))
    torch.testing.assert_close(weights(cut), weights(whole), rtol=0, atol=1e-6)
    assert (weights(whole, "net_a") - weights(planned(plan), "net_a")).abs().max() > 1e-2


def test_slices_that_go_different_ways_are_told():
    def plan(method, a, b, batch, it):
        name, network = ("a", a) if batch.x.sum() > 0 else ("b", b)
        with method.phase(name) as loss:
            loss["l"] = network(batch.x).mean()

    with pytest.raises(RuntimeError, match="went different ways"):
        planned(plan, accumulate=2).step({"x": torch.tensor([[1.0] * 3, [-1.0] * 3])}, 1)


def test_a_batch_that_cannot_be_cut_is_refused():
    with pytest.raises(UserError, match="a batch of 5 cannot be cut into 2"):
        sliced(Batch(x=torch.zeros(5, 3)), 2)
    with pytest.raises(OptionError, match="a batch of 4 cannot be cut into 3 equal slices"):
        load_options(DEBUG / "sr.yml", ["train.accumulate=3"])


def test_batch_statistics_are_noted():
    discriminator = "network_d={type: VGGStyleDiscriminator, num_in_ch: 3, num_feat: 4, input_size: 128}"
    overrides = ["train.accumulate=2", discriminator, "datasets.train.gt_size=128", "datasets.train.size=128"]
    notes = load_options(DEBUG / "srgan.yml", overrides).notes
    assert any("batch statistics of network_d (VGGStyleDiscriminator) are those of slices of 2" in n for n in notes)
    assert not any("statistics" in n for n in load_options(DEBUG / "srgan.yml", ["train.accumulate=2"]).notes)


def test_a_resumed_run_of_slices_is_an_uninterrupted_one(tmp_path, train):
    common = ["--set", "train.accumulate=2", "--set", "train.scheduler=~"]
    train(*common, "--set", "name=whole", "--set", "train.total_iter=4", options="srgan.yml")
    train(*common, "--set", "name=run", "--set", "train.total_iter=2", options="srgan.yml")
    train(*common, "--set", "name=run", "--set", "train.total_iter=4", "--auto_resume", options="srgan.yml")
    for net in ("net_g", "net_d"):
        assert same(*(saved(tmp_path / "experiments" / name, 4, net) for name in ("whole", "run")))
