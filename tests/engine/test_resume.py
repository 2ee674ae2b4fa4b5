"""A run that was killed and resumed ends with the bits of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from facerestore.engine.cli import train_main
from facerestore.models.sr import SRModel
from tests.engine.runs import DEBUG, QUICK, ROOT, program, same, weights


def train_apart(folder, *arguments, options="sr.yml"):
    """Train in a process of its own."""
    done = program("train.py", "-opt", DEBUG / options, *QUICK, *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def kill_at(folder, iteration: int, *arguments, options="sr.yml") -> None:
    """Start a training and kill -9 it as soon as the checkpoint of `iteration` is whole and the run has gone on."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "train.py"), "-opt", str(DEBUG / options), *QUICK, *map(str, arguments)]
    running = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = next_state(folder, iteration)
    end = time.monotonic() + 120
    while not state.exists() and running.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    assert running.poll() is None, "the run ended before it could be killed"
    running.send_signal(signal.SIGKILL)
    running.wait()


def next_state(folder, iteration):
    return folder / "experiments" / "run" / "training_states" / f"{iteration}.state"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("options", "names"), [("sr.yml", ["net_g"]), ("srgan.yml", ["net_g", "net_d"])])
def test_five_and_a_kill_and_five_are_ten(tmp_path, workers, options, names):
    """Ten iterations, and five + kill -9 + resume + five."""
    common = ["--set", f"datasets.train.num_worker_per_gpu={workers}", "--set", "train.total_iter=10"]
    train_apart(tmp_path, *common, "--set", "name=whole", options=options)
    # Iterations are kept from outrunning the kill by a bigger total; the checkpoint of the fifth is what counts.
    kill_at(tmp_path, 5, *common, "--set", "train.total_iter=100000", "--set", "name=run",
            "--set", "logger.save_checkpoint_freq=5", options=options)  # fmt: skip
    for later in (tmp_path / "experiments" / "run" / "training_states").glob("*.state"):
        if later.stem != "5":
            later.unlink()
    log = train_apart(tmp_path, *common, "--set", "name=run", "--auto_resume", options=options)
    assert "going on after iteration 5" in log
    for name in names:
        assert same(weights(tmp_path / "experiments/whole", 10, name), weights(tmp_path / "experiments/run", 10, name))


def test_resumed_weights_are_those_of_an_uninterrupted_run(tmp_path, train):
    train("--set", "name=whole", "--set", "train.total_iter=6", "--set", "train.scheduler=~")
    train("--set", "name=run", "--set", "train.total_iter=3", "--set", "train.scheduler=~")
    log = train("--set", "name=run", "--set", "train.total_iter=6", "--set", "train.scheduler=~", "--auto-resume")
    assert "going on after iteration 3" in log
    assert "`train.total_iter` was 3 before this run was resumed and is 6 now" in log
    whole, run = (weights(tmp_path / "experiments" / n, 6) for n in ("whole", "run"))
    assert same(whole, run)
    assert not all(torch.equal(whole["params"][k], whole["params_ema"][k]) for k in whole["params"])


def test_what_the_yaml_says_now_is_what_runs_after_a_resume(tmp_path, train):
    constant = ["--set", "name=run", "--set", "train.scheduler=~"]
    train(*constant, "--set", "train.total_iter=2")
    log = train(*constant, "--set", "train.total_iter=4", "--set", "train.optim_g.lr=5e-4", "--auto_resume")
    assert "`train.optim_g.lr` was 0.001 before this run was resumed and is 0.0005 now" in log
    assert "iter 4," in log and "lr_g 5.00e-04" in log


def test_a_finished_run_is_left_as_it_is(tmp_path, train):
    train("--set", "name=run", "--set", "train.total_iter=2")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "experiments/run/models").iterdir()}
    assert "nothing left to train" in train("--set", "name=run", "--set", "train.total_iter=2", "--auto_resume")
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "experiments/run/models").iterdir()}


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path, train):
    train("--set", "name=run", "--set", "train.total_iter=4", "--set", "logger.save_checkpoint_freq=2")
    models = tmp_path / "experiments/run/models"
    content = (models / "net_g_4.pth").read_bytes()
    (models / "net_g_4.pth").unlink()
    (models / "net_g_4.pth").write_bytes(content[: len(content) // 2])
    log = train("--set", "name=run", "--set", "train.total_iter=5", "--auto_resume")
    assert "checkpoint 4 is passed over" in log and "damaged or cut off" in log
    assert "going on after iteration 2" in log


def test_a_name_that_exists_is_archived(tmp_path, train):
    for _ in range(2):
        train("--set", "name=run", "--set", "train.total_iter=1")
    names = sorted(p.name for p in (tmp_path / "experiments").iterdir())
    assert names[0] == "run" and names[1].startswith("run_archived_")


def test_runs_that_are_restarted_within_a_second_are_all_kept(tmp_path, train, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda *_: "20260101_000000")
    for _ in range(3):
        train("--set", "name=run", "--set", "train.total_iter=1")
    names = sorted(p.name for p in (tmp_path / "experiments").iterdir())
    assert names == ["run", "run_archived_20260101_000000", "run_archived_20260101_000000_2"]
    assert all((tmp_path / "experiments" / n / "models").is_dir() for n in names)


def test_a_second_run_of_the_same_name_is_refused(tmp_path, train, capsys):
    train("--set", "name=run", "--set", "train.total_iter=1")
    code = "import sys; from pathlib import Path; from facerestore.engine.run_folder import hold_folder\n"
    code += "held = hold_folder(Path('experiments/run')); print('held', flush=True); sys.stdin.read()"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    other = subprocess.Popen([sys.executable, "-c", code], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    for more in ([], ["--auto_resume"]):
        command = ["-opt", str(DEBUG / "sr.yml"), *QUICK, "--set", "name=run", "--set", "train.total_iter=2", *more]
        assert train_main(command) == 2
        assert f"another run of this name is training there (process {other.pid} of" in capsys.readouterr().err
    other.communicate("")
    assert [p.name for p in (tmp_path / "experiments").iterdir()] == ["run"]


def test_the_runs_own_checkpoint_comes_before_the_one_that_the_options_name(tmp_path, train):
    train("--set", "name=other", "--set", "train.total_iter=2")
    named = ["--set", "path.resume_state=experiments/other/training_states/2.state", "--auto_resume"]
    assert "going on after iteration 2 (experiments/other" in train("--set", "name=run", "--set", "train.total_iter=3", *named)
    assert "going on after iteration 3 (experiments/run" in train("--set", "name=run", "--set", "train.total_iter=4", *named)


def test_a_run_that_starts_from_another_ones_state_does_not_mix_with_an_earlier_one(tmp_path, train):
    train("--set", "name=other", "--set", "train.total_iter=2")
    train("--set", "name=run", "--set", "train.total_iter=5")
    train(
        "--set",
        "name=run",
        "--set",
        "train.total_iter=3",
        "--set",
        "path.resume_state=experiments/other/training_states/2.state",
    )
    assert [p.name for p in (tmp_path / "experiments/run/training_states").iterdir()] == ["3.state"]
    assert sum(p.name.startswith("run_archived_") for p in (tmp_path / "experiments").iterdir()) == 1


@pytest.mark.parametrize("change", ["type=SGD", "amsgrad=true"])
def test_an_optimizer_of_another_kind_starts_anew_and_says_so(tmp_path, train, change):
    train("--set", "name=run", "--set", "train.total_iter=2")
    betas = ["--set", "train.optim_g.betas=~"] if "SGD" in change else []
    more = ["--set", f"train.optim_g.{change}", *betas, "--set", "name=run", "--set", "train.total_iter=3"]
    assert "optim_g is of another kind now" in train(*more, "--auto_resume")


def test_what_a_method_remembers_comes_back(tmp_path, train, monkeypatch):
    seen = []
    monkeypatch.setattr(SRModel, "state", lambda self: {"mean_length": torch.tensor(0.25)})
    monkeypatch.setattr(SRModel, "load_state", lambda self, state: seen.append(state))
    train("--set", "name=run", "--set", "train.total_iter=2")
    seen.clear()
    train("--set", "name=run", "--set", "train.total_iter=3", "--auto_resume")
    assert seen[0] == {"mean_length": torch.tensor(0.25)}


def test_upstream_layout_and_latest(tmp_path, train):
    train("--set", "name=run", "--set", "train.total_iter=4", "--set", "logger.save_checkpoint_freq=2",
          "--set", "logger.keep_checkpoints=1")  # fmt: skip
    folder = tmp_path / "experiments/run"
    assert sorted(p.name for p in (folder / "models").iterdir()) == ["net_g_4.pth", "net_g_latest.pth"]
    assert [p.name for p in (folder / "training_states").iterdir()] == ["4.state"]
    content = torch.load(folder / "models/net_g_latest.pth", weights_only=True)
    assert set(content) == {"params", "params_ema", "meta"}
    assert content["meta"]["type"] == "MSRResNet" and content["meta"]["iteration"] == 4
    assert same({k: content[k] for k in ("params", "params_ema")}, weights(folder, 4))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_to_all_processes_saves_and_ends(tmp_path, workers):
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "train.py"), "-opt", str(DEBUG / "sr.yml"), *QUICK, "--set", "name=run",
               "--set", "train.total_iter=100000", "--set", "logger.save_checkpoint_freq=~",
               "--set", f"datasets.train.num_worker_per_gpu={workers}"]  # fmt: skip
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    running = subprocess.Popen(command, cwd=tmp_path, env=env, text=True, start_new_session=True, **pipes)
    for line in running.stdout:
        if "iter 4," in line:
            os.killpg(running.pid, signal.SIGTERM)  # as schedulers do
            break
    rest = running.stdout.read()
    assert running.wait() == 0
    assert "stopped after iteration" in rest
    state = next((tmp_path / "experiments/run/training_states").iterdir())
    assert (tmp_path / f"experiments/run/models/net_g_{state.stem}.pth").is_file()
