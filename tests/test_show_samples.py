"""show_samples.py: that it shows the training's own samples, and what it says of what is wrong."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from facerestore.config import load_options
from facerestore.data import build_dataset
from facerestore.data.image_io import read_image
from facerestore.data.loader import evaluation_loader, training_loader
from tests.data.pictures import folder, truncate

script = importlib.import_module("scripts.show_samples")

NAMES = ["a/1", "a/2", "b/1", "b/20", "c"]
TRAIN = {"type": "PairedImageDataset", "name": "waves", "dataroot_gt": "gt", "gt_size": 16, "use_hflip": True}
OPTIONS = {
    "name": "trial", "model_type": "SRModel", "scale": 4, "num_gpu": 0, "manual_seed": 3,
    "datasets": {
        "train": TRAIN | {"dataset_enlarge_ratio": 2, "crops_per_image": 2, "batch_size_per_gpu": 3},
        "val": {"type": "SingleImageDataset", "dataroot_lq": "gt"},
    },
    "network_g": {"type": "MSRResNet", "num_feat": 8, "num_block": 1, "upscale": 4},
    "train": {"total_iter": 1, "optim_g": {"type": "Adam", "lr": 1e-3}, "pixel_opt": {"type": "L1Loss"}},
}  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    folder(tmp_path / "gt", NAMES)
    (tmp_path / "trial.yml").write_text(yaml.safe_dump(OPTIONS))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def show(capsys, *arguments) -> str:
    """What it prints."""
    code = script.main(["-opt", "trial.yml", *map(str, arguments)])
    said = capsys.readouterr()
    assert (code, said.err) == (0, "")
    return said.out


def refused(capsys, *arguments) -> str:
    """The one sentence of a refusal."""
    try:
        code = script.main(["-opt", "trial.yml", *map(str, arguments)])
    except SystemExit as left:
        code = left.code
    err = capsys.readouterr().err
    assert code == 2 and err.startswith("show_samples.py: ") and err.count("\n") == 1 and "Traceback" not in err
    return err


@pytest.mark.parametrize("epoch", [0, 2])
def test_these_are_the_samples_of_the_training(here, epoch):
    options = load_options("trial.yml")
    length, per_epoch = len(NAMES), len(NAMES) * 4
    keys = script.first_keys(options, "train", epoch, 6, length)
    dataset = script.build(options, "train")
    loader = training_loader(
        build_dataset({k: v for k, v in TRAIN.items() if k != "name"} | {"scale": 4}),
        batch_size=per_epoch,
        seed=3,
        start_batch=epoch,
        enlarge_ratio=2,
        crops_per_image=2,
    )
    batch = next(iter(loader))
    for i, key in enumerate(keys):
        assert torch.equal(dataset[key]["gt"], batch["gt"][i]) and torch.equal(dataset[key]["lq"], batch["lq"][i])
    assert len(script.first_keys(options, "train", epoch, 100, length)) == per_epoch


def test_these_are_the_pictures_of_the_validation(here):
    options = load_options("trial.yml")
    dataset = script.build(options, "val")
    keys = script.first_keys(options, "val", 0, 12, len(dataset))
    batches = list(evaluation_loader(script.build(options, "val"), seed=3))
    assert len(keys) == len(batches) == 5
    assert all(torch.equal(dataset[key]["lq"], batch["lq"][0]) for key, batch in zip(keys, batches, strict=True))


def test_sheets_are_written_and_named(here, capsys):
    assert show(capsys, "--count", 3) == "samples_trial.png\n"
    first = read_image("samples_trial.png")
    show(capsys, "--count", 3, "--output", "sheets/again.png")
    assert np.array_equal(read_image("sheets/again.png"), first)
    show(capsys, "--count", 3, "--epoch", 1, "--output", "other.jpg")
    assert not np.array_equal(read_image("other.jpg")[100:], first[100:])
    assert show(capsys, "--data", "val") == "samples_trial_val.png\n"
    show(capsys, "--count", 3, "--set", "datasets.train.gt_size=8", "--output", "smaller.png")
    assert not np.array_equal(read_image("smaller.png"), first)


def test_a_replay_tells_all(here, capsys):
    out = show(capsys, "--replay", "gt/b/20.png", 4, "--repeat", 1)
    assert out.startswith("b/20\nepoch 4, repeat 1") and "  gt_path: gt/b/20.png\n" in out
    assert out.endswith("samples_trial_20_epoch4_repeat1.png\n")
    assert read_image("samples_trial_20_epoch4_repeat1.png").shape[1] > 900  # two large pictures
    show(capsys, "--replay", "b/20", 4, "--repeat", 1, "--output", "again.png")
    assert np.array_equal(read_image("again.png"), read_image("samples_trial_20_epoch4_repeat1.png"))


@pytest.mark.parametrize(
    "text, index",
    [("a/1", 0), ("a/2.png", 1), ("/data/gt/b/1.png", 2), ("20", 3), ("20.jpg", 3), ("c", 4), ("/x/a/c.png", 4)],
)
def test_pictures_are_found_by_name_and_by_path(here, text, index):
    assert script.find(script.build(load_options("trial.yml"), "train"), text) == index


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--data", "test"], "trial.yml: it has no data set 'test', only train, val"),
        (["--replay", "1", "0"], "--replay 1: of pictures with this name, the data set has several: a/1, b/1"),
        (
            ["--replay", "b/200", "0"],
            "--replay b/200: of pictures with this name, the data set has none (did you mean 'b/20'?)",
        ),
        (["--replay", "zzz", "0"], "the data set has none (but a/1, a/2, b/1 and 2 more)"),
        (["--replay", "c", "-1"], "the epoch must be a whole number from 0, not '-1'"),
        (["--replay", "c"], "expected 2 arguments"),
        (["--repeat", "1"], "--repeat belongs to --replay"),
        (["--data", "val", "--epoch", "1"], "val is read the same way every time"),
        (["--count", "0"], "must be a whole number from 1"),
        (["--output", "sheet.xyz"], "sheet.xyz"),
        (["--output", "trial.yml/sheet.png"], "trial.yml/sheet.png: cannot be written"),
        (["--set", "datasets.train.gt_sise=8"], "gt_sise"),
        (["--set", "datasets.train.dataroot_gt=nowhere"], "folder nowhere, named by `dataroot_gt`, does not exist"),
        (["-opt", "none.yml"], "none.yml"),
    ],
)
def test_bad_input_gets_one_sentence(here, capsys, arguments, message):
    assert message in refused(capsys, *arguments)


def test_a_broken_picture_is_named(here, capsys):
    truncate(here / "gt/c.png")
    assert "gt/c.png is truncated" in refused(capsys, "--count", "20")
