"""Training in float16: what is scaled, unscaled, skipped and remembered."""

from __future__ import annotations

import pytest
import torch

from facerestore.config import load_options
from facerestore.engine import build_model
from facerestore.losses.regularizers import adaptive_weight, gradient_penalty, path_length_penalty, r1_penalty, scaled_gradients
from tests.engine.runs import DEBUG, same
from tests.engine.runs import weights as saved
from tests.engine.toys import planned, weights

ONES = {"x": torch.ones(4, 3)}


def both(method, a, b, batch, it):
    with method.phase("a") as loss:
        loss["l_a"] = a(batch.x).square().mean()
    with method.phase("b") as loss:
        loss["l_b"], loss["l_more"] = b(batch.x).square().mean(), b(batch.x).abs().mean()


@pytest.mark.parametrize("fused", [None, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_weights_are_nearly_those_of_float32(fused, accumulate):
    whole = planned(both, torch.optim.Adam, 1e-2)
    half = planned(both, torch.optim.Adam, 1e-2, fused, precision="fp16", accumulate=accumulate)
    before = weights(half)
    for it in range(1, 6):
        terms = half.step(ONES, it)
        torch.testing.assert_close(terms, whole.step(ONES, it), rtol=2e-3, atol=2e-3, check_dtype=False)
    assert (weights(half) - weights(whole)).abs().max() < 0.1 * (weights(whole) - before).abs().max()
    assert all(p.dtype == torch.float32 for p in half.networks["net_a"].parameters())


def test_gradients_below_float16_survive():
    def plan(method, a, b, batch, it):
        with method.phase("a") as loss:
            loss["l_a"] = 1e-8 * a(batch.x).sum()

    def change(**recipe):
        model = planned(plan, lr=1e6, **recipe)
        before = weights(model)
        model.step(ONES, 1)
        return before - weights(model)

    torch.testing.assert_close(change(precision="fp16"), change(), rtol=5e-3, atol=1e-4)
    assert change().abs().max() > 1e-2


@pytest.mark.parametrize("fused", [None, True])
def test_an_overflow_skips_the_rest_of_the_iteration_and_lowers_the_scale_of_its_phase_alone(fused):
    def plan(method, a, b, batch, it):
        with method.phase("a", "b") as loss:
            loss["l_sum"] = b(batch.x).mean() + (torch.inf if it == 2 else 1.0) * a(batch.x).mean()
        with method.phase("b") as loss:
            loss["l_b"] = 0 * b(batch.x).mean()

    model = planned(plan, torch.optim.Adam, 1e-2, fused, precision="fp16", clip_grad_norm=1.0)
    model.step(ONES, 1)
    before = weights(model)
    steps = [float(s["step"]) for s in model.optimizers["optim_a"].state.values()]
    model.step(ONES, 2)
    assert torch.equal(before, weights(model))
    assert [float(s["step"]) for s in model.optimizers["optim_a"].state.values()] == steps
    scales = {key: state["scale"] for key, state in model.loss_scales.state_dict().items()}
    assert scales == {"net_a net_b": 16384.0, "net_b": 32768.0}
    model.step(ONES, 3)
    assert not torch.equal(weights(model), before)


def test_gradients_are_clipped_after_they_are_unscaled():
    def plan(method, a, b, batch, it):
        with method.phase("a") as loss:
            loss["l_a"] = 5 * a(batch.x).float().mean()

    model = planned(plan, precision="fp16", clip_grad_norm=0.5)
    before = weights(model)
    model.step(ONES, 1)
    assert (before - weights(model)).norm() == pytest.approx(0.1 * 0.5, rel=1e-3)


SCALE = torch.tensor(4096.0)
TINY = 1e-6  # gradients of this size, divided by a mean over pixels, are nothing in float16


def half_conv(x: torch.Tensor) -> torch.Tensor:
    return (x.half() * torch.tensor(TINY, dtype=torch.float16) * 0.01).float()


def test_penalties_of_second_order_do_not_vanish():
    def penalty(scale):
        x = torch.ones(2, 3, 4, 4, requires_grad=True)
        with scaled_gradients(scale):
            return r1_penalty(half_conv(x).mean((1, 2, 3)), x)

    assert penalty(None) == 0
    assert penalty(SCALE * 16) > 0


@pytest.mark.parametrize("scale", [SCALE, SCALE * 64])
def test_a_scale_changes_no_penalty(scale):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Softplus(), torch.nn.Conv2d(4, 1, 3)).double()
    x, y = torch.randn(2, 2, 3, 8, 8, dtype=torch.double)
    x.requires_grad_()
    latents = torch.randn(2, 3, 4, requires_grad=True)

    def values():
        r1 = r1_penalty(net(x), x)
        gp = gradient_penalty(net, x, y, torch.full((2, 1, 1, 1), 0.3))
        pl = path_length_penalty(latents.tanh().sum((1, 2)).view(2, 1, 1, 1) * y.float(), latents, 0.1, y.float())[0]
        weight = adaptive_weight(net(x).abs().mean(), net(y).mean(), net[2].weight)
        gradients = torch.autograd.grad(r1 + gp, net[0].weight)[0]
        return [v.detach() for v in (r1, gp, pl, weight, gradients)]

    plain = values()
    with scaled_gradients(scale):
        torch.testing.assert_close(values(), plain, rtol=1e-5, atol=1e-7)


def test_scales_are_saved_and_a_resumed_run_is_an_uninterrupted_one(tmp_path, train):
    common = ["--set", "train.precision=fp16", "--set", "train.scheduler=~", "--set", "train.perceptual_opt=~"]
    train(*common, "--set", "name=whole", "--set", "train.total_iter=4", options="srgan.yml")
    train(*common, "--set", "name=run", "--set", "train.total_iter=2", options="srgan.yml")
    train(*common, "--set", "name=run", "--set", "train.total_iter=4", "--auto_resume", options="srgan.yml")
    for net in ("net_g", "net_d"):
        assert same(*(saved(tmp_path / "experiments" / name, 4, net) for name in ("whole", "run")))
    scales = [
        torch.load(tmp_path / f"experiments/{name}/training_states/4.state", weights_only=True)["loss_scales"]
        for name in ("whole", "run")
    ]
    assert scales[0] == scales[1] and set(scales[0]) == {"net_g", "net_d"}
    assert sum(s["_growth_tracker"] for s in scales[0].values()) > 0


def test_steps_are_fused_where_nothing_else_is_said():
    def optimizer(*overrides):
        model = build_model(load_options(DEBUG / "sr.yml", ["train.precision=fp16", *overrides]))
        return model.optimizers["optim_g"].param_groups[0]

    assert optimizer()["fused"] is True
    assert optimizer("train.optim_g.foreach=true")["fused"] is None
