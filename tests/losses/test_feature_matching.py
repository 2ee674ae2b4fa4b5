"""Feature matching against its equation."""

from __future__ import annotations

import pytest
import torch

from facerestore.losses import FeatureMatchingLoss


def features() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    shapes = (2, 4, 8, 8), (2, 8, 4, 4)
    return tuple([torch.randn(shape, requires_grad=True) for shape in shapes] for _ in range(2))


@pytest.mark.parametrize(("criterion", "power"), [("l1", 1), ("l2", 2)])
def test_equation_4(criterion, power):
    fake, real = features()
    loss = FeatureMatchingLoss(10, criterion)(fake, real)
    expected = 10 * sum(((f - r).abs() ** power).sum() / f.numel() for f, r in zip(fake, real, strict=True))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_real_features_are_a_constant():
    fake, real = features()
    FeatureMatchingLoss()(fake, real).backward()
    assert all(f.grad.any() for f in fake) and all(r.grad is None for r in real)


def test_scales_are_averaged():
    (fake, real), (fake2, real2) = features(), features()
    loss = FeatureMatchingLoss()
    expected = (loss(fake, real) + loss(fake2, real2)) / 2
    assert loss([fake, fake2], [real, real2]).item() == pytest.approx(expected.item(), rel=1e-6)


def test_layers_must_correspond():
    fake, real = features()
    with pytest.raises(ValueError, match="zip"):
        FeatureMatchingLoss()(fake, real[:1])
