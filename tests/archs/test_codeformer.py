"""What the networks with codebooks promise beside their figures: what is fused, frozen, detached, loaded and weighed."""

from __future__ import annotations

import copy

import pytest
import torch

from facerestore.archs import build_network
from facerestore.archs.layers.adain import adaptive_instance_norm
from facerestore.archs.layers.autoencoder_blocks import attend
from facerestore.checkpoint import save_checkpoint
from facerestore.errors import CheckpointError
from tests import parity

VQGAN = {"img_size": 16, "nf": 32, "ch_mult": [1, 1, 2], "res_blocks": 1, "attn_resolutions": [4], "emb_dim": 16}
RESTOREFORMER = {"type": "RestoreFormer", "n_embed": 8, "embed_dim": 8, "ch": 32, "z_channels": 8, "num_res_blocks": 1}
CODEFORMER = {"type": "CodeFormer", "dim_embd": 32, "n_layers": 2, "codebook_size": 5, "connect_list": ["4", "8", "16"]}


def codeformer(**keywords):
    return parity.fill_(build_network({**CODEFORMER, **VQGAN, **keywords}), seed=1)


@pytest.fixture
def x():
    return parity.draw((2, 3, 16, 16), 2, "x", -1, 1)


def graded(network) -> set[str]:
    """The parts that have a gradient."""
    return {key.split(".")[0] for key, p in network.named_parameters() if p.grad is not None}


def test_w_weighs_the_pictures_own_features(x):
    network = codeformer()
    images = {w: network(x, w=w).image for w in (-1, 0, 0.5, 1)}
    assert torch.equal(images[0], images[-1]) and torch.equal(images[0], codeformer(connect_list=[])(x, w=1).image)
    assert not torch.allclose(images[0.5], images[0]) and not torch.allclose(images[0.5], images[1])


def test_only_what_is_fused_learns_from_the_picture(x):
    network = codeformer()
    network(x, w=1).image.square().mean().backward()
    assert graded(network) == {"fuse_convs_dict"}
    assert all(p.grad is not None and p.grad.any() for p in network.fuse_convs_dict.parameters())


def test_published_parts_are_frozen_and_others_may_be(x):
    def frozen(network):
        return {key.split(".")[0] for key, p in network.named_parameters() if not p.requires_grad}

    assert frozen(codeformer()) == {"quantize", "generator"}
    assert frozen(codeformer(fix_modules=[])) == set()
    assert frozen(codeformer(fix_modules=["encoder", "ft_layers"])) == {"encoder", "ft_layers"}


@pytest.mark.parametrize(("detach_16", "adain"), [(True, False), (False, False), (True, True)])
def test_what_reaches_codebook_and_encoder(x, detach_16, adain):
    network = codeformer(fix_modules=[])
    network(x, detach_16=detach_16, adain=adain).image.square().mean().backward()
    assert ("quantize" in graded(network)) == (not detach_16)
    assert ("encoder" in graded(network)) == adain  # by the features whose mean and deviation are taken


def test_codes_are_the_likeliest_and_need_no_picture(x):
    network = codeformer()
    whole, codes = network(x, w=1), network(x, w=1, code_only=True)
    assert codes.image is None and torch.equal(codes.codes, whole.logits.argmax(2)) and codes.codes.shape == (2, 16)
    assert torch.equal(codes.logits, whole.logits) and torch.equal(codes.feat, whole.feat)
    painted = network.generator(network.quantize.get_codebook_feat(codes.codes, (2, 4, 4, 16)))
    assert torch.equal(painted, network(x).image)


@pytest.mark.parametrize(
    ("img_size", "ch_mult", "latent_size"), [(64, [1, 2, 2], 256), (24, [1, 1], 144), (32, [1, 1, 1, 2], None)]
)
def test_other_sizes(img_size, ch_mult, latent_size):
    network = codeformer(
        img_size=img_size, ch_mult=ch_mult, latent_size=latent_size, connect_list=[str(img_size), str(img_size // 2)]
    )
    output = network(torch.zeros(1, 3, img_size, img_size), w=1, adain=True)
    assert output.image.shape == (1, 3, img_size, img_size) and output.image.isfinite().all()
    assert output.codes.shape == (1, (img_size >> (len(ch_mult) - 1)) ** 2)


@pytest.mark.slow(10)
def test_fusion_in_other_formats(x):
    network = codeformer().eval()
    expected = network(x, w=0.7, adain=True).image.detach()
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    image = last(x.to(memory_format=torch.channels_last), w=0.7, adain=True).image
    assert parity.relative_error(image.contiguous(), expected.flatten().numpy()) < 1e-5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image = network(x, w=0.7, adain=True).image
    assert image.isfinite().all() and image.dtype == torch.bfloat16
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x, w=0.7, adain=True).image, expected)


def test_last_layers(x):
    network = codeformer()
    assert network.last_layer() is network.last_layer(0) is network.generator.blocks[-1].weight
    assert network.last_layer(0.5) is network.fuse_convs_dict["16"].shift[2].weight
    assert codeformer(connect_list=[]).last_layer(1).shape == (3, 32, 3, 3)
    for options in ({"type": "VQAutoEncoder", **VQGAN}, {**RESTOREFORMER, "ch_mult": [1, 1]}):
        other = build_network(options)
        assert other.last_layer().shape == (3, 32, 3, 3)
        (slope,) = torch.autograd.grad(other(x).image.mean(), other.last_layer())
        assert slope.any()


def test_vqgan_path_fills_all_but_the_transformer(tmp_path):
    vqgan = parity.fill_(build_network({"type": "VQAutoEncoder", **VQGAN, "codebook_size": 5}), seed=3)
    save_checkpoint(tmp_path / "vqgan.pth", {"params_ema": vqgan.state_dict()}, {})
    torch.manual_seed(0)
    network = build_network({**CODEFORMER, **VQGAN, "vqgan_path": str(tmp_path / "vqgan.pth")})
    state = network.state_dict()
    assert all(torch.equal(state[key], value) for key, value in vqgan.state_dict().items())
    torch.manual_seed(0)
    untouched = build_network({**CODEFORMER, **VQGAN})
    assert torch.equal(network.feat_emb.weight, untouched.feat_emb.weight)


def test_vqgan_path_of_another_quantizer_is_refused(tmp_path):
    """Its file has encoder and decoder, but no codebook of the kind: codes would mean nothing."""
    vqgan = build_network({"type": "VQAutoEncoder", **VQGAN, "codebook_size": 5, "quantizer": "gumbel"})
    save_checkpoint(tmp_path / "vqgan.pth", {"params": vqgan.state_dict()}, {})
    with pytest.raises(CheckpointError, match=r"no place for its quantize.proj.weight.*`vqgan_path` is a file of"):
        build_network({**CODEFORMER, **VQGAN, "vqgan_path": str(tmp_path / "vqgan.pth")})


@pytest.mark.parametrize("quantizer", ["nearest", "gumbel"])
def test_vqgan_takes_any_size_and_gives_codes_alone(quantizer):
    network = parity.fill_(build_network({"type": "VQAutoEncoder", **VQGAN, "quantizer": quantizer})).eval()
    x = parity.draw((1, 3, 24, 36), 1)
    whole, codes = network(x), network(x, code_only=True)
    assert whole.image.shape == x.shape and codes.image is None
    assert codes.codes.shape == (1, 6 * 9) and torch.equal(codes.codes, whole.codes)


@pytest.mark.parametrize(
    ("keywords", "trained"),
    [
        ({}, {"encoder", "decoder", "quant_conv", "post_quant_conv"}),
        ({"fix_codebook": False}, {"encoder", "decoder", "quant_conv", "post_quant_conv", "quantize"}),
        ({"fix_decoder": True, "fix_codebook": False}, {"encoder", "quant_conv"}),
        ({"fix_encoder": True}, {"decoder", "quant_conv", "post_quant_conv"}),
    ],
)
def test_restoreformers_fixed_parts(x, keywords, trained):
    network = build_network({**RESTOREFORMER, "ch_mult": [1, 1], "resolution": 32, **keywords})
    output = network(x)
    (output.image.mean() + output.code_loss).backward()
    assert {key.split(".")[0] for key, p in network.named_parameters() if p.requires_grad} == trained == graded(network)
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


def test_restoreformers_dropout_works_in_training_alone(x):
    network = parity.fill_(build_network({**RESTOREFORMER, "ch_mult": [1], "resolution": 16, "dropout": 0.5}))
    assert not torch.equal(network.train()(x).image, network(x).image)
    assert torch.equal(network.eval()(x).image, network(x).image)


@pytest.mark.parametrize("heads", [1, 4])
def test_attention(heads):
    q, k, v = (parity.draw((2, 8, *size), 3, name) for name, size in (("q", (2, 3)), ("k", (4, 2)), ("v", (4, 2))))
    rows = [feat.flatten(2).view(2, heads, 8 // heads, -1) for feat in (q, k, v)]
    weights = (torch.einsum("nhdi,nhdj->nhij", rows[0], rows[1]) / (8 / heads) ** 0.5).softmax(3)
    torch.testing.assert_close(attend(q, k, v, heads), torch.einsum("nhij,nhdj->nhdi", weights, rows[2]).reshape(2, 8, 2, 3))


def test_adaptive_instance_norm():
    content, style = parity.draw((2, 3, 8, 8), 1), 5 + 3 * parity.draw((2, 3, 4, 6), 2)
    result = adaptive_instance_norm(content, style)
    torch.testing.assert_close(result.mean((2, 3)), style.mean((2, 3)))
    torch.testing.assert_close(result.std((2, 3)), style.std((2, 3)), rtol=1e-4, atol=0)
    flat = adaptive_instance_norm(torch.ones(1, 1, 4, 4), style[:1, :1])  # nothing to scale: the style's mean
    torch.testing.assert_close(flat, style[:1, :1].mean().expand(1, 1, 4, 4))
