"""Options to objects.  Here the options end: what is built keeps none of them."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import nn

from facerestore.checkpoint import load_weights, read_checkpoint
from facerestore.config import Options
from facerestore.config.checks import check_optimizer, image_range, normalisation
from facerestore.config.schema import NetworkOptions
from facerestore.engine.distributed import World
from facerestore.engine.schedules import Schedule, constant
from facerestore.engine.seeds import seed_of
from facerestore.engine.training import PLAIN, Recipe, TrainingModel
from facerestore.errors import OptionError
from facerestore.models.base import Method
from facerestore.registry import ARCHS, MODELS, SCHEDULES, bind, parameters_of


def build_model(options: Options, world: World | None = None) -> TrainingModel:
    """The method of `options` with its networks (weights loaded), losses, optimizers and averages.

    Raises:
        CheckpointError: a file of weights is missing, damaged or another network's
    """
    world = world or World()
    memory = torch.channels_last if options.train and options.train.channels_last else torch.preserve_format
    networks = {
        "net_" + key.removeprefix("network_"): network.to(world.device, memory_format=memory)
        for key, network in build_networks(options).items()
    }
    method_class = MODELS.get(options.model_type)
    parameters = parameters_of(method_class)
    frozen = frozenset("net_" + p.name.removeprefix("network_") for p in parameters if p.part and p.part.frozen)
    for name in frozen & networks.keys():
        networks[name].requires_grad_(False)
    method = build_method(options, networks, world)
    return TrainingModel(
        method=method,
        networks=networks,
        optimizers=build_optimizers(options, method, networks),
        recipe=build_recipe(options, method),
        world=world,
        normalisation=normalisation(options.datasets["train"]) if "train" in options.datasets else PLAIN,
        frozen=frozen,
        meta={"net_" + k.removeprefix("network_"): describe(options, k) for k in options.networks},
    )


def build_networks(options: Options) -> dict[str, nn.Module]:
    """Every network of the options by its key, with the weights that it starts from.

    Each is initialised from (manual_seed, key), so that adding one does not change the others.
    """
    networks: dict[str, nn.Module] = {}
    for key in sorted(options.networks, key=lambda k: (options.networks[k].weights or "").startswith("network_")):
        section = options.networks[key]
        if section.weights in networks:
            networks[key] = copy.deepcopy(networks[section.weights])
        else:
            networks[key] = _initialised(key, section, options)
        if path := options.path.pretrain.get(key):
            strict = options.path.strict_load.get(key, True)
            load_weights(networks[key], path, _param_key(key, path, options), strict)
    return {key: networks[key] for key in options.networks}


def _initialised(key: str, section: NetworkOptions, options: Options) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(options.manual_seed, key))
        network = ARCHS.build(section.component, options.inherited)
        if section.init_std:
            draw_weights(network, section.init_std)
    if section.weights and section.weights != "random" and not section.weights.startswith("network_"):
        load_weights(network, section.weights)
    return network


def _param_key(key: str, path: str, options: Options) -> str | None:
    """Upstream's default is `params`; a file without it gives what it has."""
    asked = options.path.param_key.get(key)
    return asked or ("params" if "params" in read_checkpoint(path).states else None)


def draw_weights(network: nn.Module, std: float) -> None:
    """Weights of convolutions and linear layers from N(0, std²), their biases 0."""
    for module in network.modules():
        if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def build_method(options: Options, networks: dict[str, nn.Module], world: World) -> Method:
    """The method with its networks and losses; frozen parts of losses get their weights here."""
    cls = MODELS.get(options.model_type)
    given = options.train.method if options.train else {}
    keywords: dict[str, Any] = {}
    for parameter in parameters_of(cls):
        if parameter.name.startswith("network_"):
            keywords[parameter.name] = networks.get("net_" + parameter.name.removeprefix("network_"))
        elif parameter.part and given.get(parameter.name) is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_of(options.manual_seed, parameter.name))
                part = parameter.part.registry.build(given[parameter.name], options.inherited)
            keywords[parameter.name] = part.to(world.device)
    checked = _checked_keywords(cls, given, options)
    return cls(**{**checked, **keywords})


def _checked_keywords(cls: type[Method], given: dict[str, Any], options: Options) -> dict[str, Any]:
    """The method's plain keywords, converted to their types."""
    plain = [p for p in parameters_of(cls) if not p.part]
    names = {p.name for p in plain}
    return bind(plain, {k: v for k, v in given.items() if k in names}, cls.__name__, options.inherited)


def build_optimizers(options: Options, method: Method, networks: dict[str, nn.Module]) -> dict[str, torch.optim.Optimizer]:
    """One optimizer for each `optim_X`, over what is trainable in the networks that the method puts under it."""
    if options.train is None:
        return {}
    optimizers = {}
    for key, section in options.train.optimizers.items():
        parameters = [p for n in method.optimizers[key] if n in networks for p in networks[n].parameters() if p.requires_grad]
        if not parameters:
            raise OptionError(f"`{key}` has nothing to train: its networks are absent or frozen", ("train", key))
        cls = getattr(torch.optim, section.type)
        keywords = check_optimizer(key, section)
        if "betas" in inspect.signature(cls).parameters:
            keywords["betas"] = section.betas or method.default_betas(key)
        optimizers[key] = cls(parameters, lr=section.lr, **keywords)
        for group in optimizers[key].param_groups:
            group["initial_lr"] = section.lr
    return optimizers


def build_recipe(options: Options, method: Method) -> Recipe:
    train = options.train
    if train is None:
        return Recipe(seed=options.manual_seed)
    return Recipe(
        seed=options.manual_seed,
        schedule=build_schedule(options),
        warmup_iter=train.warmup_iter,
        ema_decay=method.ema_decay if train.ema_decay is None else train.ema_decay,
        ema_buffers=not options.legacy,
        clip_grad_norm=train.clip_grad_norm,
        precision=train.precision,
        channels_last=train.channels_last,
    )


def build_schedule(options: Options) -> Schedule:
    section = options.train.scheduler
    return SCHEDULES.build(section, options.inherited) if section else constant


def describe(options: Options, key: str) -> dict[str, Any]:
    """What a checkpoint says of its network, so that the file is enough to use it."""
    section = options.networks[key]
    keywords = {k: v for k, v in section.component.items() if k != "type"}
    declared = getattr(ARCHS.get(section.type), "weight_files", {})
    data = options.datasets.get("train") or next(iter(options.datasets.values()), None)
    inherited = {
        p.name: options.inherited[p.name] for p in parameters_of(ARCHS.get(section.type)) if p.name in options.inherited
    }
    return {
        "type": section.type,
        "keywords": inherited | {k: v for k, v in keywords.items() if k not in declared},
        "image_range": list(image_range(data)) if data else [0.0, 1.0],
    }
