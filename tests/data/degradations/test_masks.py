"""Masks: the published distributions, and what is true of every mask."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from facerestore.data.degradations.masks import (
    BrushMask,
    BrushStroke,
    FreeFormMask,
    PolygonMask,
    Segment,
    apply_mask,
    make_mask,
    sample_brush_mask,
    sample_free_form_mask,
    sample_polygon_mask,
)
from tests import parity
from tests.data.degradations.distribution import check_distribution

SAMPLERS = [sample_brush_mask, sample_free_form_mask, sample_polygon_mask]
DRAWS = 200


def figures(mask: np.ndarray) -> dict[str, float]:
    """As the notes of the cases define them."""
    inside = mask > 0
    y, x = np.nonzero(inside)
    edges = np.concatenate([inside[0], inside[-1], inside[1:-1, 0], inside[1:-1, -1]])
    return {
        "coverage": inside.mean(),
        "components": cv2.connectedComponents(mask, connectivity=8)[0] - 1,
        "half_width": cv2.distanceTransform(mask, cv2.DIST_L2, 5).max(),
        "centre_y": y.mean() / mask.shape[0],
        "centre_x": x.mean() / mask.shape[1],
        "border": edges.mean(),
    }


@pytest.mark.parametrize("name, sample", [("brush", sample_brush_mask), ("free_form", sample_free_form_mask)])
def test_draws_have_the_published_distribution(name, sample):
    case, arrays = parity.load(f"data_mask_{name}")
    size, options = case["config"]["size"], case["config"].get("options", {})
    rng = np.random.default_rng(0)
    drawn = [figures(make_mask(sample(rng, size, size, **options))) for _ in range(DRAWS)]
    for figure in drawn[0]:
        check_distribution([values[figure] for values in drawn], arrays, figure, case["config"]["draws"])


@pytest.mark.parametrize("sample", SAMPLERS)
@pytest.mark.parametrize("height, width", [(200, 500), (500, 200)])
def test_any_shape(sample, height, width):
    masks = [sample(np.random.default_rng(seed), height, width) for seed in range(60)]
    drawn = np.stack([make_mask(mask) for mask in masks])
    assert drawn.dtype == np.uint8 and drawn.shape == (60, height, width) and set(np.unique(drawn)) == {0, 255}
    reached = drawn.any(0)  # height and width are not swapped: every part of the picture is reached
    assert all(part.mean() > 0.1 for rows in np.array_split(reached, 5) for part in np.array_split(rows, 5, axis=1))
    assert all(mask.any() for mask in drawn)


@pytest.mark.parametrize("sample", SAMPLERS)
def test_a_mask_is_of_its_generator_alone(sample):
    np.random.seed(0)
    first = [sample(np.random.default_rng(seed), 64, 96) for seed in range(5)]
    np.random.seed(1)
    assert first == [sample(np.random.default_rng(seed), 64, 96) for seed in range(5)]
    assert len(set(first)) == 5
    names = {"BrushMask": BrushMask, "BrushStroke": BrushStroke, "FreeFormMask": FreeFormMask, "Segment": Segment}
    assert eval(repr(first[0]), names | {"PolygonMask": PolygonMask}) == first[0]  # plain numbers
    assert np.array_equal(make_mask(first[0]), make_mask(first[0]))


def test_a_brush_stroke_is_a_line_with_discs():
    mask = make_mask(BrushMask(60, 100, (BrushStroke(((20, 30), (80, 30)), width=20),))) > 0
    y, x = np.mgrid[:60, :100]
    along = np.clip(x, 20, 80)
    distance = np.hypot(x - along, y - 30)
    assert mask[distance <= 9].all() and not mask[distance >= 12].any()
    corner = make_mask(BrushMask(60, 60, (BrushStroke(((0, 0), (60, 0)), width=31),)))
    assert corner[0].all() and not corner[17:].any()


def test_a_segment_has_its_width():
    segments = (Segment((10, 30), (90, 30), 21), Segment((50, -40), (50, 5), 4))
    mask = make_mask(FreeFormMask(60, 100, segments)) > 0
    assert mask[20:41, 50].all() and not mask[9:18, 50].any() and not mask[43:, 50].any()
    assert mask[0, 50] and not mask[0, 45]


def test_brush_options():
    mask = sample_brush_mask(np.random.default_rng(0), 64, 64, strokes=(2, 2), steps=(3, 3), brush_width=(5, 5))
    assert [(len(stroke.vertices), stroke.width) for stroke in mask.strokes] == [(4, 5), (4, 5)]
    drawn = [sample_brush_mask(np.random.default_rng(seed), 64, 64) for seed in range(300)]
    strokes = [stroke for mask in drawn for stroke in mask.strokes]
    assert {len(mask.strokes) for mask in drawn} == {1, 2, 3}
    assert {len(stroke.vertices) for stroke in strokes} == set(range(9, 29))
    assert {stroke.width for stroke in strokes} == set(range(30, 70))


def turns(polygon: tuple[tuple[int, int], ...]) -> np.ndarray:
    """The sine of the turn at each vertex, times the edges' lengths."""
    edges = np.diff(np.array([*polygon, *polygon[:2]], float), axis=0)
    return edges[:-1, 0] * edges[1:, 1] - edges[:-1, 1] * edges[1:, 0]


def test_polygons():
    rng = np.random.default_rng(0)
    options = {"polygons": (1, 1), "vertices": (5, 9), "radius_range": (0.2, 0.3)}
    convex = [sample_polygon_mask(rng, 2000, 3000, convex_prob=1.0, **options) for _ in range(40)]
    stars = [sample_polygon_mask(rng, 2000, 3000, convex_prob=0.0, **options) for _ in range(40)]
    assert all((turns(mask.polygons[0]) > -1500).all() for mask in convex)  # but for rounding
    assert np.mean([(turns(mask.polygons[0]) < -1500).any() for mask in stars]) > 0.5
    for mask in convex + stars:
        points = np.array(mask.polygons[0])
        assert 5 <= len(points) <= 9 and np.linalg.norm(np.ptp(points, axis=0)) <= 2 * 0.3 * 2000 * np.sqrt(2) + 2
    square = make_mask(PolygonMask(20, 30, (((5, 4), (25, 4), (25, 14), (5, 14)),)))
    assert (square[4:15, 5:26] == 255).all() and (square > 0).sum() == 11 * 21


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_masked_pixels_are_white_and_no_others_change(dtype):
    image = np.random.default_rng(0).integers(0, 200, (40, 50, 3)).astype(dtype)
    before, mask = image.copy(), make_mask(sample_polygon_mask(np.random.default_rng(1), 40, 50))
    painted = apply_mask(image, mask)
    assert painted.dtype == dtype and np.array_equal(image, before)
    assert (painted[mask > 0] == 255).all() and np.array_equal(painted[mask == 0], image[mask == 0])
