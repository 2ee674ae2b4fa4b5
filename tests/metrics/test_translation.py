"""Whether translations take their domain and keep their layout."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from facerestore.metrics import build_metric
from facerestore.metrics.translation import calculate_difference


def pictures(count: int, domain: int, side: int = 64) -> Tensor:
    """Red discs (0) and blue ones (1) at places of their own."""
    rng = torch.Generator().manual_seed(10 * domain + count)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    top, left = torch.randint(side // 4, 3 * side // 4, (2, count, 1, 1), generator=rng)
    disc = ((rows - top).square() + (columns - left).square() < (side / 6) ** 2).float()
    found = torch.full((count, 3, side, side), 0.4) + 0.1 * torch.rand((count, 3, side, side), generator=rng)
    found[:, 2 * domain] += 0.4 * disc
    return found


@pytest.fixture(scope="module")
def agreement():
    metric = build_metric({"type": "calculate_domain_agreement", "batches": 30})
    held_out = metric.learn([pictures(24, 0), pictures(20, 1)], [pictures(9, 0), pictures(9, 1)])
    assert held_out == 1
    return metric


def test_agreement_is_the_share_that_is_taken_for_the_target(agreement):
    made = torch.cat([pictures(3, 1, 48), pictures(1, 0, 48)])  # of any size
    found = agreement(made, made, 1)
    assert found.tolist() == [1, 1, 1, 0] and found.dtype == torch.float64
    assert agreement(made, made, 0).tolist() == [0, 0, 0, 1]


def test_the_same_pictures_are_learnt_once(agreement):
    classifier = agreement.classifier
    real = [pictures(24, 0), pictures(20, 1)]
    assert math.isnan(agreement.learn(real, [x[:0] for x in real])) and agreement.classifier is classifier
    assert not any(p.requires_grad for p in classifier.parameters()) and not classifier.training


def test_learning_is_repeated_to_the_bit_and_leaves_chance_alone():
    real = [pictures(6, 0), pictures(6, 1)]
    one, other = (build_metric({"type": "calculate_domain_agreement", "batches": 2}) for _ in range(2))
    before = torch.get_rng_state()
    with torch.no_grad():
        one.learn(real, real)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    other.learn(real, real)
    for a, b in zip(one.classifier.state_dict().values(), other.classifier.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_layout_is_that_of_the_edges():
    layout = build_metric({"type": "calculate_layout"})
    source = pictures(8, 0)
    recoloured = source.flip(1)
    assert (layout(source, source, 1) - 1).abs().max() < 1e-5
    unlike = layout.learn([source, source], [source, pictures(8, 1)])
    assert layout(recoloured, source, 1).min() > 0.6 > 0.4 > unlike
    assert math.isnan(layout.learn([source, source], [source, source[:0]]))
    assert layout(torch.zeros_like(source), source, 1).isnan().all()  # without an edge there is nothing to compare


def test_difference_is_in_levels():
    one, other = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.2)
    assert calculate_difference(one, other).tolist() == pytest.approx([51, 51])
