"""Forms and names of StyleGAN2's and GFPGAN's weights: equal pictures, and every key of the published sizes."""

from __future__ import annotations

import pytest
import torch

from facerestore.archs import build_network
from facerestore.archs.conversion import BILINEAR_OF, CLEAN_OF, folded, to_bilinear, to_clean, with_our_names
from facerestore.checkpoint import load_weights
from facerestore.errors import CheckpointError
from tests import parity
from tests.archs import small
from tests.archs.foreign import nvidia_discriminator, nvidia_generator, rosinality_discriminator, rosinality_generator

EQUALIZED = {"": True, "style_mlp": 100, "stylegan_decoder.style_mlp": 100}
CLEAN = {"GFPGANBilinear": "GFPGANv1Clean", "StyleGAN2GeneratorBilinear": "StyleGAN2GeneratorClean"}
VARIANTS = [
    ("StyleGAN2GeneratorBilinear", {}),
    ("GFPGANBilinear", {}),
    ("GFPGANBilinear", {"input_is_latent": False, "different_w": False, "sft_half": False}),
]


def built(name: str, **keywords):
    network = build_network({"type": name, **small.SMALL[name].keywords, **keywords})
    return parity.fill_(network, seed=3, equalized=False if "Clean" in name else EQUALIZED).eval()


@pytest.mark.parametrize(("name", "keywords"), VARIANTS)
def test_the_clean_form_draws_the_same_pictures(name, keywords):
    original, clean = built(name, **keywords).double(), built(CLEAN[name], **keywords).double()
    inputs = [x.double() for x in small.inputs(name)]
    state = to_clean(original.state_dict())
    load_weights(clean, state)
    for mine, expected in zip(small.tensors(clean(*inputs)), small.tensors(original(*inputs)), strict=True):
        assert parity.relative_error(mine, expected.detach().numpy()) < 1e-5
    again = to_bilinear(state, CLEAN[name], small.SMALL[name].keywords | keywords)
    torch.testing.assert_close(again, dict(original.state_dict()))


@pytest.mark.parametrize(("name", "keywords"), VARIANTS)
def test_the_original_form_draws_what_the_clean_one_drew(name, keywords):
    clean, original = built(CLEAN[name], **keywords), built(name, **keywords)
    load_weights(original, to_bilinear(clean.state_dict(), CLEAN[name], small.SMALL[name].keywords | keywords))
    inputs = small.inputs(name)
    for mine, expected in zip(small.tensors(original(*inputs)), small.tensors(clean(*inputs)), strict=True):
        assert parity.relative_error(mine, expected.detach().numpy()) < 1e-5


def test_every_weight_of_the_published_sizes_has_its_place():
    """GFPGANv1 (of 2021) to the keys and shapes of versions 1.3 and 1.4; widths from 64 pixels on doubled, as there."""
    case, _ = parity.load("gfpganv1_official_state")
    clean, _ = parity.load("gfpganv1_clean_official_state")
    with torch.device("meta"):
        wide = build_network(
            {"type": "GFPGANBilinear", **case["kwargs"], "channel_multiplier": 2, "decoder_load_path": "random"}
        )
    assert [key for key, _ in case["state"]] == list(wide.state_dict())
    rules = [folded(key, tuple(value.shape)) for key, value in wide.state_dict().items()]
    assert {rule.key: list(rule.shape) for rule in rules} == {key: shape for key, shape in clean["state"]}


def test_only_these_networks_have_two_forms():
    assert set(BILINEAR_OF) < set(CLEAN_OF.values())
    with pytest.raises(CheckpointError, match=r"'conv_first\.weight' is no weight of StyleGAN2's generator"):
        to_clean(small.build("MSRResNet").state_dict())


@pytest.mark.parametrize(
    ("name", "foreign"),
    [
        ("StyleGAN2Generator", rosinality_generator),
        ("StyleGAN2Generator", nvidia_generator),
        ("StyleGAN2Discriminator", rosinality_discriminator),
        ("StyleGAN2Discriminator", nvidia_discriminator),
    ],
)
def test_names_of_others_become_ours(name, foreign):
    network = small.build(name)
    renamed = with_our_names(foreign(network))
    load_weights(small.build(name), renamed)
    torch.testing.assert_close(renamed, dict(network.state_dict()), rtol=0, atol=0)
    assert with_our_names(network.state_dict()).keys() == network.state_dict().keys()


def test_networks_with_other_parts_are_refused():
    labelled = nvidia_generator(small.build("StyleGAN2Generator")) | {"mapping.embed.weight": torch.zeros(2, 2)}
    with pytest.raises(CheckpointError, match=r"NVIDIA's generator, but mapping\.embed\.weight have no place here"):
        with_our_names(labelled)
