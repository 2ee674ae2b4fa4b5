"""What cannot be built or judged is refused in one sentence that says what would do."""

from __future__ import annotations

import pytest
import torch

from facerestore.archs import build_network
from facerestore.errors import DataError, OptionError
from tests.archs import small


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
        ({"type": "SRGANDiscriminator", "num_hidden": -1}, "num_hidden", "num_hidden"),
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
    with pytest.raises(OptionError, match=message) as caught:
        build_network(options)
    assert caught.value.path == (where,)


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
