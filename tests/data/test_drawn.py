"""Drawn faces behind the data sets of stored pictures."""

from __future__ import annotations

import numpy as np
import pytest

from facerestore.data import build_dataset
from facerestore.data.storage import Pictures
from facerestore.errors import OptionError


def test_they_are_those_of_the_synthetic_data_set():
    drawn = Pictures("drawn", "dataroot_gt", {"type": "synthetic", "count": 3, "size": 32, "start": 5, "seed": 2})
    faces = build_dataset({"type": "SyntheticFaceDataset", "count": 3, "size": 32, "start": 5, "seed": 2})
    assert drawn.names == ["000005", "000006", "000007"] and drawn.path("000005") == "drawn/000005.png"
    for i, name in enumerate(drawn.names):
        assert np.array_equal(drawn.read(name), faces.face(i).image)
    assert drawn.storage.size("000005") == len(drawn.storage.read("000005"))


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ({"type": "synthetic"}, "need a `count` of 1 or more"),
        ({"type": "synthetic", "count": 2, "size": 8}, "a `size` from 32 to 4096"),
        ({"type": "disk", "count": 2}, "`io_backend` of type disk has no count"),
        ({"type": 3}, "`io_backend` of type 3 has no"),
    ],
)
def test_what_they_need_is_told_before_drawing(backend, message):
    with pytest.raises(OptionError, match=message):
        build_dataset({"type": "FFHQBlindDataset", "dataroot_gt": "drawn", "io_backend": backend})
