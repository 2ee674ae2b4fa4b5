"""Pictures restored in parts: the whole's pixels where the network is local, no seams where it is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facerestore import Restorer
from facerestore.archs import build_network
from facerestore.config import load_options
from facerestore.engine.builder import build_model
from facerestore.engine.evaluation import dataset_of, evaluate
from facerestore.engine.scores import Protocol
from facerestore.errors import OptionError
from facerestore.inference.tiles import Tiling, restore_in_tiles, tiling_of
from facerestore.metrics import calculate_psnr

SMALL = {"type": "MSRResNet", "num_feat": 8, "num_block": 1, "upscale": 2}  # looks five pixels far
CHANNELS = {"num_in_ch": 3, "num_out_ch": 3}


def in_tiles(network: nn.Module, picture: Tensor, tiling: Tiling) -> Tensor:
    with torch.no_grad():
        found = restore_in_tiles(
            lambda rows, columns: {"x": network(picture[..., rows, columns]).image}, *picture.shape[-2:], tiling
        )
    return found["x"]


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    network = build_network(SMALL).eval()
    for weights in (p for p in network.parameters() if p.dim() == 4):
        nn.init.kaiming_normal_(weights)  # so that distant pixels matter
    return network


@pytest.mark.parametrize(("height", "width"), [(150, 97), (65, 64), (64, 200), (131, 131)])
def test_tiles_of_a_local_network_make_the_whole(network, height, width):
    picture = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = network(picture).image
    difference = (in_tiles(network, picture, Tiling(64, 32)) - whole).abs().max()
    assert difference < 1e-5 * whole.std()
    short = (in_tiles(network, picture, Tiling(64, 8)) - whole).abs()  # a quarter of 8 is less than what it looks at
    assert short.max() > 1e-3 * whole.std(), "the overlap would not matter"


@pytest.mark.parametrize(("scale", "tiling"), [(1, Tiling(640, 320)), (2, Tiling(320, 160)), (4, Tiling(160, 80))])
def test_unshuffled_pixels_meet(scale, tiling):
    """RRDBNet makes squares of 4 / scale pixels one: cut elsewhere, they would be other squares."""
    torch.manual_seed(0)
    network = build_network(
        {"type": "RRDBNet", "num_feat": 4, "num_grow_ch": 4, "num_block": 1, "scale": scale} | CHANNELS
    ).eval()
    picture = torch.rand(1, 3, tiling.side, tiling.side + 36, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = network(picture).image
    tolerance = 1e-5 * float(whole.std())
    torch.testing.assert_close(in_tiles(network, picture, tiling), whole, rtol=0, atol=tolerance)


def test_a_picture_of_one_tile_is_restored_as_it_is(network):
    picture = torch.rand(1, 3, 64, 60)
    with torch.no_grad():
        assert torch.equal(in_tiles(network, picture, Tiling(64, 32)), network(picture).image)


def test_every_pixel_is_covered_and_tiles_are_alike():
    tiling = Tiling(64, 16)
    for height, width in ((64, 65), (113, 300), (20, 500)):
        seen = np.zeros((height, width), int)
        shapes = set()
        for rows, columns in tiling.windows(height, width):
            seen[rows, columns] += 1
            shapes.add(seen[rows, columns].shape)
        assert seen.min() >= 1 and shapes == {(min(64, height), min(64, width))}


def test_what_differs_from_tile_to_tile_is_blended():
    """A step of 1 between neighbours becomes a slope over half of the overlap."""
    values = iter((0.0, 1.0))
    found = restore_in_tiles(lambda rows, columns: {"x": torch.full((1, 1, 16, 64), next(values))}, 16, 96, Tiling(64, 32))
    row = found["x"][0, 0, 0]
    assert (row[:40] == 0).all() and (row[56:] == 1).all()
    torch.testing.assert_close(row[40:56].diff(), torch.full((15,), 1 / 16))


@pytest.mark.parametrize(("side", "overlap"), [(60, 16), (0, 8), (64, 40), (64, 12), (64, 0)])
def test_numbers_that_make_no_tiling(side, overlap):
    with pytest.raises(OptionError, match="multiple of 8"):
        Tiling(side, overlap)


@pytest.mark.parametrize(("side", "overlap"), [(512, 64), (128, 64), (120, 56), (64, 32), (24, 8), (16, 8)])
def test_the_overlap_that_is_not_given_fits_the_tile(side, overlap):
    assert tiling_of(side) == Tiling(side, overlap)


def test_all_tiles_but_the_last_begin_at_multiples_of_8():
    for length in (96, 101, 300, 1003):
        *first, last = (rows.start for rows, _ in Tiling(64, 16).windows(length, 64))
        assert all(start % 8 == 0 for start in first) and last == length - 64


def test_a_network_of_one_size_cannot_restore_tiles():
    with pytest.raises(OptionError, match="makes 10x10 pixels of 64x64"):
        restore_in_tiles(lambda rows, columns: {"x": torch.zeros(1, 3, 10, 10)}, 100, 100, Tiling(64, 16))


def test_restorer_in_tiles(tmp_path, network):
    torch.save({"params": network.state_dict()}, tmp_path / "net_g.pth")
    picture = np.random.default_rng(0).integers(0, 256, (90, 100, 3), dtype=np.uint8)
    whole, tiled = (
        Restorer(tmp_path / "net_g.pth", device="cpu", **more)(picture) for more in ({}, {"tile": 64, "tile_overlap": 32})
    )
    assert whole.shape == tiled.shape == (180, 200, 3)
    assert np.abs(whole.astype(int) - tiled).max() <= 1 and (whole != tiled).mean() < 1e-3
    with pytest.raises(OptionError, match="overlap"):
        Restorer(tmp_path / "net_g.pth", tile=64, tile_overlap=40)


def test_evaluation_in_tiles_scores_what_the_whole_scores():
    options = load_options(
        {"name": "x", "model_type": "SRModel", "scale": 2, "num_gpu": 0, "network_g": SMALL | {"weights": "random"},
         "datasets": {"val": {"type": "SyntheticFaceDataset", "count": 2, "size": 192, "batch_size_per_gpu": 2}}}
    )  # fmt: skip
    model, dataset = build_model(options), dataset_of(options.datasets["val"], options)
    seen = []
    model.networks["net_g"].register_forward_hook(lambda module, given, made: seen.append(tuple(given[0].shape)))
    scores = [
        evaluate(model, options.datasets["val"], dataset, Protocol({"psnr": calculate_psnr}, tiling=tiling, bar=False)).means()
        for tiling in (None, Tiling(64, 32))
    ]
    assert seen[0] == (2, 3, 96, 96) and set(seen[1:]) == {(2, 3, 64, 64)} and len(seen) == 5
    assert scores[0]["restored"]["psnr"] == pytest.approx(scores[1]["restored"]["psnr"], abs=1e-3)
