"""What StarGAN v2's networks promise beside their figures."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from facerestore.archs import build_network
from facerestore.archs.layers.instance_norm import InstanceNorm, scaled_instance_norm
from facerestore.archs.layers.stargan2_blocks import HighPass, ToOnePixel, doubled, halved
from facerestore.archs.outputs import Network
from tests import parity
from tests.archs import small


@pytest.mark.parametrize("w_hpf", [1, 0.5])
def test_high_pass_is_the_published_one(w_hpf):
    case, stored = parity.load("data_stargan2_high_pass")
    layer = HighPass(w_hpf)
    x = parity.draw(case["config"]["shape"], case["config"]["seed"], "x").requires_grad_()
    out = layer(x)
    (out * parity.draw(out.shape, 99, "out")).mean().backward()
    for name, value in (("filter", layer.filter), ("out", out), ("grad", x.grad)):
        key = f"{name}.{w_hpf}"
        assert parity.relative_error(value, stored[key]) <= case["tolerance"][key]


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 1e-5), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_instance_norm_of_channels_last_features(dtype, allowed):
    """As torch's own, with its gradients, and the order in memory stays; far from 0 too."""
    x = (parity.draw((2, 3, 6, 5), 1) + 30).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    scale, shift = (parity.draw((2, 3), seed).to(dtype).requires_grad_() for seed in (2, 3))
    weight = parity.draw((2, 3, 6, 5), 4).to(dtype)
    plain = [t.detach().double().requires_grad_() for t in (x, scale, shift)]
    mine = scaled_instance_norm(x, scale, shift)
    expected = scaled_instance_norm(plain[0].contiguous(), *plain[1:])
    assert mine.dtype == dtype and mine.is_contiguous(memory_format=torch.channels_last)
    found = [mine, *torch.autograd.grad((mine * weight).sum(), [x, scale, shift])]
    wanted = [expected, *torch.autograd.grad((expected * weight.double()).sum(), plain)]
    for a, b in zip(found, wanted, strict=True):
        assert (a.double() - b).abs().max() <= allowed * (1 + b.abs().max())


def test_learnt_instance_norm_is_torch_s():
    layer, own = parity.fill_(InstanceNorm(3), 1), torch.nn.InstanceNorm2d(3, affine=True)
    own.load_state_dict(layer.state_dict())
    x = parity.draw((2, 3, 6, 5), 2)
    assert torch.equal(layer(x), own(x))
    torch.testing.assert_close(layer(x.contiguous(memory_format=torch.channels_last)), own(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_to_one_pixel_is_a_product(order):
    """Second derivatives too, which the gradient penalty takes."""
    conv = parity.fill_(ToOnePixel(3, 4), 1).double().to(memory_format=order)
    x = parity.draw((2, 3, 4, 4), 2).double().contiguous(memory_format=order).requires_grad_()

    def figures(out: torch.Tensor) -> list[torch.Tensor]:
        slope = torch.autograd.grad(out.square().sum(), x, create_graph=True)[0]
        return [out, slope, *torch.autograd.grad(slope.square().sum(), [x, conv.weight])]

    torch.testing.assert_close(figures(conv(x)), figures(F.conv2d(x, conv.weight, conv.bias)))


@pytest.mark.parametrize("side", [12, 68])
def test_halving_and_doubling_in_one_convolution(side):
    """Pictures and gradients, also second ones, are those of the two steps; small features are left to these."""
    conv = parity.fill_(torch.nn.Conv2d(3, 5, 3, padding=1).double(), seed=1)
    x = parity.draw((2, 3, side, side + 2), 2).double().requires_grad_()

    def figures(out: torch.Tensor) -> list[torch.Tensor]:
        slope = torch.autograd.grad(out.square().sum(), x, create_graph=True)[0]
        return [out, slope, *torch.autograd.grad(slope.square().sum(), [x, conv.weight])]

    pairs = (
        (halved(conv, x), F.avg_pool2d(conv(x), 2)),
        (doubled(conv, x), conv(F.interpolate(x, scale_factor=2, mode="nearest"))),
    )
    for mine, plain in pairs:
        torch.testing.assert_close(figures(mine), figures(plain))


def generator(**changes) -> Network:
    keywords = {"img_size": 32, "base_dim": 4, "style_dim": 3, "max_conv_dim": 8} | changes
    return parity.fill_(build_network({"type": "StarGANv2Generator", **keywords}), seed=3)


def test_convolutions_that_only_the_files_have_are_kept_and_frozen():
    """With high-pass skips the decoder has no shortcuts; what is not used gets no gradient, and no process waits for it."""
    fresh = build_network({"type": "StarGANv2Generator", "img_size": 32, "base_dim": 4})
    frozen = {k for k, p in fresh.named_parameters() if not p.requires_grad}
    assert frozen == {k for k in fresh.state_dict() if k.startswith("decode") and k.endswith("conv1x1.weight")} != set()
    assert not any(fresh.state_dict()[k].any() for k in frozen)  # no random number that is never trained
    network, x, s = generator(), parity.draw((1, 3, 32, 32), 1), parity.draw((1, 3), 2)
    before = network(x, s).image
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            parameter += 10 * (key in frozen)
    assert torch.equal(network(x, s).image, before)


def test_without_high_pass_all_is_trained():
    network = generator(w_hpf=0)
    network(parity.draw((2, 3, 32, 16), 1), parity.draw((2, 3), 2)).image.square().mean().backward()
    assert all(p.requires_grad and p.grad.any() for k, p in network.named_parameters() if not k.endswith("conv1.bias"))


@pytest.mark.parametrize("side", [32, 64, 128])
def test_each_side_is_passed_on_through_its_mask(side):
    network = generator(max_conv_dim=4).eval()
    x, s, empty = parity.draw((1, 3, side, side), 1), parity.draw((1, 3), 2), torch.zeros(1, 1, 16, 16)
    without = network(x, s).image
    assert torch.equal(network(x, s, [empty, empty]).image, without)
    sees = [not torch.equal(network(x, s, masks).image, without) for masks in ([empty + 1, empty], [empty, empty + 1])]
    assert sees == [True, side > 32]  # 32 comes again, deeper, in larger pictures


def test_a_published_size():
    widths = [m.conv1.in_channels for m in build_network({"type": "StarGANv2Generator", "img_size": 1024}).encode]
    assert widths[:6] == [16, 32, 64, 128, 256, 512]


@pytest.mark.parametrize("name", ["StarGANv2MappingNetwork", "StarGANv2StyleEncoder", "StarGANv2Discriminator"])
def test_a_domain_has_its_own_head_and_the_others_gradients_are_zero(name):
    network, (x, y) = small.build(name).train(), small.inputs(name)
    field = next(iter(network.offers))
    first = vars(network(x, torch.zeros_like(y)))[field]
    first.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    if name == "StarGANv2Discriminator":
        head = list(network.main)[-1]
        assert head.weight.grad[0].any() and not head.weight.grad[1:].any()
    else:
        own, *others = ([p.grad for p in head.parameters()] for head in network.unshared)
        assert all(g.any() for g in own) and not any(g.any() for other in others for g in other)
    mixed = vars(network(x, torch.tensor([0, 2])))[field]
    assert torch.allclose(mixed[0], first[0]) and not torch.allclose(mixed[1], first[1])


def test_initial_weights_are_hes_without_bias():
    torch.manual_seed(0)
    networks = [
        build_network({"type": "StarGANv2MappingNetwork"}),
        build_network({"type": "StarGANv2StyleEncoder", "img_size": 64, "base_dim": 64}),
        build_network({"type": "StarGANv2Generator", "img_size": 64, "base_dim": 64, "w_hpf": 0}),
    ]
    layers = [networks[0].unshared[1][2], networks[1].shared[2].conv2, networks[1].shared[1].conv1x1]
    layers += [networks[2].decode[0].norm1.fc, networks[2].encode[2].conv1, networks[2].decode[-1].conv1x1]
    for layer in layers:
        assert layer.weight.std().item() == pytest.approx((2 / layer.weight[0].numel()) ** 0.5, rel=0.03)
        assert layer.bias is None or not layer.bias.any()
