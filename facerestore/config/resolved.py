"""Options as they are in force: every key of every section and component, what was left out with its default."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from facerestore.config import schema
from facerestore.config.checks import normalisation, optimizer_class, optimizer_defaults, optimizer_keywords
from facerestore.config.schema import Options
from facerestore.config.tree import to_yaml
from facerestore.registry import ARCHS, DATASETS, METRICS, MODELS, SCHEDULES, Parameter, Registry, check_value, parameters_of

Section = dict[str, Any]  # keys to values of a file, :class:`Default` or sections


@dataclass(frozen=True)
class Default:
    """A value that the file does not give."""

    value: Any
    origin: str = "default"


def resolved_yaml(options: Options, betas: Mapping[str, tuple[float, float]]) -> str:
    """The options as YAML that loads to the same; values that the file does not give are marked by a comment.

    Args:
        options: as loaded
        betas: what is in force by optimizer, which its method knows
    """
    return "\n".join(_lines(resolved(options, betas))) + "\n"


def resolved(options: Options, betas: Mapping[str, tuple[float, float]]) -> Section:
    """The same as a tree."""
    raw, data = options.raw, options.inherited_by_data
    top = _own(options, raw)
    top["datasets"] = {
        key: _own(section, raw["datasets"][key]) | _dataset(section, data) for key, section in options.datasets.items()
    }
    for key, section in options.networks.items():
        top[key] = _own(section, raw[key]) | _component(ARCHS, section.component, options.inherited)
    top["path"] = _paths(options)
    if options.train:
        top["train"] = _train(options, betas)
    top["val"] = _own(options.val, raw.get("val")) | _keywords(
        _method_keywords(options.val.method, options), options.val.method
    )
    top["val"]["metrics"] = {
        key: _own(section, raw["val"]["metrics"][key]) | _component(METRICS, section.component)
        for key, section in options.val.metrics.items()
    }
    top["logger"] = _own(options.logger, raw.get("logger"))
    top["dist_params"] = _own(options.dist_params, raw.get("dist_params"))
    return top


def _own(section: Any, given: Collection[str] | None) -> Section:
    """The engine's own keys of a section."""
    values = {p.name: getattr(section, p.name) for p in schema.own_fields(type(section))}
    return {k: value if k in (given or ()) else Default(value) for k, value in values.items()}


def _component(registry: Registry, component: Mapping[str, Any], inherited: Mapping[str, Any] | None = None) -> Section:
    given = {k: v for k, v in component.items() if k != "type"}
    return {"type": component["type"]} | _keywords(parameters_of(registry.get(component["type"])), given, inherited)


def _keywords(parameters: Iterable[Parameter], given: Mapping[str, Any], inherited: Mapping[str, Any] | None = None) -> Section:
    inherited = inherited or {}
    section: Section = {}
    for p in parameters:
        if p.name in given and p.part and given[p.name] is not None:
            section[p.name] = _component(p.part.registry, given[p.name], inherited)
        elif p.name in given:
            section[p.name] = check_value(p, given[p.name], inherited)
        else:
            taken = p.name in inherited
            section[p.name] = Default(inherited[p.name], "inherited") if taken else Default(p.default)
    return section


def _dataset(section: schema.DatasetOptions, inherited: Mapping[str, Any]) -> Section:
    keywords = _component(DATASETS, section.component, inherited)
    ranges = dict(zip(("mean", "std"), normalisation(section), strict=True))  # by default the class's own
    return keywords | {k: Default(v) for k, v in ranges.items() if isinstance(keywords.get(k), Default)}


def _paths(options: Options) -> Section:
    given = options.raw.get("path") or {}
    section = _own(options.path, given)
    for network in options.networks:
        for key, (kind, _) in schema.path_keys(network).items():
            value = getattr(options.path, kind).get(network, True if kind == "strict_load" else None)
            section[key] = value if given.get(key) is not None else Default(value)
    return section


def _train(options: Options, betas: Mapping[str, tuple[float, float]]) -> Section:
    train, given = options.train, options.raw["train"]
    section = _own(train, given)
    if train.ema_decay is None and train.ema_half_life_kimg is None:
        section["ema_decay"] = Default(MODELS.get(options.model_type).ema_decay)
    if train.scheduler is not None:
        section["scheduler"] = _component(SCHEDULES, train.scheduler, options.inherited)
    for key, optimizer in train.optimizers.items():
        section[key] = _own(optimizer, given[key]) | _optimizer_keywords(optimizer)
        if optimizer.betas is None and key in betas:
            section[key]["betas"] = Default(betas[key])
    own = [p for p in parameters_of(MODELS.get(options.model_type)) if p.name not in options.val.method]
    return section | _keywords([p for p in own if not _is_network(p)], train.method, options.inherited)


def _optimizer_keywords(optimizer: schema.OptimizerOptions) -> Section:
    keywords = _keywords(optimizer_keywords(optimizer_class(optimizer.type)), optimizer.component)
    return keywords | {k: Default(v) for k, v in optimizer_defaults(optimizer).items()}


def _method_keywords(names: Collection[str], options: Options) -> list[Parameter]:
    return [p for p in parameters_of(MODELS.get(options.model_type)) if p.name in names]


def _is_network(parameter: Parameter) -> bool:
    return parameter.part is not None and parameter.part.registry is ARCHS


def _lines(section: Section, indent: str = "") -> Iterator[str]:
    for key, value in section.items():
        name = to_yaml(key, inline=True)
        if isinstance(value, dict) and value:
            yield f"{indent}{name}:"
            yield from _lines(value, indent + "  ")
        else:
            mark = f"  # {value.origin}" if isinstance(value, Default) else ""
            yield f"{indent}{name}: {to_yaml(plain(value), inline=True)}{mark}"


def plain(value: Any) -> Any:
    """Values alone, tuples as the lists that YAML knows."""
    if isinstance(value, Default):
        return plain(value.value)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value
