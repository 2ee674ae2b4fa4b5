"""The data set of drawn faces, and the script that writes them to a folder."""

from __future__ import annotations

import importlib.util
import json
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from facerestore.data import build_dataset
from facerestore.data.image_io import read_image
from facerestore.data.resize import imresize
from facerestore.data.synthetic import render_face
from facerestore.data.synthetic.cache import FaceCache
from facerestore.data.synthetic_faces import SyntheticFaceDataset
from facerestore.errors import OptionError

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "make_synthetic_faces.py"


def faces(**keywords) -> SyntheticFaceDataset:
    return build_dataset({"type": "SyntheticFaceDataset", "count": 6, "size": 64} | keywords)


def test_a_sample_is_as_of_paired_pictures():
    dataset = faces(scale=4)
    sample = dataset[2]
    assert sorted(sample) == ["gt", "gt_path", "lq", "lq_path"]
    assert sample["gt"].shape == (3, 64, 64) and sample["lq"].shape == (3, 16, 16)
    assert sample["gt"].dtype == sample["lq"].dtype == torch.uint8
    assert sample["gt_path"] == sample["lq_path"] == dataset.name(2) == "synthetic/0/000002"
    gt = sample["gt"].permute(1, 2, 0).numpy()
    assert np.array_equal(gt, render_face(0, 2, 64).image)
    assert np.array_equal(sample["lq"].permute(1, 2, 0), imresize(gt, 1 / 4))
    assert len({dataset.name(i) for i in range(len(dataset))}) == len(dataset) == 6
    with pytest.raises(IndexError):
        dataset[6]


def test_crops_and_flips_are_the_same_part_of_both():
    dataset = faces(scale=2, gt_size=24, use_hflip=True, use_rot=True)
    seen = set()
    for epoch in range(4):
        sample = dataset[(1, epoch, 0)]
        assert sample["gt"].shape == (3, 24, 24) and sample["lq"].shape == (3, 12, 12)
        shrunk = imresize(sample["gt"].permute(1, 2, 0).numpy(), 1 / 2)
        assert np.abs(shrunk.astype(int) - sample["lq"].permute(1, 2, 0).numpy()).max() <= 1
        assert torch.equal(sample["gt"], dataset[(1, epoch, 0)]["gt"])
        seen.add(sample["gt"].numpy().tobytes())
    assert len(seen) == 4


def test_labels_follow_crop_and_mirror():
    dataset = faces(gt_size=48, use_hflip=True, labels=True)
    whole = faces(labels=True)
    mirrored = 0
    for epoch in range(6):
        sample, plain = dataset[(1, epoch, 0)], whole[1]
        gt, image = sample["gt"].numpy(), plain["gt"].numpy()
        left, right = sample["points5"][:2].numpy()
        assert left[0] < right[0]
        box = sample["loc_left_eye"].numpy()
        assert box.shape == (4,) and box[0] < left[0] < box[2] and box[1] < left[1] < box[3]
        # where the picture says that the crop lies
        for flip in (False, True):
            source = image[:, :, ::-1] if flip else image
            match = cv2.matchTemplate(source.transpose(1, 2, 0).copy(), gt.transpose(1, 2, 0).copy(), cv2.TM_SQDIFF)
            low, _, corner, _ = cv2.minMaxLoc(match)
            if low < 1:
                face = dataset.face(1).mirrored() if flip else dataset.face(1)
                assert np.allclose(sample["landmarks68"], face.landmarks68 - corner)
                assert np.allclose(sample["loc_mouth"], np.array(face.boxes["mouth"]) - [*corner, *corner], atol=1e-4)
                mirrored += flip
                break
        else:
            pytest.fail("the sample is no part of the picture")
        assert sample["identity"] == 1 and sample["domain"] == dataset.face(1).domain
    assert 0 < mirrored < 6


def test_people_domains_and_worlds():
    pairs = faces(pictures_per_person=2)
    assert [pairs.face(i).identity for i in range(6)] == [0, 0, 1, 1, 2, 2]
    assert faces(start=4, pictures_per_person=2).face(0).identity == 2
    assert np.array_equal(faces(start=2).face(1).image, faces().face(3).image)
    assert not np.array_equal(faces(seed=1).face(0).image, faces().face(0).image)
    for domain, number in (("feminine", 0), ("masculine", 1), (1, 1)):
        assert {faces(domain=domain).face(i).domain for i in range(4)} == {number}
    assert faces(domain="masculine").name(0) == "synthetic/0/masculine/000000"


def test_remembered_faces_are_those_drawn_anew():
    cache = FaceCache(limit=3 * 4 * 64 * 64)
    first = cache.get(0, 0, 64)
    assert cache.get(0, 0, 64) is first and np.array_equal(first.image, render_face(0, 0, 64).image)
    for i in range(1, 5):
        cache.get(0, i, 64)
    assert len(cache.faces) == 3 and cache.bytes == 3 * 4 * 64 * 64
    assert cache.get(0, 0, 64) is not first and np.array_equal(cache.get(0, 0, 64).image, first.image)
    with pytest.raises(ValueError, match="read-only"):
        first.image[0] = 0


def test_a_tensor_of_a_sample_is_its_own():
    dataset = faces()
    dataset[0]["gt"].zero_()
    assert dataset[0]["gt"].float().mean() > 10


def test_workers_can_have_it():
    dataset = pickle.loads(pickle.dumps(faces(seed=2)))
    assert dataset.name(0) == "synthetic/2/000000" and torch.equal(dataset[0]["gt"], faces(seed=2)[0]["gt"])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"scale": 3}, "`size` is 64: it must be a multiple of the scale, 3"),
        ({"scale": 4, "gt_size": 30}, "`gt_size` is 30: it must be a multiple"),
        ({"gt_size": 128}, "not be larger than the picture's `size`, 64"),
        ({"labels": True, "use_rot": True}, "leave out `use_rot`"),
        ({"size": 16}, "`size`"),
        ({"count": 0}, "`count`"),
        ({"domain": "masculin"}, "`domain`"),
        ({"pictures_per_persons": 2}, "pictures_per_person"),
    ],
)
def test_wrong_options_are_told(keywords, message):
    with pytest.raises(OptionError, match=message):
        faces(**keywords)


@pytest.fixture(scope="module")
def script():
    """The script's `main`."""
    spec = importlib.util.spec_from_file_location("make_synthetic_faces", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *arguments: module.main(list(map(str, arguments)))


def test_the_script_draws_a_folder_and_goes_on_where_it_stopped(tmp_path, script, capsys):
    out = tmp_path / "faces"
    options = (out, "--size", 48, "--pictures-per-person", 2, "--domains-as-folders", "--masks")
    command = [sys.executable, SCRIPT, *options, "--count", 3, "--workers", 2]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    lines = [json.loads(line) for line in (out / "labels.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == [0, 1, 2] and [line["identity"] for line in lines] == [0, 0, 1]
    for line in lines:
        face = render_face(0, line["index"], 48, line["identity"])
        assert line["file"] == f"{line['domain']}/{line['index']:06d}.png"
        assert np.array_equal(read_image(out / line["file"]), face.image)
        assert np.array_equal(read_image(out / "masks" / line["file"])[..., 0], face.regions)
        assert np.allclose(line["landmarks68"], face.landmarks68, atol=0.01)
    points = json.loads((out / "landmarks.json").read_text())
    assert points[lines[0]["file"]]["left_eye"] == lines[0]["points5"][0]

    # stopped while it wrote a line, and one picture lost
    kept = (out / lines[0]["file"]).stat().st_mtime_ns
    text = (out / "labels.jsonl").read_text()
    (out / "labels.jsonl").write_text(text[:-40])
    (out / lines[1]["file"]).unlink()
    assert script(*options, "--count", 4, "--workers", 1, "--sheet") == 0
    again = [json.loads(line) for line in (out / "labels.jsonl").read_text().splitlines()]
    assert again[:3] == lines and len(again) == 4 and (out / lines[1]["file"]).exists()
    assert (out / lines[0]["file"]).stat().st_mtime_ns == kept
    assert read_image(out / "sheet.jpg").shape == (160, 640, 3)
    assert not list(out.rglob("*.tmp"))

    capsys.readouterr()
    assert script(out, "--size", 64, "--count", 4) == 2
    told = capsys.readouterr().err
    assert "size 48 instead of 64" in told and len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", "--count", 0), "--count: must be a whole number from 1, not '0'"),
        (("a", "--size", "big"), "--size: must be a whole number from 32"),
        (("a", "--domain", "robots"), "robots"),
        (("a", "--counts", 3, "--sie", 4), "--sie"),
        (("full",), "holds other files"),
        (("full/mine.txt",), "is a file"),
    ],
)
def test_the_script_refuses_in_a_sentence(tmp_path, script, capsys, arguments, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    try:
        code = script(tmp_path / arguments[0], *arguments[1:])
    except SystemExit as stop:  # argparse's way
        code = stop.code
    told = capsys.readouterr().err
    assert code == 2 and message in told and len(told.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["full"]
