"""FAN's masks and landmarks, held to the published figures and mended where these are wrong; its stages."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from facerestore.archs import build_network
from facerestore.archs.layers.face_masks import face_masks, landmarks_of, shifted, stretched, truncated
from facerestore.archs.outputs import Network
from tests import parity

CASE, STORED = parity.load("data_stargan2_masks")


def check(key: str, mine: Tensor) -> None:
    error = parity.relative_error(mine, STORED[key])
    assert error <= CASE["tolerance"][key], f"{key} is off by {error:.1e}"


def published_heatmaps() -> Tensor:
    """The case's 98 blobs."""
    config = CASE["config"]
    seed, size, shape = config["seed"], config["size"], (config["batch"], 98)

    def drawn(name: str, low: float, high: float) -> np.ndarray:
        return parity.draw(shape, seed, name, low, high).double().numpy()[..., None, None]

    sigma = drawn("sigma", *(size * s for s in config["sigma"]))
    y, x = np.mgrid[:size, :size]
    distance = (x - drawn("cx", 0, size)) ** 2 + (y - drawn("cy", 0, size)) ** 2
    blobs = drawn("amplitude", *config["amplitude"]) * np.exp(-distance / (2 * sigma**2))
    blobs[:, config["empty"]] = 0
    return torch.from_numpy(blobs.astype(np.float32))


@pytest.fixture(scope="module")
def heatmaps() -> Tensor:
    return published_heatmaps()


def test_masks_are_the_published_ones(heatmaps):
    check("normalized", stretched(truncated(heatmaps)))
    for key, mask in zip(("mask0", "mask1"), face_masks(heatmaps), strict=True):
        assert mask.shape == (2, 1, 256, 256)
        check(key, mask)


@pytest.mark.parametrize("group", CASE["config"]["groups"])
def test_masks_of_each_part_are_the_published_ones(heatmaps, group):
    start, stop = CASE["config"]["groups"][group]
    alone = torch.zeros_like(heatmaps)
    alone[:, start:stop] = heatmaps[:, start:stop]
    for i, mask in enumerate(face_masks(alone)):
        check(f"group.{group}.{i}", mask)


def test_the_steps_are_the_published_ones():
    t = parity.draw([2, 3, 12, 5], CASE["config"]["seed"], "t", -0.5, 1)
    check("truncate", truncated(t))
    check("normalize", stretched(t))
    for up in CASE["config"]["shifts"]:
        check(f"shift.{up}", shifted(t, up))


def test_points_are_the_published_ones():
    maps = parity.draw([2, 6, 64, 64], CASE["config"]["seed"], "lm")
    for channel, (y, x) in enumerate(((0, 17), (63, 5), (30, 63), (62, 1))):
        maps[0, channel, y, x] = 9
    check("landmarks", landmarks_of(maps))


def test_points_of_heatmaps_that_are_not_square():
    maps = torch.zeros(1, 2, 4, 9)
    maps[0, 0, 2, 7], maps[0, 0, 2, 6], maps[0, 0, 1, 7] = 2, 1, 1
    maps[0, 1, 3, 8] = 1
    assert landmarks_of(maps).tolist() == [[[7.25, 2.25], [8.5, 3.5]]]


def test_masks_grow_with_the_picture(heatmaps):
    """All that is shifted, the eyes too."""
    large = heatmaps[:1].repeat_interleave(2, 2).repeat_interleave(2, 3)
    for mask, expected in zip(face_masks(large), face_masks(heatmaps[:1]), strict=True):
        assert torch.allclose(mask[:, :, ::2, ::2], expected, atol=1e-6)


def test_a_heatmap_that_is_no_number_counts_as_nothing(heatmaps):
    broken, without = heatmaps[:1].clone(), heatmaps[:1].clone()
    broken[:, 70] = float("nan")
    without[:, 70] = 0
    for mask, expected in zip(face_masks(broken), face_masks(without), strict=True):
        assert torch.equal(mask, expected) and mask.any()


def fan(**changes) -> Network:
    keywords = {"num_features": 16, "num_landmarks": 98} | changes
    return parity.fill_(build_network({"type": "FAN", **keywords}), seed=5).eval()


@pytest.mark.parametrize("size", [(100, 60), (40, 40), (300, 128)])
def test_landmarks_are_in_pixels_of_any_picture(size):
    network, x = fan(num_landmarks=7), parity.draw((2, 3, *size), 1, low=-1, high=1)
    points = network.get_landmark(x)
    on_heatmaps = landmarks_of(network.get_heatmap(x, b_preprocess=False))
    assert points.shape == (2, 7, 2)
    assert torch.allclose(points, on_heatmaps * torch.tensor([size[1] / 64, size[0] / 64]))
    assert points.any() and (points <= torch.tensor([size[1], size[0]])).all()


def test_masks_are_no_part_of_the_graph():
    x = parity.draw((1, 3, 80, 96), 1, low=-1, high=1).requires_grad_()
    masks = fan().get_heatmap(x)
    assert [(m.shape, m.requires_grad) for m in masks] == [((1, 1, 256, 256), False)] * 2
    assert all(m.min() >= 0 and m.max() <= 1 for m in masks)


def test_a_later_stage_is_told_where_the_outlines_are():
    network, x = fan(num_modules=3), parity.draw((1, 3, 64, 128), 1, low=0, high=1)
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 16), torch.linspace(-1, 1, 32), indexing="ij")
    for stage, last in enumerate((network.l0, network.l1)):
        with torch.no_grad():  # so that half of the picture is outline
            last.bias[-1] -= network(x).heatmaps[stage][:, -1].median() - 0.05
        output = network(x)
        assert [h.shape for h in output.heatmaps] == [(1, 99, 16, 32)] * 3
        outlines = output.heatmaps[stage][:, -1] > 0.05
        assert outlines.any() and not outlines.all()
        expected = torch.stack([rows * outlines, columns * outlines], dim=1)
        assert torch.allclose(output.boundary_channels[stage + 1], expected)


def test_heatmaps_may_be_cut_off_at_zero():
    x = parity.draw((1, 3, 64, 64), 1, low=0, high=1)
    plain, cut = (fan(end_relu=end_relu)(x).heatmaps[0] for end_relu in (False, True))
    assert (plain < 0).any() and torch.equal(cut, plain.clamp(min=0))


def test_the_first_stages_of_a_published_file(tmp_path):
    published = fan(num_modules=2)
    state = {f"module.{k}": v for k, v in published.state_dict().items()}
    torch.save({"epoch": 60, "state_dict": state}, tmp_path / "wing.ckpt")
    keywords = {"num_features": 16, "fname_pretrained": str(tmp_path / "wing.ckpt")}
    network = build_network({"type": "FAN", **keywords}).eval()
    x = parity.draw((1, 3, 64, 64), 1, low=0, high=1)
    assert torch.equal(network(x).heatmaps[0], published(x).heatmaps[0])
