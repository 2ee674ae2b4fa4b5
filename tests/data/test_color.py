"""YCbCr against the published figures."""

from __future__ import annotations

import numpy as np
import pytest

from facerestore.data.color import rgb_to_y, rgb_to_ycbcr, ycbcr_to_rgb
from tests import parity
from tests.data.pictures import waves

CASE, ARRAYS = parity.load("metric_color")
IMAGE = waves(**CASE["config"]["image"])
INPUTS = {"uint8": IMAGE, "float": IMAGE.astype(np.float32) / 255}


def check(mine: np.ndarray, name: str) -> None:
    assert mine.dtype == ARRAYS[name].dtype and mine.shape == ARRAYS[name].shape
    assert parity.relative_error(mine, ARRAYS[name]) <= CASE["tolerance"][name]


@pytest.mark.parametrize("kind", INPUTS)
def test_to_ycbcr(kind):
    check(rgb_to_ycbcr(INPUTS[kind]), f"rgb2ycbcr.{kind}.all")
    check(rgb_to_y(INPUTS[kind]), f"rgb2ycbcr.{kind}.y")
    check(rgb_to_ycbcr(INPUTS[kind][..., ::-1]), f"bgr2ycbcr.{kind}.all")
    check(rgb_to_y(INPUTS[kind][..., ::-1]), f"bgr2ycbcr.{kind}.y")


def test_to_rgb():
    check(ycbcr_to_rgb(INPUTS["float"]), "ycbcr2rgb.float")
    check(np.ascontiguousarray(ycbcr_to_rgb(INPUTS["float"])[..., ::-1]), "ycbcr2bgr.float")


def test_to_rgb_clips_where_the_published_one_wraps():
    reference = ARRAYS["ycbcr2rgb.float"]
    inside = (reference >= 0) & (reference <= 1)
    assert 0.5 < inside.mean() < 1
    mine = ycbcr_to_rgb(IMAGE)
    assert mine.dtype == np.uint8
    assert parity.relative_error(mine[inside], ARRAYS["ycbcr2rgb.uint8"][inside]) <= CASE["tolerance"]["ycbcr2rgb.uint8"]
    assert set(mine[reference > 1.002]) == {255} and set(mine[reference < -0.002]) == {0}


def test_there_and_back():
    assert np.abs(ycbcr_to_rgb(rgb_to_ycbcr(INPUTS["float"])) - INPUTS["float"]).max() < 1e-6
    assert np.abs(ycbcr_to_rgb(rgb_to_ycbcr(IMAGE)).astype(int) - IMAGE).max() <= 2
