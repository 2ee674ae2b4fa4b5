"""Runs a network's parity case: builds and fills the network, feeds it, and compares outputs, gradients, keys and
shapes.

A new network's case is copied into tests/parity/cases; where its class has another name here than in the published
code, or its outputs do, one line below says so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from facerestore.archs import build_network
from facerestore.archs.layers.quantizers import VectorQuantizer
from facerestore.archs.vgg_features import VGGFeatures
from tests import parity
from tests.archs import vq_outputs

OTHER_KINDS = ("train_", "loss_", "metric_", "data_")  # cases that are no network's
OFFICIAL = "_official_state"

BUILDERS: dict[str, Callable[..., nn.Module]] = {  # by the published class, where it is not built under its own name
    "VGGFeatureExtractor": VGGFeatures,
    "VectorQuantizer": VectorQuantizer,
}
RENAMED = {  # published classes that are registered under another name
    f"stargan-v2:core/model.py:{name}": f"StarGANv2{name}"
    for name in ("Generator", "MappingNetwork", "StyleEncoder", "Discriminator")
}
FIELDS = {  # published outputs, by their name here
    "out": ("image", "logits", "embedding"),
    "outputs": ("heatmaps",),
    "s": ("embedding",),
    "lq_feat": ("feat",),
    "latent": ("latents",),
    "out_rgbs": ("rgbs",),
}


def names(official: bool) -> list[str]:
    """The networks' cases: with `official`, those of keys and shapes at the published size, else those with figures."""
    stems = sorted(path.stem for path in parity.CASES.glob("*.json"))
    return [s for s in stems if not s.startswith(OTHER_KINDS) and s.endswith(OFFICIAL) == official]


def name_of(case: dict[str, Any]) -> str:
    """The published class's name, or what it is called here."""
    return RENAMED.get(case["reference"], case["reference"].rsplit(":", 1)[-1])


def build(case: dict[str, Any]) -> nn.Module:
    published = name_of(case)
    keywords = case["kwargs"] | ({"legacy": True} if case.get("legacy") else {})
    if published in BUILDERS:
        return BUILDERS[published](**keywords)
    return build_network({"type": published, **keywords})


def state_on_meta(case: dict[str, Any]) -> dict[str, Tensor]:
    """The state dict of the case's network, without memory for it."""
    with torch.device("meta"):
        return build(case).state_dict()


def check_state(name: str) -> None:
    """Keys and shapes, and the number of parameters."""
    case, _ = parity.load(name)
    with torch.device("meta"):
        network = build(case)
    assert {k: list(v.shape) for k, v in network.state_dict().items()} == dict(case["state"])
    assert sum(p.numel() for p in network.parameters()) == case["parameters"]


def check_figures(name: str) -> None:
    """Every stored output and gradient within the case's own tolerance."""
    case, stored = parity.load(name)
    network = parity.fill_(build(case), **case["fill"]).train(case["mode"] == "train").requires_grad_(True)
    inputs = {key: tensor_of(spec) for key, spec in case["inputs"].items()}
    differentiated = case.get("grad", {"inputs": [], "outputs": []})
    leaves = flatten(inputs)
    wanted = [leaf for leaf in leaves for key in differentiated["inputs"] if leaf == key or leaf.startswith(f"{key}.")]
    for leaf in wanted:
        leaves[leaf].requires_grad_(True)

    call = dict(case["call"])
    method = method_of(network, case["reference"].rsplit(":", 1)[-1], call.pop("method", "forward"))
    first, *others = inputs
    outputs = named_outputs(method(inputs[first], **{k: inputs[k] for k in others}, **call), case["returns"])
    figures = {key: outputs[key] for key in case["outputs"]}
    for key, shape in case["outputs"].items():
        assert list(figures[key].shape) == shape, key

    if differentiated["outputs"]:
        chosen = [outputs[key] for key in differentiated["outputs"]]
        directions = [parity.draw(outputs[key].shape, 99, key) for key in differentiated["outputs"]]
        sum((out * direction).mean() for out, direction in zip(chosen, directions, strict=True)).backward()
        parameters = dict(network.named_parameters())
        figures |= {f"grad:{key}": parameters[key].grad for key in differentiated["parameters"]}
        figures |= {f"grad_input:{key}": leaves[key].grad for key in wanted}

    assert figures.keys() == stored.keys()
    tolerance = case["tolerance"]
    for key, reference in stored.items():
        allowed = tolerance["gradients" if key.startswith("grad") else "outputs"]
        error = parity.relative_error(figures[key], reference)
        assert error <= allowed, f"{name}: {key} is off by {error:.1e}, allowed are {allowed:.0e}"


def method_of(network: nn.Module, published: str, name: str) -> Callable[..., Any]:
    """The method that a case calls, or what gathers the same from ours."""
    if (published, name) in vq_outputs.CALLS:
        return functools.partial(vq_outputs.CALLS[published, name], network)
    return getattr(network, name)


def tensor_of(spec: dict[str, Any] | list) -> Tensor | list:
    """The input that a case describes: drawn, constant, or a list of them."""
    if isinstance(spec, list):
        return [tensor_of(item) for item in spec]
    if "constant" in spec:
        return torch.tensor(spec["constant"], dtype=getattr(torch, spec["dtype"]))
    return parity.draw(spec["shape"], spec["seed"], spec["name"], spec.get("low"), spec.get("high"))


def named_outputs(result: Any, returns: str | list[str]) -> dict[str, Tensor]:
    """What a network returned under the published names, lists as `name.0`, `name.1`, ..."""
    if isinstance(result, dict):
        return flatten(result)
    published = [returns] if isinstance(returns, str) else returns
    if is_dataclass(result):
        filled = {k: v for k, v in vars(result).items() if v is not None}
        fields = {name: field_of(name, filled) for name in published}
        return flatten({name: filled[field] for name, field in fields.items() if field})
    values = result if isinstance(result, tuple) else (result,)
    return flatten(dict(zip(published, values, strict=True)))


def field_of(published: str, filled: dict[str, Any]) -> str | None:
    """The field that holds a published output, None where it was not asked for."""
    return next((name for name in FIELDS.get(published, (published,)) if name in filled), None)


def flatten(values: dict[str, Any]) -> dict[str, Tensor]:
    """Tensors by name; those of a list or a dict by `name.key`."""
    flat: dict[str, Tensor] = {}
    for name, value in values.items():
        if isinstance(value, Tensor):
            flat[name] = value
        elif isinstance(value, dict):
            flat |= flatten({f"{name}.{k}": v for k, v in value.items()})
        elif isinstance(value, list | tuple):
            flat |= flatten({f"{name}.{k}": v for k, v in enumerate(value)})
    return flat
