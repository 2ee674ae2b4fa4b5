"""Crops and poses."""

from __future__ import annotations

import numpy as np
import pytest

from facerestore.data.augment import (
    Crop,
    Flips,
    apply_crop,
    apply_flips,
    crop_to_multiple,
    sample_crop,
    sample_flips,
)

IMAGE = np.arange(6 * 4 * 3).reshape(6, 4, 3)
ALL = [Flips(h, v, t) for h in (False, True) for v in (False, True) for t in (False, True)]


def test_crops_reach_every_place_and_no_other():
    rng = np.random.default_rng(0)
    crops = {sample_crop(rng, 6, 4, 3) for _ in range(200)}
    assert crops == {Crop(top, left, 3, 3) for top in range(4) for left in range(2)}
    assert sample_crop(rng, 6, 6, 6) == Crop(0, 0, 6, 6)


def test_a_crop_of_the_large_picture_is_the_same_part():
    large = IMAGE.repeat(4, 0).repeat(4, 1)
    crop = Crop(1, 2, 3, 2)
    assert np.array_equal(apply_crop(large, crop.times(4))[::4, ::4], apply_crop(IMAGE, crop))


@pytest.mark.parametrize("scale, shape", [(1, (6, 4)), (4, (4, 4)), (5, (5, 0))])
def test_crop_to_multiple(scale, shape):
    assert crop_to_multiple(IMAGE, scale).shape[:2] == shape


def test_the_eight_poses_differ_and_are_pure():
    before = IMAGE.copy()
    poses = {apply_flips(IMAGE, flips).tobytes() for flips in ALL}
    assert len(poses) == 8 and np.array_equal(IMAGE, before)


def test_what_each_flip_does():
    assert np.array_equal(apply_flips(IMAGE, Flips(horizontal=True)), np.fliplr(IMAGE))
    assert np.array_equal(apply_flips(IMAGE, Flips(vertical=True)), np.flipud(IMAGE))
    assert np.array_equal(apply_flips(IMAGE, Flips(True, False, True)), np.rot90(IMAGE))  # counter-clockwise


@pytest.mark.parametrize("use_hflip, use_rot, count", [(False, False, 1), (True, False, 2), (False, True, 4), (True, True, 8)])
def test_what_is_allowed_is_drawn_evenly(use_hflip, use_rot, count):
    rng = np.random.default_rng(0)
    draws = [sample_flips(rng, use_hflip, use_rot) for _ in range(800)]
    assert len(set(draws)) == count
    assert min(draws.count(flips) for flips in set(draws)) > 0.7 * 800 / count
    assert rng.random() == np.random.default_rng(0).random(2401)[-1]  # three numbers each, whatever is allowed
