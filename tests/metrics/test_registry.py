"""What every registered metric must do."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from facerestore.metrics import build_metric
from facerestore.metrics.base import Codes, Metric, PictureMetric, SetMetric, TranslationMetric, needs_truth, reads_codes
from facerestore.registry import METRICS, parameters_of, weight_files

PICTURE_METRICS = [
    name for name in METRICS.names() if not inspect.isclass(METRICS.get(name)) or issubclass(METRICS.get(name), PictureMetric)
]
TRANSLATION_METRICS = [
    name for name in METRICS.names() if inspect.isclass(METRICS.get(name)) and issubclass(METRICS.get(name), TranslationMetric)
]
SET_METRICS = [name for name in METRICS.names() if name not in PICTURE_METRICS + TRANSLATION_METRICS]
REQUIRED = {f"calculate_identity_{kind}": {"network": {"type": "TinyIdentity"}} for kind in ("distance", "similarity")}

pytestmark = pytest.mark.usefixtures("standins")


def build(name: str):
    """The metric with its defaults, its weights random."""
    torch.manual_seed(0)
    return build_metric({"type": name, **REQUIRED.get(name, {}), **dict.fromkeys(weight_files(METRICS.get(name)), "random")})


def pictures(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.rand(2, count, 3, 192, 96, generator=torch.Generator().manual_seed(0)))


def seen(metric, count: int) -> tuple:
    """What a metric looks at, and the truth: pictures or their codes."""
    if not reads_codes(metric):
        return pictures(count)
    indices = torch.randint(0, 16, (2, count, 9), generator=torch.Generator().manual_seed(0))
    return tuple(Codes(x, 16) for x in indices)


def single(whole: torch.Tensor | Codes, i: int) -> torch.Tensor | Codes:
    return whole.of(i) if isinstance(whole, Codes) else whole[i : i + 1]


def test_there_are_metrics():
    assert {"calculate_psnr", "calculate_ssim", "calculate_psnr_pt", "calculate_ssim_pt", "calculate_niqe",
            "calculate_lpips", "calculate_identity_distance", "calculate_dlib_identity_distance",
            "calculate_landmark_distance"} <= set(PICTURE_METRICS)  # fmt: skip
    assert {"calculate_fid", "calculate_kid"} <= set(SET_METRICS)
    assert {"calculate_domain_agreement", "calculate_layout"} <= set(TRANSLATION_METRICS)


@pytest.mark.parametrize("name", METRICS.names())
def test_every_keyword_is_explained(name):
    metric = METRICS.get(name)
    assert inspect.getdoc(metric)
    if not inspect.isclass(metric):
        positional = [p.name for p in inspect.signature(metric).parameters.values() if p.kind is not p.KEYWORD_ONLY]
        assert positional == ["image", "target"]
    for parameter in parameters_of(metric):
        assert parameter.doc, parameter.name


@pytest.mark.parametrize("name", PICTURE_METRICS)
def test_one_value_for_each_picture(name):
    metric = build(name)
    image, target = seen(metric, 3)
    values = metric(image, target)
    assert values.shape == (3,) and values.dtype == torch.float64 and values.isfinite().all()
    one_by_one = torch.cat([metric(single(image, i), single(target, i)) for i in range(3)])
    assert torch.allclose(values, one_by_one, rtol=1e-5 if isinstance(metric, nn.Module) else 1e-9)
    if not needs_truth(metric):
        assert torch.equal(metric(image, None), values)


@pytest.mark.slow
@pytest.mark.parametrize("name", SET_METRICS)
def test_one_value_for_a_set(name):
    metric = build(name)
    image, target = seen(metric, 3)
    restored, truth = metric.statistics(), metric.statistics()
    restored.add(metric.features(image))
    truth.add(metric.features(target))
    value = metric.compute(restored, truth)
    assert isinstance(value, float) and value == value


@pytest.mark.parametrize("name", [n for n in METRICS.names() if inspect.isclass(METRICS.get(n))])
def test_how_it_measures_is_told(name):
    metric = build(name)
    assert isinstance(metric, Metric) and isinstance(metric, (PictureMetric, SetMetric, TranslationMetric))
    assert metric.reads_codes or "colours" in metric.protocol()
    assert metric.protocol() and all(isinstance(v, (str, bool, int, float)) for v in metric.protocol().values())
