"""train.py and test.py as a user runs them: what they leave behind, and what they say of what is wrong."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from facerestore import Restorer
from facerestore.config import load_options
from facerestore.data import build_dataset
from facerestore.data.image_io import read_image, write_image
from facerestore.engine import cli
from facerestore.engine.cli import train_main
from facerestore.engine.logs import read_curves
from facerestore.errors import CheckpointError, DataError
from tests.engine.runs import DEBUG, ROOT, TRAININGS, program, same, weights

SHORT = ["--set", "train.total_iter=2", "--set", "val.val_freq=2", "--set", "logger.use_tb_logger=false"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(main, capsys, *arguments) -> tuple[int, str, str]:
    code = main([str(a) for a in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def refused(main, capsys, *arguments) -> str:
    """The one sentence of a refusal."""
    code, _, err = run(main, capsys, *arguments)
    assert code == 2
    assert err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err
    return err


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder in which the comparison of SRResNet and SRGAN was trained for a moment."""
    folder = tmp_path_factory.mktemp("comparison")
    done = program("train.py", "-opt", DEBUG / "srresnet_srgan.yml", *SHORT, "--set", "name=run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("options", TRAININGS, ids=lambda p: p.stem)
def test_every_debug_option_file_trains(options, here, capsys):
    code, out, err = run(train_main, capsys, "-opt", options, *SHORT, "--set", "name=run")
    assert (code, err) == (0, "")
    assert "iter 2," in out
    records = [json.loads(line) for line in (here / "experiments/run/metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(v) for r in records for v in r["values"].values())
    assert (here / "experiments/run/report.html").is_file()


def test_the_tenth_iteration_says_how_long_it_will_take(here, capsys):
    settings = ("--set", "train.total_iter=11", "logger.print_freq=100", "logger.save_checkpoint_freq=100", "val.val_freq=~")
    _, out, _ = run(train_main, capsys, "-opt", DEBUG / "sr.yml", *settings)
    lines = [line for line in out.splitlines() if " iter " in line]
    assert [line.split(" iter ")[1].split(",")[0] for line in lines] == ["1", "10", "11"]
    assert ", left 0:00:0" in lines[1]


TESTS = [
    pytest.param(path, marks=[pytest.mark.slow(15)] if path.stem == "codeformer_test" else [], id=path.stem)
    for path in sorted((ROOT / "options").glob("*_test.yml"))
]


@pytest.mark.parametrize("options", TESTS)
def test_every_option_file_of_a_test_is_right(options, here, capsys):
    code, out, _ = run(cli.test_main, capsys, "-opt", options, "--dry-run")
    assert code == 0 and "all options are right" in out
    assert not list(here.iterdir()), "a dry run leaves nothing behind"


def test_what_a_training_leaves_behind(trained):
    folder = trained / "experiments/run"
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {"options.yml", "metrics.jsonl", "report.html", "train_run.log", "training_states/2.state"} <= names
    for net in ("net_g", "net_srresnet", "net_d"):
        assert {f"models/{net}_2.pth", f"models/{net}_latest.pth"} <= names
    for face in ("001000", "001001"):
        for method in ("SRResNet", "SRGAN"):
            assert f"visualization/synthetic/0/{face}/{face}_{method}_2.png" in names
    assert yaml.safe_load((folder / "options.yml").read_text())["name"] == "run"
    page = (folder / "report.html").read_text()
    assert all(label in page for label in ("SRResNet", "SRGAN", "bicubic", "HR"))


def test_both_generators_start_alike_and_part(trained):
    from facerestore.engine import build_model

    model = build_model(load_options(DEBUG / "srresnet_srgan.yml"))
    g, srresnet = model.networks["net_g"], model.networks["net_srresnet"]
    assert all(torch.equal(a, b) for a, b in zip(g.parameters(), srresnet.parameters(), strict=True))
    assert float(g.conv_first.weight.detach().std()) == pytest.approx(0.01, rel=0.1) and not g.conv_first.bias.any()
    after = [torch.load(trained / f"experiments/run/models/{n}_2.pth", weights_only=True) for n in ("net_g", "net_srresnet")]
    assert not torch.equal(after[0]["params"]["conv_first.weight"], after[1]["params"]["conv_first.weight"])


TEST_OPTIONS = """\
name: tested
model_type: SRGANComparisonModel
scale: 4
num_gpu: 0
datasets:
  test_1: {type: SyntheticFaceDataset, name: faces, count: 3, start: 1000, size: 64, mean: [0.5, 0.5, 0.5],
           std: [0.5, 0.5, 0.5], batch_size_per_gpu: 2}
  test_2: {type: SingleImageDataset, name: without truth, dataroot_lq: pictures, mean: [0.5, 0.5, 0.5],
           std: [0.5, 0.5, 0.5]}
network_g: {type: SRResNet, num_feat: 8, num_block: 1}
network_srresnet: {type: SRResNet, num_feat: 8, num_block: 1}
path:
  pretrain_network_g: experiments/run/models/net_g_latest.pth
  pretrain_network_srresnet: experiments/run/models/net_srresnet_latest.pth
val:
  metrics:
    psnr: {type: calculate_psnr, crop_border: 4}
    ssim: {type: calculate_ssim, crop_border: 4}
"""


def test_testing_restores_measures_and_reports(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    write_image(trained / "pictures/deep/one.png", np.full((9, 11, 3), 90, np.uint8))
    (trained / "test.yml").write_text(TEST_OPTIONS)
    code, out, err = run(cli.test_main, capsys, "-opt", "test.yml", "--set", "val.pbar=false")
    assert code == 0, err
    folder = trained / "results/tested"
    rows = list(csv.DictReader((folder / "scores.csv").open()))
    assert len(rows) == 3 * 3 + 2  # faces with bicubic, SRResNet and SRGAN; one picture without truth
    scores = json.loads((folder / "scores.json").read_text())["datasets"]["faces"]
    for method in ("bicubic", "SRResNet", "SRGAN"):
        mean = np.mean([float(r["psnr"]) for r in rows if r["method"] == method and r["dataset"] == "faces"])
        assert scores["mean"][method]["psnr"] == pytest.approx(mean)
        assert f"faces, {method}: psnr" in out
    restored = read_image(folder / "visualization/without truth/deep/one_SRGAN_tested.png")
    assert restored.shape == (36, 44, 3)
    page = (folder / "report.html").read_text()
    assert "l_srresnet_pix" in page, "the training's curves belong to the report of its weights"


def test_scores_are_those_of_the_pictures_that_were_written(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    write_image(trained / "pictures/deep/one.png", np.full((9, 11, 3), 90, np.uint8))
    (trained / "test.yml").write_text(TEST_OPTIONS)
    run(cli.test_main, capsys, "-opt", "test.yml", "--set", "name=again", "--set", "val.pbar=false")
    faces = build_dataset({"type": "SyntheticFaceDataset", "count": 3, "start": 1000, "size": 64, "scale": 4})
    scores = json.loads((trained / "results/again/scores.json").read_text())["datasets"]["faces"]["pictures"]
    for i in range(3):
        name = faces.name(i)
        written = read_image(trained / f"results/again/visualization/faces/{name}_SRGAN_again.png").astype(float)
        truth = faces[i]["gt"].permute(1, 2, 0).numpy().astype(float)
        error = ((written - truth)[4:-4, 4:-4] ** 2).mean()
        assert scores[name]["SRGAN"]["psnr"] == pytest.approx(10 * np.log10(255**2 / error), abs=1e-6)


def test_restorer_gives_the_picture_that_testing_wrote(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    rng = np.random.default_rng(0)
    lq = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    write_image(trained / "pictures/deep/one.png", lq)
    (trained / "test.yml").write_text(TEST_OPTIONS)
    run(cli.test_main, capsys, "-opt", "test.yml", "--set", "name=third", "--set", "val.pbar=false")
    written = read_image(trained / "results/third/visualization/without truth/deep/one_SRGAN_third.png")
    restore = Restorer(trained / "experiments/run/models/net_g_latest.pth", device="cpu")
    np.testing.assert_array_equal(restore(lq), written)
    np.testing.assert_array_equal(restore(trained / "pictures/deep/one.png"), written)
    with pytest.raises(DataError, match="uint8"):
        restore(lq.astype(np.float32))
    with pytest.raises(CheckpointError, match="does not exist"):
        Restorer(trained / "nothing.pth")


def test_testing_validation_and_restorer_use_the_same_weights(here, capsys):
    """The averaged ones, where there is an average."""
    common = ["--set", "train.ema_decay=0.5", "--set", "train.optim_g.lr=1e-2", "--set", "name=run"]
    _, log, _ = run(train_main, capsys, "-opt", DEBUG / "sr.yml", *SHORT, *common)
    options = yaml.safe_load((DEBUG / "sr.yml").read_text())
    options |= {"name": "run", "path": {"pretrain_network_g": "experiments/run/models/net_g_latest.pth"}}
    del options["train"], options["datasets"]["train"]
    (here / "test.yml").write_text(yaml.safe_dump(options))
    _, tested, _ = run(cli.test_main, capsys, "-opt", "test.yml", "--set", "val.pbar=false")
    figures = [
        next(line.split("restored: ")[1] for line in said.splitlines() if "restored: " in line) for said in (log, tested)
    ]
    figures[0] = re.sub(r" \(best [^)]*\)", "", figures[0])  # which a test knows nothing of
    assert figures[0] == figures[1]
    _, live, _ = run(cli.test_main, capsys, "-opt", "test.yml", "--set", "path.param_key_g=params")
    assert figures[0] not in live
    held_out = build_dataset({k: v for k, v in options["datasets"]["val"].items() if k != "name"} | {"scale": 4})
    face = held_out[0]
    restored = Restorer("experiments/run/models/net_g_latest.pth", device="cpu")(face["lq"].permute(1, 2, 0).numpy())
    written = here / f"results/run/visualization/held_out/{held_out.name(0)}_run.png"
    run(cli.test_main, capsys, "-opt", "test.yml")
    np.testing.assert_array_equal(restored, read_image(written))


def test_validation_does_not_change_the_training(here, capsys):
    quick = ["--set", "train.total_iter=4", "--set", "logger.use_tb_logger=false"]
    for name, every in (("often", 1), ("once", 4)):
        run(train_main, capsys, "-opt", DEBUG / "srgan.yml", *quick, "--set", f"name={name}", "--set", f"val.val_freq={every}")
    assert same(*(weights(here / "experiments" / name, 4) for name in ("often", "once")))


# Bad input, as a new user would give it.


def test_misspelt_key_and_wrong_type(here, capsys):
    for override, hint in (("train.totl_iter=3", "total_iter"), ("train.total_iter=many", "whole number")):
        assert hint in refused(train_main, capsys, "-opt", DEBUG / "sr.yml", "--set", override)
    assert not list(here.iterdir())


def folder_options(here: Path, root: str, **more) -> Path:
    content = yaml.safe_load((DEBUG / "sr.yml").read_text())
    content["datasets"]["train"] = {"type": "PairedImageDataset", "dataroot_gt": root, "gt_size": 32} | more
    (here / "run.yml").write_text(yaml.safe_dump(content))
    return here / "run.yml"


def faces(folder: Path, count: int = 3) -> None:
    for i in range(count):
        write_image(folder / f"{i}.png", np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8))


def test_a_missing_and_an_empty_folder(here, capsys):
    options = folder_options(here, "nowhere")
    (here / "experiments/debug_sr").mkdir(parents=True)
    assert "nowhere" in refused(train_main, capsys, "-opt", options)
    (here / "nowhere").mkdir()
    assert "no picture" in refused(train_main, capsys, "-opt", options)
    assert [p.name for p in (here / "experiments").iterdir()] == ["debug_sr"], "an earlier run was moved for nothing"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_picture_stops_or_is_skipped_as_the_option_says(here, capsys, workers):
    faces(here / "pictures")
    cv2.imwrite(str(here / "pictures/bad.jpg"), np.random.default_rng(9).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    content = (here / "pictures/bad.jpg").read_bytes()
    (here / "pictures/bad.jpg").write_bytes(content[: len(content) // 2])
    common = ["--set", "train.total_iter=4", "--set", f"datasets.train.num_worker_per_gpu={workers}"]
    options = folder_options(here, "pictures")
    assert "bad.jpg is truncated" in refused(train_main, capsys, "-opt", options, *common)
    options = folder_options(here, "pictures", on_bad_image="skip")
    code, out, _ = run(train_main, capsys, "-opt", options, *common)
    assert code == 0
    assert workers or "bad.jpg is truncated" in out


def test_a_checkpoint_of_another_network_and_one_cut_in_half(here, trained, capsys):
    good = trained / "experiments/run/models/net_d_latest.pth"
    key = "path.pretrain_network_g="
    assert "do not fit this MSRResNet" in refused(train_main, capsys, "-opt", DEBUG / "sr.yml", "--set", f"{key}{good}")
    (here / "half.pth").write_bytes(good.read_bytes()[:5000])
    assert "cut off" in refused(train_main, capsys, "-opt", DEBUG / "sr.yml", "--set", f"{key}half.pth")
    assert "half.state: this file does not exist" in refused(
        train_main, capsys, "-opt", DEBUG / "sr.yml", "--set", "path.resume_state=half.state"
    )


def test_nothing_to_train_and_nothing_to_test(here, capsys):
    (here / "test.yml").write_text(TEST_OPTIONS)
    assert "no `train` section" in refused(train_main, capsys, "-opt", "test.yml")
    assert "nothing to test" in refused(cli.test_main, capsys, "-opt", DEBUG / "sr.yml", "--set", "datasets={}")


def test_basicsr_habits_are_understood(here, capsys):
    code, out, err = run(
        train_main, capsys, "-opt", DEBUG / "sr.yml", "--launcher", "none", "--local_rank", 0,
        "--debug", "--force_yml", "train:optim_g:lr=2e-4", "val:report=false",
    )  # fmt: skip
    assert code == 0, err
    assert "iter 16," in out and "lr_g 2.00e-04" in out
    assert (here / "experiments/debug_sr/models/net_g_16.pth").is_file()


def test_every_validation_shows_the_same_pictures_and_says_the_best_so_far(here, capsys):
    def train(*settings):
        given = [
            word for s in ("name=run", "val.val_freq=2", "logger.save_checkpoint_freq=2", *settings) for word in ("--set", s)
        ]
        code, out, err = run(train_main, capsys, "-opt", DEBUG / "sr.yml", *given, "--auto_resume")
        assert (code, err) == (0, "")
        return [line for line in out.splitlines() if "held_out, restored" in line]

    train("train.total_iter=2")
    said = train("train.total_iter=4")  # resumed: what came before still counts
    measured = {it: value for it, value in read_curves(here / "experiments/run")["held_out: psnr"]["restored"]}
    best = max(measured, key=measured.get)
    assert set(measured) == {2, 4}
    assert f"psnr {measured[4]:.4f} (best {measured[best]:.4f} at {best})" in said[-1]
    board = EventAccumulator(str(here / "experiments/run/tb_logger"), size_guidance={"images": 0}).Reload()
    (tag,) = board.Tags()["images"]
    grids = {image.step: cv2.imdecode(np.frombuffer(image.encoded_image_string, np.uint8), 1) for image in board.Images(tag)}
    assert tag == "held_out: LR, bicubic, restored, HR" and set(grids) == {2, 4}
    side = (grids[2].shape[1] - 3 * 4) // 4
    given = [grid[:, : side * 2] for grid in grids.values()]
    assert np.array_equal(*given) and not np.array_equal(grids[2], grids[4])
