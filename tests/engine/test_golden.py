"""Every debug option file goes the way it went: the loss curve of its first iterations, from options to terms."""

from __future__ import annotations

import json

import pytest

from tests.engine.golden import FILE, curves
from tests.engine.runs import TRAININGS

GOLDEN = json.loads(FILE.read_text())


@pytest.mark.parametrize("options", TRAININGS, ids=lambda p: p.stem)
def test_loss_curves(options):
    found, golden = curves(options), GOLDEN[options.stem]
    assert found.keys() == golden.keys()
    # Only what is minimised: a relativistic loss does not change when all logits move together, so rounding moves their mean.
    for name, values in ((n, v) for n, v in golden.items() if n.startswith("l_")):
        assert found[name] == pytest.approx(values, rel=1e-3, abs=1e-6), name
