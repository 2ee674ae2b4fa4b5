"""Checks of components against their signatures and against one another: all that can be known before building."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from facerestore.config import schema
from facerestore.config.schema import DatasetOptions, NetworkOptions, OptimizerOptions, Options
from facerestore.errors import OptionError, Path, listed, nearest
from facerestore.registry import (
    ARCHS,
    DATASETS,
    METRICS,
    MODELS,
    SCHEDULES,
    Parameter,
    bind,
    parameters_of,
    weight_files,
)

# Keywords of torch's optimizers (beside lr and betas) and what they take.
OPTIMIZER_KEYWORDS = {
    **dict.fromkeys(("weight_decay", "eps", "momentum", "alpha", "dampening"), schema.NonNegative),
    **dict.fromkeys(("amsgrad", "nesterov", "centered"), bool),
    **dict.fromkeys(("foreach", "fused"), bool | None),
}


def check_components(options: Options) -> list[str]:
    """Check every component of `options`; the return value is what a reader of the log should know."""
    method = _at(("model_type",), MODELS.get, options.model_type, strip=True)
    for key, network in options.networks.items():
        _check_network(key, network, options)
    for key, data in options.datasets.items():
        _at(("datasets", key), DATASETS.check, data.component, options.inherited_by_data, _names(schema.DatasetOptions))
    for key, metric in options.val.metrics.items():
        _at(("val", "metrics", key), METRICS.check, metric.component, None, _names(schema.MetricOptions))
    _check_method(method, options)
    _check_ranges(options)
    notes = ["`legacy: true`: published behaviour that is wrong is in force"] if options.legacy else []
    if options.train:
        notes += _check_training(method, options)
    return notes


def _at(path: Path, check: Callable, *args: Any, strip: bool = False) -> Any:
    """Run a check; its error is seen from the top of the file."""
    try:
        return check(*args)
    except OptionError as error:
        raise OptionError(error.message, path if strip else path + error.path) from None


def _names(section: type) -> list[str]:
    return [p.name for p in schema.own_fields(section)]


def _check_network(key: str, network: NetworkOptions, options: Options) -> None:
    _at((key,), ARCHS.check, network.component, options.inherited, _names(NetworkOptions))
    with torch.device("meta"):  # nothing is allocated, but keywords that do not go together come to light
        _at((key,), ARCHS.build, network.component, options.inherited, False)
    source = network.weights
    if source and source.startswith("network_"):
        if source not in options.networks or source == key:
            raise OptionError(f"there is no other network `{source}` to start from", (key, "weights"))
        if options.networks[source].component != network.component:
            raise OptionError(f"cannot start as a copy of `{source}`: the two differ in their keywords", (key, "weights"))


def _check_method(method: type, options: Options) -> None:
    """Networks and the method's own keys against its signature; what losses need against what networks offer."""
    parameters = {p.name: p for p in parameters_of(method)}
    places = {n: p for n, p in parameters.items() if n.startswith("network_")}
    for key in options.networks:
        if key not in places:
            hint = nearest(key, places) or f" (it has {listed(sorted(places))})"
            raise OptionError(f"{options.model_type} has no network `{key}`{hint}", (key,))
    keywords = [p for n, p in parameters.items() if n not in places]
    given = options.train.method if options.train else {}
    beside = [*_names(schema.TrainOptions), *method.optimizers]
    _at(("train",), bind, keywords, given, options.model_type, options.inherited, beside)
    required = [n for n, p in parameters.items() if p.required or (options.train and n in method.needed_to_train)]
    for name in required:
        missing = name not in options.networks if name in places else given.get(name) is None
        if missing:
            what = f": {parameters[name].doc}" if parameters[name].doc else ""
            raise OptionError(f"{options.model_type} needs `{name}`{what}", () if name in places else ("train",))
    for name, place in places.items():
        if name in options.networks:
            _check_offers(name, options.networks[name], place, options)
    for p in keywords:
        if p.part and given.get(p.name) is not None:
            with torch.device("meta"):
                _at(("train", p.name), p.part.registry.build, given[p.name], options.inherited, False)
    _check_needs(keywords, given, options)


def _check_offers(key: str, network: NetworkOptions, place: Parameter, options: Options) -> None:
    missing = [field for field in place.part.offers if field not in ARCHS.get(network.type).offers]
    if missing:
        raise OptionError(
            f"{options.model_type} needs `{missing[0]}` of its {key}, which {network.type} does not offer",
            (key, "type"),
        )
    if place.part.frozen and not _has_weights(key, network, options):
        raise OptionError(
            f"{network.type} is never trained here, so it needs weights: name a file in path.pretrain_{key} or as "
            "`weights` (`weights: random` if that is meant)",
            (key,),
        )


def _has_weights(key: str, network: NetworkOptions, options: Options) -> bool:
    declared = weight_files(ARCHS.get(network.type))
    own = any(f.module == "" and network.component.get(k) for k, f in declared.items())
    return bool(network.weights or key in options.path.pretrain or own)


def _check_needs(keywords: list[Parameter], given: dict[str, Any], options: Options) -> None:
    """A loss may need more of a network's output than a picture or logits."""
    for parameter in keywords:
        value = given.get(parameter.name)
        if not parameter.part or value is None:
            continue
        loss = parameter.part.registry.get(value["type"])
        for key, fields in getattr(loss, "needs", {}).items():
            network = options.networks.get(key)
            for field in fields:
                if network is None or field not in ARCHS.get(network.type).offers:
                    whom = f"{network.type}, the {key}, does not offer" if network else f"there is no {key} to offer"
                    raise OptionError(f"{value['type']} needs `{field}`, which {whom}", ("train", parameter.name))


def _check_ranges(options: Options) -> None:
    """Pictures must reach a network in the range that it was made for."""
    for name, data in options.datasets.items():
        values = image_range(data)
        for key, network in options.networks.items():
            wanted = ARCHS.get(network.type).input_range
            if wanted and any(abs(a - b) > 1e-6 for a, b in zip(values, wanted, strict=True)):
                raise OptionError(
                    f"{network.type} ({key}) takes pictures in {list(wanted)}, but mean and std of this data set map "
                    f"them to [{values[0]:g}, {values[1]:g}]: set `mean: [0.5, 0.5, 0.5]` and `std: [0.5, 0.5, 0.5]`",
                    ("datasets", name),
                )


def image_range(data: DatasetOptions) -> tuple[float, float]:
    """The values that a data set's pictures have on the device, by its `mean` and `std`."""
    mean, std = normalisation(data)
    return (0 - mean[0]) / std[0], (1 - mean[0]) / std[0]


def normalisation(data: DatasetOptions) -> tuple[Sequence[float], Sequence[float]]:
    """A data set's `mean` and `std`: its options', or its class's own."""
    entry = DATASETS.get(data.type)
    return data.component.get("mean") or entry.mean, data.component.get("std") or entry.std


def _check_training(method: type, options: Options) -> list[str]:
    train = options.train
    for key, optimizer in train.optimizers.items():
        if key not in method.optimizers:
            hint = nearest(key, method.optimizers) or f" (it has {listed(list(method.optimizers))})"
            raise OptionError(f"{options.model_type} has no optimizer `{key}`{hint}", ("train", key))
        check_optimizer(key, optimizer)
    for key, networks in method.optimizers.items():
        if key not in train.optimizers and any(n.replace("net_", "network_", 1) in options.networks for n in networks):
            raise OptionError(f"{options.model_type} needs `{key}`: the optimizer of {listed(networks)}", ("train",))
    return check_schedule(options)


def check_optimizer(key: str, optimizer: OptimizerOptions) -> dict[str, Any]:
    """The keywords of an optimizer, bound against its signature."""
    cls = getattr(torch.optim, optimizer.type, None)
    if not (inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer)) or cls is torch.optim.Optimizer:
        known = [n for n, c in vars(torch.optim).items() if inspect.isclass(c) and issubclass(c, torch.optim.Optimizer)]
        raise OptionError(f"torch.optim has no {optimizer.type!r}{nearest(optimizer.type, known)}", ("train", key, "type"))
    takes = inspect.signature(cls).parameters
    known = [Parameter(n, hint, None, "") for n, hint in OPTIMIZER_KEYWORDS.items() if n in takes]
    given = {k: v for k, v in optimizer.component.items() if k != "type"}
    keywords = _at(("train", key), bind, known, given, optimizer.type, None, _names(OptimizerOptions))
    if optimizer.betas is not None and "betas" not in takes:
        raise OptionError(f"{optimizer.type} has no betas", ("train", key, "betas"))
    return keywords


def check_schedule(options: Options) -> list[str]:
    """The scheduler's keywords, and whether it lasts as long as the training."""
    train = options.train
    if train.scheduler is None:
        return []
    schedule = _at(("train", "scheduler"), SCHEDULES.build, train.scheduler, options.inherited)
    if schedule.ends_at is None or schedule.ends_at >= train.total_iter:
        return []
    return [f"train.scheduler ends at iteration {schedule.ends_at}; up to {train.total_iter} the rate stays at its last"]
