"""restore.py: pictures in, restored pictures out; what is wrong is one sentence, and the good pictures are done."""

from __future__ import annotations

import importlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from facerestore.archs import build_network
from facerestore.checkpoint import recognise
from facerestore.data.image_io import read_image, write_image
from facerestore.errors import DataError
from facerestore.inference import Restorer
from tests import parity
from tests.archs import small

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"dim_embd": 16, "n_layers": 1, "codebook_size": 16, "connect_list": ["16", "32"], "img_size": 32, "nf": 32,
         "ch_mult": [1, 1, 1], "res_blocks": 1, "attn_resolutions": [8], "emb_dim": 8}  # fmt: skip


def restore(*arguments: object) -> int:
    return importlib.import_module("scripts.restore").main([*map(str, arguments), "--device", "cpu"])


def codeformer(path: Path, **keywords: object) -> Path:
    """As codeformer.pth is: `params_ema` alone."""
    network = parity.fill_(build_network({"type": "CodeFormer", **SMALL, **keywords}), seed=1)
    torch.save({"params_ema": network.state_dict()}, path)
    return path


def face(path: Path, seed: int = 0, height: int = 32, width: int = 32) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)  # never pure white
    write_image(path, image)
    return image


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with weights and three faces, two of them in a folder below."""
    monkeypatch.chdir(tmp_path)
    codeformer(tmp_path / "codeformer.pth")
    for i, name in enumerate(("a", "more/b", "more/c")):
        face(tmp_path / f"faces/{name}.png", i)
    return tmp_path


def test_a_folder_is_restored_alike_in_batches_of_any_size(work):
    restorer = Restorer("codeformer.pth", device="cpu")
    for batch in (1, 2, 3):
        assert restore("faces", "--weights", "codeformer.pth", "-w", 0.7, "--batch", batch, "--output", f"out{batch}") == 0
        for name in ("a", "more/b", "more/c"):
            expected = restorer(f"faces/{name}.png", w=0.7, adain=True)
            assert np.abs(read_image(f"out{batch}/{name}.png").astype(int) - expected).max() <= 1
    assert not np.array_equal(expected, restorer("faces/more/c.png", w=0, adain=True))
    assert not np.array_equal(expected, restorer("faces/more/c.png", w=0.7))


def test_an_option_file_says_what_the_network_is_told(work, capsys):
    small_one = [f"network_g.{k}={str(v).replace(' ', '')}" for k, v in SMALL.items()]
    options = ["-opt", ROOT / "options/codeformer_test.yml", "--set", *small_one, "path.pretrain_network_g=codeformer.pth"]
    assert restore("faces", *options, "val.fidelity_weight=0.25", "val.adain=false") == 0
    expected = Restorer("codeformer.pth", device="cpu")("faces/a.png", w=0.25, adain=False)
    assert np.array_equal(read_image("results/restore/a.png"), expected)
    assert "3 of 3 pictures, w = 0.25\n" in capsys.readouterr().out
    assert restore("faces", *options, "val.adain=false", "--adain", "-w", 0.25) == 0
    assert "3 of 3 pictures, w = 0.25, colours and light of the input\n" in capsys.readouterr().out
    assert not np.array_equal(read_image("results/restore/a.png"), expected)
    codeformer(work / "other.pth", codebook_size=24)
    assert restore("faces", *options, "path.pretrain_network_g=other.pth") == 2
    said = capsys.readouterr().err
    assert "other.pth: these are weights of CodeFormer(" in said and "quantize.embedding.weight is (24, 8), not (16, 8)" in said
    assert restore("faces", *options, "path.pretrain_network_g=~") == 2
    assert "network_g has no weights" in capsys.readouterr().err


def test_weights_of_another_codebook_are_told_by_their_content(work):
    codeformer(work / "other.pth", codebook_size=24, connect_list=["16"])
    assert restore("faces/a.png", "--weights", "other.pth", "--task", "colorize") == 0
    expected = Restorer("other.pth", device="cpu")("faces/a.png", w=0, adain=True)
    assert np.array_equal(read_image("results/colorize/a.png"), expected)


def test_a_sweep_is_one_picture(work):
    assert restore("faces/a.png", "--weights", "codeformer.pth", "--sweep", 0, 0.5, 1) == 0
    strip = read_image("results/restore/a_sweep.png")
    head = strip.shape[0] - 128  # 32 pixels, four times as large
    assert strip.shape[1] == 4 * 132 - 4 and (strip[:head] < 128).any(), "labels stand above"
    drawn = [strip[head + 2 :: 4, i * 132 + 2 : i * 132 + 128 : 4] for i in range(4)]
    restorer = Restorer("codeformer.pth", device="cpu")
    assert np.array_equal(drawn[0], read_image("faces/a.png"))
    for w, picture in zip((0, 0.5, 1), drawn[1:], strict=True):
        assert np.array_equal(picture, restorer("faces/a.png", w=w, adain=True))


def test_lower_precision_is_near(work):
    codeformer(work / "few.pth", codebook_size=2)  # so few codes that bfloat16 chooses none other
    exact = Restorer("few.pth", device="cpu")("faces/a.png", w=0.5, adain=True)
    for words in (["--precision", "bf16"], ["--channels_last"], ["--precision", "bf16", "--channels_last"]):
        assert restore("faces/a.png", "--weights", "few.pth", "-w", 0.5, *words) == 0
        differences = np.abs(read_image("results/restore/a.png").astype(float) - exact)
        assert differences.mean() < 2 if "bf16" in words else differences.max() <= 1
        assert differences.any() == ("bf16" in words)


def strokes(path: str, place: tuple[slice, slice]) -> None:
    image = read_image(path).copy()
    image[place] = 255
    write_image(path, image)


@pytest.mark.parametrize("masks", ["strokes", "file", "folder"])
def test_what_is_not_masked_is_kept_to_the_byte(work, masks):
    place = np.s_[4:12, 6:20]
    mask = np.zeros((32, 32), np.uint8)
    mask[place] = 255
    before = {name: read_image(f"faces/{name}.png") for name in ("a", "more/b", "more/c")}
    for name in before:
        write_image(f"masks/{name}.png", mask)
        if masks == "strokes":
            strokes(f"faces/{name}.png", place)
    words = {"strokes": [], "file": ["--masks", "masks/a.png"], "folder": ["--masks", "masks"]}[masks]
    assert restore("faces", "--weights", "codeformer.pth", "--task", "inpaint", *words) == 0
    restorer = Restorer("codeformer.pth", device="cpu")
    for name, image in before.items():
        found, white = read_image(f"results/inpaint/{name}.png"), image.copy()
        white[place] = 255  # what the network sees, and was trained on
        painted = restorer(white, w=1, adain=False)[place]
        assert np.abs(found[place].astype(int) - painted).max() <= 1
        found[place] = image[place]
        assert np.array_equal(found, image)


def test_a_larger_picture_keeps_its_size_and_its_bytes_when_painted(work, capsys):
    image = face(work / "large.png", 5, 48, 48)
    strokes("large.png", np.s_[10:20, 10:20])
    assert restore("large.png", "--weights", "codeformer.pth", "--task", "inpaint") == 0
    said = capsys.readouterr().out
    assert "resized to 32x32 for the network: large\n" in said and "painted anew: 4.3% to 4.3% of a picture\n" in said
    found = read_image("results/inpaint/large.png")
    assert (found[10:20, 10:20] != 255).any()
    found[10:20, 10:20] = image[10:20, 10:20]
    assert np.array_equal(found, image)


def test_gray_transparent_and_deep_pictures(work):
    image = face(work / "rgb.png", 3)
    gray = image.mean(axis=2).astype(np.uint8)
    (work / "odd").mkdir()
    cv2.imwrite("odd/gray.png", gray)
    cv2.imwrite("odd/clear.png", np.dstack([image[..., ::-1], gray]))
    cv2.imwrite("odd/deep.png", image[..., ::-1].astype(np.uint16) * 256 + 77)
    assert restore("odd", "--weights", "codeformer.pth", "--task", "colorize") == 0
    restorer = Restorer("codeformer.pth", device="cpu")
    for name, same in (("gray", np.dstack([gray] * 3)), ("clear", image), ("deep", image)):
        found = read_image(f"results/colorize/{name}.png")
        assert np.abs(found.astype(int) - restorer(same, w=0, adain=True)).max() <= 1


def test_a_bad_picture_is_named_and_the_others_are_done(work, capsys):
    Path("faces/bad.png").write_bytes(Path("faces/a.png").read_bytes()[:300])
    face(work / "faces/wide.png", 4, 32, 40)
    face(work / "faces/large.png", 4, 40, 40)
    words = ["faces", "--weights", "codeformer.pth", "--other-size", "refuse"]
    assert restore(*words) == 2
    said = capsys.readouterr()
    assert "left out: picture faces/bad.png is truncated" in said.err
    assert "wide.png is 40x32, but the CodeFormer takes 32x32: cut a square" in said.err
    assert "large.png is 40x40, but the CodeFormer takes 32x32: resize it" in said.err
    assert said.err.endswith("restore.py: 3 of 6 pictures were left out, as said above: bad, large, wide\n")
    assert sorted(p.name for p in Path("results/restore").rglob("*.*")) == ["a.png", "b.png", "c.png"]
    assert restore(*words[:-1], "resize") == 2
    assert read_image("results/restore/large.png").shape == (32, 32, 3) and not Path("results/restore/wide.png").exists()


def test_one_pictures_fault_is_not_its_batchs(work, monkeypatch, capsys):
    whole, bad = Restorer.restore_batch, read_image("faces/more/b.png")

    def restore_batch(restorer, images, *told):
        if any(np.array_equal(image, bad) for image in images):
            raise DataError("no numbers")
        return whole(restorer, images, *told)

    monkeypatch.setattr(Restorer, "restore_batch", restore_batch)
    assert restore("faces", "--weights", "codeformer.pth", "--batch", 3) == 2
    assert "left out: picture faces/more/b.png: no numbers" in capsys.readouterr().err
    assert sorted(p.name for p in Path("results/restore").rglob("*.*")) == ["a.png", "c.png"]


MASKS = ["--task", "inpaint", "--masks"]
BAD_MASKS = [
    (["--task", "inpaint"], "picture faces/a.png has no stroke of pure white"),
    ([*MASKS, "small.png"], "mask small.png is 16x16, its picture faces/a.png 32x32"),
    ([*MASKS, "black.png"], "mask black.png of picture faces/a.png is black"),
    ([*MASKS, "folder"], "picture faces/a.png has no mask: there is none called 'a' in folder folder"),
    ([*MASKS, "nowhere"], "nowhere: there is no such mask"),
    ([*MASKS, "empty"], "folder empty holds no picture"),
    (["--task", "colorize", "--masks", "small.png"], "--masks say what to inpaint"),
]


@pytest.mark.parametrize(("words", "message"), BAD_MASKS, ids=lambda v: v if isinstance(v, str) else "")
def test_masks_that_do_not_fit(work, capsys, words, message):
    write_image("small.png", np.full((16, 16), 255, np.uint8))
    write_image("black.png", np.full((32, 32), 9, np.uint8))
    write_image("folder/other.png", np.full((32, 32), 255, np.uint8))
    Path("empty").mkdir()
    try:
        code = restore("faces/a.png", "--weights", "codeformer.pth", *words)
    except SystemExit as left:
        code = left.code
    assert code == 2 and message in capsys.readouterr().err
    assert not Path("results").exists()


PLACE = "https://github.com/sczhou/CodeFormer/releases/download/v0.1.0/"
REFUSED = [
    (["faces", "--weights", "codeformer.pth", "-w", 1.5], "w must be a number from 0 (quality) to 1 (fidelity), not '1.5'"),
    (["faces", "--weights", "codeformer.pth", "--sweep", 0, -1], "w must be a number from 0"),
    (["faces", "--weights", "codeformer.pth", "-w", "nan"], "w must be a number from 0"),
    (["faces"], "one of the arguments -opt/--opt --weights is required"),
    (["empty", "--weights", "codeformer.pth"], "folder empty holds no picture"),
    (["nowhere", "--weights", "codeformer.pth"], "nowhere: there is no such picture or folder"),
    (["faces/a.png", "other/a.png", "--weights", "codeformer.pth"], "two pictures are called 'a'"),
    (["faces", "--weights", "codeformer.pth", "--output", "faces"], "the result would take the place of a picture"),
    (["faces", "--weights", "codeformer.pth", "--set", "val.adain=true"], "codeformer.pth is no option file"),
    (["faces", "--weights", "none.pth", "--task", "colorize"], f"the published weights that colorize are codeformer_"
                                                               f"colorization.pth, {PLACE}codeformer_colorization.pth"),
    (["faces", "--weights", "x/codeformer_inpainting.pth"], f"codeformer_inpainting.pth is published as {PLACE}"),
    (["faces", "-opt", ROOT / "options/codeformer_test.yml"], f"does not exist; the published weights that restore are "
                                                              f"codeformer.pth, {PLACE}codeformer.pth"),
    (["faces", "--weights", "vqgan_code1024.pth"], "holds a VQAutoEncoder, which repeats faces and restores none; the publ"),
    (["faces", "-opt", ROOT / "options/codeformer_test.yml", "--set", "path.pretrain_network_g=vqgan_code1024.pth"],
     "; the published weights that restore are codeformer.pth"),
    (["faces", "--weights", "gfpgan.pth", "-w", 0.5], "w and adain are CodeFormer's, but gfpgan.pth is a GFPGANv1Clean"),
    (["other/b.jpg", "--weights", "codeformer.pth", "--output", "other"], "would take the place of a picture"),
    (["faces", "-opt", ROOT / "options/stargan2_test.yml"], "weights"),
    (["faces", "--weights", "broken.pth"], "damaged or cut off"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=lambda v: v[:40] if isinstance(v, str) else "")
def test_mistakes_are_one_sentence(work, capsys, words, message):
    for name in ("a.png", "b.jpg", "b.png"):
        face(work / "other" / name)
    Path("empty").mkdir()
    Path("broken.pth").write_bytes(Path("codeformer.pth").read_bytes()[:5000])
    torch.save({"params_ema": small.build("VQAutoEncoder").state_dict()}, "vqgan_code1024.pth")
    torch.save({"params_ema": small.build("GFPGANv1Clean").state_dict()}, "gfpgan.pth")
    try:
        code = restore(*words)
    except SystemExit as left:
        code = left.code
    said = capsys.readouterr().err
    assert code == 2 and message in said and said.count("\n") == 1
    assert not Path("results").exists()


def test_a_gfpgan_restores_too(work):
    torch.save({"params_ema": small.build("GFPGANv1Clean").state_dict()}, "gfpgan.pth")
    assert restore("faces", "--weights", "gfpgan.pth") == 0  # of 16 pixels
    found = [read_image(f"results/restore/{name}.png") for name in ("a", "more/b", "more/c")]
    assert {picture.shape for picture in found} == {(16, 16, 3)} and not np.array_equal(found[0], found[1])


def test_pictures_of_many_sizes_where_the_network_takes_them(work):
    network = small.build("MSRResNet")  # three times as large
    torch.save({"params": network.state_dict()}, "sr.pth")
    face(work / "faces/z.png", 9, 20, 24)
    assert restore("faces", "--weights", "sr.pth", "--batch", 8) == 0
    for name, (height, width) in {"a": (96, 96), "more/c": (96, 96), "z": (60, 72)}.items():
        found = read_image(f"results/restore/{name}.png")
        assert found.shape == (height, width, 3)
        assert np.abs(found.astype(int) - Restorer("sr.pth", device="cpu")(f"faces/{name}.png")).max() <= 1


PUBLISHED = {
    "codeformer.pth": {"codebook_size": 1024, "connect_list": ["32", "64", "128", "256"]},
    "codeformer_colorization.pth": {"codebook_size": 1024, "connect_list": ["32", "64", "128"]},
    "codeformer_inpainting.pth": {"codebook_size": 512, "connect_list": ["32", "64", "128"]},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_are_told_by_their_content(tmp_path, name):
    with torch.device("meta"):
        network = build_network({"type": "CodeFormer", **PUBLISHED[name]})
    kind, keywords, _ = recognise(hollow(tmp_path / name, network))
    assert kind == "CodeFormer" and keywords["img_size"] == 512 and keywords["n_layers"] == 9
    assert {key: keywords[key] for key in PUBLISHED[name]} == PUBLISHED[name]


def test_the_published_vqgan_is_told_by_its_content(tmp_path):
    with torch.device("meta"):
        network = build_network({"type": "VQAutoEncoder", "img_size": 512, "nf": 64, "ch_mult": [1, 2, 2, 4, 4, 8]})
    kind, keywords, _ = recognise(hollow(tmp_path / "vqgan_code1024.pth", network))
    assert kind == "VQAutoEncoder" and keywords["codebook_size"] == 1024 and keywords["ch_mult"] == [1, 2, 2, 4, 4, 8]


def hollow(path: Path, network: torch.nn.Module) -> Path:
    """A file with a network's keys and shapes, and one number for each tensor."""
    torch.save({"params_ema": {k: torch.zeros(()).expand(v.shape) for k, v in network.state_dict().items()}}, path)
    return path
