"""A training that is stopped, killed or started again: where it goes on, what it repeats, and how it ends."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from facerestore.engine import cli, distributed, trainer
from facerestore.engine.cli import train_main
from facerestore.engine.distributed import World
from facerestore.engine.logs import CurveWriter, read_curves, validated
from facerestore.engine.run_folder import begun_by_this_job, note_job, prepare_folder
from facerestore.models.sr import SRModel
from tests.engine.runs import DEBUG, same, weights

QUICK = ["name=run", "val.val_freq=~", "val.report=false", "logger.use_tb_logger=false", "train.scheduler=~"]
AS_TORCHRUN = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """Train in this process; its exit code and what it said come back."""
    monkeypatch.chdir(tmp_path)
    for name in AS_TORCHRUN:
        monkeypatch.delenv(name, raising=False)

    def run(*settings, options="sr.yml"):
        words = [w for s in (*QUICK, *settings) for w in (["--set", s] if "=" in s else [s])]
        code = train_main(["-opt", str(DEBUG / options), *words])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


@pytest.fixture
def signalled(monkeypatch):
    """Have iteration `it` send this process a signal, the first time that it is run."""
    step = SRModel.step

    def choose(it: int, number: int = signal.SIGTERM, spoil: bool = False):
        sent = []

        def stepping(self, batch, now):
            if now == it and not sent:
                sent.append(now)
                os.kill(os.getpid(), number)
                if spoil:
                    batch.gt = batch.gt + 100
            step(self, batch, now)

        monkeypatch.setattr(SRModel, "step", stepping)

    return choose


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_training_that_was_stopped_says_so_by_its_exit_code(tmp_path, train, signalled, number, code):
    signalled(3, number)
    assert train("train.total_iter=5")[0] == code
    assert (tmp_path / "experiments/run/training_states/3.state").is_file()
    assert train("train.total_iter=5", "--auto_resume")[0] == 0


def test_a_stop_does_not_wait_for_a_validation_which_is_made_up_for(tmp_path, train, signalled):
    settings = ["val.val_freq=2", "train.total_iter=4"]
    train(*settings, "name=whole")
    signalled(4)
    code, said = train(*settings)
    folder = tmp_path / "experiments/run"
    assert code == 143 and "stopped after iteration 4" in said
    assert not list((folder / "visualization").rglob("*_4.png")) and validated(folder, 2) and not validated(folder, 4)
    assert train(*settings, "--auto_resume")[0] == 0
    assert (folder / "metrics.jsonl").read_text() == (tmp_path / "experiments/whole/metrics.jsonl").read_text()
    assert list((folder / "visualization").rglob("*_4.png"))


def test_a_stop_in_the_iteration_that_goes_back_is_obeyed(tmp_path, train, signalled):
    signalled(4, spoil=True)
    code, said = train("train.total_iter=9", "logger.save_checkpoint_freq=2", "train.loss_limit=10")
    assert "going back to iteration 2" in said and "stopped after iteration 2" in said
    assert code == 143
    assert not (tmp_path / "experiments/run/training_states/4.state").exists()


VALIDATES = [
    "val.val_freq=2",
    "train.total_iter=2",
    "val.keep_best=[psnr,ssim]",
    "val.report=true",
    "logger.use_tb_logger=true",
]


@pytest.mark.parametrize("killed_in", ["keep_best", "page"])
def test_a_validation_that_was_killed_after_its_curves_is_repeated_as_a_whole(tmp_path, train, monkeypatch, killed_in):
    with monkeypatch.context() as killing:
        killing.setattr(trainer, killed_in, lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        assert train(*VALIDATES)[0] == 130
    folder = tmp_path / "experiments/run"
    before = read_curves(folder)
    assert "held_out: psnr" in before and not validated(folder, 2)
    assert train(*VALIDATES, "--auto_resume")[0] == 0
    assert read_curves(folder) == before, "points were written twice or lost"
    assert (folder / "models/net_g_best_psnr.pth").is_file() and (folder / "models/net_g_best_ssim.pth").is_file()
    assert (folder / "report.html").is_file() and validated(folder, 2)
    page = (folder / "report.html").read_text()
    value = before["held_out: psnr"]["restored"][0][1]
    assert "<dt>iteration</dt><dd>2 of 2</dd>" in page
    assert f"<dt>held_out, restored: psnr</dt><dd>best {value:.4f} at 2</dd>" in page
    assert "nothing left to train" in train(*VALIDATES, "--auto_resume")[1]


def test_pictures_without_metrics_are_made_up_for(tmp_path, train, monkeypatch):
    settings = ["val.val_freq=2", "train.total_iter=2", "val.metrics={}"]
    with monkeypatch.context() as killing:
        killing.setattr(trainer, "evaluate", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        assert train(*settings)[0] == 130
    folder = tmp_path / "experiments/run"
    assert not list(folder.rglob("*_2.png"))
    assert train(*settings, "--auto_resume")[0] == 0
    assert list(folder.rglob("*_2.png"))


def test_a_damaged_file_of_curves_stops_nothing(tmp_path, train):
    train("train.total_iter=2", "logger.print_freq=1")
    path = tmp_path / "experiments/run/metrics.jsonl"
    whole, lines = read_curves(path.parent), path.read_bytes().splitlines(keepends=True)
    wrong = [b"[1]\n", b"\xff\xfe\n", b'{"iter": 1}\n', b'{"iter": null, "chart": "x", "values": {}}\n', b'{"iter": 1, "ch']
    path.write_bytes(b"".join([wrong[0], lines[0], *wrong[1:4], *lines[1:], wrong[4]]))
    code, said = train("train.total_iter=2", "--auto_resume")
    assert code == 0, said
    train("train.total_iter=3", "--auto_resume")
    assert f"{len(wrong)} lines are cut off or damaged" in said
    assert [json.loads(line)["iter"] for line in path.read_text().splitlines()] == [1] * 2 + [2] * 5 + [3] * 5
    assert read_curves(path.parent)["losses"]["l_pix"][:2] == whole["losses"]["l_pix"]


def test_curves_hold_what_json_knows(tmp_path):
    writer = CurveWriter(tmp_path, tensorboard=False)
    writer.write(1, "held_out: psnr", {"a": float("inf"), "b": 20.0, "c": float("nan")})
    record = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert record["values"] == {"b": 20.0}


def test_the_points_of_a_run_that_was_stopped_are_those_of_one_that_was_not(tmp_path, train, signalled):
    train("train.total_iter=6", "logger.print_freq=2", "name=whole")
    signalled(3)
    train("train.total_iter=6", "logger.print_freq=2")
    train("train.total_iter=6", "logger.print_freq=2", "--auto_resume")
    whole, run = (tmp_path / "experiments" / name for name in ("whole", "run"))
    assert (run / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    assert same(weights(run, 6), weights(whole, 6))


def test_what_killed_writers_left_among_pictures_is_cleared_away(tmp_path):
    left = tmp_path / "run/visualization/synthetic/0/001001/.a_xxx.part"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    (left.parent / "a_2.png").write_bytes(b"whole")
    prepare_folder(tmp_path / "run", keep=True).close()
    assert [p.name for p in left.parent.iterdir()] == ["a_2.png"]


# torchrun, on one machine and several


def test_a_run_goes_on_under_the_run_id_under_which_it_was_begun(tmp_path, train, signalled, monkeypatch):
    signalled(2)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job-7")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")  # as where another machine's agent has started its own again
    train("train.total_iter=4")
    code, said = train("train.total_iter=4")
    assert code == 0 and "going on after iteration 2" in said
    code, said = train("train.total_iter=4")
    assert "was there already and is now" in said, "a run that has ended is not gone on with"


@pytest.mark.parametrize(
    ("before", "now", "same"), [("a", "a", True), ("a", "b", False), ("none", "none", False), (None, None, False)]
)
def test_run_ids_are_compared_and_none_is_none(tmp_path, monkeypatch, before, now, same):
    for name, act in ((before, partial(note_job, running=True)), (now, begun_by_this_job)):
        monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
        if name:
            monkeypatch.setenv("TORCHELASTIC_RUN_ID", name)
        found = act(tmp_path)
    assert found is same


def start_again(rank: int, size: int, folder: str) -> None:
    os.chdir(folder)
    os.environ["TORCHELASTIC_RESTART_COUNT"] = str(rank)  # that of the first process's agent is 0
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    distributed.start = lambda *given: World(rank, size, torch.device("cpu"), dist.new_group(backend="gloo"))
    words = [w for s in (*QUICK, "train.total_iter=3") for w in ("--set", s)]
    assert cli.train_main(["-opt", str(DEBUG / "sr.yml"), *words]) == 0


@pytest.mark.slow(10)
def test_a_restart_that_one_agent_alone_knows_of_is_one_for_all(tmp_path, train):
    train("train.total_iter=2")
    mp.spawn(start_again, (2, str(tmp_path)), nprocs=2)
    assert [p.name for p in (tmp_path / "experiments").iterdir()] == ["run"]
    log = (tmp_path / "experiments/run/train_run.log").read_text()
    assert "going on after iteration 2" in log and "iter 3," in log


def test_a_restart_before_the_first_checkpoint_says_so(tmp_path, train, monkeypatch):
    (tmp_path / "experiments/run").mkdir(parents=True)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    code, said = train("train.total_iter=1")
    assert code == 0 and "nothing was saved yet: starting from the beginning" in said


def lose(rank: int, size: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    if rank:
        os._exit(0)  # as if killed
    distributed.start = lambda *given: World(rank, size, torch.device("cpu"), dist.group.WORLD)
    os.chdir(folder)
    with open("said.txt", "w") as file:
        cli.sys.stderr = file
        code = cli.train_main(["-opt", str(DEBUG / "sr.yml"), "--set", "name=run"])
    Path("code.txt").write_text(str(code))


def test_a_process_whose_fellow_has_died_ends_with_one_sentence(tmp_path):
    mp.spawn(lose, (2, str(tmp_path)), nprocs=2)
    said = (tmp_path / "said.txt").read_text()
    assert (tmp_path / "code.txt").read_text() == "1"
    assert "another process of this job has died" in said and "--max-restarts" in said
    assert "Traceback" not in said and said.count("\n") == 1


# What it says


def test_divergence_before_the_first_checkpoint_names_the_value_and_what_to_do(train, signalled, monkeypatch, tmp_path):
    train("train.total_iter=2", "name=first")
    step = SRModel.step
    monkeypatch.setattr(
        SRModel, "step", lambda self, batch, it: (setattr(batch, "gt", batch.gt + 100), step(self, batch, it))[1]
    )
    state = "experiments/first/training_states/2.state"
    for more, again in (([], "start again with"), ([f"path.resume_state={state}"], f"start again from {state} with")):
        code, said = train("train.total_iter=6", "train.loss_limit=10", *more)
        assert code == 2
        assert "l_pix is 100." in said or "l_pix is 99." in said
        assert again in said and "a larger `train.loss_limit`" in said and "--auto_resume" not in said


def test_lines_say_the_pace_the_wait_the_memory_and_the_time_left(train):
    _, said = train("train.total_iter=4", "logger.print_freq=2")
    first, second = (next(line for line in said.splitlines() if f"iter {it}," in line) for it in (1, 2))
    assert "waiting for data" in first and "iB" in first and "left " not in first
    assert "left 0:00:0" in second and "% waiting for data" in second


def test_the_setup_is_told_before_the_first_iteration(train):
    _, said = train("train.total_iter=1", "train.accumulate=2", "train.ema_decay=0.5")
    assert (
        "precision fp32, accumulate 2 x 2 pictures, optim_g Adam, averages (EMA) with a decay of 0.5: half-life 1 iterations"
        in said
    )
