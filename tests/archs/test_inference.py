"""Forms of the layers that restore on a CPU compute what those that learn do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from facerestore.archs.layers import inference
from facerestore.archs.layers.autoencoder_blocks import ResBlock, Upsample
from facerestore.archs.layers.inference import affine_of, doubled_and_convolved, frugal

WIDTH = 32


def features(channels: int = WIDTH, mean: float = 0.0) -> Tensor:
    """(2, channels, 6, 10), channels last."""
    drawn = torch.randn(2, channels, 6, 10, generator=torch.Generator().manual_seed(0)) + mean
    return drawn.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "layer", [ResBlock(WIDTH, WIDTH), ResBlock(2 * WIDTH, WIDTH), ResBlock(WIDTH, 2 * WIDTH), Upsample(WIDTH)]
)
def test_without_gradients_the_numbers_are_equal_and_the_input_is_left_alone(layer):
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.1)
    x = features(layer.norm1.num_channels if isinstance(layer, ResBlock) else WIDTH)
    kept, learning = x.clone(), layer.eval()(x).detach()
    with torch.no_grad():
        assert frugal(layer, x)
        torch.testing.assert_close(layer(x), learning, rtol=1e-5, atol=1e-5)
    assert torch.equal(x, kept)


def test_gradients_training_other_layouts_and_compilation_take_the_plain_form(monkeypatch):
    layer, x = nn.Identity().eval(), features()
    assert not frugal(layer, x)
    with torch.no_grad():
        assert frugal(layer, x) and not frugal(layer, x.contiguous()) and not frugal(nn.Identity(), x)
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert not frugal(layer, x)


@pytest.mark.parametrize("portion", [1, 7 * WIDTH, 1 << 17])
def test_norms_are_those_of_the_whole_picture_in_whatever_portions(monkeypatch, portion):
    monkeypatch.setattr(inference, "PORTION", portion)
    norm, x = nn.GroupNorm(8, WIDTH, eps=1e-6), features(mean=5.0)
    nn.init.normal_(norm.weight)
    scale, shift = affine_of(norm, x)
    torch.testing.assert_close(x * scale + shift, norm(x), rtol=1e-4, atol=1e-4)


def test_under_bf16_blocks_stay_in_it():
    block, up, x = ResBlock(2 * WIDTH, WIDTH).eval(), Upsample(2 * WIDTH).eval(), features(2 * WIDTH)
    with torch.no_grad():
        exact = block(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = block(x.bfloat16())
            assert block(x).dtype == torch.bfloat16, "of float32 as well"
            assert up(x.bfloat16()).dtype == torch.bfloat16
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=0.05, atol=0.05)


def test_doubled_pixels_of_one_channel_by_hand():
    conv = nn.Conv2d(1, 1, 3, padding=1)
    nn.init.ones_(conv.weight)
    nn.init.zeros_(conv.bias)
    with torch.no_grad():
        found = doubled_and_convolved(conv, torch.tensor([[[[1.0, 10.0]]]]))
    assert found[0, 0].tolist() == [[4.0, 24.0, 42.0, 40.0]] * 2
