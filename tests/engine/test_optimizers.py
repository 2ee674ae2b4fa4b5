"""Optimizers: torch's, and any other by its dotted name."""

from __future__ import annotations

import json

import pytest
import torch
from jsonschema import Draft7Validator

from facerestore.config import load_options
from facerestore.config.json_schema import option_schema
from facerestore.config.resolved import resolved_yaml
from facerestore.engine import build_model
from facerestore.errors import OptionError
from tests.engine.runs import DEBUG, same, weights

NAME = "tests.engine.test_optimizers.Signs"


class Signs(torch.optim.Optimizer):
    """Steps by the sign of a running mean (Chen et al., Symbolic Discovery of Optimization Algorithms, 2023, in short)."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0, slow=False, start: int = 0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "slow": slow, "start": start})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                mean.lerp_(p.grad, 1 - group["betas"][0])
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(mean.sign(), alpha=group["lr"])


class Unsteady(Signs):
    """Fails in its first step, by an error of its own."""

    def step(self):
        raise KeyError("mean")


def section(**more) -> str:
    return f"train.optim_g={json.dumps({'type': NAME, 'lr': 1e-3, **more})}"


def test_a_dotted_name_is_bound_against_its_signature():
    options = load_options(DEBUG / "sr.yml", [section(weight_decay=0.01, slow=True)])
    optimizer = build_model(options).optimizers["optim_g"]
    assert type(optimizer).__name__ == "Signs"
    group = optimizer.param_groups[0]
    assert (group["weight_decay"], group["slow"], group["betas"], group["lr"]) == (0.01, True, (0.9, 0.999), 1e-3)
    text = resolved_yaml(options, {"optim_g": group["betas"]})
    assert "weight_decay: 0.01\n" in text and "start: 0  # default" in text and f"type: {NAME}" in text


@pytest.mark.parametrize(
    ("more", "hint"),
    [
        ({"weight_dekay": 1}, "did you mean 'weight_decay'"),
        ({"slow": 3}, "must be true or false"),
        ({"type": "tests.engine.test_optimizers.Sign"}, "is no optimizer"),
        ({"type": "tests.engine.nowhere.Signs"}, "No module named"),
        ({"type": "tests.engine.test_optimizers.json"}, "is no optimizer"),
        ({"type": "Adamm"}, "did you mean 'Adam'"),
        ({"type": "Signs"}, "package.module.Class"),
        ({"type": ".Signs"}, "there is no optimizer"),
        ({"type": "..Adam"}, "there is no optimizer"),
        ({"type": "tests.engine.broken_module.Signs"}, "there is no optimizer 'tests.engine.broken_module.Signs': not today"),
        ({"type": "torch.optim.SparseAdam"}, "torch.optim.SparseAdam cannot train here"),
        ({"type": "torch.optim.LBFGS"}, "missing 1 required positional argument: 'closure'"),
        ({"type": "tests.engine.test_optimizers.Unsteady"}, "Unsteady cannot train here: with dense gradients"),
    ],
)
def test_what_is_wrong_is_told(more, hint):
    with pytest.raises(OptionError, match=hint.replace(".", r"\.")) as error:
        load_options(DEBUG / "sr.yml", [section(**more)])
    assert "train.optim_g" in str(error.value)


def test_editors_take_it():
    valid = Draft7Validator(json.loads(json.dumps(option_schema()))).is_valid
    raw = load_options(DEBUG / "sr.yml", [section(slow=True)]).raw
    assert valid(raw)
    raw["train"]["optim_g"] = {"type": "Adam", "lr": 1e-3, "slow": True}
    assert not valid(raw)
    raw["train"]["optim_g"] = {"type": NAME}
    assert not valid(raw)


def test_it_resumes(tmp_path, train):
    common = ["--set", section(), "--set", "train.scheduler=~"]
    train(*common, "--set", "name=whole", "--set", "train.total_iter=4")
    train(*common, "--set", "name=run", "--set", "train.total_iter=2")
    train(*common, "--set", "name=run", "--set", "train.total_iter=4", "--auto_resume")
    assert same(*(weights(tmp_path / "experiments" / name, 4) for name in ("whole", "run")))


@pytest.mark.parametrize("way", ["foreach", "fused"])
@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_the_ways_to_step_agree(kind, way):
    def trained(*overrides):
        model = build_model(load_options(DEBUG / "sr.yml", [f"train.optim_g={{type: {kind}, lr: 1e-3}}", *overrides]))
        for it in (1, 2, 3):
            truth = torch.rand(2, 3, 32, 32, generator=torch.manual_seed(it))
            model.step({"lq": truth[..., ::4, ::4], "gt": truth}, it)
        return model.networks["net_g"].state_dict()

    plain, quick = trained("train.optim_g.foreach=false"), trained(f"train.optim_g.{way}=true")
    assert max((plain[k] - quick[k]).abs().max() for k in plain) <= 1e-6
