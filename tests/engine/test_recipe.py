"""scripts/run_recipe.py: stages wired to one another, resumed, stopped by their gates."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from facerestore.config import load_options
from facerestore.data.loader import evaluation_loader
from facerestore.engine import build_model, children, comparison
from facerestore.engine.cli import test_main as run_test
from facerestore.engine.cli import train_main
from facerestore.engine.evaluation import dataset_of
from facerestore.engine.gates import Gate
from facerestore.engine.origins import deciding
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

    def start(command):
        given = command[command.index("-opt") :]
        work = Path(command[command.index("-opt") - 1]).stem
        ran.append(Path(given[1]).stem if work == "train" else f"{work} {Path(given[1]).stem}")
        return SimpleNamespace(wait=lambda: {"train": train_main, "test": run_test}[work](given))

    monkeypatch.setattr(children.subprocess, "Popen", start)
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
    capsys.readouterr()
    assert run_recipe.main([file, "--set", "train.total_iter=3"]) == 2 and len(here) == 3, "a longer stage goes on"
    assert "stage2 was trained with other weights as network_g.vqgan_path than the recipe has now" in capsys.readouterr().err


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
        ("codebook.net_g", "codebook.net_d", r"vqgan_path: codebook.net_d: CodeFormer has no place for its "),
        (
            "takes: {network_g.vqgan_path: codebook.net_g}",
            "takes: {path.pretrain_network_g: codebook.net_g}",
            r"pretrain_network_g: codebook.net_g: these are weights of VQAutoEncoder.*do not fit this CodeFormer",
        ),
        (
            f"{DEBUG}/codeformer_stage1.yml",
            f"{DEBUG}/codeformer_stage1.yml\n    set: [network_g.codebook_size=32]",
            r"codebook.net_g: .*quantize.embedding.weight is \(32, 8\), not \(16, 8\)",
        ),
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
    ],
)
def test_a_gate_may_look_at_the_last_validation(gate, message, here, capsys):
    code = run_recipe.main([write(LOOKED_UP.replace("GATE", gate))])
    out, err = capsys.readouterr()
    if message is None:
        assert code == 0 and "stage codes: code_accuracy on held_out" in out
    else:
        assert code == 2 and re.search(message, err) and "Traceback" not in err


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("{on: heldout, at_least: 0}", r"code_accuracy.on: .*no validation set 'heldout' .did you mean 'held_out'"),
        ("{on: held_out, above: lookdown}", r"above: .*no method 'lookdown' .there are restored, lookup"),
        ("{on: held_out, above: input}", r"above: .*no method 'input' .there are restored, lookup"),
        ("{on: held_out, of: w=0.5, above: lookup}", r"of: .*no method 'w=0.5'"),
        ("{on: held_out, above: restored}", "the figure of 'restored' is not above itself"),
        ("{above: lookup}", "above: methods are compared on a validation set"),
        ("{of: lookup, at_least: 1}", "of: methods are compared on a validation set"),
        ("{at_least: 2, at_most: 1}", "no value is at least 2 and at most 1"),
        ("{}", "a gate needs a bound: `at_least`, `at_most` or `above`"),
        (
            "{on: held_out, at_least: 0}, code_acuracy: {on: held_out, at_least: 0}",
            r"no metric 'code_acuracy' .did you mean 'cod",
        ),
    ],
)
def test_gates_are_checked_before_anything_runs(gate, message, here, capsys):
    assert run_recipe.main([write(LOOKED_UP.replace("GATE", gate)), "--check"]) == 2
    assert re.search(rf"recipe.yml:7: stages.codes.gate.*{message}", capsys.readouterr().err) and not here


def test_what_a_training_logs_is_only_known_when_it_runs(here, capsys):
    file = write(
        LOOKED_UP.replace("{code_accuracy: GATE}", "{l_gpix: {at_most: 1}, psnr: {on: held_out, of: input, at_least: 0}}")
    )
    assert run_recipe.main([file, "--check"]) == 0
    assert run_recipe.main([file]) == 2 and "looks at 'l_gpix', which was not logged" in capsys.readouterr().err


def test_a_figure_must_be_above_another_methods():
    gate = Gate(on="held_out", above="lookup")
    assert gate.why_not(0.5, 0.5) == "more than the 0.5 of lookup" and gate.why_not(0.6, 0.5) is None


@pytest.mark.parametrize("file", ["codeformer_stage2", "srresnet_srgan", "stargan2"])
def test_methods_name_their_restorations_beforehand(file):
    options = load_options(
        DEBUG / f"{file}.yml", ["val.compare_lookup=true", "val.compared_weights=[0.5]"] if "code" in file else []
    )
    model = build_model(options)
    batch = next(iter(evaluation_loader(dataset_of(options.datasets["val"], options), 1)))
    assert set(model.method.restorers()) == set(model.restorations(batch))


@pytest.mark.slow
def test_a_stage_that_was_trained_from_something_else_is_refused(here, capsys):
    file = write(TWO.replace("GATE", "0"))
    record = Path("experiments/debug_codeformer_stage2/origin.json")
    assert run_recipe.main([file]) == 0
    same = ["val.metrics.ssim={type: calculate_ssim}", "logger.print_freq=2", "datasets.train.num_worker_per_gpu=1"]
    assert run_recipe.main([file, "--set", *same]) == 0 and len(here) == 2, "what decides no weights may change"
    capsys.readouterr()

    assert run_recipe.main([file, "--set", "train.optim_g.lr=1e-5"]) == 2
    said = capsys.readouterr().err
    assert "stage codebook: experiments/debug_codeformer_stage1 was trained with other options than" in said
    assert "remove the folder to train it anew" in said and said.count("\n") == 1

    shutil.rmtree("experiments/debug_codeformer_stage1")
    assert run_recipe.main([file, "--set", "manual_seed=1"]) == 2 and len(here) == 3
    assert "was trained with other weights as network_g.vqgan_path and options than" in capsys.readouterr().err

    record.unlink()
    assert run_recipe.main([file, "--set", "manual_seed=1"]) == 0 and len(here) == 3, "an older run is taken as it is"
    assert "does not say what it was trained from, and is taken as it is" in capsys.readouterr().out
    assert run_recipe.main([file, "--set", "manual_seed=1"]) == 0
    assert "warning" not in capsys.readouterr().out, "it is told once"
    record.write_text("[]")
    assert run_recipe.main([file, "--set", "manual_seed=1"]) == 2
    assert f"{record} is no record that was written here" in capsys.readouterr().err


def test_weights_are_told_by_their_content(tmp_path):
    options = load_options(DEBUG / "codeformer_stage2.yml", [f"network_g.vqgan_path={tmp_path}/a.pth"])
    assert f"{tmp_path}/a.pth" not in str(deciding(options, {f"{tmp_path}/a.pth"}))


CHILD = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (open("heard", "w").close(), sys.exit(143)))
open("ready", "w").close()
time.sleep(60)
"""
PARENT = """
import sys
from facerestore.engine.children import run_program
from scripts.common import run
sys.exit(run("parent", lambda: run_program([sys.executable, "child.py"], "stage x")))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_is_passed_on_and_waited_for(number, tmp_path):
    name = number.name
    (tmp_path / "child.py").write_text(CHILD.replace("SIGTERM", name).replace("143", str(128 + number)))
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(600):
        if (tmp_path / "ready").exists():
            break
        time.sleep(0.1)
    parent.send_signal(number)
    said = parent.communicate(timeout=60)[1]
    assert parent.returncode == 128 + number and (tmp_path / "heard").exists()
    assert said == "parent: stage x was stopped before its end; the same command goes on from there\n"


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
    assert "Of validation sets, as the options have no `test_*` set: (b) nearest, (g) transformer" in out
    assert {"psnr", "code_accuracy"} <= table["metrics"].keys()
    scores = json.loads(Path("results/recipe/transformer/scores.json").read_text())
    assert scores["datasets"]["held_out"]["mean"]["restored"] == lines["(g) transformer"]
    assert scores["weights"]["network_g"] == str(Path("experiments/transformer/models/net_g_1.pth"))
    page = Path("results/recipe/report.html").read_text()
    assert "Of validation sets" in page
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
