"""Bicubic resizing against MATLAB's figures and Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from facerestore.data.resize import imresize, pil_resize, resize_matrix
from tests import parity
from tests.data.pictures import waves

CASE, ARRAYS = parity.load("metric_imresize")
BYTES = waves(**CASE["config"]["image"])
IMAGE = BYTES.astype(np.float32) / 255


def check(mine: np.ndarray, name: str) -> None:
    assert mine.dtype == np.float32 and mine.shape == ARRAYS[name].shape
    assert parity.relative_error(mine, ARRAYS[name]) <= CASE["tolerance"][name]


@pytest.mark.parametrize("scale", CASE["config"]["scales"])
def test_antialiased(scale):
    name = f"scale{scale:g}.aa"
    check(imresize(IMAGE, scale), name)
    tensor = imresize(torch.from_numpy(IMAGE).permute(2, 0, 1)[None], scale)
    check(tensor[0].permute(1, 2, 0).numpy(), name)


@pytest.mark.parametrize("scale", CASE["config"]["plain_scales"])
def test_plain(scale):
    check(imresize(IMAGE, scale, antialias=False), f"scale{scale:g}.plain")


def test_gray():
    check(imresize(IMAGE[..., 0], 0.25), "gray.scale0.25")


def test_size_says_the_same_as_scale():
    assert np.array_equal(imresize(IMAGE, size=(11, 13)), imresize(IMAGE, 0.25))
    assert imresize(IMAGE, size=(10, 60)).shape == (10, 60, 3)


def test_bytes_are_rounded_and_clipped():
    exact = imresize(BYTES.astype(np.float64), 0.25)
    mine = imresize(BYTES, 0.25)
    assert mine.dtype == np.uint8 and np.array_equal(mine, exact.round().clip(0, 255))
    edge = np.zeros((16, 16), np.uint8)
    edge[:, 8:] = 255
    overshoot = imresize(edge.astype(np.float32), 2)
    assert overshoot.min() < -1 and overshoot.max() > 256
    assert imresize(edge, 2)[0, :4].tolist() == [0] * 4 and imresize(edge, 2).max() == 255


@pytest.mark.parametrize("length, scale, size", [(30, 0.1, 3), (10, 0.25, 3), (48, 1 / 3, 16), (7, 1.5, 11)])
def test_sizes_are_rounded_up(length, scale, size):
    assert imresize(np.zeros((length, length), np.float32), scale).shape == (size, size)


@pytest.mark.parametrize("length, out", [(8, 2), (7, 3), (2, 9), (1, 4), (4, 1)])
def test_weights(length, out):
    matrix = resize_matrix(length, out, out / length)
    assert np.allclose(matrix.sum(1), 1)
    assert np.allclose(matrix, matrix[::-1, ::-1])  # left and right are alike


def test_gradients_pass_through():
    tensor = torch.rand(2, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: imresize(x, 0.5), tensor)


def test_either_scale_or_size():
    for keywords in ({}, {"scale": 2, "size": (4, 4)}):
        with pytest.raises(ValueError, match="either"):
            imresize(IMAGE, **keywords)


@pytest.mark.parametrize("size", [(11, 13), (30, 17), (88, 100)])
def test_pillow(size):
    expected = np.array(Image.fromarray(BYTES).resize((size[1], size[0]), Image.Resampling.BICUBIC))
    assert np.array_equal(pil_resize(BYTES, size), expected)
    assert pil_resize(BYTES[..., 0], size).shape == size
    assert pil_resize(BYTES[:, ::-1], size).shape == (*size, 3)


def test_away_from_borders_pillow_and_matlab_agree_to_a_level():
    difference = np.abs(pil_resize(BYTES, (11, 13)).astype(int) - imresize(BYTES, 0.25))[3:-3, 3:-3]
    assert difference.max() <= 1
