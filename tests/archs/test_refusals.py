"""What cannot be built or judged is refused in one sentence that says what would do."""

from __future__ import annotations

import pytest
import torch

from facerestore.archs import build_network
from facerestore.errors import DataError, OptionError
from tests.archs import small

VQGAN = {"type": "VQAutoEncoder", "img_size": 64, "nf": 32, "ch_mult": [1, 1, 2]}


@pytest.mark.parametrize(
    ("options", "where", "message"),
    [
        ({"type": "SRResNet", "upscale": 3}, "upscale", r"powers of 2 \(1, 2, 4, 8, ...\), not by 3"),
        ({"type": "SRResNet", "upscale": 0}, "upscale", "upscale"),
        ({"type": "SRResNet", "norm": "instance"}, "norm", "norm"),
        ({"type": "SRResNet", "act": "gelu"}, "act", "act"),
        ({"type": "SRResNet", "num_feat": 0}, "num_feat", "num_feat"),
        ({"type": "SRResNet", "num_feat": "wide"}, "num_feat", "whole number"),
        ({"type": "MSRResNet", "upscale": 5}, "upscale", "upscale"),
        ({"type": "MSRResNet", "num_out_ch": 1}, "num_out_ch", "give both the same number"),
        ({"type": "MSRResNet", "num_blocks": 16}, "num_blocks", "did you mean 'num_block'"),
        ({"type": "SRVGGNetCompact", "num_in_ch": 4}, "num_out_ch", "give both the same number"),
        ({"type": "SRVGGNetCompact", "act_type": "elu"}, "act_type", "act_type"),
        ({"type": "RRDBNet"}, "num_in_ch", "RRDBNet needs `num_in_ch`: channels of the pictures that come in"),
        ({"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "scale": 3}, "scale", "scale"),
        (
            {"type": "VGGStyleDiscriminator", "num_in_ch": 3, "num_feat": 8, "input_size": 96},
            "input_size",
            "input_size",
        ),
        (
            {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "skip_connection": "both"},
            "skip_connection",
            "true or false",
        ),
        ({"type": "StarGANv2Generator", "img_size": 96}, "img_size", r"2\^n pixels, at least 16, not 96"),
        ({"type": "StarGANv2Generator", "img_size": 16, "w_hpf": 0}, "img_size", "at least 32, not 16"),
        ({"type": "StarGANv2Generator", "w_hpf": -1}, "w_hpf", "w_hpf"),
        ({"type": "StarGANv2StyleEncoder", "img_size": 200}, "img_size", "at least 8, not 200"),
        ({"type": "StarGANv2Discriminator", "num_domains": 0}, "num_domains", "num_domains"),
        ({"type": "FAN", "num_features": 100}, "num_features", "multiple of 8"),
        ({"type": "SRGANDiscriminator", "num_hidden": -1}, "num_hidden", "num_hidden"),
        (VQGAN | {"img_size": 66}, "img_size", "`ch_mult` has 3 levels, so `img_size` must be a multiple of 4, not 66"),
        (VQGAN | {"nf": 48}, "nf", "in 32 groups: `nf` must be a multiple of 32"),
        (VQGAN | {"ch_mult": []}, "ch_mult", "ch_mult"),
        (VQGAN | {"quantizer": "lookup"}, "quantizer", "nearest, gumbel"),
        ({"type": "CodeFormer", "n_head": 7}, "n_head", "7 does not divide 512"),
        ({"type": "CodeFormer", "latent_size": 64}, "latent_size", "512 pixels a side make 256 codes at 6 levels"),
        ({"type": "CodeFormer", "nf": 40}, "nf", "multiple of 32"),
        ({"type": "CodeFormer", "fix_modules": ["decoder"]}, "fix_modules", "encoder, quantize, generator"),
        ({"type": "CodeFormer", "connect_list": ["32", "1024"]}, ("connect_list", 1), "only of 512, 256, 128, 64, 32, 16"),
        ({"type": "CodeFormer", "connect_list": [32]}, "connect_list", "text"),
        ({"type": "RestoreFormer", "resolution": 500}, "resolution", "`resolution` must be a multiple of 32"),
        ({"type": "RestoreFormer", "ch": 16}, "ch", "`ch` must be a multiple of 32"),
        ({"type": "RestoreFormer", "attn_resolutions": [16, 32]}, "attn_resolutions", "here 16 pixels a side"),
        ({"type": "RestoreFormer", "head_size": 24}, "head_size", "`head_size` must divide the 512 channels"),
        ({"type": "RestoreFormer", "dropout": 1}, "dropout", "dropout"),
        ({"type": "StyleGAN2Generator"}, "out_size", "StyleGAN2Generator needs `out_size`: side of the pictures"),
        ({"type": "StyleGAN2Generator", "out_size": 48}, "out_size", "must be one of 8, 16, 32, .* not 48"),
        ({"type": "StyleGAN2Generator", "out_size": 64, "narrow": 0.001}, "narrow", "no channels at 64 pixels: give more"),
        ({"type": "StyleGAN2Generator", "out_size": 8, "resample_kernel": [1, 2, 1]}, "resample_kernel", "even number of taps"),
        ({"type": "StyleGAN2Discriminator", "out_size": 8, "resample_kernel": [1, -1]}, "resample_kernel", "sum is not 0"),
        ({"type": "StyleGAN2Discriminator", "out_size": 8, "stddev_group": 0}, "stddev_group", "stddev_group"),
        ({"type": "GFPGANv1", "out_size": 8, "narrow": 1 / 512}, "narrow", "half as wide as the decoder"),
        ({"type": "GFPGANv1Clean", "out_size": 8, "lr_mlp": 0.01}, "lr_mlp", "GFPGANv1Clean has no option `lr_mlp`"),
        ({"type": "ResNetArcFace", "block": "IRBlock", "layers": [2, 2, 2]}, "layers", "layers"),
    ],
)
def test_keywords(options, where, message):
    with pytest.raises(OptionError, match=message) as caught, torch.device("meta"):
        build_network(options)
    assert caught.value.path == (where if isinstance(where, tuple) else (where,))


@pytest.mark.parametrize("name", ["GFPGANv1", "GFPGANv1Clean", "StyleGAN2Discriminator", "ResNetArcFace"])
def test_a_picture_of_another_size_than_all_others(name):
    network, (x,) = small.build(name), small.inputs(name)
    side = x.shape[-1]
    with pytest.raises(DataError, match=f"{name} takes pictures of {side} x {side} pixels.*, not of {side + 4} x {side}$"):
        network(x.new_zeros(*x.shape[:3], side + 4))


@pytest.mark.parametrize("shape", [(1, 3, 96, 96), (1, 3, 128, 256), (1, 3, 256, 128)])
def test_a_picture_of_another_size(shape):
    network = build_network({"type": "VGGStyleDiscriminator", "num_in_ch": 3, "num_feat": 4, "input_size": 128})
    with pytest.raises(DataError, match=f"128 x 128 pixels .*not of {shape[3]} x {shape[2]}$"):
        network(torch.zeros(shape))


STYLES, DOMAINS = torch.zeros(2, 4), torch.zeros(2, dtype=torch.long)


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({"type": "StarGANv2Discriminator"}, (torch.zeros(2, 3, 32, 24), DOMAINS), "32 x 32 pixels .*not of 24 x 32$"),
        ({"type": "StarGANv2StyleEncoder"}, (torch.zeros(2, 3, 64, 64), DOMAINS), "32 x 32 pixels .*not of 64 x 64$"),
        ({"type": "StarGANv2Generator"}, (torch.zeros(2, 3, 32, 30), STYLES), "multiples of 4 pixels.*not 30 x 32$"),
        ({"type": "StarGANv2Generator"}, (torch.zeros(2, 3, 4, 4), STYLES), "more than 4 x 4 pixels, not 4 x 4$"),
        (
            {"type": "StarGANv2Generator", "w_hpf": 0},
            (torch.zeros(2, 3, 32, 32), STYLES, [torch.ones(2, 1, 8, 8)] * 2),
            "given masks, but .* built with w_hpf 0$",
        ),
    ],
)
def test_inputs_that_do_not_fit(options, arguments, message):
    small = {"img_size": 32, "base_dim": 4, "max_conv_dim": 4}
    if options["type"] != "StarGANv2Discriminator":
        small["style_dim"] = 4
    with pytest.raises(DataError, match=message):
        build_network(small | options)(*arguments)


def test_pictures_and_landmarks_that_fan_cannot_use():
    fan = build_network({"type": "FAN", "num_landmarks": 5, "num_features": 8})
    with pytest.raises(DataError, match=r"multiples of 64 pixels, not 100 x 64$"):
        fan(torch.zeros(1, 3, 64, 100))
    with pytest.raises(DataError, match=r"98 landmarks, not of 5$"):
        fan.get_heatmap(torch.zeros(2, 3, 64, 64))


@pytest.mark.parametrize("size", [(36, 34), (30, 32)])
@pytest.mark.parametrize(
    "options",
    [VQGAN, {"type": "RestoreFormer", "ch": 32, "ch_mult": [1, 1, 2], "resolution": 64}],
    ids=lambda options: options["type"],
)
def test_a_side_that_cannot_be_halved(options, size):
    with torch.device("meta"), pytest.raises(DataError, match=f"multiples of 4 pixels, not {size[1]} x {size[0]}$"):
        build_network(options)(torch.zeros(1, 3, *size))


@pytest.mark.parametrize("size", [(256, 1024), (512, 256), (256, 256)])  # the first has as many positions
def test_codeformer_takes_its_own_size_alone(size):
    with torch.device("meta"), pytest.raises(DataError, match=f"512 x 512 pixels .*not of {size[1]} x {size[0]}$"):
        build_network({"type": "CodeFormer", "n_layers": 1})(torch.zeros(1, 3, *size))


def test_a_picture_without_one_patch():
    with torch.device("meta"):
        network = build_network({"type": "VQGANDiscriminator", "ndf": 8, "n_layers": 3}).eval()
        assert network(torch.zeros(1, 3, 24, 24)).logits.shape == (1, 1, 1, 1)
        with pytest.raises(DataError, match="24 pixels a side or more, not of 24 x 23"):
            network(torch.zeros(1, 3, 23, 24))
