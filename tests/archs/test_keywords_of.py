"""A bare state dict tells its network's class and keywords; no class takes another's for its own."""

from __future__ import annotations

import pytest
import torch

from facerestore.archs.outputs import Network
from facerestore.registry import ARCHS, parameters_of
from tests import parity
from tests.archs import parity_case, small

STYLEGAN2 = {"out_size": 128, "num_style_feat": 24, "num_mlp": 3, "channel_multiplier": 2, "narrow": 1 / 32}

LIKE = {  # networks whose keys and shapes are another's, for which they are taken
    "GFPGANBilinear": "GFPGANv1",
    "StyleGAN2GeneratorBilinear": "StyleGAN2Generator",
    "StyleGAN2GeneratorSFT": "StyleGAN2Generator",
    "StyleGAN2GeneratorCSFT": "StyleGAN2GeneratorClean",
}
TRACELESS = {"fix_decoder"}  # keywords that a file need not tell

VARIANTS = {  # beside the small networks: keywords that a state dict must give back
    "CodeFormer": [
        {"dim_embd": d, "n_head": 8, "n_layers": n, "codebook_size": 5, "connect_list": connected, "img_size": size, "nf": 32}
        | {"ch_mult": [1, 2, 1, 3], "res_blocks": 1, "attn_resolutions": attended, "emb_dim": 6}
        for d, n, size, connected, attended in ((16, 1, 64, ["8", "32"], [32, 8]), (24, 11, 128, [], []))
    ],
    "FAN": [{"num_modules": n, "num_landmarks": 68, "num_features": 8} for n in (1, 3)],
    "GFPGANv1": [
        STYLEGAN2 | {"input_is_latent": True, "different_w": different_w, "sft_half": sft_half}
        for different_w, sft_half in ((True, True), (False, False))
    ],
    "GFPGANv1Clean": [STYLEGAN2 | {"input_is_latent": True, "different_w": False, "sft_half": True}],
    "MSRResNet": [
        {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 2, "upscale": 2},
        {"num_in_ch": 1, "num_out_ch": 3, "num_feat": 6, "num_block": 11, "upscale": 3},
        {"num_in_ch": 1, "num_out_ch": 1, "num_feat": 12, "num_block": 1, "upscale": 4},
    ],
    "RRDBNet": [
        {"num_in_ch": 3, "num_out_ch": 3, "scale": s, "num_feat": 8, "num_block": 1, "num_grow_ch": 4} for s in (1, 2, 4)
    ]
    + [{"num_in_ch": 1, "num_out_ch": 3, "scale": 4, "num_feat": 4, "num_block": 2, "num_grow_ch": 4}],
    "ResNetArcFace": [{"block": "IRBlock", "layers": [1, 2, 1, 3], "use_se": use_se} for use_se in (True, False)],
    "RestoreFormer": [
        {"n_embed": 5, "embed_dim": 6, "ch": 32, "out_ch": out, "ch_mult": [1, 3], "num_res_blocks": blocks, "in_channels": 1}
        | {"attn_resolutions": attended, "resolution": 32, "z_channels": 4, "head_size": 8}
        for out, blocks, attended in ((1, 1, [16]), (3, 2, []))
    ],
    "SRGANDiscriminator": [{"num_in_ch": 1, "num_feat": 4, "num_hidden": 10}],
    "StyleGAN2Discriminator": [
        {"out_size": 8, "narrow": 1 / 32},
        {"out_size": 64, "channel_multiplier": 3, "narrow": 1 / 32},
        {"out_size": 1024, "channel_multiplier": 2, "narrow": 1 / 16},
    ],
    "StyleGAN2Generator": [STYLEGAN2, {"out_size": 8, "num_style_feat": 8, "num_mlp": 1, "narrow": 1 / 64}],
    "StyleGAN2GeneratorClean": [STYLEGAN2, {"out_size": 8, "num_style_feat": 8, "num_mlp": 1, "narrow": 1 / 64}],
    "SRResNet": [
        {"num_in_ch": 3, "num_out_ch": 1, "num_feat": 8, "num_block": 2, "upscale": up, "norm": norm, "act": act}
        for up, norm, act in ((1, "bn", "relu"), (2, "none", "prelu"), (4, "none", "relu"), (8, "bn", "prelu"))
    ],
    "SRVGGNetCompact": [
        {"num_in_ch": c, "num_out_ch": c, "num_feat": 8, "num_conv": n, "upscale": up, "act_type": "prelu"}
        for c, n, up in ((3, 1, 1), (1, 12, 2), (3, 3, 3))
    ],
    "StarGANv2Discriminator": [{"img_size": 8, "base_dim": 4, "num_domains": 1, "max_conv_dim": 8}]
    + [{"img_size": size, "base_dim": 6, "num_domains": 4, "max_conv_dim": 10} for size in (16, 512)],
    "StarGANv2Generator": [
        {"img_size": size, "base_dim": 4, "style_dim": 3, "max_conv_dim": 7, "w_hpf": w}
        for size, w in ((32, 0), (16, 1), (512, 1), (512, 0))  # without its filter, the state of 1 is one of 0
    ],
    "StarGANv2MappingNetwork": [{"latent_dim": 3, "style_dim": 5, "num_domains": n, "hidden_dim": 4} for n in (1, 11)],
    "StarGANv2StyleEncoder": [
        {"img_size": size, "base_dim": 4, "style_dim": 3, "num_domains": n, "max_conv_dim": 8}
        for size, n in ((8, 1), (64, 2), (512, 12))
    ],
    "UNetDiscriminatorSN": [{"num_in_ch": 1, "num_feat": 4, "skip_connection": True}],
    "VGGStyleDiscriminator": [{"num_in_ch": 1, "num_feat": 4, "input_size": size} for size in (128, 256)],
    "VQAutoEncoder": [
        {"img_size": size, "nf": 32, "ch_mult": multiples, "quantizer": quantizer, "res_blocks": blocks}
        | {"attn_resolutions": attended, "codebook_size": 5, "emb_dim": 6}
        for size, multiples, quantizer, blocks, attended in (
            (16, [2], "nearest", 1, [16]),
            (64, [1, 3, 2], "gumbel", 3, []),
            (32, [1, 1, 2], "nearest", 1, [32, 16]),
        )
    ],
    "VQGANDiscriminator": [{"nc": 1, "ndf": 4, "n_layers": n} for n in (1, 5)],
}


def state_of(name, keywords):
    with torch.device("meta"):
        return ARCHS.get(name)(**keywords).state_dict()


def recognised(state):
    """What every class makes of a state dict, by name, where it makes anything of it."""
    found = {name: ARCHS.get(name).keywords_of(state) for name in ARCHS.names()}
    return {name: keywords for name, keywords in found.items() if keywords is not None}


@pytest.mark.parametrize(("name", "keywords"), [(n, k) for n, variants in VARIANTS.items() for k in variants])
def test_only_its_own_class_recognises_it(name, keywords):
    assert recognised(state_of(name, keywords)) == {name: keywords}


@pytest.mark.parametrize("name", ARCHS.names())
def test_no_other_class_recognises_the_small_networks(name):
    found = recognised(state_of(name, small.SMALL[name].keywords))
    if name not in LIKE and ARCHS.get(name).keywords_of.__func__ is Network.keywords_of.__func__:  # it tells no keywords
        assert found == {}
    else:
        assert_taken_for(name, found, small.SMALL[name].keywords)


def assert_taken_for(name, found, keywords):
    (taken,) = found.keys()
    assert taken == LIKE.get(name, name)
    known = {p.name for p in parameters_of(ARCHS.get(taken))}
    expected = {k: v for k, v in keywords.items() if k in known and k not in TRACELESS}
    assert found[taken].items() >= expected.items()


@pytest.mark.parametrize("case", parity_case.names(official=True))
def test_published_files(case):
    description, _ = parity.load(case)
    published = parity_case.name_of(description)
    found = recognised({key: torch.empty(shape, device="meta") for key, shape in description["state"]})
    if published in parity_case.BUILDERS:  # not registered
        assert found == {}
    else:
        assert_taken_for(published, found, description["kwargs"])


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_a_state_that_is_not_whole_is_nobodys(name):
    state = state_of(name, VARIANTS[name][0])
    last = next(key for key in reversed(state) if not key.endswith("num_batches_tracked"))
    assert recognised({key: value for key, value in state.items() if key != last}) == {}
    assert recognised(state | {"unheard_of.weight": torch.empty(3)}) == {}
    assert recognised(state | {last: torch.empty(7, 7, 7)}) == {}
    assert recognised({}) == {}


def test_counters_of_old_batch_norms_may_be_missing():
    keywords = VARIANTS["SRResNet"][0]
    state = {k: v for k, v in state_of("SRResNet", keywords).items() if not k.endswith("num_batches_tracked")}
    assert recognised(state) == {"SRResNet": keywords}


@pytest.mark.parametrize("act_type", ["relu", "leakyrelu"])
def test_an_activation_that_left_no_trace_is_not_guessed(act_type):
    assert recognised(state_of("SRVGGNetCompact", {"num_feat": 8, "num_conv": 2, "act_type": act_type})) == {}
