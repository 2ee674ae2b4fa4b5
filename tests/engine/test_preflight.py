"""`train.py --preflight`: what it visits, what it finds, and that it leaves nothing behind."""

from __future__ import annotations

import re
from collections import Counter
from unittest.mock import MagicMock

import pytest
import torch

from facerestore.config import load_options
from facerestore.engine import builder, cli, dry_run, preflight, tester, trainer
from facerestore.engine.cli import train_main
from facerestore.engine.distributed import World
from facerestore.engine.logs import bytes_text
from facerestore.engine.preflight import weights
from facerestore.engine.preflight.fingerprints import differing, fingerprints
from facerestore.engine.preflight.forecast import Forecast, duration, occurrences
from facerestore.engine.preflight.phases import count_kinds, kind_of, phases_of
from facerestore.engine.preflight.reads import OptionReads
from facerestore.engine.schedules import learning_rate, rate_turns
from facerestore.models.base import Turn
from facerestore.models.sr import SRModel
from facerestore.registry import MODELS, SCHEDULES, parameters_of
from tests.engine.runs import DEBUG, TRAININGS, processes

LONG = ["--set", "train.total_iter=100", "--set", "train.scheduler={type: MultiStepLR, milestones: [40]}"]
QUICK = ["--set", "logger.use_tb_logger=false"]


@pytest.fixture
def fly(tmp_path, monkeypatch, capsys):
    """Run a preflight in this process, without the dry run before it; exit code, what it said, and its error come back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dry_run, "dry_run_training", lambda options: None)

    def run(*arguments, options="sr.yml"):
        code = train_main(["-opt", str(DEBUG / options), "--preflight", *QUICK, *arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        assert not list(tmp_path.glob(".preflight_*")), "its folder is removed, whatever happens"
        return code, said.out, said.err

    return run


def refusal(result) -> str:
    code, _, err = result
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
    return err


LENGTHY = ("gfpgan_v1", "gfpgan_clean")  # gfpgan_v1_simple is there


@pytest.mark.parametrize(
    "options", [pytest.param(p, marks=[pytest.mark.slow(15)] if p.stem in LENGTHY else [], id=p.stem) for p in TRAININGS]
)
def test_every_debug_option_file_passes_and_leaves_nothing(options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train_main(["-opt", str(options), "--preflight", *QUICK]) == 0
    out, err = capsys.readouterr()
    assert not err and "  # default\n" in out, "a preflight begins as a dry run"
    assert re.search(r"options +\d+ keys, all read", out)
    assert "is the same to the bit" in out and out.endswith("preflight: all is well\n")
    assert not list(tmp_path.iterdir())


def test_an_earlier_run_of_the_name_is_not_touched(fly, tmp_path, capsys):
    assert train_main(["-opt", str(DEBUG / "sr.yml"), *QUICK, "--set", "name=run", "--set", "train.total_iter=2"]) == 0
    capsys.readouterr()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert fly("--set", "name=run")[0] == 0
    code, out, _ = fly("--set", "name=run", "--set", "train.total_iter=9", "--auto_resume")
    assert code == 0 and "phase `first iteration`, iteration 3 " in out and "7 iterations: about" in out
    assert fly("--set", "name=run", "--set", "train.total_iter=2", "--auto_resume")[0] == 2
    before.pop(tmp_path / "experiments")  # a folder is made in it, and removed
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p in before}
    assert {p.name for p in (tmp_path / "experiments").iterdir()} == {"run"}


def test_every_declared_phase_is_visited_with_the_rates_of_its_place(fly, monkeypatch):
    visited: list[int] = []
    step = SRModel.step
    monkeypatch.setattr(SRModel, "step", lambda self, batch, it: (visited.append(it), step(self, batch, it))[1])
    turns = {"pyramid ends": Turn(60), "regularised": Turn(16, 16), "never": Turn(101)}
    monkeypatch.setattr(SRModel, "turning_points", lambda self: turns)
    code, out, err = fly(*LONG, "--set", "train.warmup_iter=10")
    assert (code, err) == (0, "")
    resumed = [100]
    assert visited == [1, 2, 10, 11, 16, 17, 32, 41, 42, 60, 61, 64, 65, 80, 99, 100, *resumed]
    for label in ("first iteration", "warm-up ends", "regularised, every 16", "milestone 40", "pyramid ends", "last iteration"):
        assert f"\n{label} " in out and f"phase `{label}`, iteration" in out
    assert "iteration 2 (" in out and "lr_g 2.00e-04" in out and "lr_g 1.00e-04, l_pix" in out
    assert "note: `never` would begin with iteration 101: the training ends before" in out


TURNS = {"a": Turn(7), "b": Turn(4, 4), "c": Turn.after(10, 6)}


def test_iterations_are_counted_by_kind():
    for start, total in ((0, 100), (5, 61), (0, 1), (11, 13), (6, 7)):
        assert count_kinds(TURNS, start, total) == Counter(kind_of(TURNS, it) for it in range(start + 1, total + 1))
    assert count_kinds({}, 3, 10) == {(): 7}
    assert sum(count_kinds(TURNS, 0, 10**9).values()) == 10**9


@pytest.mark.parametrize(("start", "total"), [(0, 1), (0, 2), (0, 100), (1, 2), (50, 100), (98, 100)])
def test_phases_begin_and_end_with_the_training(start, total):
    options = load_options(DEBUG / "sr.yml", [f"train.total_iter={total}", "train.scheduler=~"])
    phases = phases_of(options, TURNS, start)
    assert all(start < it <= total for phase in phases for it in phase.iterations)
    assert phases[0].iterations[0] == start + 1
    assert phases[-1].label.endswith("last iteration") and phases[-1].iterations[-1] == total


def test_a_turn_begins_after_an_iteration():
    assert (Turn.after(5000), Turn.after(0, 4), Turn.after(4, 4), Turn.after(10, 4)) == ((5001, 1), (4, 4), (8, 4), (12, 4))


@pytest.mark.parametrize("name", MODELS.names())
def test_every_keyword_that_counts_iterations_moves_a_turning_point(name):
    cls = MODELS.get(name)
    anything = MagicMock()
    parts = {p.name: anything for p in parameters_of(cls) if p.part}
    plain = [p for p in parameters_of(cls) if not p.part]
    counting = [p for p in plain if re.search(r"_(iter|iters|every|start|interval|freq)$", p.name)]
    for p in counting:
        points = [cls(**parts, **{p.name: value}).turning_points() for value in (70, 90)]
        assert points[0] != points[1], f"{name}.turning_points() says nothing of {p.name}"


def test_srgans_turning_point_is_where_its_generator_is_updated():
    method = MODELS.get("SRGANModel")(None, net_d_iters=4, net_d_init_iters=10)
    updated = []
    for it in range(1, 40):
        method.phase = lambda *networks, it=it: updated.append((it, networks)) or _nothing()
        method.g = method.d = method.gan = lambda *_, **__: _Whatever()
        method.pixel = method.perceptual = None
        method.deceive = lambda *_: torch.zeros(())
        method.discriminate = lambda *_: None
        method.step(_Whatever(), it)
    turn = method.turning_points()["generator is updated"]
    assert [it for it, networks in updated if networks == ("g",)] == [
        it for it in range(1, 40) if it >= turn.first and it % turn.every == 0
    ]


class _Whatever:
    lq = gt = None

    @property
    def image(self):
        return torch.zeros(1)


class _nothing(dict):  # noqa: N801  (a phase in which nothing happens)
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


SCHEDULERS = {
    "MultiStepLR": {"milestones": [20, 50], "gamma": 0.5},
    "MultiStepRestartLR": {"milestones": [20, 70], "gamma": 0.5, "restarts": [0, 50], "restart_weights": [1, 0.7]},
    "CosineAnnealingRestartLR": {"periods": [40, 60], "restart_weights": [1, 0.5], "eta_min": 1e-7},
    "StepLR": {"step_size": 30, "gamma": 0.5},
    "LinearLR": {"total_iters": 40, "start_iter": 20, "end_factor": 0.1},
}


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_turns_of_the_rate_are_where_it_breaks(name):
    schedule = SCHEDULES.build({"type": name, **SCHEDULERS[name]})
    rates = [learning_rate(schedule, it, 1.0) for it in range(1, 101)]
    for label, first in rate_turns(schedule).items():
        if 2 < first < 99:
            i = first - 1  # rates[i] is that of iteration `first`
            bend = abs((rates[i] - rates[i - 1]) - (rates[i - 1] - rates[i - 2]))
            assert bend > 0.002, (label, rates[i - 2 : i + 1])


def test_a_term_that_is_no_number_is_told_with_its_phase(fly, monkeypatch):
    distances = SRModel.distances

    def late(self, image, truth, prefix):
        terms = distances(self, image, truth, prefix)
        return {k: t * float("nan") for k, t in terms.items()} if self.at >= 60 else terms

    step = SRModel.step
    monkeypatch.setattr(SRModel, "step", lambda self, batch, it: (setattr(self, "at", it), step(self, batch, it))[1])
    monkeypatch.setattr(SRModel, "distances", late)
    monkeypatch.setattr(SRModel, "turning_points", lambda self: {"distance breaks": Turn(60)})
    assert "preflight, phase `distance breaks` (iteration 60): l_pix is not a finite number" in refusal(fly(*LONG))


def test_a_fault_in_a_phase_is_one_sentence_with_its_place(fly, monkeypatch):
    def broken(self, batch, it):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(SRModel, "step", broken)
    assert "preflight, phase `first iteration` (iteration 1): ZeroDivisionError: by nothing" in refusal(fly())


def test_losses_and_networks_that_no_phase_uses_are_told(fly):
    said = refusal(fly("--set", "train.net_d_init_iters=9", "--set", "train.total_iter=9", "--set", "train.scheduler=~",
                       options="srgan.yml"))  # fmt: skip
    assert "`pixel_opt` is used in no phase" in said and "`perceptual_opt` is used in no phase" in said
    assert "net_g is to be trained and got no gradient in any phase" in said and "net_d " not in said


def test_a_network_that_cannot_move_is_told(fly):
    assert "net_g did not move in any phase" in refusal(fly("--set", "train.optim_g.lr=0", "--set", "train.scheduler=~"))


def test_parameters_without_a_gradient_are_counted(fly, monkeypatch):
    draw = builder.drawn_network

    def with_a_spare(*args):
        network = draw(*args)
        network.spare = torch.nn.Linear(2, 2)
        return network

    monkeypatch.setattr(builder, "drawn_network", with_a_spare)
    monkeypatch.setattr(weights, "drawn_network", with_a_spare)
    code, out, _ = fly()
    assert code == 0
    assert "note: net_g: 2 of 16 parameters never got a gradient (spare.weight, spare.bias)" in out


def test_fixed_parameters_must_not_be_random(fly, monkeypatch):
    build = builder.build_networks

    def fixing(options):
        networks = build(options)
        networks["network_g"].conv_first.requires_grad_(False)
        return networks

    monkeypatch.setattr(builder, "build_networks", fixing)
    assert "net_g has random weights that are never trained (conv_first.weight)" in refusal(fly())
    assert fly("--set", "network_g.weights=random")[0] == 0


def test_what_a_checkpoint_forgets_is_told(fly, monkeypatch):
    step, distances = SRModel.step, SRModel.distances

    def counting(self, batch, it):
        self.count = getattr(self, "count", 0) + 1
        step(self, batch, it)

    monkeypatch.setattr(SRModel, "step", counting)
    monkeypatch.setattr(
        SRModel, "distances", lambda self, *a, **k: {n: t * self.count for n, t in distances(self, *a, **k).items()}
    )
    said = refusal(fly())
    assert "after a resume iteration 10 ends with another terms.l_pix, net_g." in said


def test_what_a_resume_does_not_bring_back_is_told(fly, monkeypatch):
    monkeypatch.setattr(SRModel, "state", lambda self: {"mean": getattr(self, "mean", 1.0)})
    monkeypatch.setattr(SRModel, "load_state", lambda self, state: setattr(self, "mean", 2.0))
    assert "a resume after iteration 9 does not bring back method.mean" in refusal(fly())


def test_keys_that_nobody_reads_are_told(fly):
    said = refusal(fly("--set", "train.randomize_noise=false", "--set", "path.param_key_g=params", "--set", "val.report=false",
                       "--set", "val.report_pictures=3", "--set", "datasets.val.use_shuffle=true"))  # fmt: skip
    told = "nobody reads `datasets.val.use_shuffle`, `train.randomize_noise`, `val.report_pictures`, `path.param_key_g`"
    assert sorted(re.findall(r"`[\w.]+`", said)) == sorted(re.findall(r"`[\w.]+`", told)) and "nobody reads" in said


def test_upstreams_empty_keys_and_test_sets_are_no_fault(fly):
    empty = ["path.pretrain_network_g=~", "path.strict_load_g=true", "path.resume_state=~"]
    beside = ["datasets.test_1={type: SyntheticFaceDataset, count: 2}", "val.pbar=false"]
    code, _, err = fly(*(word for option in empty + beside for word in ("--set", option)))
    assert (code, err) == (0, "")


def test_a_section_that_was_not_touched_goes_by_its_name():
    reads = OptionReads(load_options(DEBUG / "srgan.yml"))
    assert {"datasets", "network_d", "train", "val"} <= set(reads.unread_names())
    assert reads.options.train.total_iter == 10
    reads.options.networks["network_d"].component  # noqa: B018  (is looked up)
    assert reads.options.datasets["train"].batch_size_per_gpu == 4
    names = reads.unread_names()
    assert "network_d" not in names and "datasets" not in names
    assert "datasets.val" in names and "datasets.train.count" in names and "train.optim_g" in names and "train" not in names


def test_keys_that_are_read_elsewhere_are(monkeypatch, tmp_path, capsys):
    """The command line and test.py read what the preflight takes as read."""
    monkeypatch.chdir(tmp_path)
    reads = OptionReads(load_options(DEBUG / "sr.yml", ["network_g.weights=random"]))
    monkeypatch.setattr(cli, "load_options", lambda *_: reads.options)
    monkeypatch.setattr(trainer, "train", lambda *_: None)
    assert train_main(["-opt", "any.yml"]) == 0
    assert set(preflight.READ_BY_THE_COMMAND_LINE) <= reads.read
    tester.test(reads.options, World())
    assert set(preflight.READ_BY_TESTS) <= reads.read


def test_watching_changes_nothing():
    plain = load_options(DEBUG / "srgan.yml")
    watched = OptionReads(plain).options
    assert isinstance(watched, type(plain)) and watched.train.optimizers["optim_g"].lr == 1e-3
    assert watched.method == plain.method and watched.inherited == plain.inherited and watched.raw is plain.raw


def test_a_folder_that_cannot_be_written_is_told_first(fly, tmp_path):
    (tmp_path / "file").write_text("")
    said = refusal(fly("--set", "path.experiments_root=/proc/nowhere"))
    assert "the run's folder cannot be made there" in said


def forecast(**changes) -> Forecast:
    usual = dict(kinds={(False,): 75, (True,): 25}, seconds={(False,): 2.0, (True,): 6.0}, supply=1.0, beside=True,
                 validations=4, validation_seconds=10.0, validation_bytes=5, checkpoints=8, kept=3, checkpoint_seconds=1.0,
                 checkpoint_bytes=100)  # fmt: skip
    return Forecast(**usual | changes)


def test_time_and_disk_are_sums():
    assert (forecast().computing, forecast().waiting, forecast().disk) == (300, 0, 420)
    assert forecast(supply=3.0).waiting == 75
    assert forecast(beside=False).waiting == 100
    assert forecast(kept=8).disk == 820
    assert forecast(seconds={(True,): 6.0}).computing == 600  # of a kind that was not run: as the nearest
    assert "about 5 min 48 s (training 5 min, of which 0% waiting for data; validation 40 s" in forecast().time()


def test_figures_are_written_as_one_reads_them():
    assert [duration(s) for s in (0.42, 59.6, 3600, 3725, 530000, 86400)] == [
        "0.4 s", "1 min", "1 h", "1 h 2 min", "6 d 3 h", "1 d",
    ]  # fmt: skip
    assert [bytes_text(n) for n in (0, 999, 1024, 1.5 * 2**30, 176 * 2**30, 3 * 2**40)] == [
        "0 B", "999 B", "1.0 KiB", "1.5 GiB", "176 GiB", "3.0 TiB",
    ]  # fmt: skip
    for every, start, total in ((5, 0, 10), (5, 0, 12), (5, 7, 12), (None, 0, 9), (100, 0, 9)):
        due = [it for it in range(start + 1, total + 1) if it == total or (every and it % every == 0)]
        assert occurrences(every, start, total) == len(due)


def test_a_disk_that_is_too_small_is_told(fly, monkeypatch):
    usage = preflight.summary.__globals__["shutil"].disk_usage(".")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=1000))
    code, out, _ = fly()
    assert code == 0 and "note: the disk will be full" in out and "1000 B" not in out and "are free; set `logger.keep" in out


def test_fingerprints_tell_every_bit():
    one = {"a": torch.tensor([1.0, 2.0]), "b": [torch.zeros(2, dtype=torch.bfloat16), 3], "c": {"d": float("nan")}}
    other = {"a": torch.tensor([1.0, 2.0000002]), "b": [torch.zeros(2, dtype=torch.bfloat16), 4], "c": {}}
    assert differing(fingerprints(one), fingerprints(one)) == []
    assert differing(fingerprints(one), fingerprints(other)) == ["a", "b.1", "c.d"]
    assert differing(fingerprints({"z": torch.tensor(0.0)}), fingerprints({"z": torch.tensor(-0.0)})) == ["z"]


@pytest.mark.slow
def test_two_processes_and_workers(tmp_path):
    done = processes(2, "-opt", DEBUG / "srgan.yml", "--preflight", "--set", "datasets.train.num_worker_per_gpu=1", *QUICK,
                     cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("preflight: all is well") == 1 and "is the same to the bit" in done.stdout
    assert not list(tmp_path.iterdir())
