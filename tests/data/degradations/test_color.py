"""Colour changes, against torchvision's and against what they are for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as F

from facerestore.data.degradations.color import (
    ADJUST,
    ADJUSTMENTS,
    Color,
    apply_color,
    sample_adjustments,
    sample_shift,
    to_gray,
)
from tests.data.pictures import waves

PICTURE = waves(seed=5, h=37, w=51, noise=40.0).astype(np.float32)  # odd sides: vectorised loops have rests
PICTURE[:6], PICTURE[6:12], PICTURE[12:18, :, 0] = 0, 255, 255
FACTORS = {
    "brightness": (0.5, 1.5),
    "contrast": (0.5, 1.5, 0.0),
    "saturation": (0.0, 0.4, 1.5),
    "hue": (-0.1, 0.1, 0.37, -0.5, 0.5, 0.0),
}


@pytest.mark.parametrize(("name", "factor"), [(name, f) for name in ADJUSTMENTS for f in FACTORS[name]])
def test_adjustments_are_torchvisions(name, factor):
    before = PICTURE.copy()
    mine = ADJUST[name](PICTURE, factor)
    tensor = torch.from_numpy(PICTURE / 255).permute(2, 0, 1)
    published = getattr(F, f"adjust_{name}")(tensor, factor).permute(1, 2, 0).numpy() * 255
    assert np.abs(mine - published).max() < 1e-2
    assert np.array_equal(PICTURE, before)


def test_steps_are_taken_in_their_order():
    color = Color(shift=(5.0, -7.0, 9.0), adjustments=(("hue", 0.1), ("brightness", 1.4)))
    expected = (PICTURE + np.float32([5, -7, 9])).clip(0, 255)
    expected = ADJUST["brightness"](ADJUST["hue"](expected, 0.1), 1.4)
    assert np.array_equal(apply_color(PICTURE, color), expected)
    assert np.array_equal(apply_color(PICTURE, Color()), PICTURE)


def test_gray_is_the_luma():
    gray = apply_color(PICTURE, Color(gray=True))
    assert np.allclose(gray, (PICTURE @ np.float32([0.299, 0.587, 0.114]))[..., None], atol=1e-3)
    adjusted = apply_color(PICTURE, Color(gray=True, adjustments=(("saturation", 0.3), ("hue", 0.07), ("contrast", 1.2))))
    assert (np.ptp(adjusted, axis=2) == 0).all()
    levels = to_gray(PICTURE.astype(np.uint8))
    assert levels.dtype == np.uint8 and np.abs(levels - gray).max() <= 1


def test_draws():
    rng = np.random.default_rng(0)
    shifts = np.array([sample_shift(rng, 20) for _ in range(400)])
    assert np.abs(shifts).max() <= 20 and np.abs(shifts.mean()) < 2 and shifts.std() > 10
    ranges = {"brightness": (0.5, 1.5), "contrast": None, "saturation": (0.0, 1.5), "hue": (-0.1, 0.1)}
    drawn = [sample_adjustments(rng, ranges) for _ in range(300)]
    assert {len(d) for d in drawn} == {3}
    assert len({tuple(name for name, _ in d) for d in drawn}) == 6  # every order
    hues = [dict(d)["hue"] for d in drawn]
    assert -0.1 <= min(hues) < -0.09 and 0.09 < max(hues) <= 0.1
