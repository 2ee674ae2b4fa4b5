"""Every network returns what the published code returned, with the published keys."""

from __future__ import annotations

import pytest

from tests.archs import parity_case

SLOW = {  # a minute and more: 512 x 512 pixels at the published width
    "codeformer",
    "codeformer_code_only",
    "codeformer_noadain",
    "codeformer_w0",
    "codeformer_w1",
}


def cases() -> list:
    return [pytest.param(n, marks=[pytest.mark.slow(100)] if n in SLOW else []) for n in parity_case.names(official=False)]


@pytest.mark.parametrize("name", cases())
def test_outputs_and_gradients(name):
    parity_case.check_figures(name)


@pytest.mark.parametrize("name", parity_case.names(official=False) + parity_case.names(official=True))
def test_keys_and_shapes(name):
    parity_case.check_state(name)
