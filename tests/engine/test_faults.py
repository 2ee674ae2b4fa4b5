"""What befalls a training: numbers that are none, files that are damaged, disks that are full, processes that die."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

from facerestore.checkpoint import read_checkpoint, save_checkpoint, write_torch
from facerestore.config import load_options
from facerestore.engine import build_model
from facerestore.engine.cli import train_main
from facerestore.engine.guard import Guard
from facerestore.engine.logs import read_curves
from facerestore.errors import CheckpointError
from facerestore.models.sr import SRModel
from tests.engine.runs import DEBUG, ROOT, same, weights

QUICK = ["--set", "val.val_freq=~", "--set", "val.report=false", "--set", "logger.use_tb_logger=false", "--set", "name=run",
         "--set", "train.scheduler=~"]  # fmt: skip


class Assigning(torch.optim.Optimizer):
    """Momentum that is another tensor after each step."""

    def __init__(self, parameters, lr: float):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    state["mean"] = 0.9 * state.get("mean", torch.zeros_like(p)) + p.grad
                    p -= group["lr"] * state["mean"]


OPTIMIZERS = {
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "fused AdamW": lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True),
    "SGD": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9),
    "assigning": lambda p: Assigning(p, lr=1e-3),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.5, centered=True),
}


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """Train in this process; its exit code and what it said come back."""
    monkeypatch.chdir(tmp_path)

    def run(*settings, options="sr.yml"):
        given = [word for setting in settings for word in (["--set", setting] if "=" in setting else [setting])]
        code = train_main(["-opt", str(DEBUG / options), *QUICK, *given])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


@pytest.fixture
def spoil(monkeypatch):
    """Make the input of chosen iterations no number, as long as the training has not gone back."""

    def choose(*iterations):
        step = SRModel.step

        def spoilt(self, batch, it):
            if it in iterations and not self.engine.passed_over:
                batch.lq = batch.lq * float("nan")
            step(self, batch, it)

        monkeypatch.setattr(SRModel, "step", spoilt)

    return choose


def a_model(options: str, optimizer: str):
    model = build_model(load_options(DEBUG / options))
    for key, default in model.optimizers.items():
        group = default.param_groups[0]
        model.optimizers[key] = OPTIMIZERS[optimizer](group["params"])
        model.optimizers[key].param_groups[0]["initial_lr"] = 1e-3
    return model


def a_batch(seed: int, **changes) -> dict:
    generator = torch.Generator().manual_seed(seed)
    gt = torch.rand(2, 3, 48, 48, generator=generator)
    return {"lq": torch.nn.functional.avg_pool2d(gt, 4), "gt": gt, **changes}


def everything(model) -> dict[str, torch.Tensor]:
    """Every tensor of a training by its place."""
    found = {f"{n}.{k}": v for n, net in model.networks.items() for k, v in net.state_dict().items()}
    found |= {f"ema.{n}.{k}": v for n, net in model.ema.items() for k, v in net.state_dict().items()}
    for key, optimizer in model.optimizers.items():
        for i, remembered in optimizer.state_dict()["state"].items():
            found |= {f"{key}.{i}.{k}": v for k, v in remembered.items()}
    return {k: v.clone() for k, v in found.items()}


@pytest.mark.parametrize("options", ["sr.yml", "srgan.yml"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_iteration_that_is_skipped_changes_nothing(options, optimizer):
    model = a_model(options, optimizer)
    for it in (1, 2):
        model.step(a_batch(it), it)
    before = everything(model)
    model.step(a_batch(3, lq=torch.full((2, 3, 12, 12), float("nan"))), 3)
    after = everything(model)
    assert before.keys() == after.keys()
    assert [k for k in before if not torch.equal(before[k], after[k])] == []
    model.step(a_batch(4), 4)
    assert not torch.equal(everything(model)["net_g.conv_first.weight"], after["net_g.conv_first.weight"])
    found = model.guard.read(model.world)
    assert (found.skipped, found.in_a_row, found.longest, found.first) == (1, 0, 1, 3)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_first_iteration_that_is_skipped_leaves_nothing_behind(optimizer):
    model = a_model("sr.yml", optimizer)
    weights_before = copy.deepcopy(model.networks["net_g"].state_dict())
    model.step(a_batch(1, gt=torch.full((2, 3, 48, 48), float("inf"))), 1)
    assert all(torch.equal(v, weights_before[k]) for k, v in model.networks["net_g"].state_dict().items())
    model.step(a_batch(2), 2)
    assert all(v.isfinite().all() for v in everything(model).values())


def test_what_a_method_remembers_stays_as_it_was(monkeypatch):
    model = a_model("sr.yml", "Adam")
    method, step = model.method, SRModel.step
    method.mean_length = torch.tensor(1.0)
    monkeypatch.setattr(SRModel, "state", lambda self: {"mean_length": self.mean_length})
    monkeypatch.setattr(SRModel, "load_state", lambda self, state: setattr(self, "mean_length", state["mean_length"]))

    def remembering(self, batch, it):
        step(self, batch, it)
        self.mean_length = self.mean_length + batch["gt"].mean()

    monkeypatch.setattr(SRModel, "step", remembering)
    model.step(a_batch(1), 1)
    after_one = method.mean_length
    assert after_one > 1
    model.step(a_batch(2, gt=torch.full((2, 3, 48, 48), float("nan"))), 2)
    assert method.mean_length == after_one


def test_an_overflow_of_a_scaled_loss_is_skipped_and_no_fault():
    model = a_model("sr.yml", "Adam")
    guard = model.guard
    guard.begin(1)
    guard.see_gradients({"net_g": [torch.tensor([1.0, float("inf")])]}, scale=torch.tensor(1024.0))
    guard.end()
    assert guard.skipping
    assert guard.read(model.world).skipped == 0


def test_terms_and_gradients_that_are_no_numbers_are_named(monkeypatch):
    class Root(torch.nn.Module):
        """Zero, with a slope of 0 / 0."""

        def forward(self, image, truth):
            return (image - image.detach()).abs().sum().sqrt() * 0 + (image - truth).abs().mean()

    model = a_model("sr.yml", "Adam")
    monkeypatch.setattr(model.method, "pixel", Root())
    before = everything(model)
    assert model.step(a_batch(1), 1)["l_pix"].isfinite()
    assert dict(model.guard.read(model.world).not_finite) == {"gradient of net_g": 1}
    assert torch.equal(everything(model)["net_g.conv_first.weight"], before["net_g.conv_first.weight"])
    model.step(a_batch(2, gt=torch.full((2, 3, 48, 48), float("nan"))), 2)
    assert dict(model.guard.read(model.world).not_finite) == {"l_pix": 2, "gradient of net_g": 2}


def test_a_loss_that_is_no_number_skips_the_iteration_though_its_gradient_is_one(monkeypatch):
    model = a_model("sr.yml", "Adam")
    monkeypatch.setattr(model.method, "pixel", lambda image, truth: image.mean() + float("inf"))
    before = everything(model)
    model.step(a_batch(1), 1)
    assert torch.equal(everything(model)["net_g.conv_first.weight"], before["net_g.conv_first.weight"])
    assert model.guard.read(model.world).not_finite["l_pix"] == 1


class Reads(TorchDispatchMode):
    """Counts how often the host asks for a number of the device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", ["sr.yml", "srgan.yml"])
def test_an_iteration_asks_the_device_for_nothing(options):
    model = a_model(options, "fused AdamW")
    with Reads() as reads:
        model.step(a_batch(1), 1)
        model.step(a_batch(2, lq=torch.full((2, 3, 12, 12), float("nan"))), 2)
    assert reads.count == 0
    with Reads() as reads:
        model.terms["l_g_pix" if options == "srgan.yml" else "l_pix"].item()
    assert reads.count == 1


def test_losses_beyond_the_limit_are_told_from_those_that_are_no_numbers():
    guard = Guard(torch.device("cpu"), loss_limit=2.0)
    model = a_model("sr.yml", "Adam")
    for it, value in enumerate((1.0, -3.0, float("nan"), 4.0), 1):
        guard.begin(it)
        guard.see_terms({"l_pix": torch.tensor(1.0), "l_gan": torch.tensor(value)}, [])
        guard.end()
    found = guard.read(model.world)
    assert (dict(found.not_finite), dict(found.beyond)) == ({"l_gan": 3}, {"l_gan": 2})
    assert guard.read(model.world).first is None


def test_a_batch_that_is_no_number_is_skipped_told_and_kept(tmp_path, train, spoil):
    spoil(3)
    code, said = train("train.total_iter=6")
    assert code == 0, said
    assert "l_pix not finite from iteration 3 on" in said and "gradient of net_g not finite from iteration 3 on" in said
    content = torch.load(tmp_path / "experiments/run/diverged_3.pth", weights_only=True)
    assert content["iteration"] == 3 and content["not_finite"]["l_pix"] == 3
    assert len(content["names"]) == 4 and content["batch"]["gt"].shape == (4, 3, 48, 48)
    assert all(v.isfinite().all() for v in weights(tmp_path / "experiments/run", 6)["params"].values())


def test_the_batch_that_is_kept_is_the_one_that_was_trained_on(tmp_path, train, spoil, monkeypatch):
    seen = {}
    spoil(3)
    step = SRModel.step
    monkeypatch.setattr(SRModel, "step", lambda self, batch, it: (seen.setdefault(it, batch.gt), step(self, batch, it))[1])
    train("train.total_iter=4")
    content = torch.load(tmp_path / "experiments/run/diverged_3.pth", weights_only=True)
    assert torch.equal(content["batch"]["gt"] / 255, seen[3])


def test_several_in_a_row_take_the_training_back_and_on_with_other_batches(tmp_path, train, spoil):
    spoil(5, 6, 7, 8)
    settings = ["logger.save_checkpoint_freq=3", "logger.print_freq=1", "train.skip_limit=3"]
    code, said = train("train.total_iter=9", *settings)
    assert code == 0, said
    assert "in 3 iterations in a row: going back to iteration 3" in said
    folder = tmp_path / "experiments/run"
    state = torch.load(folder / "training_states/9.state", weights_only=True)
    assert state["passed_over"] == 4  # from the return of iteration 7 to 3
    through = weights(folder, 9)

    (folder / "training_states/9.state").unlink()  # as if killed after iteration 6, which came after the return
    code, said = train("train.total_iter=9", *settings, "--auto_resume")
    assert code == 0, said
    assert "going on after iteration 6" in said
    assert same(through, weights(folder, 9))


def test_a_loss_beyond_the_limit_takes_the_training_back(tmp_path, train, monkeypatch):
    step = SRModel.step

    def spike(self, batch, it):
        if it == 4 and not self.engine.passed_over:
            batch.gt = batch.gt + 100
        step(self, batch, it)

    monkeypatch.setattr(SRModel, "step", spike)
    code, said = train("train.total_iter=6", "logger.save_checkpoint_freq=2", "train.loss_limit=10")
    assert code == 0, said
    assert "iteration 4: l_pix went beyond `train.loss_limit` (10): going back to iteration 2" in said


@pytest.mark.parametrize("limit", [0, 2])
def test_a_run_that_diverges_again_and_again_ends_before_it_replaces_a_checkpoint(tmp_path, train, monkeypatch, limit):
    code, said = train("train.total_iter=2")
    assert code == 0, said
    step = SRModel.step
    monkeypatch.setattr(SRModel, "step", lambda self, batch, it: (setattr(batch, "gt", batch.gt / 0), step(self, batch, it))[1])
    code, said = train("train.total_iter=6", f"train.rollback_limit={limit}", "--auto_resume")
    assert code == 2
    assert said.count("going back to iteration 2") == limit
    assert f"did so after each of {limit} returns to iteration 2" in said
    assert [p.name for p in (tmp_path / "experiments/run/training_states").iterdir()] == ["2.state"]


def test_a_run_that_diverges_before_its_first_checkpoint_says_so(tmp_path, train, spoil):
    spoil(*range(1, 7))
    code, said = train("train.total_iter=6")
    assert code == 2
    assert "l_pix, gradient of net_g is not a finite number at the end: the training diverged before its first" in said


def damaged(content: bytes, how: str) -> bytes:
    middle = max(content.find(b"total_iter"), len(content) // 2)  # in a state's options, or among the weights
    return {
        "cut off": content[:middle],
        "empty": b"",
        "zeros": bytes(len(content)),
        "half zeros": content[:middle] + bytes(len(content) - middle),
        "one bit": content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :],
    }[how]


def test_the_best_weights_by_a_metric_are_kept(tmp_path, train, monkeypatch):
    values = iter([20.0, 25.0, 22.0, 24.0, 26.0])
    monkeypatch.setattr("facerestore.engine.best.mean_over_sets", lambda results, metric: next(values))
    settings = ["val.keep_best=[psnr]", "val.val_freq=1", "logger.save_checkpoint_freq=1", "logger.keep_checkpoints=1"]
    folder = tmp_path / "experiments/run"
    for total, best in ((3, 2), (4, 2), (5, 5)):
        code, said = train(f"train.total_iter={total}", *settings, "--auto_resume")
        assert code == 0, said
        meta = read_checkpoint(folder / "models/net_g_best_psnr.pth").meta
        assert meta["iteration"] == best and meta["best"] == {"psnr": {2: 25.0, 5: 26.0}[best]}
    assert same(weights(folder, 5), weights(folder, "best_psnr"))
    code, said = train("train.total_iter=5", "val.keep_best=[psnt]")
    assert code == 2 and "`val.metrics` has no 'psnt': it has psnr, ssim (did you mean 'psnr'?)" in said


def test_checkpoints_may_be_safetensors(tmp_path, train):
    train("train.total_iter=6", "name=whole")
    settings = ["logger.checkpoint_format=safetensors", "logger.save_checkpoint_freq=2", "logger.keep_checkpoints=2"]
    train("train.total_iter=4", *settings)
    folder = tmp_path / "experiments/run/models"
    assert sorted(p.name for p in folder.iterdir()) == [f"net_g_{n}.safetensors" for n in (2, 4, "latest")]
    path = folder / "net_g_4.safetensors"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(damaged(content, "one bit"))
    with pytest.raises(CheckpointError, match="the checksum in it is not that of its content"):
        read_checkpoint(path)
    code, said = train("train.total_iter=4", *settings, "--auto_resume")
    assert code == 0 and "going on after iteration 2" in said
    code, said = train("train.total_iter=6", "--auto_resume")  # back to torch's own
    assert code == 0 and "going on after iteration 4" in said
    assert same(weights(tmp_path / "experiments/whole", 6), weights(tmp_path / "experiments/run", 6))
    assert read_checkpoint(path).meta["type"] == "MSRResNet"
    assert (folder / "net_g_6.pth").is_file()


def test_safetensors_of_other_programs_are_read(tmp_path):
    weights = {"conv.weight": torch.ones(2, 3), "conv.bias": torch.zeros(2)}
    save_file(weights, tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").rename(tmp_path / "x.pth")  # told by its content
    assert same(read_checkpoint(tmp_path / "x.pth").states, {"params": weights})
    (tmp_path / "y.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="damaged or cut off"):
        read_checkpoint(tmp_path / "y.safetensors")


@pytest.mark.parametrize("how", ["cut off", "empty", "zeros", "half zeros", "one bit"])
@pytest.mark.parametrize("name", ["models/net_g_4.pth", "training_states/4.state"])
def test_the_checkpoint_before_a_damaged_one_is_taken(tmp_path, train, name, how):
    code, said = train("train.total_iter=4", "logger.save_checkpoint_freq=2")
    assert code == 0, said
    path = tmp_path / "experiments/run" / name
    content = path.read_bytes()
    path.unlink()  # `net_g_latest.pth` is another name of the same file
    path.write_bytes(damaged(content, how))
    code, said = train("train.total_iter=5", "--auto_resume")
    assert code == 0, said
    assert "checkpoint 4 is passed over" in said and "damaged or cut off" in said
    assert "going on after iteration 2" in said


def test_one_bit_that_is_wrong_is_found_wherever_it_counts(tmp_path):
    weights = {"weight": torch.linspace(-1, 1, 2000), "bias": torch.ones(500)}
    save_checkpoint(tmp_path / "x.pth", {"params": weights}, {"iteration": 3})
    content, refused = (tmp_path / "x.pth").read_bytes(), 0
    for place in range(0, len(content), 97):
        flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        (tmp_path / "x.pth").write_bytes(flipped)
        try:
            read = read_checkpoint(tmp_path / "x.pth")
        except CheckpointError:
            refused += 1
        else:  # what lies between the records counts for nothing
            assert same(read.states, {"params": weights}) and read.meta == {"iteration": 3}
    assert refused > 10_000 / 97


@pytest.mark.parametrize("name", ["models/net_g_2.pth", "training_states/2.state"])
def test_a_file_that_was_cut_off_is_told_with_its_size(tmp_path, train, name):
    train("train.total_iter=2")
    path = tmp_path / "experiments/run" / name
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:5000])
    state = tmp_path / "experiments/run/training_states/2.state"
    code, said = train("train.total_iter=3", f"path.resume_state={state}", "name=other")
    assert code == 2 and f"{path}: 5,000 bytes, damaged or cut off" in said
    assert "Errno" not in said and "Traceback" not in said


def test_iterations_and_not_times_tell_which_checkpoint_is_the_last(tmp_path, train):
    train("train.total_iter=4", "logger.save_checkpoint_freq=2")
    folder = tmp_path / "experiments/run"
    for path in [*folder.rglob("*_2.pth"), folder / "training_states/2.state"]:
        os.utime(path, (4e9, 4e9))  # as where the clock was set back between the two
    code, said = train("train.total_iter=5", "--auto_resume")
    assert code == 0 and "going on after iteration 4" in said


def test_what_killed_writers_left_is_cleared_away(tmp_path, train):
    train("train.total_iter=1")
    folder = tmp_path / "experiments/run"
    left = [folder / "models/.abc.part", folder / "training_states/.def.part", folder / ".ghi.part"]
    for path in left:
        path.write_bytes(b"half")
    train("train.total_iter=2", "--auto_resume")
    assert [p.name for p in left if p.exists()] == []


def test_a_run_that_was_stopped_before_its_first_checkpoint_starts_again_in_its_folder(tmp_path, train):
    (tmp_path / "experiments/run/models").mkdir(parents=True)
    code, said = train("train.total_iter=1", "--auto_resume")
    assert code == 0, said
    assert [p.name for p in (tmp_path / "experiments").iterdir()] == ["run"]


def test_what_torchrun_has_started_again_goes_on(tmp_path, train, monkeypatch):
    train("train.total_iter=2")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    code, said = train("train.total_iter=3")
    assert code == 0, said
    assert "going on after iteration 2" in said


def test_a_validation_that_was_cut_off_is_made_up_for(tmp_path, train):
    settings = ["val.val_freq=2", "logger.save_checkpoint_freq=2", "logger.print_freq=2"]
    train("train.total_iter=2", *settings)
    folder = tmp_path / "experiments/run"
    whole = read_curves(folder)
    picture = next((folder / "visualization").rglob("*_2.png"))
    content = picture.read_bytes()
    picture.unlink()
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(line for line in lines if "held_out" not in line and "done" not in line))
    train("train.total_iter=2", *settings, "--auto_resume")
    assert read_curves(folder) == whole
    assert picture.read_bytes() == content


@pytest.mark.slow(10)
def test_a_full_disk_is_told_and_harms_no_checkpoint(tmp_path, train):
    train("train.total_iter=2", "logger.save_checkpoint_freq=2")
    size = (tmp_path / "experiments/run/models/net_g_2.pth").stat().st_size
    # No process may write a file beyond this size: to the writer the same as a disk that is full.
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size // 2}, {size // 2})); "
    limited += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limited += "import sys; from facerestore.engine.cli import train_main; sys.exit(train_main(sys.argv[1:]))"
    command = [sys.executable, "-c", limited, "-opt", str(DEBUG / "sr.yml"), *QUICK, "--set", "train.total_iter=4"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--auto_resume"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr and "Traceback" not in done.stderr
    folder = tmp_path / "experiments/run"
    assert [p.name for p in (folder / "training_states").iterdir()] == ["2.state"]
    assert not list(folder.rglob(".*.part"))
    code, said = train("train.total_iter=4", "--auto_resume")
    assert code == 0 and "going on after iteration 2" in said


def test_a_folder_that_cannot_be_written_is_told(tmp_path, train):
    (tmp_path / "experiments").write_text("a file where a folder is to be")  # as root, rights alone hold nobody back
    code, said = train("train.total_iter=1")
    assert code == 2
    assert "experiments" in said and "Traceback" not in said


def test_a_checkpoint_of_another_world_size_is_taken_up(tmp_path, train):
    train("train.total_iter=2")
    path = tmp_path / "experiments/run/training_states/2.state"
    write_torch(path, torch.load(path, weights_only=True) | {"world_size": 4})
    code, said = train("train.total_iter=3", "--auto_resume")
    assert code == 0, said
    assert "processes: 1 now, 4 before" in said


@pytest.mark.slow(90)
@pytest.mark.parametrize("more", [["--kills=4", "--workers=2"], ["--kills=2", "--processes=2", "--workers=0"]])
def test_a_run_that_is_killed_again_and_again_ends_with_the_bits_of_one_that_was_not(more):
    command = [sys.executable, str(ROOT / "benchmarks/faults.py"), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same to the bit" in done.stdout
