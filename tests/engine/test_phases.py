"""Phases: what is frozen, what is stepped, what is seen afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from facerestore.data.batch import Batch
from facerestore.engine.distributed import World
from facerestore.engine.training import Recipe, TrainingModel
from facerestore.models.base import Method


class TwoParts(Method):
    """Two linear maps under one optimizer, and a third that is only looked through."""

    optimizer_networks = {"optim_both": ("net_a", "net_b"), "optim_c": ("net_c",)}
    averaged = ("net_a",)

    def __init__(self, plan):
        self.plan = plan

    def step(self, batch, it):
        self.plan(self, batch, it)

    def restore(self, batch, ema=True):
        return self.inference_network("net_a", ema)(batch.x)


def model(plan, momentum: float = 0.0, **recipe) -> TrainingModel:
    torch.manual_seed(0)
    networks = {n: nn.Linear(2, 2) for n in ("net_a", "net_b", "net_c")}
    networks["net_b"].bias.requires_grad_(False)  # fixed from the start: must stay so
    groups = {"optim_both": ("net_a", "net_b"), "optim_c": ("net_c",)}
    optimizers = {
        k: torch.optim.SGD([p for n in v for p in networks[n].parameters() if p.requires_grad], 0.1, momentum)
        for k, v in groups.items()
    }
    for optimizer in optimizers.values():
        optimizer.param_groups[0]["initial_lr"] = 0.1
    return TrainingModel(TwoParts(plan), networks, optimizers, Recipe(**recipe))


def weights(trained: TrainingModel) -> dict[str, torch.Tensor]:
    return {f"{n}.{k}": p.detach().clone() for n, net in trained.networks.items() for k, p in net.named_parameters()}


def moved(before: dict, after: dict) -> set[str]:
    return {k for k in before if not torch.equal(before[k], after[k])}


BATCH = {"x": torch.ones(3, 2)}


def chain(method, batch):
    nets = method.engine.networks
    return nets["net_c"](nets["net_b"](nets["net_a"](batch.x)))


def test_only_the_named_networks_move_and_fixed_parameters_stay_fixed():
    def plan(method, batch, it):
        with method.phase("b") as loss:
            assert isinstance(batch, Batch)
            loss["l_b"] = chain(method, batch).square().mean()
            assert not any(p.requires_grad for p in method.engine.networks["net_a"].parameters())

    trained = model(plan)
    before = weights(trained)
    trained.step(BATCH, 1)
    assert moved(before, weights(trained)) == {"net_b.weight"}
    assert [p.requires_grad for p in trained.networks["net_b"].parameters()] == [True, False]
    assert all(p.requires_grad for p in trained.networks["net_a"].parameters())


def test_a_network_that_shares_its_optimizer_is_not_stepped_with_old_gradients():
    def plan(method, batch, it):
        with method.phase("a") as loss:
            loss["l_a"] = chain(method, batch).square().mean()
        if it == 1:
            with method.phase("b") as loss:
                loss["l_b"] = chain(method, batch).square().mean()

    trained = model(plan)
    trained.step(BATCH, 1)
    before = weights(trained)
    trained.step(BATCH, 2)
    assert moved(before, weights(trained)) == {"net_a.weight", "net_a.bias"}


def test_terms_are_summed_logs_are_not_and_both_come_back_detached():
    def plan(method, batch, it):
        with method.phase("a") as loss:
            y = chain(method, batch).square().mean()
            loss["l_one"], loss["l_two"] = y, 3 * y
            loss.log["seen"] = 100 * y

    trained = model(plan)
    gradient = torch.autograd.grad(4 * chain(trained.method, Batch(BATCH)).square().mean(), trained.networks["net_a"].weight)
    before = weights(trained)
    terms = trained.step(BATCH, 1)
    assert set(terms) == {"l_one", "l_two", "seen"}
    assert not any(t.requires_grad for t in terms.values())
    torch.testing.assert_close(before["net_a.weight"] - trained.networks["net_a"].weight, 0.1 * gradient[0])


def test_an_empty_phase_steps_nothing():
    def plan(method, batch, it):
        with method.phase("a") as loss:
            if it == 1:
                loss["l_a"] = chain(method, batch).mean()

    trained = model(plan, momentum=0.9)
    trained.step(BATCH, 1)
    before = weights(trained)
    assert trained.step(BATCH, 2) == {}
    assert not moved(before, weights(trained))


def test_a_phase_that_minimises_nothing_still_reports():
    def plan(method, batch, it):
        with method.phase("a") as loss:
            loss.log["seen"] = batch.x.mean()

    assert model(plan).step(BATCH, 1) == {"seen": 1.0}


def test_a_term_may_be_reported_as_something_else_and_no_name_stands_twice():
    def plan(method, batch, it):
        with method.phase("a") as loss:
            y = chain(method, batch).square().mean()
            loss["l_a"] = -2 * y
            loss.log["l_a"] = y
            with pytest.raises(KeyError, match="two terms"):
                loss |= {"l_a": y}

    assert model(plan).step(BATCH, 1)["l_a"] > 0


def test_terms_may_be_back_propagated_one_after_the_other():
    def at_once(method, batch, it):
        with method.phase("a") as loss:
            loss["l_one"], loss["l_two"] = chain(method, batch).square().mean(), chain(method, batch).abs().mean()

    def in_turn(method, batch, it):
        with method.phase("a") as loss:
            loss["l_one"] = chain(method, batch).square().mean()
            loss.backward()
            assert loss["l_one"].grad_fn is None
            loss["l_two"] = chain(method, batch).abs().mean()

    one, other = model(at_once), model(in_turn)
    assert one.step(BATCH, 1) == other.step(BATCH, 1)
    torch.testing.assert_close(weights(one), weights(other))


def test_a_phase_of_several_networks_steps_all_their_optimizers():
    def plan(method, batch, it):
        with method.phase("a", "c") as loss:
            loss["l_a"] = chain(method, batch).square().mean()

    trained = model(plan)
    before = weights(trained)
    trained.step(BATCH, 1)
    assert moved(before, weights(trained)) == {"net_a.weight", "net_a.bias", "net_c.weight", "net_c.bias"}


def test_processes_draw_their_rows_of_one_batch_and_share_decisions():
    def at(rank: int, size: int):
        trained = model(lambda *a: None)
        trained.world = World(rank, size)
        return trained.draw("z", (4 // size, 3), 5), trained.draw_shared("mix", (2,), 5)

    whole, decision = at(0, 1)
    rows, decisions = zip(*(at(rank, 2) for rank in range(2)), strict=True)
    torch.testing.assert_close(torch.cat(rows), whole)
    assert all(torch.equal(d, decision) for d in decisions)
    assert ((decision >= 0) & (decision < 1)).all()


def test_an_error_in_a_phase_thaws_what_it_froze():
    def plan(method, batch, it):
        with method.phase("a"):
            raise RuntimeError("in the middle")

    trained = model(plan)
    with pytest.raises(RuntimeError, match="in the middle"):
        trained.step(BATCH, 1)
    assert all(p.requires_grad for p in trained.networks["net_c"].parameters())


def test_clipping_bounds_the_phase_gradient():
    def plan(method, batch, it):
        with method.phase("a") as loss:
            loss["l_a"] = 1e4 * chain(method, batch).sum()

    trained = model(plan, clip_grad_norm=0.5)
    before = weights(trained)
    trained.step(BATCH, 1)
    after = weights(trained)
    change = torch.cat([(before[k] - after[k]).flatten() for k in before]).norm()
    assert change == pytest.approx(0.1 * 0.5, rel=1e-4)


def test_draws_depend_on_seed_iteration_and_name_alone():
    trained = model(lambda *a: None, seed=3)
    a = trained.draw("z", (4, 5), 7)
    trained.draw("other", (2,), 7)
    torch.testing.assert_close(trained.draw("z", (4, 5), 7), a)
    assert not torch.equal(trained.draw("z", (4, 5), 8), a)
    assert not torch.equal(trained.draw("y", (4, 5), 7), a)
    assert not torch.equal(model(lambda *a: None, seed=4).draw("z", (4, 5), 7), a)


def test_evaluation_uses_the_average_and_gives_back_training_mode():
    trained = model(lambda *a: None, ema_decay=0.5)
    trained.networks["net_a"].weight.data.zero_()
    live, averaged = trained.restore(BATCH, ema=False), trained.restore(BATCH)
    assert not torch.equal(live, averaged)
    assert not averaged.requires_grad
    assert trained.networks["net_a"].training and not trained.ema["net_a"].training


def test_bf16_reaches_the_forward_pass_and_weights_stay_float32():
    seen = []

    def plan(method, batch, it):
        with method.phase("a") as loss:
            y = chain(method, batch)
            seen.append(y.dtype)
            loss["l_a"] = y.float().mean()

    trained = model(plan, precision="bf16")
    trained.step(BATCH, 1)
    assert seen == [torch.bfloat16]
    assert trained.networks["net_a"].weight.dtype == torch.float32


def test_bytes_become_numbers_on_the_device_and_numbers_are_left_alone():
    seen = []
    trained = model(lambda method, batch, it: seen.append(batch.x))
    trained.normalisation = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    bytes_ = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    trained.step({"x": bytes_}, 1)
    trained.step({"x": torch.full((1, 3, 1, 1), 7.0)}, 2)
    torch.testing.assert_close(seen[0].flatten(), torch.tensor([-1.0, -0.6, 1.0]))
    assert (seen[1] == 7).all()
