"""What every registered metric must do."""

from __future__ import annotations

import inspect

import pytest
import torch

from facerestore.metrics import build_metric
from facerestore.registry import METRICS, parameters_of


def test_there_are_metrics():
    assert {"calculate_psnr", "calculate_ssim", "calculate_psnr_pt", "calculate_ssim_pt"} <= set(METRICS.names())


@pytest.mark.parametrize("name", METRICS.names())
def test_every_keyword_is_explained(name):
    metric = METRICS.get(name)
    assert inspect.getdoc(metric)
    assert [p.name for p in inspect.signature(metric).parameters.values() if p.kind is not p.KEYWORD_ONLY] == [
        "image",
        "target",
    ]
    for parameter in parameters_of(metric):
        assert parameter.doc and not parameter.required, parameter.name


@pytest.mark.parametrize("name", METRICS.names())
def test_one_value_for_each_picture(name):
    generator = torch.Generator().manual_seed(0)
    image, target = torch.rand(2, 3, 3, 64, 48, generator=generator)
    values = build_metric({"type": name})(image, target)
    assert values.shape == (3,) and values.dtype == torch.float64 and values.isfinite().all()
    one_by_one = torch.cat([build_metric({"type": name})(image[i : i + 1], target[i : i + 1]) for i in range(3)])
    assert torch.allclose(values, one_by_one, rtol=1e-9)
