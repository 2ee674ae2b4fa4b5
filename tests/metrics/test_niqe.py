"""NIQE against BasicSR's figures."""

from __future__ import annotations

import math
import zlib

import pytest
import torch

from facerestore.errors import DataError
from facerestore.metrics import build_metric, calculate_niqe
from facerestore.metrics.niqe import distance_to_pristine, fit
from tests import parity
from tests.data.pictures import waves

CASE, STORED = parity.load("metric_niqe")
IMAGES = CASE["config"]["images"]
OPTIONS = [(i, crop, colours) for i in range(len(IMAGES)) for crop in (0, 4) for colours in ("y", "gray")]


def picture(i: int) -> torch.Tensor:
    """Picture `i` of the case, which is BGR, as RGB in [0, 1]."""
    bgr = waves(**IMAGES[i])
    assert zlib.crc32(bgr.tobytes()) == CASE["config"]["crc"][str(i)]
    return torch.from_numpy(bgr[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize(("i", "crop", "colours"), OPTIONS)
def test_parity(i, crop, colours):
    values = build_metric({"type": "calculate_niqe", "crop_border": crop, "convert_to": colours})(picture(i))
    key = f"niqe.{i}.crop{crop}.{colours}"
    assert values.dtype == torch.float64 and values.shape == (1,)
    assert parity.relative_error(values.numpy(), STORED[key]) <= CASE["tolerance"][key]


@pytest.mark.parametrize("i", range(len(IMAGES)))
def test_parity_of_one_channel(i):
    plane = torch.from_numpy(waves(**IMAGES[i])[..., 1].copy()).double()
    assert (
        parity.relative_error(distance_to_pristine(plane).numpy(), STORED[f"niqe.{i}.hw"]) <= CASE["tolerance"][f"niqe.{i}.hw"]
    )


def test_every_picture_has_its_own_figure():
    both = torch.cat([picture(i)[..., :200, :224] for i in range(2)])
    assert calculate_niqe(both).tolist() == [float(calculate_niqe(one[None])) for one in both]


def test_noise_and_blur_are_worse():
    """Of a picture whose spectrum falls as 1 / f, as photographs' do."""
    torch.manual_seed(0)
    frequency = torch.fft.fftfreq(288)[:, None].hypot(torch.fft.fftfreq(288)).clamp(min=1 / 288)
    plane = torch.fft.ifft2(torch.fft.fft2(torch.randn(288, 288)) / frequency).real
    image = (0.5 + 0.15 * plane / plane.std()).clamp(0, 1).expand(1, 3, -1, -1)
    noisy = (image + 0.2 * torch.randn(288, 288)).clamp(0, 1)
    blurred = torch.nn.functional.avg_pool2d(image, 7, 1, 3)
    best, *worse = (float(calculate_niqe(x)) for x in (image, noisy, blurred))
    assert all(figure > 1.2 * best for figure in worse)


@pytest.mark.parametrize("exponent", [1, 2])
def test_the_fit_finds_what_samples_were_drawn_from(exponent):
    """Laplace's distribution has exponent 1 and Gauss's 2; here the left side is twice as wide."""
    torch.manual_seed(0)
    sizes = torch.distributions.Gamma(1 / exponent, 1.0).sample((200_000,)).double() ** (1 / exponent)
    left = torch.rand(sizes.shape) < 2 / 3  # in an asymmetric one, each side has a share as wide as it is
    alpha, beta_left, beta_right = fit(torch.where(left, -2 * sizes, sizes))
    assert float(alpha) == pytest.approx(exponent, rel=0.03)
    assert float(beta_left) == pytest.approx(2, rel=0.03) and float(beta_right) == pytest.approx(1, rel=0.03)


def test_a_picture_without_structure_has_no_figure():
    flat = torch.full((1, 3, 192, 192), 0.5)
    assert math.isnan(calculate_niqe(flat))
    half = torch.cat((flat, picture(1)[..., :192, :192]), dim=-1)
    assert math.isfinite(calculate_niqe(half)), "its flat blocks are left out"


@pytest.mark.parametrize(("height", "width", "crop"), [(96, 191, 0), (95, 400, 0), (200, 103, 4)])
def test_pictures_of_less_than_two_blocks_are_refused(height, width, crop):
    with pytest.raises(DataError, match=f"{width} x {height} is too small for NIQE with crop_border {crop}"):
        calculate_niqe(torch.rand(1, 3, height, width), crop_border=crop)
