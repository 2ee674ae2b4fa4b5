"""What evaluation does with metrics of every kind: with and without truths, of pictures and of sets, on several processes."""

from __future__ import annotations

import hashlib
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facerestore.archs.lpips import LPIPS
from facerestore.config import load_options
from facerestore.data.image_io import write_image
from facerestore.engine import build_model, cli, distributed, evaluation
from facerestore.engine.distributed import World
from facerestore.engine.evaluation import evaluate
from facerestore.engine.logs import number
from facerestore.engine.measuring import SetFigures, build_metrics, measurable, protocols
from facerestore.engine.scores import DatasetScores, Protocol, log_means
from facerestore.errors import OptionError
from facerestore.metrics import calculate_psnr
from facerestore.metrics.base import PictureMetric, SetMetric
from facerestore.metrics.frechet import Moments
from tests.engine.runs import DEBUG

OPTIONS = """\
name: tested
model_type: SRModel
scale: 4
num_gpu: 0
datasets:
  test_1: {type: SyntheticFaceDataset, name: faces, count: 3, start: 1000, size: 192, batch_size_per_gpu: 2}
  test_2: {type: SingleImageDataset, name: without truth, dataroot_lq: pictures}
network_g: {type: SRResNet, num_feat: 8, num_block: 1, weights: random}
val:
  pbar: false
  metrics:
    psnr: {type: calculate_psnr, test_y_channel: true}
    niqe: {type: calculate_niqe}
    lpips: {type: calculate_lpips, weights: backbone.pth, lpips_weights: random}
"""


class Brightness(PictureMetric):
    """Without a truth; a dark picture has no figure."""

    needs_truth = False

    def protocol(self) -> dict[str, str]:
        return {"colours": "RGB"}

    def forward(self, image: Tensor, target: Tensor | None = None) -> Tensor:
        means = image.double().mean((1, 2, 3))
        return torch.where(means < 0.1, math.nan, means)


class Shift(SetMetric):
    """How far the mean colours of two sets lie apart."""

    def protocol(self) -> dict[str, str]:
        return {"colours": "RGB"}

    def statistics(self) -> Moments:
        return Moments()

    def features(self, image: Tensor) -> Tensor:
        return image.mean((2, 3))

    def compute(self, restored: Moments, truth: Moments | None) -> float:
        return math.nan if restored.count < 2 else float((restored.mean - truth.mean).norm())


class Doubler(nn.Module):
    """Stands for a trained model: restores by making pictures twice as bright."""

    world = World()
    method = SimpleNamespace(makes_samples=False)

    def restorations(self, batch) -> dict[str, Tensor]:
        return {"double": 2 * batch["lq"], "same": batch["lq"]}


class Pictures:
    """Gray pictures of these 8-bit levels, their own truths."""

    mean, std, seed = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 0

    def __init__(self, levels: list[int], has_truth: bool):
        self.levels, self.has_truth = levels, has_truth

    def __len__(self) -> int:
        return len(self.levels)

    def name(self, index: int) -> str:
        return f"picture{index}"

    def explain(self, key) -> dict:
        return {"kernel": {"sigma": key.index / 2}, "mirrored": key.index == 1, "gray": False}

    def load(self, key) -> dict:
        image = torch.full((3, 8, 8), self.levels[key.index], dtype=torch.uint8)
        return {"lq": image, "index": key.index} | ({"gt": image} if self.has_truth else {})


METRICS = {"psnr": calculate_psnr, "brightness": Brightness(), "shift": Shift()}


def measured(
    levels: list[int], has_truth: bool = True, metrics: dict | None = None, world: World | None = None, **protocol
) -> DatasetScores:
    section = load_options(
        {"name": "x", "model_type": "SRModel", "network_g": {"type": "SRResNet"},
         "datasets": {"val": {"type": "SyntheticFaceDataset", "count": 1, "batch_size_per_gpu": 2}}}
    ).datasets["val"]  # fmt: skip
    model = Doubler()
    model.world = world or World()
    return evaluate(model, section, Pictures(levels, has_truth), Protocol(metrics or METRICS, bar=False, **protocol))


def test_pictures_and_sets_are_measured_together():
    result = measured([26, 51, 102])
    means = result.means()
    assert means["same"]["psnr"] == math.inf and means["same"]["shift"] == 0
    assert means["double"]["shift"] == pytest.approx(3**0.5 * (26 + 51 + 102) / 3 / 255, rel=1e-5)
    assert means["double"]["brightness"] == pytest.approx(2 * (26 + 51 + 102) / 3 / 255, rel=1e-5)
    assert "shift" not in result.scores["picture0"]["double"]
    assert result.notes() == ["same: psnr is infinite for 3 of 3 pictures, which equal the truth"]
    assert set(result.by_metric()) == {"psnr", "brightness", "shift"}


def kept(levels: list[int], world: World | None = None, **protocol) -> DatasetScores:
    metrics = {"psnr": calculate_psnr, "brightness": Brightness()}
    return measured(levels, metrics=metrics, world=world, better={"psnr": "higher", "brightness": "lower"}, **protocol)


def test_the_report_shows_the_first_and_the_worst_pictures_with_their_degradation():
    result = kept([90, 100, 30, 120, 60, 110], shown=2, worst=1)
    # Of `double`, psnr is worst where it adds most and brightness, of which less is better, at the brightest: both picture3.
    assert [p.name for p in result.shown] == ["picture0", "picture1", "picture3"]
    assert [p.facts for p in result.shown] == [
        {"kernel": "sigma 0"}, {"mirrored": "yes", "kernel": "sigma 0.5"}, {"kernel": "sigma 1.5"}
    ]  # fmt: skip
    section = result.section()
    assert [p.name for p in section.pictures] == [f"picture{i}" for i in range(6)]
    assert [bool(p.images) for p in section.pictures] == [True, True, False, True, False, False]
    assert all(p.scores == result.scores[p.name] for p in section.pictures)


def test_worst_pictures_beyond_the_first_batch_are_kept_and_no_others():
    result = kept([100, 30, 120, 60, 110], shown=1, worst=2)
    assert [p.name for p in result.shown] == ["picture0", "picture1", "picture2", "picture4"]  # 1: all of `same` are as good
    assert kept([100, 30, 120], shown=0, worst=2).shown == []


def test_without_a_truth_what_needs_one_is_left_out_with_a_word(caplog):
    result = measured([26, 51], has_truth=False)
    assert result.means() == {
        "double": {"brightness": pytest.approx(77 / 255)},
        "same": {"brightness": pytest.approx(38.5 / 255)},
    }
    assert result.notes() == ["psnr, shift: left out, as there is no truth"]
    with caplog.at_level("INFO", logger="facerestore"):
        log_means(result)
    assert "psnr, shift: left out" in caplog.text


def test_pictures_without_a_figure_are_named_counted_and_left_out_of_the_mean():
    result = measured([5, 26, 20])
    assert result.means()["double"]["brightness"] == pytest.approx((52 + 40) / 2 / 255)
    assert result.without == {"brightness": {"double": ["picture0"], "same": ["picture0", "picture2"]}}
    assert "brightness of same: no figure for 2 of 3 pictures (picture0, picture2)" in result.notes()
    assert "brightness" not in result.scores["picture0"]["same"]
    assert result.section().note == "; ".join(
        [*result.notes(), f"double and same: {number(result.seconds)} s a picture together"]
    )


def test_a_set_without_a_figure_is_told():
    result = measured([26])
    assert "shift of double: no figure for the whole set" in result.notes()
    assert "shift" not in result.means()["double"]


def test_a_metric_without_any_figure_has_no_mean():
    assert "brightness" not in measured([5, 5]).means()["same"]


def test_processes_measure_what_one_does(monkeypatch):
    """Each process takes its share; here one after the other, what they would send kept for the last."""
    levels = [26, 51, 102, 5, 60]
    report = {"shown": 1, "worst": 1, "better": {"psnr": "higher", "brightness": "lower", "shift": "lower"}}
    alone, sent = measured(levels, **report), []
    for rank in range(3):
        calls = iter(range(2))

        def gather(value, world, rank=rank, calls=calls):
            turn = next(calls)
            sent.append((turn, value))
            return [v for t, v in sent if t == turn]

        monkeypatch.setattr(distributed, "gather", gather)
        together = measured(levels, world=World(rank, 3), **report)
    assert together.scores == alone.scores and together.without == alone.without
    assert [(p.name, p.facts) for p in together.shown] == [(p.name, p.facts) for p in alone.shown]
    for method, figures in alone.of_set.items():
        assert together.of_set[method] == pytest.approx(figures, rel=1e-12)


def test_a_process_without_pictures_takes_part():
    idle, busy = SetFigures({"shift": Shift()}), SetFigures({"shift": Shift()})
    busy.see({"a": torch.rand(4, 3, 2, 2)}, torch.rand(4, 3, 2, 2))
    expected = busy.figures()
    for order in ([idle, busy], [busy, idle]):
        whole = SetFigures({"shift": Shift()})
        for part in order:
            for who, statistics in part.seen["shift"].items():
                whole.seen["shift"].setdefault(who, Moments()).merge(statistics)
        assert whole.figures() == expected
    assert idle.figures() == {}


def test_what_can_be_measured():
    assert list(measurable(METRICS, True)) == ["psnr", "brightness", "shift"]
    assert list(measurable(METRICS, False)) == ["brightness"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with an option file, a picture without a truth, and a classifier's weights."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test.yml").write_text(OPTIONS)
    rng = np.random.default_rng(0)
    write_image(tmp_path / "pictures/one.png", rng.integers(0, 256, (50, 60, 3), dtype=np.uint8))
    torch.manual_seed(0)
    torch.save(LPIPS("alex").backbone.state_dict(), tmp_path / "backbone.pth")
    return tmp_path


def test_the_protocol_stands_beside_the_figures(here, capsys):
    assert cli.test_main(["-opt", "test.yml"]) == 0
    said = capsys.readouterr().out
    scores = json.loads((here / "results/tested/scores.json").read_text())
    assert scores["datasets"]["without truth"]["left_out"] == ["psnr", "lpips"]
    assert list(scores["datasets"]["without truth"]["mean"]["restored"]) == ["niqe"]
    assert "without truth: psnr, lpips: left out, as there is no truth" in said
    assert set(scores["datasets"]["faces"]["mean"]["restored"]) == {"psnr", "niqe", "lpips"}
    metrics = scores["metrics"]
    assert metrics["psnr"]["crop_border"] == 0 and metrics["psnr"]["colours"].startswith("Y of BT.601")
    assert metrics["niqe"]["convert_to"] == "y" and "pristine" in metrics["niqe"]["reference"]
    assert metrics["lpips"]["network"] == "LPIPS 0.1 of alexnet" and metrics["lpips"]["lpips_weights"] == "random"
    digest = hashlib.sha256((here / "backbone.pth").read_bytes()).hexdigest()
    assert metrics["lpips"]["weights"] == {"file": "backbone.pth", "sha256": digest}
    page = (here / "results/tested/report.html").read_text()
    assert "psnr, lpips: left out" in page


def test_codes_are_asked_of_methods_that_tell_them(here):
    with pytest.raises(
        OptionError, match=r"val\.metrics\.codes: .*calculate_code_accuracy looks at codes, and SRModel has none"
    ):
        load_options("test.yml", ["val.metrics.codes={type: calculate_code_accuracy}"])


@pytest.mark.parametrize("told", [True, False])
def test_codes_are_measured_beside_the_pictures(told):
    """Picture by picture and as a set; without the VQGAN nobody knows the true ones."""
    options = load_options(DEBUG / "codeformer_stage2.yml").raw
    del options["train"]
    options["network_g"]["weights"] = "random"
    options["val"] |= {"compare_lookup": told, "metrics": {"codes": {"type": "calculate_code_accuracy"},
                       "usage": {"type": "calculate_codebook_usage"}, "psnr": {"type": "calculate_psnr"}}}  # fmt: skip
    if not told:
        del options["network_vqgan"]
    options = load_options(options)
    ((section, dataset),) = evaluation.evaluation_sets(options, ("val",)).values()
    metrics = build_metrics(options, World())
    result = evaluate(build_model(options), section, dataset, Protocol(metrics, baseline="bicubic", bar=False))
    means = result.means()
    assert set(means["input"]) == {"psnr"} and len(result.scores) == 2
    if not told:
        assert set(means["restored"]) == {"psnr", "usage"} and result.untold == ["codes"] and not result.left_out
        assert result.notes() == ["codes: left out: neither `network_vqgan` nor `latent_gt_path` tells the true codes"]
        return
    assert set(means["restored"]) == set(means["lookup"]) == {"psnr", "usage", "codes"} and not result.notes()
    assert 0 < means["lookup"]["usage"] <= 1
    single = [by_method["lookup"]["codes"] for by_method in result.scores.values()]
    assert means["lookup"]["codes"] == pytest.approx(sum(single) / 2)


def test_a_missing_file_is_told_before_anything_is_restored(here, capsys):
    code = cli.test_main(["-opt", "test.yml", "--set", "val.metrics.lpips.weights=nowhere.pth"])
    said = capsys.readouterr()
    assert code == 2 and "nowhere.pth: this file does not exist" in said.err and "faces" not in said.out


def test_random_weights_come_from_the_seed_and_leave_chance_alone(here):
    options = load_options("test.yml", ["val.metrics.lpips.weights=random"])
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second = (build_metrics(options, World())["lpips"] for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert protocols(options, {"lpips": first})["lpips"]["weights"] == "random"
