"""--dry-run: what would happen, the options in force, and how much memory it takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from facerestore.config import load_options
from facerestore.config.resolved import plain, resolved
from facerestore.data import build_dataset
from facerestore.data.batch import Batch
from facerestore.data.image_io import write_image
from facerestore.engine import build_model
from facerestore.engine.cli import test_main as run_test
from facerestore.engine.cli import train_main
from facerestore.engine.memory import LiveBytes, count_phases, measure_iterations, state_bytes, unallocated_model
from tests.engine.runs import DEBUG, OPTIONS, ROOT

TRAINING = [p for p in OPTIONS if not p.stem.endswith("_test")]
# Their files alone tell how large pictures are.
SIZES_UNKNOWN = {"stylegan2_ffhq_512.yml", "photos_stylegan64.yml"}
SHAPES = {"gt": (48, 48), "lq": (12, 12)}


def said(main, capsys, *arguments) -> str:
    assert main([str(a) for a in (*arguments, "--dry-run")]) == 0
    return capsys.readouterr().out


def refused(main, capsys, *arguments) -> str:
    assert main([str(a) for a in (*arguments, "--dry-run")]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("path", OPTIONS, ids=lambda p: p.stem)
def test_the_options_in_force_load_to_the_same(path, tmp_path):
    options = load_options(path)
    betas = {key: (0.5, 0.25) for key in (options.train.optimizers if options.train else {})}
    tree = plain(resolved(options, betas))
    again = load_options(tree)
    assert plain(resolved(again, {})) == tree
    assert again.train == options.train or again.train.total_iter == options.train.total_iter
    assert again.notes == tuple(note for note in options.notes if "vqgan_path" not in note)  # those weights are now named


@pytest.mark.parametrize("path", [p if p.parent == DEBUG else pytest.param(p, marks=pytest.mark.slow(15)) for p in TRAINING])
def test_what_is_printed_is_a_whole_option_file(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out = said(train_main, capsys, "-opt", path)
    assert "all options are right" in out and not list(tmp_path.iterdir()), "a dry run leaves nothing behind"
    (tmp_path / "printed.yml").write_text(out.split("\n\n")[0])
    printed, given = load_options(tmp_path / "printed.yml"), load_options(path)
    assert printed.raw.keys() >= given.raw.keys()
    assert plain(resolved(printed, {})) == yaml.safe_load(out.split("\n\n")[0])
    if path.relative_to(ROOT / "options").as_posix() in SIZES_UNKNOWN:
        assert "activations: unknown, as" in out
    else:
        assert "at its highest: " in out and "unknown" not in out.split("at its highest")[0]


def test_defaults_are_marked(capsys):
    lines = said(train_main, capsys, "-opt", DEBUG / "sr.yml", "--set", "train.optim_g.betas=~").splitlines()
    for line in ("  total_iter: 10", "    size: 64", "  warmup_iter: -1  # default", "    weight_decay: 0  # default",
                 "    reduction: mean  # default", "    scale: 4  # inherited", "    betas: [0.9, 0.999]  # default",
                 "    mean: [0.0, 0.0, 0.0]  # default"):  # fmt: skip
        assert line in lines


def zeros(size: int) -> Batch:
    return Batch({key: torch.zeros(size, 3, *shape) for key, shape in SHAPES.items()})


@pytest.mark.parametrize(("name", "precision"), [("sr", "bf16"), ("srgan", "fp32")])
def test_tensors_without_content_take_what_real_ones_do(name, precision):
    options = load_options(DEBUG / f"{name}.yml", [f"train.precision={precision}"])
    with LiveBytes() as live:
        real = count_phases(build_model(options), live, zeros(2), [1])
    assert real.peak > 0
    assert measure_iterations(unallocated_model(options), 2, SHAPES, [1]) == real


@pytest.mark.parametrize("changes", [[], ["network_g.w_hpf=1", "network_fan={type: FAN, num_features: 8, weights: random}"]])
def test_classes_and_codes_take_part_without_content(changes):
    options = load_options(DEBUG / "stargan2.yml", ["train.precision=bf16", "train.channels_last=true", *changes])
    shapes, labels = (
        dict.fromkeys(("x_src", "x_ref", "x_ref2"), (32, 32)),
        {"y_src": (), "y_ref": (), "z_trg": (4,), "z_trg2": (4,)},
    )
    batch = Batch({k: torch.zeros(2, 3, *v) for k, v in shapes.items()})
    batch |= {k: torch.zeros(2, *v, dtype=torch.float32 if v else torch.long) for k, v in labels.items()}
    with LiveBytes() as live:
        real = count_phases(build_model(options), live, batch, [1])
    estimated = measure_iterations(unallocated_model(options), 2, shapes, [1], labels)
    assert estimated.peaks.keys() == {"g, mapping", "d", "g, mapping, style_encoder", "g"}
    assert estimated.peak == pytest.approx(real.peak, rel=1e-3) and estimated.gradients == real.gradients


def test_activations_grow_with_the_batch_and_shrink_with_bf16():
    options = load_options(DEBUG / "srgan.yml")
    one, two = (measure_iterations(unallocated_model(options), n, SHAPES, [1]).peaks["g"] for n in (8, 16))
    assert 1.8 < two / one < 2.05
    half = load_options(DEBUG / "srgan.yml", ["train.precision=bf16"])
    assert measure_iterations(unallocated_model(half), 16, SHAPES, [1]).peaks["g"] < 0.8 * two


@pytest.mark.parametrize(
    ("build", "copies"),
    [
        (lambda p: torch.optim.Adam(p), 2),
        (lambda p: torch.optim.AdamW(p, amsgrad=True), 3),
        (lambda p: torch.optim.SGD(p, lr=0.1), 0),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 1),
        (lambda p: torch.optim.RMSprop(p), 1),
    ],
)
def test_what_optimizers_remember(build, copies):
    assert state_bytes(build([nn.Parameter(torch.zeros(5, 7)), nn.Parameter(torch.zeros(3))])) == copies * 4 * 38


def test_iterations_that_differ_are_all_looked_at(capsys):
    """The generator's phase comes late, and takes most."""
    late = ["--set", "train.net_d_init_iters=5"]
    peaks = [line for line in said(train_main, capsys, "-opt", DEBUG / "srgan.yml", *late).splitlines() if "phase" in line]
    assert [line.split(":")[0].strip() for line in peaks] == ["phase d", "phase g"]


def test_pictures_of_unknown_size_leave_the_weights(capsys):
    folder = "datasets.train={type: PairedImageDataset, dataroot_gt: x}"
    out = said(train_main, capsys, "-opt", DEBUG / "sr.yml", "--set", folder)
    assert "activations: unknown, as the sizes of the pictures of train are not in the options" in out
    assert "states of optim_g (Adam): 53.6 KiB" in out


@pytest.mark.parametrize(
    ("overrides", "hint"),
    [
        (["network_d={type: VGGStyleDiscriminator, num_in_ch: 3, num_feat: 4}"], "128 x 128 pixels"),
        (["network_d.num_in_ch=1"], "channels"),
        (["network_g.num_out_ch=1", "network_g.num_in_ch=1"], "channels"),
    ],
)
def test_shapes_that_do_not_fit_are_told_without_data(capsys, overrides, hint):
    sets = [word for o in overrides for word in ("--set", o)]
    message = refused(train_main, capsys, "-opt", DEBUG / "srgan.yml", *sets)
    assert "srgan.yml: an iteration fails with these networks and pictures: " in message and hint in message


def test_a_network_of_any_size_costs_nothing(capsys):
    out = said(train_main, capsys, "-opt", DEBUG / "sr.yml", "--set", "network_g.num_feat=16384")
    assert "GiB" in out


def test_testing_looks_at_what_it_reads(capsys):
    assert "network_g has no weights" in refused(run_test, capsys, "-opt", DEBUG / "srgan.yml")
    out = said(run_test, capsys, "-opt", DEBUG / "srgan.yml", "--set", "network_g.weights=random")
    assert "optim_g" not in out and "\n  train:" not in out and "phase" not in out
    assert "would restore held_out, measured by psnr, ssim, results in results/debug_srgan" in out
    assert "restoring held_out in batches of 1 (gt 64x64, lq 16x16): " in out
    assert "nothing to test" in refused(run_test, capsys, "-opt", DEBUG / "sr.yml", "--set", "datasets={}")


def test_training_needs_what_it_trains_on(capsys, tmp_path):
    assert "no `train` section" in refused(train_main, capsys, "-opt", ROOT / "options/faces_demo_test.yml")
    assert "needs an entry `train`" in refused(train_main, capsys, "-opt", DEBUG / "sr.yml", "--set", "datasets={}")


def test_no_file_is_read(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = ["path.pretrain_network_g=no.pth", "train.perceptual_opt.weights=none.pth", "network_d.weights=nothing.pth"]
    said(train_main, capsys, "-opt", DEBUG / "srgan.yml", *(w for f in files for w in ("--set", f)))
    assert not list(Path().iterdir())


@pytest.mark.parametrize("gt_size", [None, 32])
def test_data_sets_say_how_large_their_pictures_are(tmp_path, gt_size):
    write_image(tmp_path / "face.png", np.zeros((48, 64, 3), np.uint8))
    drawn = build_dataset({"type": "SyntheticFaceDataset", "count": 1, "size": 64, "scale": 4, "gt_size": gt_size})
    read = build_dataset({"type": "PairedImageDataset", "dataroot_gt": str(tmp_path), "scale": 4, "gt_size": gt_size})
    for dataset in (drawn, read):
        shapes = {key: tuple(dataset[0][key].shape[1:]) for key in ("gt", "lq")}
        assert dataset.picture_shapes() == (shapes if dataset is drawn or gt_size else {})
