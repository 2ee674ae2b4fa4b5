"""scripts/generate_latent_gt.py: the codes of pictures and their mirror images, resumed, and used by a training."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from facerestore.archs import build_network
from facerestore.checkpoint import save_checkpoint
from facerestore.data import build_dataset
from facerestore.data.base import SampleKey
from facerestore.data.image_io import read_image, write_image
from facerestore.data.latents import read_latents
from facerestore.inference import latents
from scripts import generate_latent_gt
from tests import parity
from tests.archs import small
from tests.data.pictures import folder, truncate

VQGAN = {"type": "VQAutoEncoder", "img_size": 16, "nf": 32, "ch_mult": [1, 1], "res_blocks": 1, "attn_resolutions": [],
         "codebook_size": 7, "emb_dim": 4}  # fmt: skip
NAMES = ["a", "b", "people/c", "d", "e"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "faces", NAMES, 16, 16)
    network = parity.fill_(build_network(VQGAN), seed=3).eval()
    keywords = {k: v for k, v in VQGAN.items() if k != "type"}
    save_checkpoint("vqgan.pth", {"params_ema": network.state_dict()}, {"type": "VQAutoEncoder", "keywords": keywords})
    return network


def generate(*more: object) -> int:
    given = [
        "--input",
        "faces",
        "--vqgan",
        "vqgan.pth",
        "--output",
        "out/codes.pth",
        "--device",
        "cpu",
        "--workers",
        1,
        "--batch",
        2,
    ]
    return generate_latent_gt.main([str(word) for word in [*given, *more]])


def expected(network, name: str, mirrored: bool) -> np.ndarray:
    picture = read_image(f"faces/{name}.png")
    picture = cv2.flip(picture, 1) if mirrored else picture
    x = torch.from_numpy(picture.transpose(2, 0, 1).astype(np.float32))[None] / 127.5 - 1
    return network(x, code_only=True).codes[0].numpy()


def test_codes_of_both_flips_reach_the_samples(place):
    assert generate("--part", 2) == 0
    found = read_latents("out/codes.pth")
    assert set(found.names) == set(NAMES) and torch.equal(found.codebook, place.codebook)
    for name in NAMES:
        for mirrored in (False, True):
            assert np.array_equal(found.codes(name, mirrored), expected(place, name, mirrored))
    data = build_dataset(
        {
            "type": "FFHQBlindDataset",
            "dataroot_gt": "faces",
            "in_size": 16,
            "gt_size": 16,
            "use_hflip": True,
            "latent_gt_path": "out/codes.pth",
            "blur_kernel_size": 3,
        }
    )
    for epoch in range(4):
        sample = data[SampleKey(1, epoch)]
        x = sample["gt"][None].float() / 127.5 - 1
        assert torch.equal(sample["latent_gt"], place(x, code_only=True).codes[0])


def test_it_goes_on_where_it_was_stopped(place, tmp_path, monkeypatch, capsys):
    encode, seen = latents.encode, []

    def failing(network, images, device):
        seen.append(len(images))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return encode(network, images, device)

    monkeypatch.setattr(latents, "encode", failing)
    assert generate("--part", 2) == 130 and not (tmp_path / "out/codes.pth").exists()
    assert len(list((tmp_path / "out/codes.pth.parts").iterdir())) == 2
    seen.extend([0] * 9)
    assert generate("--part", 2) == 0
    assert sum(seen[12:]) == 1, "only the last part is encoded"
    assert "codes of 5 pictures (4 were there already)" in capsys.readouterr().out
    assert not (tmp_path / "out/codes.pth.parts").exists()
    assert np.array_equal(read_latents("out/codes.pth").codes("b", True), expected(place, "b", True))


def test_parts_of_another_vqgan_are_not_taken(place, tmp_path, monkeypatch):
    encode = latents.encode
    monkeypatch.setattr(latents, "write_latents", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert generate() == 130
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    other = parity.fill_(build_network(VQGAN), seed=4).eval()
    keywords = {k: v for k, v in VQGAN.items() if k != "type"}
    save_checkpoint("vqgan.pth", {"params": other.state_dict()}, {"type": "VQAutoEncoder", "keywords": keywords})
    assert generate() == 0 and encode is latents.encode
    assert np.array_equal(read_latents("out/codes.pth").codes("a", False), expected(other, "a", False))


def test_bad_input_is_one_sentence(place, tmp_path, capsys):
    truncate(tmp_path / "faces/d.png")
    folder(tmp_path / "faces", ["wide"], 16, 32)
    assert generate() == 2
    assert capsys.readouterr().err.count("generate_latent_gt.py: ") == 1
    assert generate("--skip-bad") == 0
    out = capsys.readouterr().out
    assert "wide.png is 32x16, which is not square (left out)" in out and "codes of 4 pictures" in out
    save_checkpoint("vqgan.pth", {"params": small.build("MSRResNet").state_dict()}, {})
    assert generate() == 2
    assert "holds a MSRResNet: give the VQAutoEncoder of stage I" in capsys.readouterr().err


def stopped(monkeypatch, *more: object) -> None:
    """A run that is stopped when all its parts are there."""
    with monkeypatch.context() as patch:
        patch.setattr(latents, "write_latents", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert generate(*more) == 130


def test_parts_of_pictures_that_have_changed_are_not_taken(place, tmp_path, monkeypatch):
    for name in "ab":
        write_image(tmp_path / f"faces/{name}.bmp", read_image(f"faces/{name}.png"))  # pictures of as many bytes
        os.unlink(f"faces/{name}.png")
    stopped(monkeypatch)
    shutil.copy("faces/b.bmp", "faces/a.bmp")
    assert generate() == 0
    found = read_latents("out/codes.pth")
    assert np.array_equal(found.codes("a", False), found.codes("b", False))


def test_parts_that_left_pictures_out_are_not_taken_where_that_is_not_asked(place, tmp_path, monkeypatch, capsys):
    truncate(tmp_path / "faces/d.png")
    stopped(monkeypatch, "--skip-bad")
    assert generate() == 2 and "d.png" in capsys.readouterr().err
    assert generate("--skip-bad") == 0 and "(4 were there already)" in capsys.readouterr().out


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("part", [1, 9])
@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([(16, 16), (32, 32)], "b.png is 32x32, others are 16x16"),
        ([(32, 8), (16, 16)], "a.png is 8x32, which is not square"),
        ([(15, 15)], "a.png is 15x15, and this VQGAN takes multiples of 2"),
    ],
)
def test_one_size_in_all_parts(place, tmp_path, capsys, sizes, message, part, workers):
    for name, (height, width) in zip("ab", sizes, strict=False):
        folder(tmp_path / "sizes", [name], height, width)
    assert generate("--input", "sizes", "--part", part, "--workers", workers) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("generate_latent_gt.py: ") == 1


@pytest.mark.parametrize("output", ["vqgan.pth", "faces/a.png", "faces", "vqgan.pth/codes.pth"])
def test_no_file_of_something_else_is_overwritten(place, capsys, monkeypatch, output):
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    monkeypatch.setattr(latents, "encode", None)
    assert generate("--output", output) == 2
    assert f"{output}: " in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def test_codes_are_replaced(place):
    assert generate() == generate() == 0
    assert [path.name for path in Path("out").iterdir()] == ["codes.pth"]


def test_two_runs_with_one_output(place, capsys):
    Path("out/codes.pth.parts").mkdir(parents=True)
    holding = "import fcntl; file = open('out/codes.pth.parts/.lock', 'w'); fcntl.lockf(file, fcntl.LOCK_EX); print(); input()"
    with subprocess.Popen([sys.executable, "-c", holding], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert generate() == 2
        assert "out/codes.pth: another process is writing it" in capsys.readouterr().err
        other.stdin.close()
    assert generate() == 0
