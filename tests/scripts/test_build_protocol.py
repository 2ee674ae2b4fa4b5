"""build_protocol.py: the right pictures, and nothing but them; and data sets that say `protocol`."""

from __future__ import annotations

import dataclasses
import importlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from facerestore.config import load_options
from facerestore.data import protocols
from facerestore.data.image_io import write_image
from facerestore.data.protocols import FOLDER, named_protocol
from facerestore.engine import cli
from facerestore.errors import DataError, OptionError

COUNTS = {"celeba_test": 3000, "celebchild_test": 180, "lfw_test": 1711, "webphoto_test": 407, "wider_test": 970}
TEST = """\
name: named
model_type: SRModel
scale: 2
num_gpu: 0
datasets:
  test_1: {type: SingleImageDataset, name: faces, dataroot_lq: out, protocol: tiny}
network_g: {type: MSRResNet, num_feat: 8, num_block: 1, upscale: 2, weights: random}
val: {pbar: false, save_img: false, metrics: {niqe: {type: calculate_niqe}}}
"""


def build(*arguments: object) -> int:
    return importlib.import_module("scripts.build_protocol").main([str(a) for a in arguments])


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Path:
    """A protocol of two persons' first pictures, and an archive of three persons with two pictures each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(protocols, "FOLDER", tmp_path / "protocols")
    text = (FOLDER / "lfw_test.yml").read_text().replace("lfw_test", "tiny").replace("count: 1711", "count: 2")
    (tmp_path / "protocols").mkdir()
    (tmp_path / "protocols" / "tiny.yml").write_text(text)
    random = np.random.default_rng(0)
    for person in ("Ann", "Bob", "Eve"):
        for number in (10, 9):
            picture = random.integers(0, 256, (96, 192, 3), dtype=np.uint8)
            write_image(f"lfw/{person}/{person}_{number}.png", picture)
    Path("people.txt").write_text("2\nAnn 2\nEve 2\n")
    return tmp_path


def test_every_protocol_can_be_read_and_has_the_published_number():
    assert {path.stem: named_protocol(path.stem).count for path in FOLDER.glob("*.yml")} == COUNTS
    assert all(named_protocol(name).name == name for name in COUNTS)
    with pytest.raises(OptionError, match=r"lfw_tset.*did you mean 'lfw_test'"):
        named_protocol("lfw_tset")


@pytest.mark.parametrize("archive", ["lfw", "lfw.zip"])
def test_the_first_picture_of_each_person_is_taken_once(tiny, capsys, archive):
    with zipfile.ZipFile("lfw.zip", "w") as file:
        for path in Path("lfw").rglob("*.png"):
            file.write(path)
    assert build("tiny", archive, "out", "--people", "people.txt") == 0
    assert "2 written now" in capsys.readouterr().out
    held = json.loads(Path("out/protocol.json").read_text())
    assert held["protocol"] == "tiny" and list(held["pictures"]) == ["Ann_9", "Eve_9"]
    assert Path("out/Ann_9.png").read_bytes() == Path("lfw/Ann/Ann_9.png").read_bytes()
    Path("out/Eve_9.png").write_bytes(b"cut")
    assert build("tiny", archive, "out", "--people", "people.txt") == 0
    assert "1 written now" in capsys.readouterr().out


def test_another_archive_is_refused_in_one_sentence_that_says_where_the_right_one_is(tiny, capsys):
    assert build("tiny", "lfw", "out") == 2
    said = capsys.readouterr().err
    assert (
        "2 pictures and the archive 3 persons (6 pictures)" in said
        and "--people" in said
        and "https://" in said
        and said.count("\n") == 1
    )
    Path("people.txt").write_text("Ann\nZoe\n")
    assert build("tiny", "lfw", "out", "--people", "people.txt") == 2
    assert "no folder of Zoe" in capsys.readouterr().err and not Path("out").exists()
    Path("out").mkdir()
    Path("out/other.png").write_bytes(b"")
    assert build("tiny", "lfw/Ann", "out") == 2
    assert "other.png" in capsys.readouterr().err


def test_results_name_the_protocol_and_another_set_is_refused(tiny, capsys):
    assert build("tiny", "lfw", "out", "--people", "people.txt") == 0
    Path("test.yml").write_text(TEST)
    assert cli.test_main(["-opt", "test.yml"]) == 0
    assert json.loads(Path("results/named/scores.json").read_text())["datasets"]["faces"]["protocol"] == "tiny"
    assert "protocol tiny, 2 pictures" in Path("results/named/report.html").read_text()
    capsys.readouterr()
    Path("out/Ann_9.png").rename("out/Bob_9.png")
    assert cli.test_main(["-opt", "test.yml"]) == 2 and "lists other pictures" in capsys.readouterr().err
    Path("out/Bob_9.png").unlink()
    assert cli.test_main(["-opt", "test.yml"]) == 2 and "2 pictures and the data set 1" in capsys.readouterr().err
    section = dataclasses.asdict(load_options("test.yml").datasets["test_1"])
    assert section["protocol"] == "tiny"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"protocol": "tiny"}', '{"protocol": "tiny", "pictures": 5}', "\\xff"])
def test_a_damaged_list_is_told(tiny, content):
    Path("out").mkdir()
    Path("out/protocol.json").write_bytes(content.encode().replace(b"\\xff", b"\xff"))
    with pytest.raises(
        DataError, match=r"out/protocol.json is no list of pictures .*: build it anew by scripts/build_protocol.py"
    ):
        protocols.refuse_other_pictures(named_protocol("tiny"), ["Ann_9", "Eve_9"], "out")


def test_pictures_that_were_changed_are_named(tiny):
    assert build("tiny", "lfw", "out", "--people", "people.txt") == 0
    protocols.refuse_other_pictures(named_protocol("tiny"), ["Ann_9", "Eve_9"], "out")
    write_image("out/Eve_9.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"1 of 2 pictures of out are not those that protocol.json lists \(Eve_9\)"):
        protocols.refuse_other_pictures(named_protocol("tiny"), ["Ann_9", "Eve_9"], "out")


@pytest.mark.parametrize("content", [b"", b"a text", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_refused(tiny, capsys, content):
    Path("lfw/Eve/Eve_9.png").write_bytes(content)
    assert build("tiny", "lfw", "out", "--people", "people.txt") == 2
    assert "Eve/Eve_9.png" in capsys.readouterr().err and not Path("out/protocol.json").exists()


def test_people_are_applied_whatever_the_number_of_pictures(tiny, capsys):
    Path("people.txt").write_text("Zoe\n")
    assert build("tiny", "lfw/Ann", "out", "--people", "people.txt") == 2
    assert "no folder of Zoe" in capsys.readouterr().err
    Path("people.txt").write_text("Ann\n")
    assert build("tiny", "lfw", "out", "--people", "people.txt") == 2
    assert "tiny has 2 pictures and --people names 1 persons" in capsys.readouterr().err
    text = Path("protocols/tiny.yml").read_text().replace("pick: first_of_each_person", "pick: all")
    Path("protocols/tiny.yml").write_text(text)
    assert build("tiny", "lfw/Ann", "out", "--people", "people.txt") == 2
    assert "leave --people out" in capsys.readouterr().err


def test_two_pictures_of_one_name_are_refused(tiny):
    for person in ("Ann", "Bob"):
        write_image(f"twice/{person}/0001.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match="one name in different folders"):
        protocols.build(
            named_protocol("tiny"), importlib.import_module("facerestore.data.convert").open_source("twice", "x"), "o"
        )
