"""Options to objects.  Here the options end: what is built keeps none of them."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import nn

from facerestore.checkpoint import Checkpoint, load_weights, read_checkpoint, refuse_other_kind
from facerestore.config import Options
from facerestore.config.checks import (
    check_optimizer,
    image_range,
    normalisation,
    optimizer_class,
    optimizer_defaults,
    why_not_compiled,
)
from facerestore.config.schema import NetworkOptions, net_of
from facerestore.engine.distributed import World
from facerestore.engine.schedules import Schedule, constant
from facerestore.engine.seeds import seed_of
from facerestore.engine.training import PLAIN, Recipe, TrainingModel
from facerestore.errors import OptionError
from facerestore.models.base import Method
from facerestore.registry import ARCHS, MODELS, SCHEDULES, bind, load_weight_files, parameters_of, weight_files


def build_model(options: Options, world: World | None = None) -> TrainingModel:
    """The method of `options` with its networks (weights loaded), losses, optimizers and averages.

    Raises:
        CheckpointError: a file of weights is missing, damaged or another network's
    """
    world = world or World()
    memory = torch.channels_last if options.train and options.train.channels_last else torch.preserve_format
    networks = {net_of(key): network.to(world.device, memory_format=memory) for key, network in build_networks(options).items()}
    frozen = frozenset(net_of(key) for key in frozen_places(options)) & networks.keys()
    for name in frozen:
        networks[name].requires_grad_(False)
    losses = build_losses(options, world)
    method = build_method(options, networks, losses)
    if options.train and options.train.compile:
        compile_networks(networks, method)  # when they are first called
    return TrainingModel(
        method=method,
        networks=networks,
        losses=losses,
        optimizers=build_optimizers(options, method, networks),
        recipe=build_recipe(options, method, world),
        world=world,
        normalisation=normalisation(options.datasets["train"]) if "train" in options.datasets else PLAIN,
        frozen=frozen,
        meta={net_of(key): checkpoint_meta(options, key) for key in options.networks},
    )


def build_networks(options: Options) -> dict[str, nn.Module]:
    """Every network of the options by its key, with the weights that it starts from.

    Each is initialised from (manual_seed, key), so that adding one does not change the others.
    """
    networks: dict[str, nn.Module] = {}
    for key in sorted(options.networks, key=lambda k: is_copy(options.networks[k])):
        section = options.networks[key]
        if is_copy(section):
            networks[key] = copy.deepcopy(networks[section.weights])
        else:
            networks[key] = _initialised(key, section, options)
        if path := options.path.pretrain.get(key):
            with options.naming("path", f"pretrain_{key}"):
                file = read_checkpoint(path)
                refuse_other_kind(file, ARCHS.get(section.type), options.inherited | section.component)
                strict = options.path.strict_load.get(key, True)
                load_weights(networks[key], file, _param_key(key, file, options), strict)
    return {key: networks[key] for key in options.networks}


def frozen_places(options: Options) -> set[str]:
    """The networks that the method looks through and never trains, by their keys."""
    return {p.name for p in parameters_of(MODELS.get(options.model_type)) if p.part and p.part.frozen}


def is_copy(section: NetworkOptions) -> bool:
    return (section.weights or "").startswith("network_")


def _initialised(key: str, section: NetworkOptions, options: Options) -> nn.Module:
    network = drawn_network(key, section, options)
    with options.naming(key):
        load_weight_files(network, section.component)
    if section.weights and section.weights != "random":
        with options.naming(key, "weights"):
            load_weights(network, section.weights)
    return network


def drawn_network(key: str, section: NetworkOptions, options: Options) -> nn.Module:
    """The network as chance makes it, no file read."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(options.manual_seed, key))
        network = ARCHS.build(section.component, options.inherited, load_files=False)
        if section.init_std:
            draw_weights(network, section.init_std)
    return network


def _param_key(key: str, file: Checkpoint, options: Options) -> str | None:
    """Which weights of a file are taken: those that are asked for; else to train on, upstream's `params`; to test or to be
    looked through, the averaged ones, as validation and Restorer use them."""
    trained = options.train and key not in frozen_places(options)
    default = "params" if trained and "params" in file.states else None
    return options.path.param_key.get(key, default)


def draw_weights(network: nn.Module, std: float) -> None:
    """Weights of convolutions and linear layers from N(0, std²), their biases 0."""
    for module in network.modules():
        if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def build_losses(options: Options, world: World) -> dict[str, nn.Module]:
    """The method's losses by their keywords; frozen parts of them get their weights here."""
    losses = {}
    for parameter in parameters_of(MODELS.get(options.model_type)):
        given = options.method.get(parameter.name)
        if parameter.part and parameter.part.registry is not ARCHS and given is not None:
            with torch.random.fork_rng(devices=[]), options.naming("train", parameter.name):
                torch.manual_seed(seed_of(options.manual_seed, parameter.name))
                losses[parameter.name] = parameter.part.registry.build(given, options.inherited).to(world.device)
    return losses


def build_method(options: Options, networks: dict[str, nn.Module], losses: dict[str, nn.Module]) -> Method:
    """The method with its networks and losses."""
    cls = MODELS.get(options.model_type)
    parameters = parameters_of(cls)
    parts = {p.name: networks.get(net_of(p.name)) for p in parameters if p.part and p.part.registry is ARCHS}
    plain = [p for p in parameters if p.part is None]
    words = {p.name: options.method[p.name] for p in plain if p.name in options.method}
    return cls(**parts, **losses, **bind(plain, words, options.model_type, options.inherited))


def build_optimizers(options: Options, method: Method, networks: dict[str, nn.Module]) -> dict[str, torch.optim.Optimizer]:
    """One optimizer for each `optim_X`, over what is trainable in the networks that the method puts under it."""
    if options.train is None:
        return {}
    optimizers = {}
    for key, section in options.train.optimizers.items():
        mine = {n: networks[n] for n in method.optimizer_networks[key] if n in networks}
        if not mine:
            continue  # a method's optional networks; the options' notes say so
        groups = [(p, factor) for p, factor in method.parameter_groups(key, mine) if p]
        if not groups:
            raise OptionError(f"`{key}` has nothing to train: its networks are frozen", ("train", key))
        cls = optimizer_class(section.type)
        keywords = optimizer_defaults(section) | check_optimizer(key, section)
        if "betas" in inspect.signature(cls).parameters:
            keywords["betas"] = section.betas or method.default_betas(key)
        rates = [{"params": p, "lr": section.lr * factor, "initial_lr": section.lr * factor} for p, factor in groups]
        optimizers[key] = cls(rates, lr=section.lr, **keywords)
    return optimizers


def compile_networks(networks: dict[str, nn.Module], method: Method) -> None:
    """Have networks compiled where that is possible.  They stay the modules that they are, with the keys of their weights;
    their averages, which pictures of any size pass through, are not compiled."""
    for name, network in networks.items():
        if why_not_compiled(name, network, type(method)) is None:
            network.compile()


def averaging_decay(options: Options, method: Method, world: World) -> float:
    """The averages' decay in one iteration."""
    train = options.train
    if train.ema_half_life_kimg is None:
        return method.ema_decay if train.ema_decay is None else train.ema_decay
    batch = options.datasets["train"].batch_size_per_gpu * world.size if "train" in options.datasets else 1
    return 0.5 ** (batch / (1000 * train.ema_half_life_kimg))


def build_recipe(options: Options, method: Method, world: World) -> Recipe:
    train = options.train
    if train is None:
        return Recipe(seed=options.manual_seed)
    return Recipe(
        seed=options.manual_seed,
        schedule=build_schedule(options),
        warmup_iter=train.warmup_iter,
        ema_decay=averaging_decay(options, method, world),
        ema_start_iter=train.ema_start_iter,
        ema_buffers=not options.legacy,
        clip_grad_norm=train.clip_grad_norm,
        precision=train.precision,
        channels_last=train.channels_last,
        loss_limit=train.loss_limit,
        accumulate=train.accumulate,
        compiled=train.compile,
    )


def build_schedule(options: Options) -> Schedule:
    section = options.train.scheduler
    return SCHEDULES.build(section, options.inherited) if section else constant


def checkpoint_meta(options: Options, key: str) -> dict[str, Any]:
    """What a checkpoint says of its network, so that the file is enough to use it."""
    section = options.networks[key]
    cls = ARCHS.get(section.type)
    data = options.datasets.get("train") or next(iter(options.datasets.values()), None)
    inherited = {p.name: options.inherited[p.name] for p in parameters_of(cls) if p.name in options.inherited}
    given = {k: v for k, v in section.component.items() if k != "type" and k not in weight_files(cls)}
    return {
        "type": section.type,
        "keywords": inherited | given,
        "image_range": list(image_range(data)) if data else [0.0, 1.0],
    }
