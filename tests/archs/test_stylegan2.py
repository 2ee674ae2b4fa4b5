"""What StyleGAN2's and GFPGAN's layers and networks promise beside their figures."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.archs import build_network
from facerestore.archs.layers.equalized import BiasedLeakyReLU
from facerestore.archs.layers.fir import Fir, FirUpsample, kernel
from facerestore.archs.layers.flavour import CLEAN, FIR_TAPS, Flavour
from facerestore.archs.layers.modulated_conv import ModulatedConv2d
from facerestore.archs.layers.resampling_blocks import DownBlock, StddevChannel, UpBlock
from facerestore.checkpoint import load_weights, recognise
from facerestore.errors import CheckpointError
from tests import parity
from tests.archs import small

FIR = Flavour(taps=FIR_TAPS)
TAPS = [(1.0, 3.0, 3.0, 1.0), (1.0, 2.0), (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)]  # the last two tell left from right


def upfirdn(x: Tensor, taps: tuple[float, ...], up: int, before: int, after: int) -> Tensor:
    """The published definition: zeros behind each pixel, padding, and the mirrored filter on every channel."""
    batch, channels, height, width = x.shape
    spread = x.new_zeros(batch, channels, height, up, width, up)
    spread[:, :, :, 0, :, 0] = x
    spread = F.pad(spread.reshape(batch * channels, 1, height * up, width * up), (before, after, before, after))
    weight = (up**2 * kernel(taps)).flip(0, 1).to(x)
    out = F.conv2d(spread, weight[None, None])
    return out.view(batch, channels, *out.shape[-2:])


@pytest.mark.parametrize("taps", TAPS)
def test_fir_filters_are_the_published_ones(taps):
    x, size = parity.draw((2, 3, 7, 10), 1).double(), len(taps)
    expected = upfirdn(x, taps, 2, (size - 1) // 2 + 1, (size - 2) // 2)
    torch.testing.assert_close(FirUpsample(taps).double()(x), expected)
    for padding in (1, 3):
        expected = upfirdn(x, taps, 1, padding, padding)
        torch.testing.assert_close(Fir(taps, padding).double()(x), expected)
        torch.testing.assert_close(Fir(taps, padding, stride=2).double()(x), expected[..., ::2, ::2])


def per_sample(layer: ModulatedConv2d, flavour: Flavour, x: Tensor, style: Tensor, upsample: bool) -> Tensor:
    """Equations 1 and 3, with a weight for each sample."""
    weight = layer.scale * layer.weight * layer.modulation(style)[:, None, :, None, None]
    if layer.demodulate:
        weight = weight / torch.sqrt(weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8)
    outputs = []
    for picture, own in zip(x.split(1), weight, strict=True):
        if upsample and flavour.taps:
            wide = F.conv_transpose2d(picture, own.transpose(0, 1), stride=2)
            outputs.append(upfirdn(wide, flavour.taps, 1, 1, 1) * 4)
        else:
            if upsample:
                picture = F.interpolate(picture, scale_factor=2, mode="bilinear", align_corners=False)
            outputs.append(F.conv2d(picture, own, padding=own.shape[-1] // 2))
    return torch.cat(outputs)


@pytest.mark.parametrize("batch", [1, 3])  # one picture has a weight of its own
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("flavour", [FIR, Flavour(), CLEAN], ids=["fir", "bilinear", "clean"])
@pytest.mark.parametrize(("size", "demodulate", "upsample"), [(3, True, False), (3, True, True), (1, False, False)])
def test_modulated_convolution_is_that_with_weights_of_each_sample(
    batch, dtype, tolerance, flavour, size, demodulate, upsample
):
    layer = ModulatedConv2d(6, 5, size, 7, flavour, demodulate, upsample).to(dtype)
    x, style = parity.draw((batch, 6, 9, 8), 1).to(dtype), parity.draw((batch, 7), 2).to(dtype)
    expected = per_sample(layer, flavour, x, style, upsample)
    assert ((layer(x, style) - expected).norm() / expected.norm()).item() < tolerance
    shift = parity.draw((batch, 1, *expected.shape[-2:]), 3).to(dtype)
    wanted = 1.5 * expected + shift
    assert ((layer(x, style, 1.5, shift) - wanted).norm() / wanted.norm()).item() < tolerance


def layers() -> dict[str, tuple[nn.Module, list[tuple[int, ...]]]]:
    return {
        "modulated": (ModulatedConv2d(3, 2, 3, 4, FIR), [(2, 3, 4, 3), (2, 4)]),
        "modulated, one picture": (ModulatedConv2d(2, 2, 3, 4, FIR), [(1, 2, 5, 5), (1, 4)]),
        "modulated, doubled": (ModulatedConv2d(2, 2, 3, 3, FIR, upsample=True), [(2, 2, 3, 3), (2, 3)]),
        "bilinear": (ModulatedConv2d(2, 2, 3, 3, CLEAN, upsample=True), [(2, 2, 3, 3), (2, 3)]),
        "filtered": (Fir(FIR_TAPS, 1, stride=2), [(1, 2, 6, 6)]),
        "filtered, doubled": (FirUpsample(FIR_TAPS), [(1, 2, 3, 3)]),
        "activated": (BiasedLeakyReLU(3), [(2, 3, 2, 2)]),
        "down": (DownBlock(2, 3, FIR), [(1, 2, 6, 6)]),
        "up": (UpBlock(2, 3), [(1, 2, 3, 3)]),
        "spread": (StddevChannel(4), [(4, 2, 2, 2)]),
    }


@pytest.mark.parametrize("name", layers())
def test_first_and_second_derivatives(name):
    torch.manual_seed(0)
    layer, shapes = layers()[name]
    layer.double()
    inputs = [parity.draw(shape, 1, str(i)).double().requires_grad_() for i, shape in enumerate(shapes)]
    parameters = list(layer.parameters())
    for parameter in parameters:  # also of what starts at 0
        parameter.data.add_(0.1 * torch.randn_like(parameter))

    def function(*values: Tensor) -> Tensor:
        names = [key for key, _ in layer.named_parameters()]
        return torch.func.functional_call(layer, dict(zip(names, values[len(inputs) :], strict=True)), values[: len(inputs)])

    assert torch.autograd.gradcheck(function, (*inputs, *parameters), fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (*inputs, *parameters), fast_mode=True)


@pytest.mark.parametrize(
    "name",
    [pytest.param("StyleGAN2Generator", marks=pytest.mark.slow(10)), "GFPGANv1", "StyleGAN2Discriminator", "GFPGANv1Clean"],
)
def test_no_graph_break_under_bf16_and_channels_last(name):
    network = small.build(name).to(memory_format=torch.channels_last)
    inputs = [small.channels_last(value) for value in small.inputs(name)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = network(*inputs)
        output = torch.compile(network, backend="aot_eager", fullgraph=True)(*inputs)
    sum(value.float().square().mean() for value in small.tensors(output)).backward()
    for mine, eager in zip(small.tensors(output), small.tensors(expected), strict=True):
        assert mine.dtype == eager.dtype
        assert parity.relative_error(mine.float(), eager.detach().float().numpy()) < 0.05
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_path_length_reaches_every_weight_that_styles_pass_through():
    network = small.build("StyleGAN2Generator")
    output = network(small.inputs("StyleGAN2Generator")[0])
    direction = parity.draw(output.image.shape, 5)
    (slope,) = torch.autograd.grad((output.image * direction).sum(), output.latents, create_graph=True)
    slope.square().sum(dim=2).mean().sqrt().backward()
    for key, parameter in network.named_parameters():
        if "modulated_conv.weight" in key or "style_mlp" in key:
            assert parameter.grad.isfinite().all() and parameter.grad.any(), key


@pytest.mark.parametrize(("batch", "group", "expected"), [(6, 4, 3), (5, 4, 1), (8, 4, 4), (3, 4, 3), (7, 8, 7)])
def test_the_largest_group_that_divides_the_batch_is_compared(batch, group, expected):
    x = parity.draw((batch, 3, 4, 4), 1)
    out = StddevChannel(group)(x)
    assert torch.equal(out[:, :3], x)
    for i in range(batch):
        alike = x[i % (batch // expected) :: batch // expected]
        spread = (alike.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
        torch.testing.assert_close(out[i, 3], spread.expand(4, 4))


def test_the_published_weight_takes_the_convolutions_memory_format():
    layer = ModulatedConv2d(4, 6, 3, 5, FIR).to(memory_format=torch.channels_last)
    assert layer.weight.shape == (1, 6, 4, 3, 3) and isinstance(layer.weight, nn.Parameter)
    assert layer.weight[0].is_contiguous(memory_format=torch.channels_last)
    assert layer.to(torch.float64).weight.dtype == torch.float64
    assert layer.to_empty(device="meta").weight.is_meta


def test_pictures_stay_precise_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert small.build("StyleGAN2Generator")(torch.zeros(1, 16)).image.dtype == torch.float32


@pytest.mark.parametrize("name", ["StyleGAN2Generator", "StyleGAN2GeneratorClean"])
def test_noise_is_stored_unless_it_is_asked_for(name):
    network, (z,) = small.build(name), small.inputs(name)
    stored = network(z).image
    assert torch.equal(network(z).image, stored)
    assert torch.equal(network(z, noise=network.stored_noise()).image, stored)
    torch.manual_seed(3)
    drawn = network(z, randomize_noise=True).image
    assert not torch.equal(drawn, stored)
    torch.manual_seed(3)
    assert torch.equal(network(z, noise=network.make_noise(batch=2)).image, drawn)


def test_noise_and_mean_latent_come_from_the_generator_that_is_given():
    network = small.build("StyleGAN2Generator")
    shapes = [(1, 1, 4, 4)] + 2 * [(1, 1, 8, 8)] + 2 * [(1, 1, 16, 16)]
    assert network.noise_shapes() == [tuple(noise.shape) for noise in network.stored_noise()] == shapes

    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(1)

    before = torch.get_rng_state()
    for one, other in zip(network.make_noise(3, seeded()), network.make_noise(3, seeded()), strict=True):
        assert one.shape[0] == 3 and torch.equal(one, other)
    z = torch.randn(50, 16, generator=seeded())
    torch.testing.assert_close(network.mean_latent(50, seeded()), network.get_latent(z).mean(dim=0, keepdim=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_codes_that_cannot_be_drawn():
    network, (z,) = small.build("StyleGAN2Generator"), small.inputs("StyleGAN2Generator")
    with pytest.raises(ValueError, match="inject_index"):
        network([z, z])
    with pytest.raises(ValueError, match="truncation_latent"):
        network(z, truncation=0.5)
    for amiss in ([z, z, z], 2 * [network.get_latent(z)[:, None].expand(-1, network.num_latent, -1)]):
        with pytest.raises(ValueError, match="two codes to be mixed"):
            network(amiss, input_is_latent=True, inject_index=1)
    with pytest.raises(ValueError, match="takes 6 latents, not 5"):
        network(torch.zeros(1, 5, 16), input_is_latent=True)
    with pytest.raises(ValueError, match="condition 1 has 8 channels where 16 are needed"):
        wide, narrow = torch.zeros(2, 16, 8, 8), torch.zeros(2, 8, 8, 8)
        build_network({"type": "StyleGAN2GeneratorSFT", **small.STYLEGAN2})(z, [wide, narrow])


def test_truncation_is_the_same_of_a_code_and_of_that_code_for_each_layer():
    network = build_network({"type": "StyleGAN2Generator", "out_size": 16, "num_style_feat": 8, "num_mlp": 2, "narrow": 0.0625})
    w, centres = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    settings = {"input_is_latent": True, "truncation": 0.5, "truncation_latent": centres, "randomize_noise": False}
    one = network(w, **settings).image
    each = network(w[:, None].expand(-1, network.num_latent, -1), **settings).image
    torch.testing.assert_close(each, one)


def folded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The clean form of a bilinear generator's weights: its scales folded in, its gains moved."""
    clean = {}
    for key, value in state.items():
        dim = value[0].numel()
        if key.startswith("style_mlp"):  # sqrt(2) leaky_relu(0.01 (w x / sqrt(dim) + b))
            _, index, kind = key.split(".")
            key = f"style_mlp.{2 * int(index) - 1}.{kind}"
            value = value * 2**0.5 * 0.01 / (dim**0.5 if kind == "weight" else 1)
        elif key.endswith("modulation.weight") or key.endswith("modulated_conv.weight"):
            value = value / dim**0.5 if value.dim() == 2 else value / value[0, 0].numel() ** 0.5
        elif key.endswith("activate.bias"):
            key, value = key.replace("activate.bias", "bias"), 2**0.5 * value.view(1, -1, 1, 1)
        elif key.startswith("style_conv") and key.endswith(".weight") and value.dim() == 1:
            value = 2**0.5 * value
        clean[key] = value
    return clean


def test_the_clean_form_is_the_bilinear_one_folded():
    bilinear, (z,) = small.build("StyleGAN2GeneratorBilinear"), small.inputs("StyleGAN2GeneratorBilinear")
    parity.fill_(bilinear, equalized={"": True, "style_mlp": 100})
    clean = small.build("StyleGAN2GeneratorClean")
    load_weights(clean, folded(bilinear.state_dict()))
    expected = bilinear(z)
    torch.testing.assert_close(clean(z).latents, expected.latents, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(clean(z).image, expected.image, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["GFPGANv1", "GFPGANBilinear", "GFPGANv1Clean"])
def test_what_of_gfpgan_is_trained(name):
    options = {"type": name, **small.SMALL[name].keywords}

    def trainable(**keywords) -> set[str]:
        network = build_network(options | keywords)
        return {key for key, parameter in network.named_parameters() if parameter.requires_grad}

    frozen = trainable(fix_decoder=True)
    assert frozen and not [key for key in frozen if key.startswith("stylegan_decoder.")]
    decoder = {key for key in trainable() - frozen}
    assert decoder and not [key for key in decoder if "style_mlp" in key]
    assert [key for key in trainable(input_is_latent=False) if "style_mlp" in key]


def test_what_of_gfpgan_is_returned():
    network, (x,) = small.build("GFPGANv1"), small.inputs("GFPGANv1")
    output = network(x)
    assert [rgb.shape for rgb in output.rgbs] == [(2, 3, 8, 8), (2, 3, 16, 16)]
    assert output.latents.shape == (2, 6, 16)
    bare = network(x, return_rgb=False, return_latents=False)
    assert bare.rgbs is None and bare.latents is None and torch.equal(bare.image, output.image)


@pytest.mark.parametrize(
    ("prior", "network"),
    [
        ("StyleGAN2Generator", "GFPGANv1"),
        ("StyleGAN2GeneratorBilinear", "GFPGANBilinear"),
        ("StyleGAN2GeneratorClean", "GFPGANv1Clean"),
    ],
)
@pytest.mark.parametrize("form", ["params_ema", "params", "module.", "bare"])
def test_the_decoder_starts_from_a_published_generator(tmp_path, prior, network, form):
    source = small.build(prior)
    state = source.state_dict()
    other = {key: torch.zeros_like(value) for key, value in state.items()}
    content = {
        "params_ema": {"params": other, "params_ema": state},
        "params": {"params": state},
        "module.": {f"module.{key}": value for key, value in state.items()},
        "bare": state,
    }[form]
    torch.save(content, tmp_path / "prior.pth")
    options = {"type": network, **small.SMALL[network].keywords, "decoder_load_path": str(tmp_path / "prior.pth")}
    decoder = build_network(options).stylegan_decoder.state_dict()
    assert decoder.keys() == state.keys()
    assert all(torch.equal(decoder[key], value) for key, value in state.items())


@pytest.mark.parametrize("name", ["GFPGANv1", "GFPGANv1Clean", "StyleGAN2Discriminator"])
def test_published_files_tell_their_network(tmp_path, name):
    network = small.build(name)
    torch.save({"params_ema": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "net.pth")
    found, keywords, file = recognise(tmp_path / "net.pth")
    assert found == name
    rebuilt = build_network({"type": found, **keywords}).eval()
    load_weights(rebuilt, file)
    for mine, expected in zip(
        small.tensors(rebuilt(*small.inputs(name))), small.tensors(network(*small.inputs(name))), strict=True
    ):
        assert torch.equal(mine, expected)


def test_a_decoder_of_another_form_is_refused(tmp_path):
    torch.save({"params_ema": small.build("StyleGAN2GeneratorClean").state_dict()}, tmp_path / "clean.pth")
    options = {"type": "GFPGANv1", **small.SMALL["GFPGANv1"].keywords, "decoder_load_path": str(tmp_path / "clean.pth")}
    with pytest.raises(CheckpointError, match="these are weights of StyleGAN2GeneratorClean"):
        build_network(options)
    assert build_network(options | {"decoder_load_path": "random"})
