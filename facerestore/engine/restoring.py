"""From an option file, or a file of weights alone, to the restorer that it describes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from facerestore.config import Options, load_options
from facerestore.config.checks import image_range
from facerestore.engine.builder import build_networks
from facerestore.engine.tester import refuse_untrained
from facerestore.errors import CheckpointError, OptionError
from facerestore.inference.faces import CONDITIONS, Conditions, TaskName
from facerestore.inference.published import where_published
from facerestore.inference.restorer import Restorer
from facerestore.registry import MODELS, parameters_of

RESTORES = "network_g"


def open_restorer(
    source: str | os.PathLike,
    task: TaskName = "restore",
    overrides: Sequence[str] = (),
    device: str | torch.device | None = None,
    **how: Any,
) -> tuple[Restorer, Conditions | None]:
    """The restorer of a file, and what its network is told beside the picture; None where it is told nothing.

    Args:
        source: an option file (.yml) for training or for testing, or a file of weights
        task: what it is for: to restore, an option file says itself what its network is told
        overrides: `key=value`, of an option file
        device: where it runs; as the option file says, or a GPU where there is one
        how: further keywords of :class:`Restorer`

    Raises:
        OptionError: the option file is wrong, or its network does not map pictures to pictures
        CheckpointError: the weights are missing or another network's; the message says where the task's are published
    """
    options = None
    if Path(source).suffix in (".yml", ".yaml"):
        options = replace(load_options(source, overrides), train=None)
        weights = options.path.pretrain.get(RESTORES, "")
    elif overrides:
        raise OptionError(f"{source} is no option file: there is nothing to set in it")
    else:
        weights = str(source)
    try:
        restorer = _of_options(options, device, how) if options else Restorer(source, device=device, **how)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {where_published(weights, task)}") from None
    if not restorer.network.fuses_input:
        return restorer, None
    return restorer, _told(options) if options and task == "restore" else CONDITIONS[task]


def _of_options(options: Options, device: str | torch.device | None, how: dict[str, Any]) -> Restorer:
    if RESTORES not in options.networks:
        raise OptionError(f"{options.source}: {options.model_type} has no {RESTORES}, so nothing that restores pictures")
    needed = (RESTORES, options.networks[RESTORES].weights)
    options = replace(options, networks={key: section for key, section in options.networks.items() if key in needed})
    refuse_untrained(options)
    network = build_networks(options)[RESTORES]
    if "image" not in network.offers or network.takes != ("picture",):
        raise OptionError(f"{options.source}: a {type(network).__name__} makes no picture of a picture: it cannot restore")
    data = next(iter(options.datasets.values()), None)
    device = device or ("cpu" if options.num_gpu == 0 else None)
    return Restorer(network, device=device, image_range=image_range(data) if data else None, **how)


def _told(options: Options) -> Conditions:
    """What the method of an option file tells its network."""
    said = {p.name: options.method.get(p.name, p.default) for p in parameters_of(MODELS.get(options.model_type))}
    default = CONDITIONS["restore"]
    return Conditions(said.get("fidelity_weight", default.w), said.get("adain", default.adain))
