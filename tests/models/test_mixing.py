"""Any generator with any discriminator: also one that judges at several scales."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from facerestore.archs.outputs import Discriminator, DiscriminatorOutput
from facerestore.config import load_options
from facerestore.engine import build_model
from facerestore.errors import OptionError
from facerestore.registry import ARCHS


class TwoScales(Discriminator):
    """Logits of the picture and of its half."""

    def __init__(self):
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 1, 3), nn.Conv2d(3, 1, 3, stride=2)

    def forward(self, x: torch.Tensor) -> DiscriminatorOutput:
        return DiscriminatorOutput(logits=[self.fine(x), self.coarse(x)])


@pytest.fixture
def two_scales(monkeypatch):
    ARCHS.names()
    monkeypatch.setitem(ARCHS._entries, "TwoScales", TwoScales)


def options(method: str, **networks) -> dict:
    train = {
        "total_iter": 2,
        "pixel_opt": {"type": "L1Loss"},
        "gan_opt": {"type": "MultiScaleGANLoss", "gan_type": "hinge"},
        **{f"optim_{n}": {"type": "Adam", "lr": 1e-3} for n in ("g", "d", *networks)},
    }
    generator = {"type": "MSRResNet", "num_feat": 4, "num_block": 1, "upscale": 2}
    return {
        "name": "x",
        "model_type": method,
        "network_g": generator,
        "network_d": {"type": "TwoScales"},
        "train": train,
        **{f"network_{n}": generator for n in networks},
    }


@pytest.mark.parametrize(
    ("method", "networks"), [("SRGANModel", {}), ("SRGANComparisonModel", {"srresnet": 1}), ("ESRGANModel", {})]
)
def test_a_discriminator_with_several_scales(two_scales, method, networks):
    model = build_model(load_options(options(method, **networks)))
    before = model.networks["net_d"].fine.weight.clone()
    terms = model.step({"lq": torch.rand(2, 3, 8, 8), "gt": torch.rand(2, 3, 16, 16)}, 1)
    assert all(t.isfinite() for t in terms.values()) and {"out_d_real", "l_g_gan"} <= terms.keys()
    assert not torch.equal(before, model.networks["net_d"].fine.weight)


def test_what_a_place_needs_is_told_before_building(two_scales):
    swapped = options("SRGANModel") | {"network_g": {"type": "TwoScales"}}
    with pytest.raises(OptionError, match="SRGANModel needs `image` of its network_g, which TwoScales does not offer"):
        load_options(swapped)


def test_an_optimizer_without_networks_is_left_out_and_named(monkeypatch):
    from facerestore.models.sr import SRModel

    monkeypatch.setattr(SRModel, "optimizer_networks", {"optim_g": ("net_g",), "optim_component": ("net_d_mouth",)})
    given = options("SRModel")
    del given["network_d"], given["train"]["gan_opt"], given["train"]["optim_d"]
    given["train"]["optim_component"] = {"type": "Adam", "lr": 1e-3}
    loaded = load_options(given)
    assert "`train.optim_component` steps nothing: there is no network_d_mouth" in loaded.notes
    assert set(build_model(loaded).optimizers) == {"optim_g"}
