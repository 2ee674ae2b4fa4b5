"""Metrics of pyiqa, with a package of the same interface in its place: it is large, and its weights are downloads."""

from __future__ import annotations

import hashlib
import sys

import pytest
import torch

from facerestore.errors import OptionError, UserError
from facerestore.metrics import build_metric


@pytest.fixture
def pyiqa(standins) -> list[dict[str, str]]:
    """The keywords that metrics were made with."""
    return sys.modules["pyiqa"].made


def test_figures_of_pictures_with_and_without_truth(pyiqa):
    image, truth = torch.full((2, 3, 8, 8), 0.75), torch.full((2, 3, 8, 8), 0.5)
    without, with_truth = build_metric({"type": "PyIQA", "name": "musiq"}), build_metric({"type": "PyIQA", "name": "ssim"})
    assert not without.needs_truth and with_truth.needs_truth and pyiqa == [{}, {}]
    assert without(image).tolist() == [0.75, 0.75] and without(image).dtype == torch.float64
    assert without(image, truth).tolist() == [0.75, 0.75] and with_truth(image, truth).tolist() == [0.25, 0.25]
    assert without.protocol()["network"] == "musiq of pyiqa 0.1"


def test_weights_by_path_reach_it_and_are_named(pyiqa, tmp_path):
    file = tmp_path / "musiq.pth"
    file.write_bytes(b"weights")
    metric = build_metric({"type": "PyIQA", "weights": str(file)})
    assert pyiqa == [{"pretrained_model_path": str(file)}]
    assert metric.protocol()["weights_sha256"] == hashlib.sha256(b"weights").hexdigest()


def test_what_is_missing_is_told_in_one_sentence(pyiqa, monkeypatch):
    with pytest.raises(OptionError, match=r"no metric 'musik'.*did you mean 'musiq'"):
        build_metric({"type": "PyIQA", "name": "musik"})
    with pytest.raises(UserError, match=r"none\.pth.*does not exist"):
        build_metric({"type": "PyIQA", "weights": "none.pth"})
    with pytest.raises(UserError, match=r"offline \(no route to host\): name the file"):
        build_metric({"type": "PyIQA", "name": "offline"})
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(UserError, match=r"pip install 'facerestore\[pyiqa\]'"):
        build_metric({"type": "PyIQA"})
