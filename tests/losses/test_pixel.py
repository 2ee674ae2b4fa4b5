"""Pixel losses against BasicSR's figures."""

from __future__ import annotations

import pytest
import torch

from facerestore.losses import CharbonnierLoss, L1Loss, WeightedTVLoss, build_loss
from tests import parity

CASE, STORED = parity.load("loss_pixel")


def inputs() -> dict[str, torch.Tensor]:
    return {name: parity.draw(**spec) for name, spec in CASE["config"]["inputs"].items()}


@pytest.mark.parametrize("call", CASE["config"]["calls"], ids=lambda call: call["name"])
def test_parity(call):
    given, name = inputs(), call["name"]
    pred = given["pred"].requires_grad_()
    pictures = (pred,) if call["loss"] == "WeightedTVLoss" else (pred, given["target"])
    loss = build_loss({"type": call["loss"], **call["options"]})(*pictures, weight=given.get(call["weight"]))
    loss.sum().backward()
    assert parity.relative_error(loss, STORED[f"value.{name}"]) <= CASE["tolerance"][f"value.{name}"]
    assert parity.relative_error(pred.grad, STORED[f"grad.{name}"]) <= CASE["tolerance"][f"grad.{name}"]


@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (1, 1, 4, 5), (2, 3, 1, 1), (2, 3, 4, 5)])
def test_weighted_mean_counts_what_the_map_covers(shape):
    pred, target, weight = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5), torch.rand(shape)
    whole = weight.expand(2, 3, 4, 5)
    expected = (whole * (pred - target).abs()).sum() / whole.sum()
    assert L1Loss()(pred, target, weight) == pytest.approx(expected.item(), rel=1e-6)
    assert WeightedTVLoss()(pred, weight) == pytest.approx(WeightedTVLoss()(pred, whole).item(), rel=1e-6)


@pytest.mark.parametrize("loss", [L1Loss(), CharbonnierLoss()])
def test_mean_of_nothing_is_zero(loss):
    pred = torch.rand(1, 3, 4, 4, requires_grad=True)
    value = loss(pred, torch.rand(1, 3, 4, 4), torch.zeros(1, 1, 4, 4))
    value.backward()
    assert value == 0 and not pred.grad.any()


def test_loss_weight_scales():
    pred, target = torch.rand(2, 1, 3, 4, 4)
    assert L1Loss(loss_weight=0.25)(pred, target) == pytest.approx(0.25 * L1Loss()(pred, target).item())
    assert WeightedTVLoss(loss_weight=0.25)(pred) == pytest.approx(0.25 * WeightedTVLoss()(pred).item())


def test_charbonnier_is_smooth_where_pictures_agree():
    pred = torch.rand(1, 3, 4, 4, requires_grad=True)
    CharbonnierLoss(eps=1e-6)(pred, pred.detach()).backward()
    assert torch.equal(pred.grad, torch.zeros_like(pred))
