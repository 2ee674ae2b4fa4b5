"""JPEG against the published figures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from facerestore.data.degradations.jpeg import DiffJPEG, apply_jpeg, sample_jpeg_quality
from tests import parity
from tests.data.pictures import waves

CASE, ARRAYS = parity.load("data_jpeg")
CONFIG = CASE["config"]
IMAGE = waves(**CONFIG["image"])[..., ::-1]  # the case's picture is BGR
TENSOR = torch.from_numpy(IMAGE.transpose(2, 0, 1) / np.float32(255))[None]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


def check(mine: torch.Tensor, name: str) -> None:
    assert parity.relative_error(mine, ARRAYS[name]) <= CASE["tolerance"][name]


@pytest.mark.parametrize("index, quality", list(enumerate(CONFIG["qualities"])))
def test_encoder(index, quality):
    assert psnr(apply_jpeg(IMAGE, quality), IMAGE) == pytest.approx(ARRAYS["psnr"][index], rel=CASE["tolerance"]["psnr"])


def test_encoder_takes_any_number_and_any_type():
    exact = apply_jpeg(IMAGE, 60)
    assert exact.dtype == np.uint8 and exact.shape == IMAGE.shape
    assert np.array_equal(apply_jpeg(IMAGE, 60.9), exact) and np.array_equal(apply_jpeg(IMAGE, np.float64(60.0)), exact)
    levels = IMAGE.astype(np.float32) + np.float32(0.4)
    before = levels.copy()
    assert np.array_equal(apply_jpeg(levels, 60), exact) and apply_jpeg(levels, 60).dtype == np.float32
    assert np.array_equal(levels, before)
    far = apply_jpeg(np.full((16, 16, 3), [-300.0, 600.0, 100.0], np.float32), 100)
    assert np.abs(far - [0, 255, 100]).max() < 3  # clipped, not wrapped; and red stays red
    assert apply_jpeg(IMAGE[:7, :9], 30).shape == (7, 9, 3)


def test_encoder_halves_the_colours():
    stripes = np.full((32, 32, 3), 128, np.uint8)
    stripes[:, ::2, 0] = 168  # a red-difference of 0 and 28
    red = cv2.cvtColor(apply_jpeg(stripes, 100), cv2.COLOR_RGB2YCrCb)[..., 1]
    assert np.ptp(red.astype(int)) < 4


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("quality", CONFIG["diff_qualities"])
def test_differentiable(quality, smooth):
    check(DiffJPEG(smooth, legacy=True)(TENSOR, quality)[0], f"diffjpeg.{'soft' if smooth else 'hard'}.{quality}")


def test_a_quality_for_each_picture():
    batch = torch.cat([TENSOR, TENSOR.flip(3)])
    qualities = torch.tensor(CONFIG["batch_qualities"])
    check(DiffJPEG(smooth=False, legacy=True)(batch, qualities), "diffjpeg.batch")
    out = DiffJPEG(smooth=False)(batch, qualities)
    assert torch.allclose(out[1:], DiffJPEG(smooth=False)(batch[1:], float(qualities[1])), atol=1e-5)


def test_gradient():
    image = TENSOR.clone().requires_grad_()
    out = DiffJPEG(legacy=True)(image, CONFIG["diff_qualities"][1])
    (out * parity.draw(out.shape, CONFIG["seed"], "g")).sum().backward()
    check(image.grad, "grad.diffjpeg")


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 95])
def test_close_to_the_encoder(quality):
    image = waves(2, 64, 96, noise=20.0)[..., [0, 0, 0]]  # gray: how colours are enlarged is the decoder's choice
    tensor = torch.from_numpy(image.transpose(2, 0, 1) / np.float32(255))[None]
    encoded = apply_jpeg(image, quality)
    mine, legacy = (
        DiffJPEG(smooth=False, legacy=legacy)(tensor, quality)[0].permute(1, 2, 0).numpy() * 255 for legacy in (False, True)
    )
    assert psnr(mine, encoded) > max(44, psnr(legacy, encoded) + 10)  # the integer DCT rounds a few coefficients otherwise


def test_best_quality_is_no_division_by_zero():
    gray = TENSOR[:, :1].expand(1, 3, 40, 56)
    assert (DiffJPEG()(gray, 100.0) - gray).abs().max() < 2 / 255


def test_no_state_and_float32_under_autocast():
    jpeg = DiffJPEG()
    assert not jpeg.state_dict() and not list(jpeg.parameters())
    expected = jpeg(TENSOR, 50)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(jpeg(TENSOR, 50), expected)
    assert torch.equal(jpeg(TENSOR.half(), 50), jpeg(TENSOR.half().float(), 50))


def test_draws():
    drawn = [sample_jpeg_quality(np.random.default_rng(seed), (30, 80)) for seed in range(500)]
    assert min(drawn) == 30 and max(drawn) == 79
    assert drawn[3] == sample_jpeg_quality(np.random.default_rng(3), (30, 80))
