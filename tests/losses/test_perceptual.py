"""The perceptual loss against BasicSR's figures."""

from __future__ import annotations

import pytest
import torch

from facerestore.errors import OptionError
from facerestore.losses import PerceptualLoss, build_loss
from facerestore.losses.perceptual import gram_matrix
from tests import parity

CASE, STORED = parity.load("loss_perceptual")
SMALL = {"layer_weights": {"conv1_2": 0.5, "relu2_1": 1.0}, "vgg_type": "vgg16"}


def filled(**options) -> PerceptualLoss:
    loss = build_loss({"type": "PerceptualLoss", "weights": "random", **options})
    parity.fill_(loss.vgg, **CASE["config"]["vgg_fill"])
    return loss


@pytest.mark.parametrize("call", CASE["config"]["calls"], ids=lambda call: call["name"])
def test_parity(call):
    loss = filled(**call["options"])
    x, gt = (parity.draw(**CASE["config"]["inputs"][name]) for name in ("x", "gt"))
    x.requires_grad_()
    terms = dict(zip(("perceptual", "style"), loss(x, gt), strict=True))
    for name, term in terms.items():
        key = f"{call['name']}.{name}"
        assert (term is None) == (f"value.{key}" not in STORED)
        if term is not None:
            (gradient,) = torch.autograd.grad(term, x, retain_graph=True)
            assert parity.relative_error(term, STORED[f"value.{key}"]) <= CASE["tolerance"][f"value.{key}"], key
            assert parity.relative_error(gradient, STORED[f"grad.{key}"]) <= CASE["tolerance"][f"grad.{key}"], key


@pytest.fixture
def small() -> PerceptualLoss:
    return filled(**SMALL, style_weight=2.0)


def test_vgg_is_frozen_and_stays_in_eval_mode(small):
    x, gt = torch.rand(2, 1, 3, 16, 16).requires_grad_().unbind()
    small.train()
    assert not any(module.training for module in small.modules())
    perceptual, style = small(x, gt)
    (perceptual + style).backward()
    assert all(p.grad is None and not p.requires_grad for p in small.parameters())


def test_truth_is_a_constant(small):
    x = torch.rand(1, 3, 16, 16, requires_grad=True)
    gt = torch.rand(1, 3, 16, 16, requires_grad=True)
    for term in small(x, gt):
        assert torch.autograd.grad(term, gt, retain_graph=True, allow_unused=True) == (None,)
        assert torch.autograd.grad(term, x, retain_graph=True)[0].any()


@pytest.mark.parametrize("criterion", ["l1", "l2", "fro"])
def test_pictures_that_agree_cost_nothing(criterion):
    x = torch.rand(1, 3, 16, 16, requires_grad=True)
    perceptual, style = filled(**SMALL, style_weight=1.0, criterion=criterion)(x, x.detach())
    (perceptual + style).backward()
    assert perceptual == 0 and style == 0 and torch.equal(x.grad, torch.zeros_like(x))


def test_gram_matrix_is_in_float32_under_autocast():
    features = torch.randn(2, 5, 7, 3)
    expected = torch.einsum("ncyx,ndyx->ncd", features, features) / (5 * 7 * 3)
    with torch.autocast("cpu", torch.bfloat16):
        gram = gram_matrix(features)
        assert gram_matrix(features.bfloat16()).dtype == torch.float32
    assert torch.allclose(gram, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "keyword"),
    [
        ({"layer_weights": {}}, "layer_weights"),
        ({"layer_weights": {"conv9_1": 1.0}}, "layer_weights"),
        ({"layer_weights": {"conv1_1": 1.0}, "perceptual_weight": 0.0}, "perceptual_weight"),
    ],
)
def test_what_cannot_be_measured_is_refused(options, keyword):
    with pytest.raises(OptionError) as refusal:
        PerceptualLoss(**options)
    assert refusal.value.path == (keyword,)


def test_a_file_with_torchvisions_keys_fills_the_vgg(tmp_path, small):
    """The file may hold more than is looked through: later layers, and the classifier."""
    state = small.vgg.state_dict()
    assert set(state) <= {f"features.{i}.{kind}" for i in (0, 2, 5) for kind in ("weight", "bias")}
    torch.save({**state, "classifier.0.weight": torch.rand(2, 2)}, tmp_path / "vgg.pth")
    loss = build_loss({"type": "PerceptualLoss", **SMALL, "weights": str(tmp_path / "vgg.pth")})
    assert all(torch.equal(tensor, state[key]) for key, tensor in loss.vgg.state_dict().items())
    assert not any(p.requires_grad for p in loss.parameters())
