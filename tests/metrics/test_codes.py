"""Figures of codes: how many are right, and how much of the codebook is in use."""

from __future__ import annotations

import math

import pytest
import torch

from facerestore.errors import DataError
from facerestore.metrics import build_metric
from facerestore.metrics.base import Codes

TRUE = Codes(torch.tensor([[0, 1, 2, 3], [0, 0, 0, 0]]), 8)


def test_accuracy_is_the_share_of_positions_that_are_right():
    found = Codes(torch.tensor([[0, 1, 2, 0], [1, 0, 1, 1]]), 8)
    accuracy = build_metric({"type": "calculate_code_accuracy"})
    assert accuracy(found, TRUE).tolist() == [0.75, 0.25]
    assert accuracy(found.of(1), TRUE.of(1)).tolist() == [0.25]


@pytest.mark.parametrize("other", [Codes(TRUE.indices, 16), Codes(TRUE.indices[:, :2], 8)], ids=["codebook", "positions"])
def test_codes_of_another_codebook_are_refused(other):
    words = f"{other.indices.shape[1]} codes of {other.size} cannot be compared with 4 codes of 8 of the truth"
    with pytest.raises(DataError, match=words):
        build_metric({"type": "calculate_code_accuracy"})(other, TRUE)


def test_usage_is_that_of_all_pictures_together():
    share, even = (build_metric({"type": "calculate_codebook_usage", "unit": unit}) for unit in ("share", "perplexity"))

    def usage(metric, *batches: Codes) -> float:
        whole = metric.statistics()
        for batch in batches:
            part = metric.statistics()
            part.add(metric.features(batch))
            whole.merge(part)
        whole.merge(metric.statistics())  # of a process that has seen nothing
        return metric.compute(whole, None)

    assert usage(share, TRUE.of(0)) == usage(share, TRUE.of(0), TRUE.of(1)) == usage(share, TRUE) == 4 / 8
    assert usage(share, TRUE.of(1)) == 1 / 8
    assert usage(even, TRUE.of(0)) == pytest.approx(4) and usage(even, TRUE.of(1)) == pytest.approx(1)
    assert usage(even, TRUE) == usage(even, TRUE.of(0), TRUE.of(1)) and 1 < usage(even, TRUE) < 4
    assert math.isnan(usage(share))
