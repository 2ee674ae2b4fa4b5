"""A run that was killed and resumed ends with the bits of one that was not."""

from __future__ import annotations

import copy
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from facerestore.config import load_options
from facerestore.engine import build_model
from facerestore.engine.best import keep_best
from facerestore.engine.cli import train_main
from facerestore.engine.resume import _delete, _load_optimizer, latest_state, read_state
from facerestore.errors import CheckpointError
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


def stepped(memory: torch.memory_format, **keywords) -> tuple[nn.Conv2d, torch.optim.Adam]:
    """A layer that was trained once, in some memory format."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3).to(memory_format=memory)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1, **keywords)
    step(layer, optimizer)
    return layer, optimizer


def step(layer, optimizer) -> None:
    layer(torch.linspace(-1, 1, 150).reshape(2, 3, 5, 5)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("before", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("now", [torch.contiguous_format, torch.channels_last])
def test_what_an_optimizer_remembers_lies_in_memory_as_the_weights_do_now(before, now):
    layer, optimizer = stepped(before, fused=True)
    again, fresh = stepped(now, fused=True)
    _load_optimizer("optim_g", fresh, copy.deepcopy({"type": "Adam", **optimizer.state_dict()}), Path("1.state"))
    assert fresh.state[again.weight]["exp_avg"].stride() == again.weight.stride()
    for trained in ((layer, optimizer), (again, fresh)):
        step(*trained)
    torch.testing.assert_close(again.weight, layer.weight, rtol=0, atol=1e-6)


def test_counters_are_where_the_flags_of_now_ask_for_them():
    _, optimizer = stepped(torch.contiguous_format)
    elsewhere = torch.optim.Adam(nn.Conv2d(3, 4, 3, device="meta").parameters(), lr=0.1, capturable=True)
    _load_optimizer("optim_g", elsewhere, {"type": "Adam", **optimizer.state_dict()}, Path("1.state"))
    assert {s["step"].device.type for s in elsewhere.state.values()} == {"meta"}
    assert elsewhere.param_groups[0]["capturable"] is True


def test_a_memory_of_another_shape_is_refused():
    _, optimizer = stepped(torch.contiguous_format)
    state = {"type": "Adam", **copy.deepcopy(optimizer.state_dict())}
    state["state"][0]["exp_avg"] = torch.zeros(2, 2)
    with pytest.raises(CheckpointError, match=r"1.state: its optim_g does not fit .*exp_avg is \(2, 2\) for a parameter of"):
        _load_optimizer("optim_g", optimizer, state, Path("1.state"))


def without(mapping: dict, *keys: str) -> dict:
    return {k: v for k, v in mapping.items() if k not in keys}


DAMAGES = {
    "type": (lambda s: s["optimizers"].update(optim_g=without(s["optimizers"]["optim_g"], "type")), "optim_g has no `type`"),
    "groups": (lambda s: s["optimizers"]["optim_g"].pop("param_groups"), "optim_g has no `param_groups`"),
    "empty groups": (lambda s: s["optimizers"]["optim_g"].update(param_groups=[{}]), "of its optim_g name no parameters"),
    "options": (lambda s: s.update(options="{"), "its `options` are no JSON object"),
    "passed over": (lambda s: s.update(passed_over="3"), "its `passed_over` is a str, not int"),
    "scales": (lambda s: s.update(loss_scales=[1.0]), "its `loss_scales` is a list, not dict"),
    "a scale": (lambda s: s.update(loss_scales={"net_g": {"scale": "big"}}), "its `loss_scales` hold no scale for net_g"),
    "memory": (lambda s: s["optimizers"]["optim_g"].update(state={}), "optim_g has lost what it remembered"),
    "an old one's memory": (
        lambda s: s["optimizers"].update(optim_g=without(s["optimizers"]["optim_g"], "remembered") | {"state": {}}),
        "after iteration 4 none of optim_g remembers anything",
    ),
    "what is remembered": (lambda s: s["optimizers"]["optim_g"]["state"].update({0: 1}), "is not there by name"),
    "models": (lambda s: s.update(models={}), "its `models` name no file of a network that was trained"),
    "digests": (lambda s: s.update(models={"../net_g_4.pth": "0"}), "its `models` are no digests by names of files"),
}


@pytest.fixture(scope="module")
def run_of_two_checkpoints(tmp_path_factory):
    """The folder `experiments` of a run with the checkpoints 2 and 4."""
    folder = tmp_path_factory.mktemp("run")
    command = ["-opt", str(DEBUG / "sr.yml"), *QUICK, "--set", "name=run", "--set", f"path.experiments_root={folder}",
               "--set", "train.total_iter=4", "--set", "logger.save_checkpoint_freq=2"]  # fmt: skip
    assert train_main(command) == 0
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_state_that_was_edited_is_passed_over_and_refused_where_it_is_named(tmp_path, run_of_two_checkpoints, damage):
    shutil.copytree(run_of_two_checkpoints / "run", tmp_path / "run")
    path = tmp_path / "run/training_states/4.state"
    state = torch.load(path, weights_only=True)
    edit, sentence = DAMAGES[damage]
    edit(state)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=re.escape(sentence)) as refused:
        read_state(path)
    assert str(refused.value).startswith(f"{path}: damaged: ")
    assert latest_state(tmp_path / "run").stem == "2"


def test_what_a_method_does_not_remember_is_refused(tmp_path, train, capsys):
    train("--set", "name=run", "--set", "train.total_iter=2")
    path = tmp_path / "experiments/run/training_states/2.state"
    torch.save(torch.load(path, weights_only=True) | {"method": {"mean": 1.0}}, path)
    more = ["--set", "name=run", "--set", "train.total_iter=3", "--auto_resume"]
    assert train_main(["-opt", str(DEBUG / "sr.yml"), *QUICK, *more]) == 2
    assert "what it holds as `method` is not what SRModel remembers" in capsys.readouterr().err


def test_only_the_files_of_a_checkpoint_go_with_it(tmp_path, train):
    models = tmp_path / "experiments/run/models"
    common = ["--set", "name=run", "--set", "logger.keep_checkpoints=1", "--set", "logger.save_checkpoint_freq=2"]
    train(*common, "--set", "train.total_iter=2")
    kept = [models / "net_g_best_crop_2.pth", models / "mine_2.pth"]
    for path in kept:
        shutil.copyfile(models / "net_g_2.pth", path)
    train(*common, "--set", "train.total_iter=4", "--auto_resume")
    assert sorted(models.iterdir()) == sorted([*kept, models / "net_g_4.pth", models / "net_g_latest.pth"])
    state = tmp_path / "experiments/run/training_states/4.state"
    state.write_bytes(b"damaged")
    _delete(state, ["net_g"])
    assert sorted(models.iterdir()) == sorted([*kept, models / "net_g_latest.pth"])


def test_a_checkpoint_whose_removal_was_cut_off_goes_with_the_next(tmp_path, train, monkeypatch):
    common = ["--set", "name=run", "logger.keep_checkpoints=2", "logger.save_checkpoint_freq=2"]
    train(*common, "train.total_iter=4")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError))
        _delete(tmp_path / "experiments/run/training_states/2.state", ["net_g"])
    folders = [tmp_path / "experiments/run" / name for name in ("models", "training_states")]
    left = ["4.state", "net_g_2.pth", "net_g_4.pth", "net_g_latest.pth"]
    assert sorted(p.name for folder in folders for p in folder.iterdir()) == ["2.deleted", *left]
    train(*common, "train.total_iter=6", "--auto_resume")
    left = ["4.state", "6.state", "net_g_4.pth", "net_g_6.pth", "net_g_latest.pth"]
    assert sorted(p.name for folder in folders for p in folder.iterdir()) == left


def test_no_latest_of_another_format_is_left_beside_the_newest(tmp_path, train):
    models = tmp_path / "experiments/run/models"
    train("--set", "name=run", "--set", "train.total_iter=1")
    train("--set", "name=run", "--set", "train.total_iter=2", "--set", "logger.checkpoint_format=safetensors", "--auto_resume")
    assert sorted(p.name for p in models.glob("*latest*")) == ["net_g_latest.safetensors"]


def test_the_best_so_far_stays_the_best_in_another_format(tmp_path, monkeypatch):
    values = iter([2.0, 1.0, 3.0])
    monkeypatch.setattr("facerestore.engine.best.mean_over_sets", lambda results, metric: next(values))
    model = build_model(load_options(DEBUG / "sr.yml"))
    there = []
    for it, suffix in enumerate((".pth", ".safetensors", ".safetensors"), 1):
        keep_best(tmp_path, model, it, [], {"psnr": "higher"}, suffix)
        there.append([p.name for p in (tmp_path / "models").iterdir()])
    assert there == [["net_g_best_psnr.pth"], ["net_g_best_psnr.pth"], ["net_g_best_psnr.safetensors"]]


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
    assert running.wait() == 143
    assert "stopped after iteration" in rest
    state = next((tmp_path / "experiments/run/training_states").iterdir())
    assert (tmp_path / f"experiments/run/models/net_g_{state.stem}.pth").is_file()
