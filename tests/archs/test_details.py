"""What single networks and layers promise beside their figures."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from facerestore.archs import build_network
from facerestore.archs.layers.spectral_norm import SpectralNormConv2d
from tests import parity
from tests.archs import small


def test_spectral_norm_trains_as_torchs_does():
    mine = SpectralNormConv2d(3, 5, 4, stride=2, padding=1)
    theirs = torch.nn.utils.spectral_norm(nn.Conv2d(3, 5, 4, stride=2, padding=1, bias=False))
    assert {k: v.shape for k, v in mine.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    theirs.load_state_dict(mine.state_dict())
    x = parity.draw((2, 3, 12, 10), 1)
    for network in (mine, theirs):  # a real and a fake batch, then one backward pass: two power iterations
        (network(x).square().mean() - network(-2 * x).abs().mean()).backward()
    torch.testing.assert_close(mine.state_dict(), dict(theirs.state_dict()))
    torch.testing.assert_close(mine.weight_orig.grad, theirs.weight_orig.grad)


def test_spectral_norm_moves_in_training_alone_and_converges():
    torch.manual_seed(0)
    layer = parity.fill_(SpectralNormConv2d(4, 6, 3))
    largest = torch.linalg.matrix_norm(layer.weight_orig.flatten(1), 2)
    torch.testing.assert_close(layer.eval().sigma(), largest)
    nn.init.normal_(layer.weight_u)
    before = copy.deepcopy(layer.state_dict())
    layer(torch.zeros(1, 4, 8, 8))
    torch.testing.assert_close(layer.state_dict(), before, rtol=0, atol=0)
    layer.train()
    for _ in range(100):
        layer.sigma()
    torch.testing.assert_close(layer.sigma(), largest)


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("size", [(16, 16), (13, 18), (1, 3)])
def test_rrdbnet_takes_any_size(scale, size):
    keywords = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "num_grow_ch": 4}
    network = parity.fill_(build_network({"type": "RRDBNet", "scale": scale, **keywords}))
    image = network(parity.draw((1, 3, *size), 1)).image
    assert image.shape == (1, 3, scale * size[0], scale * size[1]) and image.isfinite().all()


@pytest.mark.parametrize("size", [(8, 8), (31, 44)])
@pytest.mark.parametrize("skip_connection", [True, False])
def test_unet_discriminator_judges_every_pixel_of_any_size(size, skip_connection):
    options = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4, "skip_connection": skip_connection}
    assert build_network(options)(torch.zeros(1, 3, *size)).logits.shape == (1, 1, *size)


def test_unet_discriminator_without_skips_looks_through_its_smallest_features():
    x, logits = parity.draw((1, 3, 16, 16), 1), {}
    for skip_connection in (True, False):
        options = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4, "skip_connection": skip_connection}
        network = parity.fill_(build_network(options)).eval()
        network.conv3.register_forward_hook(lambda module, inputs, out: torch.zeros_like(out))
        logits[skip_connection] = network(x).logits
    assert torch.equal(logits[False], network(-x).logits)
    assert not torch.equal(logits[True], logits[False])


@pytest.mark.parametrize("size", [(96, 96), (33, 50), (16, 16)])
def test_srgan_discriminator_judges_any_size(size):
    output = small.build("SRGANDiscriminator")(torch.zeros(2, 3, *size))
    assert output.logits.shape == (2, 1)
    assert [f.shape[1] for f in output.feats] == [8, 8, 16, 16, 32, 32, 64, 64]
    assert output.feats[0].shape[-2:] == size and output.feats[-1].shape[-1] == -(-size[1] // 16)


def test_vgg_style_discriminator_at_256():
    keywords = {"num_in_ch": 3, "num_feat": 2, "input_size": 256}
    network = build_network({"type": "VGGStyleDiscriminator", **keywords})
    assert network(torch.zeros(2, 3, 256, 256)).logits.shape == (2, 1)


@pytest.mark.parametrize("upscale", [1, 2, 8])
@pytest.mark.parametrize(("norm", "act"), [("none", "prelu"), ("bn", "relu")])
def test_srresnet_variants(upscale, norm, act):
    keywords = {"num_feat": 4, "num_block": 1, "upscale": upscale, "norm": norm, "act": act}
    network = build_network({"type": "SRResNet", **keywords})
    assert network(torch.zeros(1, 3, 6, 5)).image.shape == (1, 3, 6 * upscale, 5 * upscale)
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == (norm == "bn")
    assert any(isinstance(m, nn.PReLU) for m in network.modules()) == (act == "prelu")


@pytest.mark.parametrize("upscale", [2, 3, 4])
def test_msrresnet_starts_near_the_bilinear_picture(upscale):
    torch.manual_seed(0)
    network = build_network({"type": "MSRResNet", "num_feat": 16, "num_block": 2, "upscale": upscale})
    x = parity.draw((1, 3, 12, 12), 1, "x", 0, 1)
    base = nn.functional.interpolate(x, scale_factor=upscale, mode="bilinear", align_corners=False)
    assert 0 < (network(x).image - base).abs().max() < 0.01


@pytest.mark.parametrize("act_type", ["relu", "leakyrelu"])
def test_srvgg_adds_to_the_nearest_picture(act_type):
    options = {"type": "SRVGGNetCompact", "num_feat": 4, "num_conv": 1, "upscale": 3, "act_type": act_type}
    network = build_network(options)
    nn.init.zeros_(network.body[-1].weight), nn.init.zeros_(network.body[-1].bias)
    x = parity.draw((1, 3, 5, 6), 1)
    assert torch.equal(network(x).image, x.repeat_interleave(3, 2).repeat_interleave(3, 3))


def test_initial_weights_are_the_published_ones():
    """Standard deviation 0.1 sqrt(2 / fan_in), no bias: all of MSRResNet, RRDBNet's dense blocks; else torch's own."""
    torch.manual_seed(0)
    keywords = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 64, "num_block": 1}
    msrresnet = build_network({"type": "MSRResNet", **keywords})
    rrdbnet = build_network({"type": "RRDBNet", **keywords})
    scaled = [msrresnet.body[0].conv1, msrresnet.upconv2, msrresnet.conv_hr, rrdbnet.body[0].rdb3.conv5]
    for conv in scaled:
        expected = 0.1 * (2 / conv.weight[0].numel()) ** 0.5
        assert conv.weight.std().item() == pytest.approx(expected, rel=0.02)
        assert not conv.bias.any()
    untouched = rrdbnet.conv_body.weight
    assert untouched.std().item() == pytest.approx((1 / 3 / untouched[0].numel()) ** 0.5, rel=0.02)
    assert rrdbnet.conv_body.bias.any()
