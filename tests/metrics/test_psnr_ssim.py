"""PSNR and SSIM against BasicSR's figures."""

from __future__ import annotations

import pytest
import torch

from facerestore.errors import DataError
from facerestore.metrics import build_metric, calculate_psnr, calculate_psnr_pt, calculate_ssim
from facerestore.metrics.psnr_ssim import luma
from tests import parity

CASE, STORED = parity.load("metric_psnr_ssim")
PAIRS = range(len(CASE["config"]["pairs"]))
OPTIONS = [
    (f"crop{crop}.{'y' if y else 'rgb'}", {"crop_border": crop, "test_y_channel": y})
    for crop in CASE["config"]["crop_border"]
    for y in (False, True)
]


def pictures(which: str) -> torch.Tensor:
    """All pictures `a` or `b` of the case, as RGB in [0, 1]."""
    bgr = torch.stack([torch.from_numpy(STORED[f"image{i}.{which}"]) for i in PAIRS])
    return bgr.flip(-1).permute(0, 3, 1, 2).float() / 255


def agrees(mine: torch.Tensor, key: str) -> bool:
    mine, allowed = (
        mine.double().numpy(),
        CASE["tolerance"][key],
    )  # in full: relative_error would round a tensor to float32
    return parity.relative_error(mine, STORED[key]) <= allowed


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=[name for name, _ in OPTIONS])
@pytest.mark.parametrize("metric", ["psnr", "ssim"])
def test_parity(metric, name, options):
    values = build_metric({"type": f"calculate_{metric}", **options})(pictures("a"), pictures("b"))
    assert values.dtype == torch.float64 and values.shape == (len(PAIRS),)
    for i in PAIRS:
        assert agrees(values[i], f"{metric}.{i}.{name}")


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=[name for name, _ in OPTIONS])
@pytest.mark.parametrize("metric", ["psnr", "ssim"])
def test_parity_of_the_tensor_variants(metric, name, options):
    values = build_metric({"type": f"calculate_{metric}_pt", **options})(pictures("a"), pictures("b"))
    assert agrees(values, f"{metric}_pt.{name}")


def test_gray():
    blue = [pictures(which)[:, 2:] for which in "ab"]
    for i in PAIRS:
        assert agrees(calculate_psnr(*blue)[i], f"psnr.{i}.gray")
        assert agrees(calculate_ssim(*blue)[i], f"ssim.{i}.gray")


def test_identical_pictures():
    image = pictures("a")
    assert calculate_psnr(image, image).tolist() == [float("inf")] * 2
    assert agrees(calculate_psnr_pt(image, image), "psnr_pt.identical")
    assert calculate_ssim(image, image).tolist() == pytest.approx([1, 1], abs=1e-12)


def test_every_picture_has_its_own_figure():
    a, b = pictures("a"), pictures("b")
    for metric in (calculate_psnr, calculate_ssim):
        assert torch.allclose(metric(a, b)[1], metric(a[1:], b[1:])[0], rtol=1e-12)


def test_luma_of_black_and_white():
    black_and_white = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1).double()
    assert (255 * luma(black_and_white)).flatten().tolist() == pytest.approx([16, 235])


def test_what_cannot_be_compared_is_refused():
    image = torch.rand(1, 3, 16, 20)
    with pytest.raises(DataError, match="cannot be compared"):
        calculate_psnr(image, image[..., 1:])
    for metric in (calculate_psnr, calculate_psnr_pt, calculate_ssim):
        with pytest.raises(DataError, match="crop_border"):
            metric(image, image, crop_border=8)
    assert calculate_psnr(image, image, crop_border=7).isinf().all()
    with pytest.raises(DataError, match="less than 11"):
        calculate_ssim(image, image, crop_border=3)


def test_pictures_are_left_alone():
    a, b = pictures("a"), pictures("b")
    kept = a.clone(), b.clone()
    calculate_ssim(a, b, crop_border=4, test_y_channel=True)
    assert torch.equal(a, kept[0]) and torch.equal(b, kept[1])
