"""Folders that other programs wrote, in the same tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facerestore.config import load_options
from facerestore.data.image_io import decode_image, picture_size, write_image
from facerestore.engine import cli
from facerestore.engine.best import mean_over_sets
from facerestore.engine.evaluation import dataset_of
from facerestore.engine.scores import DatasetScores
from facerestore.engine.trainer import open_data
from facerestore.errors import DataError

OPTIONS = """\
name: compared
model_type: SRModel
scale: 4
num_gpu: 0
datasets:
  test_1:
    type: SyntheticFaceDataset
    name: faces
    count: 3
    size: 64
    batch_size_per_gpu: 2
    others: {Perfect: results/perfect, GFPGAN: 'results/gfpgan/{}_out'}
network_g: {type: MSRResNet, num_feat: 8, num_block: 1, weights: random}
val:
  pbar: false
  metrics: {psnr: {type: calculate_psnr}}
"""


@pytest.fixture
def truths(tmp_path, monkeypatch) -> dict[str, np.ndarray]:
    """The truths by name; the folders hold them, and one that is three levels brighter."""
    monkeypatch.chdir(tmp_path)
    Path("test.yml").write_text(OPTIONS)
    options = load_options("test.yml")
    faces = dataset_of(options.datasets["test_1"], options)
    found = {faces.name(i): faces[i]["gt"].permute(1, 2, 0).numpy() for i in range(3)}
    for name, truth in found.items():
        write_image(f"results/perfect/{name}.png", truth)
        write_image(f"results/gfpgan/{name}_out.png", np.clip(truth.astype(int) + 3, 0, 255).astype(np.uint8))
    return found


def refused(capsys, *arguments: str) -> str:
    assert cli.test_main(["-opt", "test.yml", *arguments]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    assert "psnr" not in said.out, "told before anything is restored"
    return said.err


def test_others_stand_in_every_table(truths, capsys):
    assert cli.test_main(["-opt", "test.yml"]) == 0
    said = capsys.readouterr().out
    scores = json.loads(Path("results/compared/scores.json").read_text())
    faces = scores["datasets"]["faces"]
    assert list(faces["mean"]) == ["bicubic", "restored", "Perfect", "GFPGAN"]
    assert faces["mean"]["Perfect"]["psnr"] == "inf"
    for name, truth in truths.items():
        error = ((np.clip(truth.astype(int) + 3, 0, 255) - truth) ** 2).mean()
        assert faces["pictures"][name]["GFPGAN"]["psnr"] == pytest.approx(10 * np.log10(255**2 / error), abs=1e-4)
    assert faces["seconds_of"] == ["restored"] and faces["seconds_per_picture"] > 0
    assert "threads" in scores["metrics"]["seconds"]["device"]
    assert "faces, GFPGAN: psnr" in said and "s a picture" in said
    rows = list(csv.DictReader(Path("results/compared/scores.csv").read_text().splitlines()))
    assert [r["method"] for r in rows].count("GFPGAN") == 3
    page = Path("results/compared/report.html").read_text()
    assert "How it was measured" in page and ">seconds" in page and '"label":"GFPGAN"' in page
    folder = Path("results/compared/visualization/faces")
    written = {p.relative_to(folder).as_posix() for p in folder.rglob("*.png")}
    assert written == {f"{name}_compared.png" for name in truths}, "only what this run restored is written"


def test_results_that_are_missing_are_named_and_the_right_template_is_offered(truths, capsys):
    said = refused(capsys, "--set", "datasets.test_1.others={GFPGAN: results/gfpgan}")
    name = next(iter(truths))
    assert "lacks the results of 3 of 3 pictures" in said and f"no {name}" in said
    assert "did you mean 'results/gfpgan/{}_out'?" in said
    Path(f"results/perfect/{name}.png").unlink()
    assert "lacks the results of 1 of 3 pictures" in refused(capsys)


def test_a_folder_that_is_not_there(truths, capsys):
    assert "folder nowhere, named by `others.A`, does not exist" in refused(
        capsys, "--set", "datasets.test_1.others={A: nowhere}"
    )


def test_results_of_another_size_are_refused(truths, capsys):
    name = next(iter(truths))
    write_image(f"results/perfect/{name}.png", truths[name][:32])
    said = refused(capsys)
    assert "is 64x32 and the truth is 64x64" in said and f"results/perfect/{name}.png" in said


def test_training_finds_damaged_results_before_it_begins(truths):
    Path("train.yml").write_text(
        OPTIONS.replace("test_1:", "val:")
        + "train: {total_iter: 2, optim_g: {type: Adam, lr: 1e-3}, pixel_opt: {type: L1Loss}}\n"
    )
    options = load_options("train.yml", ["datasets.train={type: SyntheticFaceDataset, count: 2, size: 32}"])
    open_data(options)
    path = Path(f"results/perfect/{next(iter(truths))}.png")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=f"picture {path} is truncated"):
        open_data(options)


def test_sizes_are_those_of_the_stored_truth_cut_to_the_scale(truths, tmp_path, capsys):
    """A set of whole pictures of any size: 70x67 pixels are measured as 68x64."""
    write_image("truth/a.png", np.zeros((67, 70, 3), np.uint8))
    data = "type: PairedImageDataset, name: any, dataroot_gt: truth, others: {A: a}"
    given = ["--set", f"datasets.test_1={{{data}}}"]
    write_image("a/a.png", np.zeros((67, 70, 3), np.uint8))
    assert "is 70x67 and the truth is 68x64" in refused(capsys, *given)
    write_image("a/a.png", np.zeros((64, 68, 3), np.uint8))
    assert cli.test_main(["-opt", "test.yml", *given]) == 0


def test_a_program_that_skipped_faces_is_measured_over_those_that_it_has(truths, capsys):
    lacked, *rest = truths
    Path(f"results/gfpgan/{lacked}_out.png").unlink()
    assert "missing: skip" in refused(capsys)
    skip = ["--set", "datasets.test_1.others.GFPGAN={folder: 'results/gfpgan/{}_out', missing: skip}"]
    assert cli.test_main(["-opt", "test.yml", *skip]) == 0
    told = f"GFPGAN: measured over 2 of 3 pictures (it lacks {lacked})"
    assert told in capsys.readouterr().out
    assert told in Path("results/compared/report.html").read_text()
    faces = json.loads(Path("results/compared/scores.json").read_text())["datasets"]["faces"]
    assert faces["lacking"] == {"GFPGAN": [lacked]}
    assert [name for name, methods in faces["pictures"].items() if "GFPGAN" in methods] == rest
    own = [faces["pictures"][name]["GFPGAN"]["psnr"] for name in rest]
    assert faces["mean"]["GFPGAN"]["psnr"] == pytest.approx(np.mean(own))
    for name in rest:
        Path(f"results/gfpgan/{name}_out.png").rename(f"results/gfpgan/{Path(name).name}_else.png")
    assert "lacks the results of 3 of 3 pictures" in refused(capsys, *skip)


@pytest.mark.parametrize("size", [(40, 30), (30, 40)])
@pytest.mark.parametrize("orientation", [None, 3, 6])
@pytest.mark.parametrize("kind", ["png", "jpg", "bmp", "webp", "tif"])
def test_headers_tell_the_size_of_what_is_decoded(tmp_path, kind, orientation, size):
    path = tmp_path / f"a.{kind}"
    more = {}
    if orientation:
        exif = Image.Exif()
        exif[0x0112] = orientation
        more = {"exif": exif}
    Image.new("RGB", size).save(path, **more)
    data = path.read_bytes()
    assert picture_size(data, "a") == decode_image(data, "a").shape[:2]


def test_results_that_nobody_asked_for_are_told(truths, capsys):
    write_image("results/perfect/stranger.png", np.zeros((4, 4, 3), np.uint8))
    assert cli.test_main(["-opt", "test.yml"]) == 0
    assert "holds 1 pictures that are not measured: stranger" in capsys.readouterr().out


def test_a_name_that_this_run_uses(truths, capsys):
    options = Path("test.yml").read_text().replace("SRModel", "SRGANComparisonModel").replace("GFPGAN:", "SRGAN:")
    options += "network_srresnet: {type: MSRResNet, num_feat: 8, num_block: 1, weights: random}\n"
    Path("test.yml").write_text(options)
    assert "`others` names SRGAN" in refused(capsys)


def test_the_best_weights_are_told_by_this_run_s_own_results():
    scores = {"face": {"bicubic": {"psnr": 20.0}, "restored": {"psnr": 25.0}, "GFPGAN": {"psnr": 30.0}}}
    assert mean_over_sets([DatasetScores("faces", scores, own=["restored"])], "psnr") == 25.0
