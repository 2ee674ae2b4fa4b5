"""Compiled networks are the modules that they were, in all that others see of them."""

from __future__ import annotations

import pytest
import torch

from facerestore.config import load_options
from facerestore.engine import build_model
from facerestore.models.srgan import SRGANModel
from tests.engine.runs import DEBUG


def model(name: str, compiled: bool):
    return build_model(load_options(DEBUG / f"{name}.yml", [f"train.compile={str(compiled).lower()}"]))


def is_compiled(network: torch.nn.Module) -> bool:
    return network._compiled_call_impl is not None


def test_keys_stay_and_averages_are_plain():
    compiled, plain = model("srgan", True), model("srgan", False)
    assert is_compiled(compiled.networks["net_g"]) and not is_compiled(plain.networks["net_g"])
    for name, network in compiled.networks.items():
        assert list(network.state_dict()) == list(plain.networks[name].state_dict())
    assert compiled.ema and not any(is_compiled(average) for average in compiled.ema.values())


def test_what_compiling_would_break_is_not_compiled_and_that_is_said(monkeypatch):
    options = load_options(DEBUG / "srgan.yml", ["train.compile=true"])
    assert any("network_d is not compiled: SpectralNormConv2d" in note for note in options.notes)
    networks = build_model(options).networks
    assert is_compiled(networks["net_g"]) and not is_compiled(networks["net_d"])
    monkeypatch.setattr(SRGANModel, "differentiated_twice", ("net_g",))
    options = load_options(DEBUG / "srgan.yml", ["train.compile=true"])
    assert any("network_g is not compiled: its gradients are penalised" in note for note in options.notes)
    assert not any(is_compiled(network) for network in build_model(options).networks.values())


@pytest.mark.slow
def test_steps_are_those_of_plain_networks():
    compiled, plain = (
        build_model(load_options(DEBUG / "srgan.yml", [f"train.compile={c}", "train.accumulate=2", "train.perceptual_opt=~"]))
        for c in ("true", "false")
    )
    batch = {"lq": torch.rand(2, 3, 8, 8), "gt": torch.rand(2, 3, 32, 32)}
    for it in (1, 2, 3):
        one, other = compiled.step(batch, it), plain.step(batch, it)
        for key in one:
            torch.testing.assert_close(one[key], other[key], rtol=1e-4, atol=1e-5)
    for size in (5, 6, 7, 9):  # each would be compiled anew
        picture = {"lq": torch.rand(1, 3, size, size)}
        torch.testing.assert_close(compiled.restore(picture, ema=False), plain.restore(picture, ema=False), atol=1e-3, rtol=0)
    assert all(p.requires_grad for n in compiled.networks.values() for p in n.parameters())
