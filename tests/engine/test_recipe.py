"""scripts/run_recipe.py: stages wired to one another, resumed, stopped by their gates."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from facerestore.engine import comparison, recipe
from facerestore.engine.cli import test_main as run_test
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
        work = Path(command[command.index("-opt") - 1]).stem
        ran.append(Path(given[1]).stem if work == "train" else f"{work} {Path(given[1]).stem}")
        return type("Done", (), {"returncode": {"train": train_main, "test": run_test}[work](given)})

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


def test_gates_are_not_blind(monkeypatch):
    """A training that puts dead codes elsewhere calls them used: its gate must look at faces that are held out."""
    monkeypatch.chdir(ROOT)
    for path in Path("options").glob("*codeformer*recipe.yml"):
        for stage in read_recipe(path):
            if stage.options.method.get("dead_codes_restart_every") and "codebook_usage" in stage.gates:
                assert stage.gates["codebook_usage"].on in {section.name for section in stage.options.datasets.values()}, path


def test_the_projects_recipe_is_well(monkeypatch):
    monkeypatch.chdir(ROOT)
    stages = read_recipe("options/codeformer_recipe.yml")
    assert [stage.name for stage in stages] == ["codebook", "codes", "fidelity"]
    assert stages[2].options.path.pretrain["network_vqgan"] == str(stages[0].weights("net_g"))
    assert stages[1].options.networks["network_vqgan"].weights == str(stages[0].weights("net_g"))


LOOKED_UP = f"""
stages:
  codes:
    options: {DEBUG}/codeformer_stage2.yml
    set: [train.total_iter=2, val.compare_lookup=true, val.report=false, logger.use_tb_logger=false,
          'val.metrics.code_accuracy={{type: calculate_code_accuracy}}', datasets.train.io_backend.count=2]
    gate: {{code_accuracy: GATE}}
"""


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("{on: held_out, at_least: 0}", None),
        (
            "{on: held_out, of: lookup, at_least: 1.1}",
            r"code_accuracy on held_out ended at [\d.]+, and the recipe asks for at least",
        ),
        ("{on: held_out, above: restored}", "asks for more than the .* of restored"),
        (
            "{on: heldout, at_least: 0}",
            "looks at 'heldout: code_accuracy', which was not measured .did you mean 'held_out: code_acc",
        ),
        ("{on: held_out, above: lookdown}", "of 'lookdown', but there are restored, lookup alone"),
    ],
)
def test_a_gate_may_look_at_the_last_validation(gate, message, here, capsys):
    code = run_recipe.main([write(LOOKED_UP.replace("GATE", gate))])
    out, err = capsys.readouterr()
    if message is None:
        assert code == 0 and "stage codes: code_accuracy on held_out" in out
    else:
        assert code == 2 and re.search(message, err) and "Traceback" not in err


def test_methods_are_compared_on_a_validation_set(here):
    with pytest.raises(OptionError, match=r"gate\.code_accuracy\.above: methods are compared on a validation set"):
        read_recipe(write(LOOKED_UP.replace("GATE", "{above: lookup}")))


ROWS = f"""
stages:
  nearest:
    options: {DEBUG}/codeformer_stage2.yml
    set: [name=nearest, network_g.predictor=nearest]
    row: (b) nearest
  transformer:
    options: {DEBUG}/codeformer_stage2.yml
    set: [name=transformer, val.compare_lookup=true]
    row: (g) transformer
set: [train.total_iter=1, val.report_pictures=1, logger.use_tb_logger=false, datasets.train.io_backend.count=4,
      'val.metrics.code_accuracy={{type: calculate_code_accuracy}}']
"""
TABLE = Path("results/recipe/table.json")


def test_rows_are_measured_side_by_side_and_once(here, capsys):
    file = write(ROWS)
    assert run_recipe.main([file]) == 0
    out = capsys.readouterr().out
    table = json.loads(TABLE.read_text())
    lines = table["datasets"]["held_out"]
    assert list(lines) == ["input", "(b) nearest", "(g) transformer", "lookup"]
    assert set(lines["lookup"]) == {"psnr", "code_accuracy"} and set(lines["input"]) == {"psnr"}
    shown = out[out.index("\nheld_out") :].splitlines()
    assert shown[1].split() == ["held_out", "psnr", "code_accuracy"]
    assert shown[2].split() == ["input", f"{lines['input']['psnr']:.4f}", "–"]
    assert {"psnr", "code_accuracy"} <= table["metrics"].keys()
    scores = json.loads(Path("results/recipe/transformer/scores.json").read_text())
    assert scores["datasets"]["held_out"]["mean"]["restored"] == lines["(g) transformer"]
    assert scores["weights"]["network_g"] == str(Path("experiments/transformer/models/net_g_1.pth"))
    page = Path("results/recipe/report.html").read_text()
    labels = re.findall(r'"label":"([^"]+)","image"', page)
    assert labels == ["LR", "(b) nearest", "(g) transformer", "lookup", "HR"]
    assert here == ["codeformer_stage2"] * 2 + ["test codeformer_stage2"] * 2

    assert run_recipe.main([file]) == 0 and len(here) == 4, "nothing has changed: nothing runs again"
    assert "row (b) nearest: measured already" in capsys.readouterr().out
    assert run_recipe.main([file, "--set", "val.fidelity_weight=1"]) == 0
    assert here[4:] == ["test codeformer_stage2"] * 2, "other options of the test: measured anew"

    again = torch.load("experiments/nearest/models/net_g_1.pth", weights_only=True)
    again["params_ema"]["encoder.blocks.0.bias"] += 1
    torch.save(again, "experiments/nearest/models/net_g_1.pth")
    assert run_recipe.main([file, "--set", "val.fidelity_weight=1"]) == 0
    assert len(here) == 7, "of other weights: this row alone"


def test_a_table_of_another_program_is_told(here, capsys):
    TABLE.parent.mkdir(parents=True)
    TABLE.write_text("[]")
    assert run_recipe.main([write(ROWS)]) == 2
    assert "table.json is no table that was written here" in capsys.readouterr().err


def test_two_rows_of_one_name_are_refused(here, capsys):
    assert run_recipe.main([write(ROWS.replace("(g) transformer", "(b) nearest")), "--check"]) == 2
    assert "stages 'nearest' and 'transformer' are both the row '(b) nearest' of the table" in capsys.readouterr().err
    assert not here


def test_a_test_that_fails_ends_the_comparison(here, monkeypatch, capsys):
    monkeypatch.setattr(comparison, "program", lambda *_: ["test.py", "-opt", "missing.yml"])
    assert run_recipe.main([write(ROWS)]) == 2
    assert "the test of row '(b) nearest' ended with exit code 2" in capsys.readouterr().err


SMALL = ["faces64_codeformer_recipe.yml", "faces64_codeformer_ablation_recipe.yml", "codeformer_ablation_recipe.yml"]


@pytest.mark.parametrize("name", SMALL)
def test_the_other_recipes_are_well(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    planned = read_recipe(f"options/{name}")
    rows = comparison.rows_of(planned, "results/table")
    assert [row.name[:3] for row in rows] == (["(a)", "(b)", "(c)", "(e)", "(g)"] if "ablation" in name else [])
    for row in rows:
        assert row.options.path.pretrain["network_g"] == str(row.stage.weights("net_g"))
        assert "network_d" not in row.options.path.pretrain or row.options.path.pretrain["network_d"] == str(
            planned[0].weights("net_d")
        )
