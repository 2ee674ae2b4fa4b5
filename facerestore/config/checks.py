"""Checks of components against their signatures and against one another: all that can be known before building."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from facerestore.config import schema
from facerestore.config.schema import DatasetOptions, NetworkOptions, OptimizerOptions, Options
from facerestore.errors import OptionError, Path, first_line, listed, nearest
from facerestore.registry import (
    ARCHS,
    DATASETS,
    LOSSES,
    METRICS,
    MODELS,
    SCHEDULES,
    Parameter,
    bind,
    parameters_of,
    refuse_misfit,
    weight_files,
)

if TYPE_CHECKING:
    from facerestore.models.base import Method

# Keywords of torch's optimizers (beside lr and betas) and what they take.
OPTIMIZER_KEYWORDS = {
    **dict.fromkeys(("weight_decay", "eps", "dampening"), schema.Share),
    **dict.fromkeys(("momentum", "alpha"), schema.Decay),
    **dict.fromkeys(("amsgrad", "nesterov", "centered"), bool),
    **dict.fromkeys(("foreach", "fused"), bool | None),
}


def check_components(options: Options) -> tuple[list[str], list[str]]:
    """Check every component of `options`; returns what a reader of the log should know, and what of a training's alone."""
    method = _at(("model_type",), MODELS.get, options.model_type, strip=True)
    for key, network in options.networks.items():
        _check_network(key, network, options)
    for key, data in options.datasets.items():
        path, component = ("datasets", key), data.component
        _at(path, DATASETS.check, component, options.inherited_by_data, _names(schema.DatasetOptions))
        _at(path, DATASETS.build, component, options.inherited_by_data)  # touches no data, but tells keywords that clash
    for key, metric in options.val.metrics.items():
        _at(("val", "metrics", key), METRICS.check, metric.component, None, _names(schema.MetricOptions))
        if getattr(METRICS.get(metric.type), "reads_codes", False) and not method.tells_codes:
            raise OptionError(f"{metric.type} looks at codes, and {options.model_type} has none", ("val", "metrics", key))
    _check_kept(options)
    _check_method(method, options)
    _check_ranges(options)
    notes = [
        f"`path.ignore_resume_networks` names {name}, which this file does not have"
        for name in options.path.ignore_resume_networks
        if name not in options.networks
    ]
    notes += _unread(options)
    notes += ["`legacy: true`: published behaviour that is wrong is in force"] if options.legacy else []
    of_training = [*_check_training(method, options), *_random_features(options)] if options.train else []
    return notes, of_training


def _check_kept(options: Options) -> None:
    """Whether the weights that are to be kept can be told and named by their metric."""
    for i, key in enumerate(options.val.keep_best):
        if key in options.val.keep_best[:i]:
            raise OptionError(f"names {key!r} twice", ("val", "keep_best"))
        if key not in options.val.metrics:
            known = f": it has {listed(list(options.val.metrics))}" if options.val.metrics else ""
            raise OptionError(f"`val.metrics` has no {key!r}{known}{nearest(key, options.val.metrics)}", ("val", "keep_best"))
        if not re.fullmatch(r"[\w.-]+", key):
            raise OptionError(f"{key!r} cannot be part of a file's name: give the metric a plain one", ("val", "keep_best"))


def _unread(options: Options) -> list[str]:
    """Keys that mean something only beside another one."""
    val, train, wandb = options.val, options.train, options.logger.wandb or {}
    alone = [
        ("val.tile_overlap", val.tile_overlap and not val.tile, "there is no `val.tile`"),
        ("logger.wandb.resume_id", wandb.get("resume_id") and not wandb.get("project"), "there is no `logger.wandb.project`"),
    ]
    if train:
        validated = any(key.startswith("val") for key in options.datasets)
        alone += [
            (
                "val.keep_best",
                val.keep_best and not validated,
                "there is no data set `val`",
            ),
            ("train.ema_start_iter", train.ema_start_iter and train.ema_decay == 0, "with `ema_decay: 0` there is no average"),
        ]
    return [f"`{key}` is not read: {reason}" for key, is_alone, reason in alone if is_alone]


def _random_features(options: Options) -> list[str]:
    """Losses that look through a network which has learnt nothing."""
    losses = {k: v for k, v in options.train.method.items() if isinstance(v, dict) and v.get("weights") == "random"}
    return [f"`train.{key}` compares random features, which say little: `weights: random` is for trying out" for key in losses]


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
    built = _at((key,), ARCHS.build_unallocated, network.component, options.inherited)
    scale = getattr(built, "upscale", None)
    if None not in (scale, options.scale) and scale != options.scale:
        raise OptionError(f"{network.type} enlarges {scale} times, but `scale` of this file is {options.scale}", (key,))
    if options.train:
        _refuse_blank_parts(key, network, built, options)
    source = network.weights
    if source and source.startswith("network_"):
        if source not in options.networks or source == key:
            raise OptionError(f"there is no other network `{source}` to start from", (key, "weights"))
        if (options.networks[source].weights or "").startswith("network_"):
            raise OptionError(f"`{source}` is a copy itself: name the network that both start from", (key, "weights"))
        if options.networks[source].component != network.component:
            raise OptionError(f"cannot start as a copy of `{source}`: the two differ in their keywords", (key, "weights"))


def _refuse_blank_parts(key: str, network: NetworkOptions, built: nn.Module, options: Options) -> None:
    """OptionError for a part that is never trained (`fix_decoder`) and has learnt nothing."""
    for keyword, declared in weight_files(type(built)).items():
        if not declared.module or network.component.get(keyword) or has_weights(key, network, options):
            continue
        if not any(p.requires_grad for p in built.get_submodule(declared.module).parameters()):
            raise OptionError(
                f"the {declared.module} of {network.type} is never trained here, so it needs weights: name their file as "
                f"`{keyword}` (`{keyword}: random` if that is meant)",
                (key,),
            )


def _check_method(method: type[Method], options: Options) -> None:
    """Networks and the method's own keys against its signature; what losses need against what networks offer."""
    parameters = parameters_of(method)
    places = {p.name: p for p in parameters if p.part and p.part.registry is ARCHS}
    for key in options.networks:
        if key not in places:
            hint = nearest(key, places) or f" (it has {listed(sorted(places))})"
            raise OptionError(f"{options.model_type} has no network `{key}`{hint}", (key,))
    keywords = [p for p in parameters if p.name not in places]
    _check_keywords(method, keywords, options)
    _check_presence(method, parameters, options)
    for name, network in options.networks.items():
        _check_place(name, network, places[name], options)
    for parameter in keywords:
        component = options.method.get(parameter.name)
        if parameter.part and component is not None:
            _at(("train", parameter.name), _check_loss, parameter, component, options)
    if options.train:
        _check_together(method, options)


def _check_together(method: type[Method], options: Options) -> None:
    """What the method itself knows of options that do not go together."""
    data, held = options.datasets.get("train"), None
    if data:
        built = DATASETS.build(data.component, options.inherited_by_data)
        held = built.provides | built.label_shapes().keys()
    networks = {key: ARCHS.build_unallocated(network.component, options.inherited) for key, network in options.networks.items()}
    method.check(networks, {k: v for k, v in options.method.items() if v is not None}, held)


def _check_keywords(method: type[Method], keywords: list[Parameter], options: Options) -> None:
    """The method's own keys, some of which may stand in `val`, since testing has no `train`."""
    in_train, in_val = options.train.method if options.train else {}, options.val.method
    known = [p for p in keywords if p.name not in in_val]
    beside = [*_names(schema.TrainOptions), *method.optimizer_networks]
    _at(("train",), bind, known, in_train, options.model_type, options.inherited, beside)
    given = [p for p in keywords if p.name in in_val]
    _at(("val",), bind, given, in_val, f"{options.model_type} and `val`", None, [*_names(schema.ValOptions), "metrics"])


def _check_presence(method: type[Method], parameters: list[Parameter], options: Options) -> None:
    """What the method cannot do without."""
    given = {**options.networks, **{k: v for k, v in options.method.items() if v is not None}}
    for p in parameters:
        spared = "train" in options.datasets and options.datasets["train"].component.get(method.spared_by.get(p.name))
        if p.name not in given and (p.required or (options.train and p.name in method.needed_to_train and not spared)):
            where = () if p.part and p.part.registry is ARCHS else ("train",)
            raise OptionError(f"{options.model_type} needs `{p.name}`" + (f": {p.doc}" if p.doc else ""), where)
    wanted = method.minimises_one_of
    if options.train and wanted and not any(name in given for name in wanted):
        raise OptionError(
            f"{options.model_type} has nothing to minimise: give {' or '.join(f'`{w}`' for w in wanted)}", ("train",)
        )
    if "train" in options.datasets and options.train:
        data = DATASETS.get(options.datasets["train"].type)
        if missing := [key for key in method.reads if key not in data.provides]:
            kind = options.datasets["train"].type
            raise OptionError(
                f"{options.model_type} trains on `{missing[0]}`, which {kind} does not give", ("datasets", "train")
            )


def _check_place(key: str, network: NetworkOptions, place: Parameter, options: Options) -> None:
    """Whether a network fits where it stands, and has learnt something where it is only looked through."""
    _at((key,), refuse_misfit, place, network.type, options.model_type)
    if place.part.frozen and not has_weights(key, network, options):
        raise OptionError(
            f"{network.type} is never trained here, so it needs weights: name a file in path.pretrain_{key} or as "
            "`weights` (`weights: random` if that is meant)",
            (key,),
        )


def has_weights(key: str, network: NetworkOptions, options: Options) -> bool:
    """Whether a network starts from a file (or from random weights that are asked for)."""
    declared = weight_files(ARCHS.get(network.type))
    own = any(f.module == "" and not f.partial and network.component.get(k) for k, f in declared.items())
    return bool(network.weights or key in options.path.pretrain or own)


def keeps_random_weights(key: str, network: NetworkOptions, options: Options) -> bool:
    """Whether the options ask for random weights of a network and name no file: for trying out."""
    files = [network.component.get(keyword) for keyword in weight_files(ARCHS.get(network.type))]
    asked = network.weights == "random" or (not network.weights and "random" in files)
    return asked and key not in options.path.pretrain


def _check_loss(parameter: Parameter, component: dict[str, Any], options: Options) -> None:
    """A loss of a method: what it is built with, and what it needs of networks beyond a picture or logits."""
    parameter.part.registry.build_unallocated(component, options.inherited)
    if component.get("reduction") == "none":
        raise OptionError("a training minimises one number: the reduction is mean or sum", ("reduction",))
    for key, fields in getattr(LOSSES.get(component["type"]), "needs", {}).items():
        network = options.networks.get(key)
        for field in fields:
            if network is None or field not in ARCHS.get(network.type).offers:
                whom = f"{network.type}, the {key}, does not offer" if network else f"there is no {key} to offer"
                raise OptionError(f"{component['type']} needs `{field}`, which {whom}")


def _check_ranges(options: Options) -> None:
    """Pictures must reach a network in the range that it was made for."""
    for name, data in options.datasets.items():
        values = image_range(data)
        for key, network in options.networks.items():
            arch = ARCHS.get(network.type)
            for wanted in filter(None, (arch.input_range, arch.output_range)):
                if any(abs(a - b) > 1e-6 for a, b in zip(values, wanted, strict=True)):
                    raise OptionError(
                        f"{network.type} ({key}) works on pictures in {list(wanted)}, but mean and std of this data set "
                        f"map them to [{values[0]:g}, {values[1]:g}]: set `mean: [0.5, 0.5, 0.5]` and the same `std`",
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
    train, notes = options.train, []
    for key, optimizer in train.optimizers.items():
        if key not in method.optimizer_networks:
            hint = nearest(key, method.optimizer_networks) or f" (it has {listed(list(method.optimizer_networks))})"
            raise OptionError(f"{options.model_type} has no optimizer `{key}`{hint}", ("train", key))
        check_optimizer(key, optimizer)
        if optimizer.lr == 0:
            notes.append(f"`train.{key}.lr` is 0: what it steps stays as it is")
    present = {schema.net_of(key) for key in options.networks}
    for key, networks in method.optimizer_networks.items():
        if key not in train.optimizers and not present.isdisjoint(networks):
            raise OptionError(f"{options.model_type} needs `{key}`: the optimizer of {listed(networks)}", ("train",))
        if key in train.optimizers and present.isdisjoint(networks):
            notes.append(f"`train.{key}` steps nothing: there is no {listed([schema.key_of(n) for n in networks])}")
    defaults = {p.name: p.default for p in parameters_of(method)}
    for key, networks in method.term_networks.items():
        if options.method.get(key) not in (None, 0, defaults[key]) and present.isdisjoint(networks):
            notes.append(f"`train.{key}` does nothing: there is no {listed([schema.key_of(n) for n in networks])}")
    _check_average(options)
    return (
        notes
        + _check_slices(options)
        + _speed_notes(method, options)
        + check_schedule(options)
        + _never_reached(method, options)
    )


def _check_average(options: Options) -> None:
    train = options.train
    if None not in (train.ema_decay, train.ema_half_life_kimg):
        raise OptionError(
            "`ema_decay` and `ema_half_life_kimg` say the same in two ways: give one (`ema_decay: ~` takes the other back)",
            ("train", "ema_half_life_kimg"),
        )


def _check_slices(options: Options) -> list[str]:
    """Whether batches can be cut, and which networks see that they were."""
    count, data = options.train.accumulate, options.datasets.get("train")
    if count == 1 or data is None:
        return []
    if data.batch_size_per_gpu % count:
        raise OptionError(
            f"a batch of {data.batch_size_per_gpu} cannot be cut into {count} equal slices: choose a divisor of "
            "`datasets.train.batch_size_per_gpu`",
            ("train", "accumulate"),
        )
    rows = data.batch_size_per_gpu // count
    return [
        f"`train.accumulate`: the batch statistics of {key} ({network.type}) are those of slices of {rows}"
        for key, network in options.networks.items()
        if _has_batch_statistics(network, options)
    ]


def _has_batch_statistics(network: NetworkOptions, options: Options) -> bool:
    built = ARCHS.build_unallocated(network.component, options.inherited)
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in built.modules())


def _speed_notes(method: type[Method], options: Options) -> list[str]:
    train, notes = options.train, []
    if train.compile:
        for key, network in options.networks.items():
            built = ARCHS.build_unallocated(network.component, options.inherited)
            if reason := why_not_compiled(schema.net_of(key), built, method):
                notes.append(f"{key} is not compiled: {reason}")
    return notes


def why_not_compiled(name: str, network: nn.Module, method: type[Method]) -> str | None:
    """What `train.compile` would break in a network."""
    if name in method.differentiated_twice:
        return "its gradients are penalised, and compiled ones cannot be differentiated again"
    if kind := next((type(m).__name__ for m in network.modules() if not getattr(m, "compilable", True)), None):
        return f"{kind} gives wrong gradients when it is"
    return None


def _never_reached(method: type, options: Options) -> list[str]:
    """Periods and iterations that lie beyond the training's end: meant by who writes 5e10 for never, or a mistake."""
    total = options.train.total_iter
    given = [
        (f"{where}.{p.name}", p, getattr(section, p.name))
        for where, section in (("train", options.train), ("val", options.val), ("logger", options.logger))
        for p in schema.own_fields(type(section))
    ]
    given += [(f"train.{p.name}", p, options.method.get(p.name)) for p in parameters_of(method)]
    return [
        f"`{name}` ({p.doc}) is {value}, and the training ends with iteration {total}"
        for name, p, value in given
        if p.iterations and value not in (None, p.default) and value > total - (p.iterations == "after")
    ]


def optimizers() -> dict[str, type[torch.optim.Optimizer]]:
    """torch's, without those that need sparse gradients, a closure or matrices."""
    found = {n: c for n, c in vars(torch.optim).items() if inspect.isclass(c) and issubclass(c, torch.optim.Optimizer)}
    return {n: c for n, c in found.items() if n not in ("Optimizer", "SparseAdam", "LBFGS", "Muon")}


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """torch's optimizer of that name, or any by its dotted name."""
    known = optimizers()
    if name in known:
        return known[name]
    module, _, attribute = name.rpartition(".")
    if not module:
        hint = nearest(name, known) or f" (it is one of {listed(sorted(known), 20)}, or `package.module.Class`)"
        raise OptionError(f"there is no optimizer {name!r}{hint}", ("type",))
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # whatever a module of the user's may raise
        raise OptionError(f"there is no optimizer {name!r}: {first_line(error)}", ("type",)) from None
    if not (inspect.isclass(found) and issubclass(found, torch.optim.Optimizer)):
        raise OptionError(f"{name!r} is no optimizer: it must be a class that derives from torch.optim.Optimizer", ("type",))
    return found


FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)  # wherever training may run


def optimizer_defaults(optimizer: OptimizerOptions) -> dict[str, Any]:
    """What is in force where the section does not say it: a fused step, the fastest, which can be skipped for nothing."""
    said = any(optimizer.component.get(k) is not None for k in ("fused", "foreach", "differentiable"))
    return {"fused": True} if not said and optimizer_class(optimizer.type) in FUSED else {}


def check_optimizer(key: str, optimizer: OptimizerOptions) -> dict[str, Any]:
    """The keywords of an optimizer, bound against its signature.  It is built once, and must step as training will."""
    cls = _at(("train", key), optimizer_class, optimizer.type)
    given = {k: v for k, v in optimizer.component.items() if k != "type"}
    bound = _at(("train", key), bind, optimizer_keywords(cls), given, optimizer.type, None, _names(OptimizerOptions))
    if optimizer.betas is not None and "betas" not in inspect.signature(cls).parameters:
        raise OptionError(f"{optimizer.type} has no betas", ("train", key, "betas"))
    parameter = nn.Parameter(torch.zeros(1, device="cpu"))
    try:
        built = cls([parameter], lr=optimizer.lr, **bound)
    except Exception as error:
        reason = first_line(error)
        raise OptionError(f"{optimizer.type} cannot be built with these keywords ({reason})", ("train", key)) from None
    _try_step(built, parameter, key, optimizer.type)
    return bound


def _try_step(built: torch.optim.Optimizer, parameter: nn.Parameter, key: str, name: str) -> None:
    """OptionError for an optimizer that wants more than gradients: a closure, sparse ones."""
    if type(built) not in vars(torch.optim).values() and torch.cuda.is_available():
        return  # it may step on a GPU alone
    parameter.grad = torch.ones_like(parameter)
    try:
        built.step()
    except Exception as error:
        raise OptionError(
            f"{name} cannot train here: with dense gradients and no closure its step fails ({first_line(error)})",
            ("train", key, "type"),
        ) from None


def optimizer_keywords(cls: type[torch.optim.Optimizer]) -> list[Parameter]:
    """What an optimizer takes beside lr and betas (of Adafactor's eps, a pair, there is no need to speak)."""
    takes = inspect.signature(cls).parameters
    if cls not in optimizers().values():
        return _foreign_keywords(takes)
    known = {name: hint for name, hint in OPTIMIZER_KEYWORDS.items() if name in takes}
    return [Parameter(n, hint, takes[n].default, "") for n, hint in known.items() if not isinstance(takes[n].default, tuple)]


def _foreign_keywords(takes: Mapping[str, inspect.Parameter]) -> list[Parameter]:
    """All keywords of an optimizer that is not torch's, each of the type of its default."""
    named = [p for p in list(takes.values())[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return [Parameter(p.name, _type_of(p.default), p.default, "") for p in named if p.name not in ("lr", "betas")]


def _type_of(default: Any) -> Any:
    """What may be given where `default` may be left out."""
    if isinstance(default, bool):
        return bool
    if isinstance(default, (int, float)):
        return float if isinstance(default, float) else int | float
    return type(default) if isinstance(default, (str, list, tuple)) else Any


def check_schedule(options: Options) -> list[str]:
    """The scheduler's keywords, and whether it lasts as long as the training."""
    train = options.train
    if train.scheduler is None:
        return []
    schedule = _at(("train", "scheduler"), SCHEDULES.build, train.scheduler, options.inherited)
    end, total = schedule.ends_at, train.total_iter
    if end is None:
        late = [what for what, it in schedule.turns().items() if it > total]
        return [f"`train.scheduler`: {listed(late)} never comes: the training ends with iteration {total}"] if late else []
    if end < total:
        note = f"`train.scheduler` ends at iteration {end}; up to {total} the rate stays at its last"
        return [schema.Warned(note) if total > 2 * end else note]
    if end > total:
        return [f"`train.scheduler` ends at iteration {end}, which the training does not reach: it ends with {total}"]
    return []
