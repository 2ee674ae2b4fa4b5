"""Whether what is not trained has learnt something: where the weights of each network come from."""

from __future__ import annotations

import torch
from torch import nn

from facerestore.config import Options
from facerestore.config.schema import net_of
from facerestore.engine.builder import drawn_network, is_copy
from facerestore.engine.preflight.witness import Findings
from facerestore.engine.training import TrainingModel
from facerestore.errors import listed
from facerestore.registry import ARCHS, weight_files


def weight_findings(options: Options, model: TrainingModel) -> Findings:
    """What each network starts from (`facts`, to be asked before the first step).

    A parameter that is not trained must not be a random one.
    """
    found = Findings()
    for key, section in options.networks.items():
        name = net_of(key)
        network = model.networks[name]
        origin = section.weights if is_copy(section) else key
        files = [f for k in dict.fromkeys((origin, key)) for f in _files(k, options)]
        drawn = parameters_as_drawn(network, drawn_network(origin, options.networks[origin], options))
        fixed = [n for n, p in network.named_parameters() if n in drawn and not p.requires_grad]
        if fixed and "random" not in files:
            found.problems.append(
                f"{name} has random weights that are never trained ({listed(fixed, 3)}): name a file of weights "
                "(`weights: random` if that is meant)"
            )
        named = [f for f in files if f != "random"]
        if named and drawn:
            found.notes.append(f"{name}: {len(drawn)} parameters are in no file and start at random ({listed(drawn, 3)})")
        found.facts[name] = "starts " + (f"from {listed(named)}" if named else f"as {origin}" if origin != key else "at random")
    return found


def _files(key: str, options: Options) -> list[str]:
    """What the options name as weights of a network, 'random' included."""
    section = options.networks[key]
    own = [section.component.get(k) for k in weight_files(ARCHS.get(section.type))]
    weights = None if is_copy(section) else section.weights
    return [f for f in (*own, weights, options.path.pretrain.get(key)) if f]


def parameters_as_drawn(network: nn.Module, drawn: nn.Module) -> list[str]:
    """The parameters that chance has made: those that no file has changed (constants say nothing)."""
    theirs = dict(drawn.named_parameters())
    return [
        name
        for name, p in network.named_parameters()
        if p.numel() > 1 and theirs[name].std() > 0 and torch.equal(p.detach().cpu(), theirs[name].detach())
    ]
