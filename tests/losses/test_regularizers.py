"""Gradient penalties against StarGAN v2's and CodeFormer's figures and against networks whose gradients are known.

BasicSR's own figures of these penalties (case loss_regularizers) are of StyleGAN2's networks: they come with those
(issue 12).
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from facerestore.losses.regularizers import (
    adaptive_weight,
    adopt_weight,
    gradient_penalty,
    path_length_penalty,
    r1_penalty,
)
from tests import parity


def test_r1_parity_with_stargan():
    case, stored = parity.load("loss_stargan2")
    network = nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(8, 8, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(128, 1),
    )
    parity.fill_(network, **case["config"]["fill"])
    x = parity.draw(**case["config"]["inputs"]["x"]).requires_grad_()
    penalty = r1_penalty(network(x).squeeze(1), x) / 2
    penalty.backward()
    assert parity.relative_error(penalty, stored["r1"]) <= case["tolerance"]["r1"]
    checked = [key for key in stored if key.startswith("grad.r1.")]
    assert len(checked) == 5
    for key in checked:
        gradient = network.get_parameter(key.removeprefix("grad.r1.")).grad
        gradient = torch.zeros(stored[key].shape) if gradient is None else gradient
        assert parity.relative_error(gradient, stored[key]) <= case["tolerance"][key], key


def test_r1_of_a_linear_discriminator_is_its_weight():
    slope = torch.randn(3, 4, 4, requires_grad=True)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    penalty = r1_penalty((images * slope).sum((1, 2, 3)), images)
    assert penalty.item() == pytest.approx(slope.square().sum().item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(penalty, slope)
    assert torch.allclose(gradient, 2 * slope, rtol=1e-5)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_penalty_of_a_quadratic_discriminator(legacy, weighted):
    """D(x) = sum of a x^2 / 2 has the gradient a x: of the interpolated picture, so alpha counts."""
    slope = torch.rand(3, 4, 4, requires_grad=True)
    real, fake = torch.randn(2, 5, 3, 4, 4)
    alpha = torch.rand(5, 1, 1, 1)
    weight = torch.rand(5, 1, 4, 4) if weighted else None
    penalty = gradient_penalty(lambda x: (slope * x**2 / 2).sum((1, 2, 3)), real, fake, alpha, weight, legacy)

    gradient = slope * (alpha * real + (1 - alpha) * fake) * (weight if weighted else 1)
    norm = gradient.square().sum(1 if legacy else (1, 2, 3)).sqrt()
    expected = ((norm - 1) ** 2).mean() / (weight.mean() if weighted else 1)
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-5)
    mine, theirs = (torch.autograd.grad(value, slope)[0] for value in (penalty, expected))
    assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-6)


def test_gradient_penalty_leaves_the_pictures_alone():
    real, fake = torch.randn(2, 2, 3, 4, 4).unbind()
    fake.requires_grad_()
    slope = torch.rand(3, 4, 4, requires_grad=True)
    gradient_penalty(lambda x: (slope * x**2).sum((1, 2, 3)), real, fake, torch.rand(2, 1, 1, 1)).backward()
    assert fake.grad is None and not real.requires_grad and slope.grad.any()


def test_path_length_of_a_linear_generator():
    """g(w) = A w, summed over layers, has J^T y = A^T y at every layer."""
    n, layers, dim, side = 4, 3, 6, 4
    matrix = torch.randn(3 * side * side, dim, requires_grad=True)
    latents = torch.randn(n, layers, dim, requires_grad=True)
    noise = torch.randn(n, 3, side, side)
    images = (latents.sum(1) @ matrix.T).view(n, 3, side, side)
    penalty, length, mean = path_length_penalty(images, latents, 0.5, noise, decay=0.1)

    lengths = (noise.flatten(1) / side @ matrix).norm(dim=1)
    new_mean = 0.9 * 0.5 + 0.1 * lengths.mean()
    expected = ((lengths - new_mean) ** 2).mean()
    assert length.item() == pytest.approx(lengths.mean().item(), rel=1e-5)
    assert mean.item() == pytest.approx(new_mean.item(), rel=1e-5)
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-4)
    assert not length.requires_grad and not mean.requires_grad
    mine, theirs = (torch.autograd.grad(value, matrix)[0] for value in (penalty, expected))
    assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_adaptive_weight_parity():
    case, stored = parity.load("loss_adaptive_weight")
    config, tolerance = case["config"], case["tolerance"]
    generator = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(8, 3, 3, padding=1))
    discriminator = nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 4, 1, 1))
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        parity.fill_(network, **config["fill"][name])
    image = generator(parity.draw(**config["inputs"]["x"]))
    recon = (image - parity.draw(**config["inputs"]["gt"])).abs().mean()
    gan = -discriminator(image).mean()
    assert parity.relative_error(recon, stored["recon"]) <= tolerance["recon"]
    assert parity.relative_error(gan, stored["gan"]) <= tolerance["gan"]
    for scale in config["scales"]:
        for largest in config["maxima"]:
            weight = adaptive_weight(scale * recon, gan, generator[2].weight, largest)
            key = f"weight.recon_x{scale}.max{largest}"
            assert not weight.requires_grad
            assert parity.relative_error(weight, stored[key]) <= tolerance[key], key
    (recon + gan).backward()  # their graphs were kept
    for key in ("adopt.1", "adopt.5", "adopt.6"):
        assert adopt_weight(0.8, int(key[6:]), threshold=5, value=0.1) == stored[key]


def test_penalties_under_autocast():
    """A discriminator in bfloat16: the penalties come out in float32 and finite, and reach its weights."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(4 * 36, 1))
    real, fake = torch.randn(2, 2, 3, 8, 8)
    real.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        penalties = (r1_penalty(network(real), real), gradient_penalty(network, real, fake, torch.rand(2, 1, 1, 1)))
    for penalty in penalties:
        assert penalty.dtype == torch.float32
        gradients = torch.autograd.grad(penalty, network[0].weight)
        assert gradients[0].isfinite().all() and gradients[0].any()
