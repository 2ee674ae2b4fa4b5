"""The quantizers: which codes, which gradients, and how much of a codebook is used."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from facerestore.archs.layers import quantizers
from facerestore.archs.layers.quantizers import GumbelQuantizer, VectorQuantizer, code_counts, dead_codes, perplexity
from tests import parity


@pytest.fixture
def z():
    return parity.draw((2, 6, 3, 4), 1, "z").requires_grad_()


def nearest(**keywords) -> VectorQuantizer:
    return parity.fill_(VectorQuantizer(10, 6, **keywords), equalized=True)


def gumbel(**keywords) -> GumbelQuantizer:
    return parity.fill_(GumbelQuantizer(10, 6, **keywords), equalized=True)


@pytest.mark.parametrize("at_once", [1, 70, 10**6])
def test_nearest_codes_row_by_row_however_many_at_once(z, at_once, monkeypatch):
    monkeypatch.setattr(quantizers, "AT_ONCE", at_once)
    quantizer = nearest()
    codes = quantizer(z).codes
    assert codes.shape == (2, 12)
    for n, y, x in ((0, 0, 0), (1, 2, 1), (0, 1, 3)):
        far = (z[n, :, y, x] - quantizer.embedding.weight).square().sum(1)
        assert codes[n, 4 * y + x] == far.argmin()
    features = quantizer.get_codebook_feat(codes, (2, 3, 4, 6))
    assert torch.equal(features[1, :, 2, 1], quantizer.embedding.weight[codes[1, 9]])


@pytest.mark.parametrize(("legacy", "codebook", "commitment"), [(False, 1.0, 0.3), (True, 0.3, 1.0)])
def test_beta_weighs_the_commitment_unless_published_behaviour_is_asked_for(z, legacy, codebook, commitment):
    quantizer = nearest(beta=0.3, legacy=legacy)
    found = quantizer(z)
    away = (z - quantizer.get_codebook_feat(found.codes, (2, 3, 4, 6))).detach()
    torch.testing.assert_close(found.code_loss, (codebook + commitment) * away.square().mean())
    to_z, to_codes = torch.autograd.grad(found.code_loss, (z, quantizer.embedding.weight))
    torch.testing.assert_close(to_z, commitment * 2 * away / away.numel())
    torch.testing.assert_close(to_codes.sum(0), -codebook * 2 * away.sum((0, 2, 3)) / away.numel())


def test_gradients_pass_the_nearest_code_straight(z):
    quantizer = nearest()
    direction = parity.draw(z.shape, 2)
    (quantizer(z).feat * direction).sum().backward()
    assert torch.equal(z.grad, direction) and quantizer.embedding.weight.grad is None


def test_distances_keep_their_precision_under_autocast(z):
    quantizer = nearest()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = quantizer(z)
    assert torch.equal(found.codes, quantizer(z).codes) and torch.equal(found.code_loss, quantizer(z).code_loss)


def test_distances_outside_of_a_quantizer_keep_it_too():
    vectors, centres = parity.draw((64, 16), 1), parity.draw((128, 16), 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = quantizers.squared_distances(vectors.bfloat16(), centres)
        assert torch.equal(found, quantizers.squared_distances(vectors.bfloat16().float(), centres))
    torch.testing.assert_close(found, torch.cdist(vectors.bfloat16().float(), centres).square(), rtol=1e-4, atol=1e-4)


def test_gumbel_draws_in_training_alone(z):
    quantizer = gumbel()
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(quantizer.train()(z).feat)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    settled = quantizer.eval()(z)
    assert torch.equal(settled.feat, quantizer(z).feat)
    assert torch.equal(settled.codes, quantizer.proj(z).argmax(1).flatten(1))
    codes = settled.codes.view(2, 3, 4)
    assert torch.equal(settled.feat[1, :, 2, 3], quantizer.embed.weight[codes[1, 2, 3]])


@pytest.mark.parametrize("straight_through", [False, True])
def test_gumbel_mixes_codes_or_takes_one_whole(z, straight_through):
    quantizer = gumbel(straight_through=straight_through).train()
    found = quantizer(z)
    whole = F.embedding(found.codes, quantizer.embed.weight).transpose(1, 2).view(z.shape)
    assert torch.allclose(found.feat, whole, atol=1e-5) == straight_through
    found.feat.square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in quantizer.parameters()) and z.grad.any()


@pytest.mark.parametrize(("certainty", "divergence"), [(0.0, 0.0), (1e4, math.log(10))])
def test_gumbels_loss_is_the_divergence_from_equal_odds(z, certainty, divergence):
    quantizer = gumbel(kl_weight=0.5).eval()
    with torch.no_grad():
        quantizer.proj.weight.zero_()
        quantizer.proj.bias.copy_(torch.eye(10)[3] * certainty)
    torch.testing.assert_close(quantizer(z).code_loss, torch.tensor(0.5 * divergence))


def test_codebook_use():
    counts = code_counts(torch.tensor([[0, 0, 2], [4, 4, 2]]), 6)
    assert counts.tolist() == [2, 0, 2, 0, 2, 0]
    torch.testing.assert_close(perplexity(counts), torch.tensor(3.0))
    assert dead_codes(counts) == 3
    several = counts + code_counts(torch.tensor([1, 3, 5, 5, 1, 3]), 6)
    torch.testing.assert_close(perplexity(several), torch.tensor(6.0))
    assert dead_codes(several) == 0
    assert perplexity(code_counts(torch.tensor([1, 1]), 3)) == 1
