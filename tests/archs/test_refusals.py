"""What cannot be built or judged is refused in one sentence that says what would do."""

from __future__ import annotations

import pytest
import torch

from facerestore.archs import build_network
from facerestore.errors import DataError, OptionError


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
    ],
)
def test_keywords(options, where, message):
    with pytest.raises(OptionError, match=message) as caught:
        build_network(options)
    assert caught.value.path == (where,)


@pytest.mark.parametrize("shape", [(1, 3, 96, 96), (1, 3, 128, 256), (1, 3, 256, 128)])
def test_a_picture_of_another_size(shape):
    network = build_network({"type": "VGGStyleDiscriminator", "num_in_ch": 3, "num_feat": 4, "input_size": 128})
    with pytest.raises(DataError, match=f"128 x 128 pixels .*not of {shape[3]} x {shape[2]}$"):
        network(torch.zeros(shape))
