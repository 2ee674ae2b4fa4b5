"""Drawn faces: the same everywhere, at every size, and labelled where they are drawn."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from functools import cache

import cv2
import numpy as np
import pytest

from facerestore.data.synthetic import DOMAINS, REGIONS, Face, render_face
from facerestore.data.synthetic.face import MIRRORED
from facerestore.data.synthetic.identity import STYLES, draw_person
from facerestore.data.synthetic.picture import draw_picture

face = cache(render_face)
SOME = [(0, 1), (0, 12), (0, 15), (3, 4)]  # (seed, index): a beard, a goatee, glasses and an open smile, another world


def gray(f: Face) -> np.ndarray:
    return f.image.astype(float).mean(-1)


def test_a_face_is_a_function_of_its_numbers():
    again = render_face(0, 5, 96)
    assert np.array_equal(again.image, face(0, 5, 96).image)
    assert np.array_equal(again.landmarks68, face(0, 5, 96).landmarks68) and again.attributes == face(0, 5, 96).attributes
    assert not np.array_equal(again.image, face(0, 6, 96).image)
    assert not np.array_equal(again.image, face(1, 5, 96).image)


def test_another_process_draws_the_same():
    code = (
        "import hashlib; from facerestore.data.synthetic import render_face;"
        "print(hashlib.sha256(render_face(0, 5, 96).image.tobytes()).hexdigest())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert told == hashlib.sha256(face(0, 5, 96).image.tobytes()).hexdigest()


@pytest.mark.parametrize(("seed", "index"), SOME)
def test_sizes_sample_one_scene(seed, index):
    large, small = face(seed, index, 256), face(seed, index, 128)
    shrunk = cv2.resize(large.image, (128, 128), interpolation=cv2.INTER_AREA).astype(float)
    other = face(seed, index + 1, 128).image.astype(float)
    difference = np.abs(shrunk - small.image).mean()
    assert difference < 8 and difference < 0.3 * np.abs(shrunk - other).mean()
    assert np.abs((large.landmarks68 + 0.5) / 2 - (small.landmarks68 + 0.5)).max() < 1.0
    assert large.attributes == small.attributes and large.domain == small.domain
    assert (cv2.resize(large.regions, (128, 128), interpolation=cv2.INTER_NEAREST) == small.regions).mean() > 0.9


def test_the_framing_is_that_of_ffhq():
    """Means of aligned CelebA-HQ faces at 512: eyes (192, 243) and (320, 243), mouth (256, 376)."""
    points = np.mean([face(0, i, 64).points5 for i in range(16)], 0) * 8
    assert np.abs(points[:2] - [[192, 243], [320, 243]]).max() < 14
    assert np.abs(points[3:].mean(0) - [256, 376]).max() < 18


@pytest.mark.parametrize(("seed", "index"), SOME)
def test_labels_lie_on_what_is_drawn(seed, index):
    f = face(seed, index, 256)
    bright, masks = gray(f), f.masks
    for side, name in enumerate(("left_eye", "right_eye")):
        x, y = f.points5[side]
        eye = masks[name] > 0
        ys, xs = np.nonzero(eye)
        assert abs(xs.mean() - x) < 8 and abs(ys.mean() - y) < 6
        pupil = np.median(bright[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3])
        assert pupil < np.percentile(bright[eye], 60)  # iris and pupil are darker than the white
        outline = f.landmarks68[36 + 6 * side : 42 + 6 * side]
        filled = np.zeros_like(f.regions)
        cv2.fillPoly(filled, [np.round(outline).astype(np.int32)], 1)
        assert (eye & (filled > 0)).sum() > 0.75 * eye.sum()
    mouth = (masks["mouth"] + masks["upper_lip"] + masks["lower_lip"]) > 0
    ys, xs = np.nonzero(mouth)
    assert np.hypot(*(f.landmarks68[48:60].mean(0) - [xs.mean(), ys.mean()])) < 9
    assert f.points5[3, 0] == pytest.approx(xs.min(), abs=9) and f.points5[4, 0] == pytest.approx(xs.max(), abs=9)
    x, y = np.round(f.points5[2]).astype(int)
    assert REGIONS[f.regions[y, x]] == "nose"


@pytest.mark.parametrize(("seed", "index"), SOME)
def test_landmarks_are_in_order_and_boxes_hold_them(seed, index):
    f = face(seed, index, 256)
    jaw, left, right = f.landmarks68[:17], f.landmarks68[36:42], f.landmarks68[42:48]
    assert (np.diff(jaw[3:14, 0]) > 0).all() and jaw[8, 1] == pytest.approx(jaw[:, 1].max(), abs=6)
    assert left[:, 0].max() < f.landmarks68[27, 0] < right[:, 0].min()
    assert (np.diff(f.landmarks68[27:31, 1]) > 0).all() and (np.diff(f.landmarks68[31:36, 0]) > 0).all()
    assert (f.landmarks68 > -13).all() and (f.landmarks68 < 269).all()
    for part, points in (("left_eye", left), ("right_eye", right), ("mouth", f.landmarks68[48:])):
        x1, y1, x2, y2 = f.boxes[part]
        assert x2 - x1 == pytest.approx(y2 - y1) and x2 - x1 >= 256 / 16
        assert (points > [x1, y1]).all() and (points < [x2, y2]).all()


def test_masks_are_a_partition():
    for seed, index in SOME:
        masks = face(seed, index, 128).masks
        assert tuple(masks) == REGIONS
        stack = np.stack(list(masks.values()))
        assert set(np.unique(stack)) == {0, 255} and ((stack > 0).sum(0) == 1).all()
        for name in ("background", "skin", "hair", "left_eye", "right_eye", "nose", "neck", "cloth", "lower_lip"):
            assert masks[name].any(), name
    assert face(0, 15, 128).masks["glasses"].any() and face(0, 15, 128).masks["mouth"].any()
    assert not face(0, 12, 128).masks["glasses"].any()


def test_a_mirrored_face_is_labelled_as_it_is_seen():
    f = face(0, 1, 128)
    m = f.mirrored()
    assert np.array_equal(m.image, f.image[:, ::-1])
    assert np.array_equal(m.masks["left_eye"], f.masks["right_eye"][:, ::-1])
    assert np.array_equal(m.masks["hair"], f.masks["hair"][:, ::-1])
    assert np.array_equal(m.points5[0], [127 - f.points5[1, 0], f.points5[1, 1]])
    assert m.points5[0, 0] < m.points5[1, 0] and m.points5[3, 0] < m.points5[4, 0]
    assert sorted(MIRRORED) == list(range(68)) and np.array_equal(MIRRORED[MIRRORED], np.arange(68))
    for rows in (slice(3, 14), slice(17, 27), slice(31, 36)):
        assert (np.diff(m.landmarks68[rows, 0]) > 0).all()
    assert m.boxes["left_eye"] == pytest.approx((127 - f.boxes["right_eye"][2], f.boxes["right_eye"][1],
                                                 127 - f.boxes["right_eye"][0], f.boxes["right_eye"][3]))  # fmt: skip
    twice = m.mirrored()
    assert np.array_equal(twice.image, f.image) and np.allclose(twice.landmarks68, f.landmarks68, atol=1e-4)
    assert all(twice.boxes[k] == pytest.approx(f.boxes[k]) for k in f.boxes)


def test_pictures_of_one_person_differ_in_the_picture_alone():
    one, two = render_face(0, 7, 64, person=3), render_face(0, 8, 64, person=3)
    assert one.identity == two.identity == 3
    lasting = ("domain", "age", "style", "hair", "gray", "beard", "glasses", "iris", "melanin")
    assert [one.attributes[k] for k in lasting] == [two.attributes[k] for k in lasting]
    assert one.attributes["yaw"] != two.attributes["yaw"] and not np.array_equal(one.image, two.image)
    assert draw_person(0, 3) == draw_person(0, 3) != draw_person(0, 4)
    assert draw_picture(0, 7) == draw_picture(0, 7) != draw_picture(0, 8)


def test_domains_differ():
    people = [draw_person(0, i) for i in range(60)]
    by_domain = [[p for p in people if p.domain == d] for d in (0, 1)]
    assert min(map(len, by_domain)) > 15
    for d, group in enumerate(by_domain):
        assert {p.style for p in group} <= set(STYLES[DOMAINS[d]])
    women, men = by_domain
    assert all(p.beard == "none" for p in women) and sum(p.beard != "none" for p in men) > 5
    assert np.mean([p.jaw for p in men]) > np.mean([p.jaw for p in women]) + 0.08
    forced = draw_person(0, 0, domain=1 - people[0].domain)
    assert forced.domain != people[0].domain and forced.age == people[0].age


@pytest.mark.parametrize("style", sorted({s for styles in STYLES.values() for s in styles}))
def test_every_style_of_hair_is_drawn(style):
    """The first person who wears it."""
    index = next(i for i in range(400) if draw_person(0, i).style == style)
    f = render_face(0, index, 64)
    assert f.attributes["style"] == style
    hair = (f.masks["hair"] > 0).mean()
    assert hair < 0.02 if style == "bald" else hair > 0.04


def test_there_is_detail_to_restore():
    """Hair and skin hold fine structure that bicubic shrinking by four loses."""
    f = face(0, 14, 256)
    small = cv2.resize(f.image, (64, 64), interpolation=cv2.INTER_AREA)
    lost = np.abs(cv2.resize(small, (256, 256), interpolation=cv2.INTER_CUBIC).astype(float) - f.image).mean(-1)
    masks = f.masks
    assert lost[masks["hair"] > 0].mean() > 4 and lost[masks["left_eye"] > 0].mean() > 8
    far = cv2.erode(masks["background"], np.ones((25, 25)), borderValue=0) > 0
    assert far.any() and lost[masks["skin"] > 0].mean() > 2 * lost[far].mean()


def test_small_or_negative_numbers_are_refused():
    with pytest.raises(ValueError, match="smallest face"):
        render_face(0, 0, 31)
    with pytest.raises(ValueError, match="at least 0"):
        render_face(0, -1)
    assert render_face(0, 0, 32).image.shape == (32, 32, 3)
