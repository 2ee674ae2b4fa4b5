"""Curves in Weights & Biases, with a module that stands for the package."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from facerestore.engine import cli
from tests.engine.runs import DEBUG

SHORT = ["--set", "train.total_iter=2", "--set", "val.val_freq=2", "--set", "logger.print_freq=1", "--set", "name=run"]
ASKED = ["--set", "logger.wandb={project: faces, resume_id: ~}"]


class StandIn(ModuleType):
    """Keeps what it is told, and makes up the ids of new runs."""

    class Error(Exception):
        pass

    def __init__(self):
        super().__init__("wandb")
        self.begun, self.logged, self.axes, self.finished = [], [], [], 0
        self.fault = ""

    def init(self, **told) -> SimpleNamespace:
        if self.fault:
            raise self.Error(self.fault)
        self.begun.append(told)

        def finish():
            self.finished += 1

        return SimpleNamespace(
            id=told["id"] or f"made{len(self.begun)}",
            log=self.logged.append,
            define_metric=lambda name, step_metric=None: self.axes.append((name, step_metric)),
            finish=finish,
        )


@pytest.fixture
def wandb(tmp_path, monkeypatch) -> StandIn:
    monkeypatch.chdir(tmp_path)
    package = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", package)
    return package


def train(*arguments: str) -> int:
    return cli.train_main(["-opt", str(DEBUG / "sr.yml"), *SHORT, *arguments])


def test_every_curve_goes_there_too(wandb):
    assert train(*ASKED) == 0
    (begun,) = wandb.begun
    assert (begun["project"], begun["name"], begun["id"], begun["resume"]) == ("faces", "run", None, "allow")
    assert begun["config"]["model_type"] == "SRModel"
    assert wandb.axes == [("iter", None), ("*", "iter")] and wandb.finished == 1
    records = [
        r for line in Path("experiments/run/metrics.jsonl").read_text().splitlines() if (r := json.loads(line))["values"]
    ]
    expected = [{f"{r['chart']}/{k}": v for k, v in r["values"].items()} | {"iter": r["iter"]} for r in records]
    assert wandb.logged == expected and len(expected) > 4


def test_a_run_that_goes_on_goes_on_there(wandb):
    assert train(*ASKED) == 0
    assert train(*ASKED, "--auto_resume", "--set", "train.total_iter=3") == 0
    assert [told["id"] for told in wandb.begun] == [None, "made1"]
    assert train(*ASKED) == 0  # from the start: the earlier run was moved aside
    assert train("--set", "logger.wandb={project: faces, resume_id: abc}") == 0
    assert [told["id"] for told in wandb.begun[2:]] == [None, "abc"]


@pytest.mark.parametrize("section", ["{project: ~, resume_id: ~}", "{}", "~"])
def test_without_a_project_there_is_none(wandb, section):
    assert train("--set", f"logger.wandb={section}") == 0 and not wandb.begun


def test_a_preflight_stays_at_home(wandb, capsys):
    assert train(*ASKED, "--preflight") == 0, capsys.readouterr()
    assert not wandb.begun


def test_a_missing_package_is_told_before_anything_is_done(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    assert train(*ASKED) == 2
    said = capsys.readouterr().err
    assert "needs the package wandb: `pip install wandb`" in said and said.count("\n") == 1
    assert not Path("experiments").exists()


def test_a_refusal_is_one_sentence(wandb, capsys):
    wandb.fault = "api_key not configured\nlong story"
    assert train(*ASKED) == 2
    said = capsys.readouterr().err
    assert "did not begin a run (api_key not configured)" in said and said.count("\n") == 1
