"""prepare_landmarks.py: what it writes, that it goes on where it was stopped, and that it can be misused."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from facerestore.data import measured_faces
from facerestore.data.components import read_components
from facerestore.data.image_io import read_image, write_image
from facerestore.data.landmarks import parts_of
from tests.data.pictures import truncate

SIDE = 48


def prepare(*arguments: object) -> int:
    return importlib.import_module("scripts.prepare_landmarks").main([str(a) for a in arguments])


@pytest.fixture
def faces(tmp_path) -> Path:
    """Three faces, drawn, with their labels."""
    folder = tmp_path / "faces"
    arguments = [str(folder), "--count", "3", "--size", str(SIDE), "--workers", "1"]
    importlib.import_module("scripts.make_synthetic_faces").main(arguments)
    return folder


def test_labels_become_components_and_a_sheet(faces, tmp_path, capsys):
    assert prepare(faces, "--landmarks", faces / "labels.jsonl", "--workers", 2, "--count", 2) == 0
    output = tmp_path / "faces_landmarks.json"
    components = read_components(str(output), "component_path")
    assert components.size == SIDE and components.names == ["000000", "000001", "000002"]
    lines = [json.loads(line) for line in (faces / "labels.jsonl").read_text().splitlines()]
    for line in lines:
        expected = parts_of(np.array(line["landmarks68"]), SIDE)
        for part, values in components[Path(line["file"]).stem].items():
            assert values == pytest.approx(expected[part], abs=1e-3)
    assert read_image(tmp_path / "faces_landmarks.png").shape[2] == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["faces", "faces_landmarks.json", "faces_landmarks.png"]
    assert "3 faces, by" in capsys.readouterr().out


def test_faces_of_several_sizes_share_one(faces, tmp_path):
    large = np.repeat(np.repeat(read_image(faces / "000002.png"), 2, axis=0), 2, axis=1)
    write_image(faces / "000002.png", large)
    assert prepare(faces, "--landmarks", faces / "labels.jsonl", "--workers", 1) == 0
    components = read_components(str(tmp_path / "faces_landmarks.json"), "component_path")
    assert components.size == 2 * SIDE
    labels = [json.loads(line) for line in (faces / "labels.jsonl").read_text().splitlines()]
    for label in labels:  # measured on SIDE pixels, whatever their picture's size is now
        middle = np.array(label["landmarks68"])[48:68].mean(axis=0)
        assert components[Path(label["file"]).stem]["mouth"][:2] == pytest.approx(2 * (middle + 0.5) - 0.5, abs=2e-3)


def test_bad_pictures_are_named_and_left_out_where_asked(faces, tmp_path, capsys):
    truncate(faces / "000001.png")
    write_image(faces / "000002.png", np.zeros((SIDE, SIDE + 2, 3), np.uint8))
    arguments = (faces, "--landmarks", faces / "labels.jsonl", "--workers", 1)
    assert prepare(*arguments) == 2
    assert "000001.png is truncated" in capsys.readouterr().err
    assert not (tmp_path / "faces_landmarks.json").exists()
    assert prepare(*arguments, "--skip-bad") == 0
    error = capsys.readouterr().err
    assert "left out" in error and "000002.png is 50x48: faces must be square" in error
    assert read_components(str(tmp_path / "faces_landmarks.json"), "component_path").names == ["000000"]


def test_a_picture_without_a_face_is_named(tmp_path, capsys):
    write_image(tmp_path / "f" / "gray.png", np.full((64, 64, 3), 128, np.uint8))
    assert prepare(tmp_path / "f", "--detector", "haar", "--workers", 1) == 2
    assert "gray.png: haar finds no face in it" in capsys.readouterr().err


def test_it_goes_on_where_it_was_stopped(faces, tmp_path, monkeypatch):
    asked: list[str] = []
    measured = measured_faces._measured

    def counting(source, finder, name):
        asked.append(name)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return measured(source, finder, name)

    monkeypatch.setattr(measured_faces, "_measured", counting)
    arguments = (faces, "--landmarks", faces / "labels.jsonl", "--workers", 1)
    assert prepare(*arguments) == 130
    progress = tmp_path / ".faces_landmarks.json.progress"
    with progress.open("a") as file:
        file.write('\n["000002", 48, {"left')  # killed while it wrote
    assert prepare(*arguments) == 0
    assert asked == ["000000", "000001", "000002", "000002"] and not progress.exists()
    assert len(read_components(str(tmp_path / "faces_landmarks.json"), "component_path").names) == 3


def test_what_was_measured_otherwise_is_measured_anew(faces, tmp_path, monkeypatch):
    arguments = (faces, "--landmarks", faces / "labels.jsonl", "--workers", 1)
    monkeypatch.setattr(measured_faces, "atomic_write", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    assert prepare(*arguments) == 130
    monkeypatch.undo()
    assert prepare(*arguments, "--measured-on", 5 * SIDE // 4) == 0
    other = read_components(str(tmp_path / "faces_landmarks.json"), "component_path")["000000"]
    assert prepare(*arguments) == 0
    own = read_components(str(tmp_path / "faces_landmarks.json"), "component_path")["000000"]
    assert own["mouth"][0] == pytest.approx(1.25 * (other["mouth"][0] + 0.5) - 0.5, abs=5e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--landmarks", "none.json"], "none.json, named by `--landmarks`, cannot be read"),
        (["--detector", "yunet"], "needs --model"),
        (["--detector", "haar", "--sheet", "a.gif"], "let its name end with .png or .jpg"),
    ],
)
def test_misuse_is_one_sentence(faces, arguments, message, capsys):
    assert prepare(faces, *arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--landmarks", "a", "--detector", "haar"], ["--measured-on", "9"], ["--output", "a.yml"]]
)
def test_arguments_that_do_not_go_together(faces, arguments):
    with pytest.raises(SystemExit, match="2"):
        prepare(faces, *arguments)
