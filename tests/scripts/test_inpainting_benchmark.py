"""benchmarks/inpainting.py: strokes that grow over faces, and what predictors paint under them."""

from __future__ import annotations

import importlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from facerestore.archs import build_network
from facerestore.data.degradations.masks import sample_growing_masks
from facerestore.data.image_io import read_image, write_image
from facerestore.inference import Restorer
from facerestore.metrics import calculate_psnr
from tests import parity
from tests.scripts.test_restore import SMALL, codeformer, face


def compare(*arguments: object) -> int:
    return importlib.import_module("benchmarks.inpainting").main([*map(str, arguments), "--device", "cpu"])


def vqgan(path: Path) -> Path:
    shape = {k: SMALL[k] for k in ("img_size", "nf", "ch_mult", "res_blocks", "codebook_size", "emb_dim")}
    network = build_network({"type": "VQAutoEncoder", **shape, "attn_resolutions": [8]})
    state = {"params_ema": parity.fill_(network, seed=2).state_dict()}
    torch.save(state | {"meta": {"type": "VQAutoEncoder", "keywords": {**shape, "attn_resolutions": [8]}}}, path)
    return path


def rows(printed: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in printed.splitlines() if "%" in line]


@pytest.mark.parametrize(("height", "width"), [(512, 512), (64, 96)])
def test_masks_grow_one_out_of_another(height, width):
    shares = [0.05, 0.1, 0.3, 0.6, 0.9]
    masks = sample_growing_masks(np.random.default_rng(3), height, width, shares)
    covered = [(mask > 0).mean() for mask in masks]
    assert all(wanted <= found < wanted + 0.08 for wanted, found in zip(shares, covered, strict=True))
    assert all((larger >= smaller).all() for smaller, larger in pairwise(masks))
    assert set(np.unique(masks[0])) == {0, 255} and masks[0].shape == (height, width)


def test_the_table(tmp_path, capsys):
    for i in range(2):
        face(tmp_path / f"faces/{i}.png", i)
    predictors = [
        "--predictor",
        f"transformer={codeformer(tmp_path / 'c.pth')}",
        "--predictor",
        f"nearest={vqgan(tmp_path / 'v.pth')}",
    ]
    assert compare(tmp_path / "faces", *predictors, "--shares", 0.4, 0.1, 0.7) == 0
    found = rows(said := capsys.readouterr().out)
    assert said.splitlines()[0].startswith("2 faces of ")
    assert said.splitlines()[1] == "| masked | predictor | PSNR | SSIM |"
    assert [row[1] for row in found] == ["strokes left", "transformer", "nearest"] * 3
    assert (
        [row[0] for row in found[::3]] == [row[0] for row in found[1::3]] == [row[0] for row in found[2::3]]
    )  # the same strokes
    for name in (0, 1, 2):
        psnr = [float(row[2]) for row in found[name::3]]
        assert psnr == sorted(psnr, reverse=True) and psnr[0] > psnr[-1] + 3, "the more is painted, the more is wrong"
    assert compare(tmp_path / "faces", *predictors, "--shares", 0.4, 0.1, 0.7) == 0
    assert capsys.readouterr().out == said

    strokes, figures = [], []
    for i in range(2):
        image = read_image(tmp_path / f"faces/{i}.png")
        mask = sample_growing_masks(np.random.default_rng([0, i]), 32, 32, [0.1])[0][..., None] > 0
        painted = Restorer(tmp_path / "v.pth", device="cpu")(np.where(mask, np.uint8(255), image))
        for under, told in ((np.uint8(255), strokes), (painted, figures)):
            whole = [torch.from_numpy(p).permute(2, 0, 1)[None] / 255 for p in (np.where(mask, under, image), image)]
            told.append(float(calculate_psnr(*whole)))
    assert found[0][2] == f"{np.mean(strokes):.2f}" and found[2][2] == f"{np.mean(figures):.2f}"


def test_lpips_where_its_weights_are(tmp_path, capsys):
    face(tmp_path / "face.png", 0, 64, 64)
    words = ["--predictor", f"nearest={vqgan(tmp_path / 'v.pth')}", "--shares", 0.2, "--lpips", "random", "random"]
    assert compare(tmp_path / "face.png", *words) == 0
    said = capsys.readouterr().out
    assert "| PSNR | SSIM | LPIPS |" in said and float(rows(said)[1][4]) > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--predictor", "v.pth"], "--predictor v.pth: give a name and a file, as nearest=v.pth"),
        (["--predictor", "a=none.pth"], "none.pth: this file does not exist; the published weights that inpaint"),
        (["--predictor", "a=c.pth"], "faces/wide.png: c.pth takes pictures of 32x32, and this one is 40x32"),
        (["--predictor", "a=c.pth", "--shares", "1"], "must be a number above 0, at most 0.95, not '1'"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    codeformer(Path("c.pth"))
    write_image("faces/wide.png", np.zeros((32, 40, 3), np.uint8))
    try:
        code = compare("faces", *words)
    except SystemExit as left:
        code = left.code
    said = capsys.readouterr().err
    assert code == 2 and message in said and said.count("\n") == 1
