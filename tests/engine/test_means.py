"""Means of figures of which some are no numbers."""

from __future__ import annotations

import json

import yaml

from facerestore.engine.cli import test_main as main_of_test
from facerestore.engine.cli import train_main
from facerestore.engine.scores import DatasetScores
from tests.engine.runs import DEBUG

INF = float("inf")


def test_pictures_that_equal_the_truth_do_not_make_the_mean_infinite():
    values = {"a": INF, "b": 30.0, "c": INF, "d": 20.0}
    result = DatasetScores("faces", {name: {"restored": {"psnr": v, "ssim": 1.0}} for name, v in values.items()})
    assert result.means() == {"restored": {"psnr": 25.0, "ssim": 1.0}}
    said = "restored: psnr is infinite for 2 of 4 pictures, which equal the truth; the mean is that of the others"
    assert result.notes() == [said] and result.section().note == said
    assert "infinite for 1 of 1" in DatasetScores("x", {"a": {"m": {"psnr": INF}}}).notes()[0]


def test_an_input_that_is_the_truth_is_no_matter_for_a_warning():
    assert DatasetScores("x", {"a": {"input": {"psnr": INF}}}).notes() == []
    assert "1 of 2" in DatasetScores("x", {"a": {"input": {"psnr": INF}}, "b": {"input": {"psnr": 20.0}}}).notes()[0]


def test_testing_says_from_which_iteration_the_weights_come(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    quick = ["train.total_iter=3", "logger.use_tb_logger=false", "val.report=false", "val.val_freq=~", "name=run"]
    assert train_main(["-opt", str(DEBUG / "sr.yml"), *(w for s in quick for w in ("--set", s))]) == 0
    options = yaml.safe_load((DEBUG / "sr.yml").read_text())
    options |= {"name": "tested", "path": {"pretrain_network_g": "experiments/run/models/net_g_latest.pth"}}
    del options["train"], options["datasets"]["train"]
    (tmp_path / "test.yml").write_text(yaml.safe_dump(options))
    capsys.readouterr()
    assert main_of_test(["-opt", "test.yml"]) == 0
    assert "weights of network_g: iteration 3" in capsys.readouterr().out
    assert json.loads((tmp_path / "results/tested/scores.json").read_text())["iterations"] == {"network_g": 3}
    assert "<dt>iteration of network_g</dt><dd>3</dd>" in (tmp_path / "results/tested/report.html").read_text()
