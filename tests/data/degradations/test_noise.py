"""Noise against the published figures, and what is true of every draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facerestore.data.degradations.noise import (
    LUMA,
    GaussianNoise,
    PoissonNoise,
    apply_noise,
    apply_noise_tensor,
    make_noise,
    make_noise_tensor,
    poisson_levels,
    sample_gaussian_noise,
    sample_poisson_noise,
)
from tests import parity
from tests.data.pictures import waves

CASE, ARRAYS = parity.load("data_noise")
IMAGE = waves(**CASE["config"]["image"])[..., ::-1].astype(np.float32)  # the case's picture is BGR
DRAWS, BLOCK = CASE["config"]["draws"], CASE["config"]["block"]
KINDS = sorted({name.rsplit(".", 1)[0] for name in ARRAYS if name.endswith(".std")})


def parameters(kind: str) -> list[GaussianNoise | PoissonNoise]:
    """`poisson_pt_gray.0.5` and its like."""
    name, amount = kind.split(".", 1)
    make = GaussianNoise if name.startswith("gaussian") else PoissonNoise
    return [make(float(amount), name.endswith("gray"), seed) for seed in range(DRAWS)]


def draws(kind: str) -> np.ndarray:
    """(DRAWS, H, W, 3) in units of [0, 1]; of arrays BGR and of tensors RGB, as the figures are."""
    if "_pt" in kind:
        images = torch.from_numpy(IMAGE.transpose(2, 0, 1) / 255).expand(DRAWS, -1, -1, -1)
        noise = make_noise_tensor(images, parameters(kind)).numpy().transpose(0, 2, 3, 1)
    else:
        noise = np.stack([np.broadcast_to(make_noise(IMAGE, p), IMAGE.shape) for p in parameters(kind)])[..., ::-1] / 255
    assert noise.dtype == np.float32
    return noise.astype(np.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_statistics(kind):
    noise = draws(kind)
    independent = noise.size / (3 if "gray" in kind else 1)
    assert abs(noise.mean() - ARRAYS[f"{kind}.mean"]) <= 4 * noise.std() * np.sqrt(2 / independent)
    h, w, _ = IMAGE.shape
    blocks = noise.reshape(DRAWS, h // BLOCK, BLOCK, w // BLOCK, BLOCK, 3)
    varying = (noise - noise.mean(0)).reshape(-1, 3)
    mine = {"std": noise.std(), "std_blocks": blocks.std((0, 2, 4)), "channel_correlation": np.corrcoef(varying.T)}
    for name, value in mine.items():
        key = f"{kind}.{name}"
        assert parity.relative_error(value, ARRAYS[key]) <= CASE["tolerance"][key], key


def test_poisson_levels():
    gray = (IMAGE @ np.array(LUMA)).round()
    assert poisson_levels(IMAGE) == ARRAYS["poisson_levels.color"]
    assert poisson_levels(gray) == ARRAYS["poisson_levels.gray"]
    for distinct, levels in ((1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (128, 128), (129, 256), (256, 256)):
        ramp = np.arange(256.0) % distinct
        assert poisson_levels(ramp) == levels
        image = torch.from_numpy(ramp / 255).float().reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
        counts = make_noise_tensor(image, [PoissonNoise(1.0, False, 0)]) + image  # whole numbers of 1 / levels
        assert torch.allclose(counts * levels, (counts * levels).round(), atol=1e-3)


@pytest.mark.parametrize("make", [GaussianNoise, PoissonNoise])
@pytest.mark.parametrize("gray", [False, True])
def test_a_seed_is_a_picture(make, gray):
    image = waves(7, 20, 12, 5.0).astype(np.float32)
    noise = make(3.0, gray, 11)
    before = image.copy()
    np.random.seed(0)
    noisy = apply_noise(image, noise)
    np.random.seed(1)
    assert noisy.dtype == np.float32 and noisy.shape == image.shape and np.array_equal(image, before)
    assert np.array_equal(noisy, apply_noise(image, noise))
    assert not np.array_equal(noisy, apply_noise(image, noise._replace(seed=12)))
    channels = (noisy - image).transpose(2, 0, 1)
    inside = ((noisy > 0) & (noisy < 255)).all(2)
    assert np.allclose(channels[0][inside], channels[1][inside], atol=1e-3) == gray


@pytest.mark.parametrize("make", [GaussianNoise, PoissonNoise])
def test_each_picture_of_a_batch_has_its_own_draw(make):
    images = torch.from_numpy(waves(7, 20, 12, 5.0).transpose(2, 0, 1) / np.float32(255)).expand(3, -1, -1, -1)
    noises = [make(2.0, True, 1), make(2.0, True, 2), make(2.0, False, 1)]
    torch.manual_seed(0)
    noise = make_noise_tensor(images, noises)
    assert noise.shape == images.shape
    assert not torch.equal(noise[0], noise[1])  # upstream shares one gray draw
    assert torch.equal(noise[0, 0], noise[0, 2]) and not torch.equal(noise[2, 0], noise[2, 2])
    torch.manual_seed(1)
    assert torch.equal(make_noise_tensor(images[1:2], noises[1:2]), noise[1:2])  # whatever its batch
    with pytest.raises(ValueError, match="zip"):
        make_noise_tensor(images, noises[:2])


def test_the_result_is_clipped():
    strong = GaussianNoise(200.0, False, 0)
    noisy = apply_noise(IMAGE, strong)
    assert (noisy.min(), noisy.max()) == (0, 255)
    tensor = apply_noise_tensor(torch.rand(1, 3, 16, 16), [strong])
    assert (tensor.min(), tensor.max()) == (0, 1)


def test_draws_of_the_parameters():
    rng = np.random.default_rng(0)
    for sample in (sample_gaussian_noise, sample_poisson_noise):
        drawn = [sample(rng, (2.0, 6.0), gray_prob=0.4) for _ in range(1000)]
        amounts = np.array([noise[0] for noise in drawn])
        assert 2 <= amounts.min() < 2.05 and 5.95 < amounts.max() < 6 and abs(amounts.mean() - 4) < 0.15
        assert 0.33 < np.mean([noise.gray for noise in drawn]) < 0.47
        assert len({noise.seed for noise in drawn}) == 1000
        assert not any(sample(rng, (0.0, 1.0)).gray for _ in range(50))
    first = sample_gaussian_noise(np.random.default_rng(5), (0.0, 20.0), 0.5)
    assert first == sample_gaussian_noise(np.random.default_rng(5), (0.0, 20.0), 0.5)
    assert eval(repr(first), {"GaussianNoise": GaussianNoise}) == first
