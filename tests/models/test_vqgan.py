"""VQGAN's codebook: how its usage is counted, restarted and begun, and what the adversary weighs."""

from __future__ import annotations

import pytest
import torch

from facerestore.archs.layers.quantizers import kmeans
from facerestore.config import load_options
from facerestore.engine import build_model
from facerestore.errors import OptionError
from tests import parity
from tests.engine.runs import DEBUG

STAGE1 = DEBUG / "codeformer_stage1.yml"
PLAIN = ["train.perceptual_opt=~", "train.codebook_kmeans_iter=0", "train.dead_codes_restart_every=~"]


def model(*overrides: str):
    return build_model(load_options(STAGE1, [*PLAIN, *overrides]))


def batch(it: int = 1, rows: int = 4) -> dict[str, torch.Tensor]:
    return {"gt": parity.draw((rows, 3, 32, 32), it, "gt", -1, 1)}


def test_the_adversary_comes_late_and_is_weighted_at_the_last_layer():
    vqgan = model("train.net_d_start_iter=1")
    before = vqgan.networks["net_d"].main[0].weight.clone()
    first = vqgan.step(batch(1), 1)
    assert "l_g_gan" not in first and torch.equal(before, vqgan.networks["net_d"].main[0].weight)
    second = vqgan.step(batch(2), 2)
    assert {"l_g_gan", "d_weight", "l_d_real", "l_d_fake"} <= second.keys() and 0 < second["d_weight"] <= 0.8
    assert not torch.equal(before, vqgan.networks["net_d"].main[0].weight)
    fixed = model("train.net_d_start_iter=0", "train.use_adaptive_weight=false", "train.disc_weight=0.3").step(batch(1), 1)
    assert float(fixed["d_weight"]) == pytest.approx(0.3)


def test_the_generator_rests_between_its_iterations():
    vqgan = model("train.net_d_iters=2", "train.net_d_start_iter=0")
    generator = vqgan.networks["net_g"].generator.blocks[-1].weight
    before = generator.clone()
    terms = vqgan.step(batch(1), 1)
    assert torch.equal(before, generator) and "l_codebook" not in terms and "l_d_real" in terms
    vqgan.step(batch(2), 2)
    assert not torch.equal(before, generator)


def test_codes_that_are_not_used_die_and_become_features_of_the_batch():
    vqgan = model("train.dead_codes_restart_every=2", "network_g.codebook_size=8")
    codebook = vqgan.networks["net_g"].codebook
    with torch.no_grad():
        codebook[4:] = 1000.0  # never the nearest
    shares = torch.full((8,), 1 / 8)
    shares[4:] = 1e-5
    vqgan.method.load_state({"codebook_shares": shares})
    terms = vqgan.step(batch(1), 1)
    assert terms["codebook_dead"] == 4 and terms["codebook_usage"] == 0.5 and 1 <= terms["codebook_perplexity"] <= 4
    assert codebook[4:].min() > 900
    vqgan.step(batch(2), 2)
    assert codebook.abs().max() < 100, "features are there, not where the dead codes were"
    assert not vqgan.method.dead_codes().any(), "they have the benefit of the doubt"
    kept = vqgan.method.state()
    assert torch.equal(kept["codebook_shares"], vqgan.method.shares) and vqgan.step(batch(3), 3)["codebook_dead"] == 0


def test_nothing_is_dead_before_the_generator_learns():
    vqgan = model("train.dead_codes_restart_every=1", "train.net_g_start_iter=1")
    before = vqgan.networks["net_g"].codebook.clone()
    vqgan.step(batch(1), 1)
    assert torch.equal(vqgan.networks["net_g"].codebook, before)


def test_a_codebook_of_centres_is_nearer_to_the_features():
    far, near = (model("network_g.codebook_size=4", f"train.codebook_kmeans_iter={it}") for it in (0, 1))
    losses = [float(m.step(batch(1), 1)["l_codebook"]) for m in (far, near)]
    assert losses[1] < 0.9 * losses[0]


def test_kmeans_finds_clusters_and_leaves_centres_without_points():
    points = torch.tensor([[0.0, 0], [0, 1], [10, 0], [10, 1]])
    centres = kmeans(points, torch.tensor([[1.0, 0], [9, 0], [500, 500]]))
    assert torch.equal(centres, torch.tensor([[0, 0.5], [10, 0.5], [500, 500]]))


def test_slices_end_with_the_codebook_of_the_whole_batch():
    given = [
        "train.codebook_kmeans_iter=1",
        "train.dead_codes_restart_every=1",
        "train.net_d_start_iter=9",
        "train.optim_g.lr=1e-6",
    ]
    whole, sliced = (model(*given, f"train.accumulate={n}") for n in (1, 2))
    for m in (whole, sliced):
        m.method.load_state({"codebook_shares": torch.tensor([1.0] + [0.0] * 15)})
        m.step(batch(1), 1)
    assert torch.allclose(whole.networks["net_g"].codebook, sliced.networks["net_g"].codebook, atol=1e-5)
    assert torch.allclose(whole.method.shares, sliced.method.shares, atol=1e-6)


def test_codes_that_are_drawn_cannot_be_put_where_features_are():
    with pytest.raises(OptionError, match="`dead_codes_restart_every` needs `quantizer: nearest`"):
        load_options(STAGE1, ["train.codebook_kmeans_iter=0", "network_g.quantizer=gumbel"])
    gumbel = model("network_g.quantizer=gumbel")
    assert gumbel.step(batch(1), 1)["codebook_perplexity"] >= 1


def test_the_temperature_of_drawn_codes_falls_as_published():
    gumbel = model("network_g.quantizer=gumbel", "train.gumbel_cooling=4")
    found = []
    for it in (1, 3, 4, 9):
        gumbel.step(batch(it), it)
        found.append(float(gumbel.networks["net_g"].quantize.temperature))
    assert found == [0.75, 0.25, 1 / 16, 1 / 16]
    with pytest.raises(OptionError, match="`gumbel_coldest` needs `quantizer: gumbel`"):
        model("train.gumbel_coldest=0.5")
