"""What must hold for every registered network, the day that it is registered."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch

from facerestore.archs.outputs import (
    Discriminator,
    DiscriminatorOutput,
    Encoder,
    EncoderOutput,
    Generator,
    GeneratorOutput,
    LandmarkNetwork,
    LandmarkOutput,
)
from facerestore.errors import OptionError
from facerestore.registry import ARCHS, parameters_of
from tests import parity
from tests.archs import small

every_network = pytest.mark.parametrize("name", ARCHS.names())
LARGE = ("CodeFormer", "FAN", "RestoreFormer", "VQAutoEncoder")  # also when they are small


def test_every_network_has_a_small_one():
    assert sorted(small.SMALL) == ARCHS.names()


@every_network
def test_options_are_checked_and_documented(name):
    assert name in small.SMALL, f'say in tests/archs/small.py how to build it small: "{name}": Small({{"num_feat": 8}}),'
    options = {"type": name, **small.SMALL[name].keywords}
    assert ARCHS.check(options) == small.SMALL[name].keywords
    with pytest.raises(OptionError, match="has no option `nonsense`"):
        ARCHS.check(options | {"nonsense": 1})
    for parameter in parameters_of(ARCHS.get(name)):
        assert parameter.doc, f"{parameter.name} is not described under Args"
        assert parameter.hint is not Any, f"{parameter.name} has no type hint"


@every_network
def test_fills_what_it_offers(name):
    network = small.build(name)
    (x, *rest) = small.inputs(name)
    with torch.no_grad():
        output = network(x, *rest)
    assert {k for k, v in vars(output).items() if v is not None} == network.offers
    assert all(value.isfinite().all() for value in small.tensors(output))
    if isinstance(network, Generator):
        assert isinstance(output, GeneratorOutput)
        sides = 2 * (network.out_size,) if network.out_size else tuple(network.upscale * side for side in x.shape[-2:])
        assert output.image.shape[-2:] == sides
    elif isinstance(network, Discriminator):
        assert isinstance(output, DiscriminatorOutput)
    elif isinstance(network, LandmarkNetwork):
        assert isinstance(output, LandmarkOutput)
    else:
        assert isinstance(network, Encoder) and isinstance(output, EncoderOutput)


@every_network
def test_takes_what_forward_needs(name):
    """As many arguments as `takes` names, in this order; all others have a default."""
    needed = [p for p in inspect.signature(ARCHS.get(name).forward).parameters.values() if p.default is p.empty]
    assert len(needed) == 1 + len(ARCHS.get(name).takes)  # and self


@every_network
def test_every_parameter_is_trained(name):
    network = small.build(name).train()
    outputs = small.tensors(network(*small.inputs(name)))
    sum((out * parity.draw(out.shape, 3, str(i))).mean() for i, out in enumerate(outputs)).backward()
    trainable = {k: p for k, p in network.named_parameters() if p.requires_grad}
    assert trainable
    assert [k for k, p in trainable.items() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in trainable.values())


@pytest.mark.parametrize("name", [n for n in ARCHS.names() if issubclass(ARCHS.get(n), Discriminator)])
def test_discriminators_take_a_gradient_penalty(name):
    network, (x, *rest) = small.build(name).train(), small.inputs(name)
    logits = network(x.requires_grad_(), *rest).logits
    (slope,) = torch.autograd.grad(sum(part.sum() for part in logits), x, create_graph=True)
    slope.square().sum().backward()
    first = next(network.parameters()).grad
    assert first.isfinite().all() and first.any()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow(10)) if name in LARGE else name for name in ARCHS.names()]
)
def test_state_and_copies_carry_the_network(name):
    network, inputs = small.build(name), small.inputs(name)
    network.train()(*inputs)  # statistics and power iterations move
    other = ARCHS.get(name)(**small.SMALL[name].keywords).eval()
    other.load_state_dict(network.state_dict())
    copied = copy.deepcopy(network.eval())
    for twin in (other, copied):
        for mine, expected in zip(small.tensors(twin(*inputs)), small.tensors(network(*inputs)), strict=True):
            assert torch.equal(mine, expected)


@every_network
def test_construction_depends_on_the_seed_alone(name):
    torch.manual_seed(5)
    first = ARCHS.get(name)(**small.SMALL[name].keywords)
    torch.manual_seed(5)
    type(first).keywords_of(first.state_dict())  # builds on the meta device: no random number is drawn
    second = ARCHS.get(name)(**small.SMALL[name].keywords)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@every_network
def test_memory_formats_agree(name):
    network, inputs = small.build(name), small.inputs(name)
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    moved = small.channels_last(inputs)
    for mine, expected in zip(small.tensors(last(*moved)), small.tensors(network(*inputs)), strict=True):
        assert parity.relative_error(mine.contiguous(), expected.detach().flatten().numpy()) < 1e-5


@every_network
def test_bfloat16_autocast(name):
    network, inputs = small.build(name), small.inputs(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = small.tensors(network(*inputs))
        sum(out.float().mean() for out in outputs).backward()
    for mine, expected in zip(outputs, small.tensors(network(*inputs)), strict=True):
        assert parity.relative_error(mine, parity.summary(expected, mine.numel())) < 0.05


@every_network
def test_compiles_in_one_graph(name):
    network, inputs = small.build(name), small.inputs(name)
    outputs = small.tensors(torch.compile(network, backend="eager", fullgraph=True)(*inputs))
    for mine, expected in zip(outputs, small.tensors(network(*inputs)), strict=True):
        assert torch.equal(mine, expected)
