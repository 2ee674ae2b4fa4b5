"""fid_statistics.py: that it measures the folder's pictures, and what it says of what is wrong."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from torch import nn

from facerestore.data.image_io import read_image
from facerestore.data.storage import Pictures
from facerestore.metrics.fid import read_statistics
from tests.data.pictures import folder

script = importlib.import_module("scripts.fid_statistics")


class MeanColour(nn.Module):
    """Stands for the Inception: (N, 3, H, W) to (N, 3)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr("facerestore.metrics.fid.FIDInception", MeanColour)
    monkeypatch.setattr("facerestore.metrics.fid.FEATURES", 3)


def measured(source, output, *more) -> int:
    return script.main([str(source), "--output", str(output), "--weights", "random", *more])


def test_statistics_are_those_of_the_pictures(tmp_path, capsys):
    root = folder(tmp_path / "faces", [f"{i // 2}/{i}" for i in range(5)])
    assert measured(root, tmp_path / "x.npz", "--batch", "2") == 0
    assert "statistics of 5 pictures" in capsys.readouterr().out
    colours = np.array([read_image(path).mean((0, 1)) / 255 for path in sorted(root.rglob("*.png"))])
    found = read_statistics(str(tmp_path / "x.npz"))
    assert np.allclose(found.mean, colours.mean(0), rtol=1e-5)
    assert np.allclose(found.covariance, np.cov(colours, rowvar=False), rtol=1e-3)
    assert int(np.load(tmp_path / "x.npz")["count"]) == 5


def test_an_lmdb_has_the_same_ones(tmp_path):
    root = folder(tmp_path / "faces", ["a", "b", "c"])
    importlib.import_module("scripts.create_lmdb").main(
        ["--input", str(root), "--output", str(tmp_path / "faces.lmdb"), "--workers", "1"]
    )
    assert Pictures(str(tmp_path / "faces.lmdb"), "x", {"type": "lmdb"}).names
    for source, name in ((root, "folder"), (tmp_path / "faces.lmdb", "lmdb")):
        assert measured(source, tmp_path / f"{name}.npz") == 0
    one, other = (read_statistics(str(tmp_path / f"{name}.npz")) for name in ("folder", "lmdb"))
    assert torch.equal(one.mean, other.mean) and torch.equal(one.covariance, other.covariance)


def test_what_is_wrong_is_one_sentence(tmp_path, capsys):
    folder(tmp_path / "one", ["a"])
    for source, message in ((tmp_path / "nowhere", "nowhere"), (tmp_path / "one", "two pictures at least, not 1")):
        assert measured(source, tmp_path / "x.npz") == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
    assert not (tmp_path / "x.npz").exists()
    with pytest.raises(SystemExit):
        measured(tmp_path / "one", tmp_path / "x.pth")
    assert "must end with .npz" in capsys.readouterr().err
