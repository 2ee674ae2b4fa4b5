"""Adversarial losses against BasicSR's and StarGAN v2's figures."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from facerestore.errors import OptionError
from facerestore.losses import GANLoss, MultiScaleGANLoss
from facerestore.losses.gan import relativistic
from tests import parity

CASE, STORED = parity.load("loss_gan")
TYPES = ("vanilla", "lsgan", "wgan", "wgan_softplus", "hinge")
CALLS = list(itertools.product(TYPES, (True, False), (True, False)))


def name_of(gan_type: str, real: bool, disc: bool) -> str:
    return f"{gan_type}.{'real' if real else 'fake'}.{'d' if disc else 'g'}"


def draw(spec):
    return [draw(item) for item in spec] if isinstance(spec, list) else parity.draw(**spec)


def agrees(mine: torch.Tensor, key: str) -> bool:
    return parity.relative_error(mine, STORED[key]) <= CASE["tolerance"][key]


def test_the_calls_are_the_whole_case():
    names = {name_of(*call) for call in CALLS}
    assert {key.split(".", 1)[1] for key in STORED} == names and len(STORED) == 4 * len(names)


@pytest.mark.parametrize(("gan_type", "real", "disc"), CALLS)
def test_parity(gan_type, real, disc):
    logits = draw(CASE["config"]["inputs"]["pred"]).requires_grad_()
    loss = GANLoss(gan_type, **CASE["config"]["options"])(logits, real, is_disc=disc)
    loss.backward()
    name = name_of(gan_type, real, disc)
    assert agrees(loss, f"value.{name}")
    assert agrees(logits.grad, f"grad.{name}")


@pytest.mark.parametrize(("gan_type", "real", "disc"), CALLS)
def test_multiscale_parity(gan_type, real, disc):
    gan = MultiScaleGANLoss(gan_type, **CASE["config"]["options"])
    scales, nested = draw(CASE["config"]["inputs"]["scales"]), draw(CASE["config"]["inputs"]["nested"])
    name = name_of(gan_type, real, disc)
    assert agrees(gan(scales, real, is_disc=disc), f"multiscale.{name}")
    assert agrees(gan(nested, real, is_disc=disc), f"multiscale_nested.{name}")


@pytest.mark.parametrize("real", [True, False])
def test_one_scale_is_the_plain_loss(real):
    logits = torch.randn(3, 1, 4, 4)
    assert torch.equal(MultiScaleGANLoss("hinge")(logits, real), GANLoss("hinge")(logits, real))
    assert torch.equal(MultiScaleGANLoss("hinge")([logits], real), GANLoss("hinge")(logits, real))


@pytest.mark.parametrize(("label", "real"), [(0.9, True), (0.1, False)])
def test_smoothed_labels(label, real):
    logits = torch.tensor([-15.0, -2, 0, 3, 15], requires_grad=True)
    options = {"real_label_val": label} if real else {"fake_label_val": label}
    loss = GANLoss("vanilla", **options)(logits, real, is_disc=True)
    expected = F.binary_cross_entropy(logits.double().sigmoid(), torch.full((5,), label).double())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.allclose(gradient, (logits.sigmoid() - label) / 5, atol=1e-7)
    squares = (logits.detach() - label).square().mean()
    assert GANLoss("lsgan", **options)(logits.detach(), real, is_disc=True).item() == pytest.approx(squares.item())


@pytest.mark.parametrize("gan_type", ["wgan", "wgan_softplus", "hinge"])
@pytest.mark.parametrize("label", [{"real_label_val": 0.9}, {"fake_label_val": 0.1}])
def test_labels_without_effect_are_refused(gan_type, label):
    with pytest.raises(OptionError, match="no label") as refusal:
        GANLoss(gan_type, **label)
    assert refusal.value.path == tuple(label)


def test_stargan_adversary():
    case, stored = parity.load("loss_stargan2")
    for target in (0, 1):
        logits = draw(case["config"]["inputs"]["logits"]).requires_grad_()
        loss = GANLoss("vanilla")(logits, bool(target), is_disc=True)
        loss.backward()
        for key, mine in ((f"adv.{target}", loss), (f"grad.adv.{target}", logits.grad)):
            assert parity.relative_error(mine, stored[key]) <= case["tolerance"][key]


def test_relativistic_differences():
    real, fake = torch.tensor([[1.0], [3.0]]), torch.tensor([[-1.0], [0.0]])
    of_real, of_fake = relativistic(real, fake)
    assert of_real.tolist() == [[1.5], [3.5]]
    assert of_fake.tolist() == [[-3.0], [-2.0]]


def test_relativistic_loss_of_esrgan():
    """Eq. 1 of the paper, written out with D_Ra = sigmoid of the differences."""
    real, fake = torch.randn(2, 4, 1).double()
    of_real, of_fake = relativistic(real, fake)
    gan = GANLoss("vanilla")
    expected = -(real - fake.mean()).sigmoid().log().mean() - (1 - (fake - real.mean()).sigmoid()).log().mean()
    assert gan(of_real, True, is_disc=True) + gan(of_fake, False, is_disc=True) == pytest.approx(expected.item(), rel=1e-6)
