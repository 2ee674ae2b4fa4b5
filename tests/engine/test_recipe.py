"""scripts/run_recipe.py: stages wired to one another, resumed, stopped by their gates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from facerestore.engine import recipe
from facerestore.engine.cli import train_main
from facerestore.engine.recipe import read_recipe
from facerestore.errors import OptionError
from scripts import run_recipe
from tests.engine.runs import DEBUG, ROOT

TWO = f"""
stages:
  codebook:
    options: {DEBUG}/codeformer_stage1.yml
    gate: {{codebook_usage: {{at_least: 0.5, at_most: 1}}}}
  codes:
    options: {DEBUG}/codeformer_stage2.yml
    takes: {{network_g.vqgan_path: codebook.net_g}}
    gate: {{code_accuracy: {{at_least: GATE}}}}
set: [train.total_iter=2, val.val_freq=~, val.report=false, logger.use_tb_logger=false, train.ema_decay=0]
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Stages run in this process; what ran is returned."""
    monkeypatch.chdir(tmp_path)
    ran: list[str] = []

    def train(command, check):
        given = command[command.index("-opt") :]
        ran.append(Path(given[1]).stem)
        return type("Done", (), {"returncode": train_main(given)})

    monkeypatch.setattr(recipe.subprocess, "run", train)
    return ran


def write(text: str) -> str:
    Path("recipe.yml").write_text(text)
    return "recipe.yml"


def test_stages_are_wired_resumed_and_gated(here, capsys):
    file = write(TWO.replace("GATE", "1.0"))
    assert run_recipe.main([file]) == 2
    out, err = capsys.readouterr()
    assert "stage codebook: codebook_usage 1 passes" in out
    assert "stage codes: code_accuracy ended at" in err and "the recipe asks for at least 1" in err
    learnt = torch.load("experiments/debug_codeformer_stage1/models/net_g_2.pth", weights_only=True)["params"]
    taken = torch.load("experiments/debug_codeformer_stage2/models/net_g_2.pth", weights_only=True)["params"]
    assert torch.equal(learnt["quantize.embedding.weight"], taken["quantize.embedding.weight"])
    assert here == ["codeformer_stage1", "codeformer_stage2"]
    assert run_recipe.main([write(TWO.replace("GATE", "0"))]) == 0
    assert here == ["codeformer_stage1", "codeformer_stage2"], "finished stages are passed over"
    assert run_recipe.main([file, "--set", "train.total_iter=3"]) == 0 and len(here) == 4, "longer stages go on"


def test_a_stage_that_fails_ends_the_recipe(here, capsys):
    file = write(TWO.replace("GATE", "0"))
    assert run_recipe.main([file, "--set", "datasets.train.gt_size=64"]) == 2
    assert "stage codebook ended with exit code 2; the same command goes on from there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "codebook.net_g",
            "codebok.net_g",
            r"recipe.yml:8: .*there is no stage 'codebok' before 'codes' \(did you mean 'codebook'",
        ),
        ("codebook.net_g", "codebook.net_x", "stage 'codebook' trains no net_x, only net_g, net_d"),
        ("codebook.net_g", "codebook", "takes"),
        ("at_most", "atmost", "a gate has no option `atmost`"),
        ("takes", "take", "a stage has no option `take`"),
        ("total_iter=2", "total_iters=2", "total_iters"),
        ("codeformer_stage2", "codeformer_stage1", "are both called 'debug_codeformer_stage1'"),
    ],
)
def test_mistakes_are_told_before_anything_runs(here, old, new, message):
    text = TWO.replace("GATE", "0")
    assert old in text
    text = text.replace("    takes: {network_g.vqgan_path: codebook.net_g}\n", "") if new == "codeformer_stage1" else text
    with pytest.raises(OptionError, match=message):
        read_recipe(write(text.replace(old, new)))
    assert not here


def test_the_projects_recipe_is_well(monkeypatch):
    monkeypatch.chdir(ROOT)
    stages = read_recipe("options/codeformer_recipe.yml")
    assert [stage.name for stage in stages] == ["codebook", "codes", "fidelity"]
    assert stages[2].options.path.pretrain["network_vqgan"] == str(stages[0].weights("net_g"))
    assert stages[1].options.networks["network_vqgan"].weights == str(stages[0].weights("net_g"))
