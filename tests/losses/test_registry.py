"""What every registered loss must do: each is called as its signature says, so a new one is tested the day it comes."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from facerestore.losses import build_loss
from facerestore.registry import LOSSES, parameters_of, weight_files

# What forward's positional parameters are given, by their names.
INPUTS = {
    "pred": ((2, 3, 16, 16), True),
    "target": ((2, 3, 16, 16), False),
    "x": ((2, 3, 16, 16), True),
    "gt": ((2, 3, 16, 16), False),
    "logits": ((2, 1, 4, 4), True),
}
REQUIRED = {"PerceptualLoss": {"layer_weights": {"conv1_2": 1.0}, "style_weight": 1.0}}


def build(name: str) -> torch.nn.Module:
    random = dict.fromkeys(weight_files(LOSSES.get(name)), "random")
    torch.manual_seed(0)  # of random weights
    return build_loss({"type": name, **REQUIRED.get(name, {}), **random})


def call(name: str, dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], list[Tensor]]:
    """The loss's terms on random input, and the inputs that it must send a gradient to."""
    generator, leaves, arguments = torch.Generator().manual_seed(0), [], []

    def tensor(shape: tuple[int, ...], trained: bool) -> Tensor:
        made = torch.rand(shape, generator=generator).to(dtype).requires_grad_(trained)
        leaves.extend([made] if trained else [])
        return made

    for parameter in inspect.signature(LOSSES.get(name).forward).parameters.values():
        if parameter.name in ("fake_feats", "real_feats"):
            trained = parameter.name == "fake_feats"
            arguments.append([tensor((2, 4, 8, 8), trained), tensor((2, 8, 4, 4), trained)])
        elif parameter.name == "target_is_real":
            arguments.append(True)
        elif parameter.name in INPUTS:
            arguments.append(tensor(*INPUTS[parameter.name]))
        else:
            assert parameter.name == "self" or parameter.default is not parameter.empty, f"an input for {parameter.name}?"
    value = build(name)(*arguments)
    terms = value if isinstance(value, tuple) else (value,)
    return [term for term in terms if term is not None], leaves


def test_there_are_losses():
    assert {"L1Loss", "MSELoss", "CharbonnierLoss", "WeightedTVLoss", "PerceptualLoss", "LPIPSLoss", "GANLoss",
            "MultiScaleGANLoss", "FeatureMatchingLoss"} <= set(LOSSES.names())  # fmt: skip


@pytest.mark.parametrize("name", LOSSES.names())
def test_every_keyword_is_explained(name):
    assert inspect.getdoc(LOSSES.get(name))
    parameters = parameters_of(LOSSES.get(name))
    assert parameters
    for parameter in parameters:
        assert parameter.doc, parameter.name
        assert parameter.hint is not Any, parameter.name


@pytest.mark.parametrize("name", LOSSES.names())
def test_forward_and_backward(name):
    terms, leaves = call(name)
    assert leaves
    for term in terms:
        assert term.shape == () and term.isfinite()
    for gradient in torch.autograd.grad(sum(terms), leaves):
        assert gradient.isfinite().all() and gradient.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES.names())
def test_backward_under_autocast(name, dtype):
    """Networks under autocast may hand on bfloat16; the loss is in float32 all the same."""
    with torch.autocast("cpu", torch.bfloat16):
        terms, leaves = call(name, dtype)
    exact, _ = call(name)
    for term, reference in zip(terms, exact, strict=True):
        assert term.dtype == torch.float32
        assert term.item() == pytest.approx(reference.item(), rel=0.05, abs=1e-3)
    for gradient in torch.autograd.grad(sum(terms), leaves):
        assert gradient.isfinite().all() and gradient.any()
