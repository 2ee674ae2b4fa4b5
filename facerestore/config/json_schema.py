"""The option files' JSON schema (draft 7), for editors: made of the signatures and structures that check the files."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from typing import Any

import msgspec

from facerestore.config import schema, upstream
from facerestore.config.checks import optimizer_keywords, optimizers
from facerestore.config.load import known_networks
from facerestore.config.schema import own_fields
from facerestore.registry import ARCHS, DATASETS, LOSSES, METRICS, MODELS, SCHEDULES, Parameter, choices, parameters_of

Json = dict[str, Any]
BESIDE = {ARCHS: schema.NetworkOptions, DATASETS: schema.DatasetOptions, METRICS: schema.MetricOptions}
INHERITED = ("legacy", "randomize_noise", "scale")  # keywords of components that the file gives elsewhere


def option_schema() -> Json:
    """The schema of an option file.  One with `base:` may leave out what the file below it gives."""
    names, known = MODELS.names(), components().items()
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "facerestore's options",
        "type": "object",
        "definitions": {
            **{f"{kind}.{name}": _component(kind, name, keys) for kind, found in known for name, keys in found.items()},
            **{f"file.{name}": _File(name, whole=True).schema() for name in names},
            **{f"file on a base.{name}": _File(name, whole=False).schema() for name in names},
        },
        "if": {"required": ["base"]},
        "then": {"anyOf": [_ref("file on a base", name) for name in names]},
        "else": _cases("model_type", {name: _ref("file", name) for name in names}),
    }


def components() -> dict[str, dict[str, list[Parameter]]]:
    """Everything that has a `type`, by kind and name, with the keys of its section."""
    found = {
        registry.kind: {
            name: [*(own_fields(BESIDE[registry]) if registry in BESIDE else ()), *parameters_of(registry.get(name))]
            for name in registry.names()
        }
        for registry in (ARCHS, DATASETS, LOSSES, METRICS, SCHEDULES)
    }
    own = own_fields(schema.OptimizerOptions)
    return found | {"optimizer": {name: [*own, *optimizer_keywords(cls)] for name, cls in optimizers().items()}}


def _component(kind: str, name: str, parameters: Iterable[Parameter]) -> Json:
    """The keys of one class; which of them are required says who refers to it."""
    keys = {p.name: _property(p, whole=False) for p in parameters}
    idle = _idle("datasets", "*") | _idle("datasets", name) if kind == DATASETS.kind else {}
    return _object({**idle, **keys, "type": {"const": name}})


class _File:
    """An option file of one method.  Where it is not `whole`, no key is required, and a `type` may stand below."""

    def __init__(self, method: str, whole: bool):
        self.name, self.method, self.whole = method, MODELS.get(method), whole
        parameters = parameters_of(self.method)
        self.networks = [p for p in parameters if p.part and p.part.registry is ARCHS]
        self.keywords = {p.name: _property(p, whole) for p in parameters if p not in self.networks}

    def schema(self) -> Json:
        keys = {
            **self.keys(own_fields(schema.Options)),
            "model_type": {"const": self.name},
            "datasets": self.datasets(),
            **self.keys(self.networks),
            "path": self.section(schema.PathOptions, "path", self.keys(self.network_paths())),
            "train": self.train(),
            "val": self.section(schema.ValOptions, "val", {"metrics": self.metrics(), **self.keywords}),
            "logger": self.section(schema.LoggerOptions, "logger"),
            "dist_params": self.section(schema.DistOptions, "dist_params"),
            **_idle(),
        }
        if not self.whole:
            return _object(keys | {"base": {"type": "string", "description": "option file over which this one is laid"}})
        to_train = [p.name for p in self.networks if p.name in self.method.needed_to_train]
        required = _required([*own_fields(schema.Options), *self.networks])
        return _object(keys, required) | {"dependencies": {"train": to_train}}

    def keys(self, parameters: Iterable[Parameter]) -> Json:
        return {p.name: _property(p, self.whole) for p in parameters}

    def section(self, structure: type, name: str, more: Json | None = None) -> Json:
        own = own_fields(structure)
        found = _object({**_idle(name), **self.keys(own), **(more or {})}, _required(own) if self.whole else ())
        return found | {"type": ["object", "null"]}

    def datasets(self) -> Json:
        keys = {"^(train$|val|test)": _choice(DATASETS.kind, DATASETS.names(), self.whole)}
        return {"type": ["object", "null"], "patternProperties": keys, "additionalProperties": False}

    def metrics(self) -> Json:
        return {"type": ["object", "null"], "additionalProperties": _choice(METRICS.kind, METRICS.names(), self.whole)}

    def network_paths(self) -> list[Parameter]:
        return [p for network in sorted(known_networks()) for _, p in schema.path_keys(network).values()]

    def optimizer(self) -> Json:
        """One of torch's, checked by its keywords, or another by its dotted name, of whose keywords nothing is known here."""
        own = own_fields(schema.OptimizerOptions)
        foreign = {"type": "object", "properties": self.keys(own), "required": _required(own) if self.whole else []}
        dotted = {"properties": {"type": {"type": "string", "pattern": r"\."}}, "required": ["type"]}
        return {"if": dotted, "then": foreign, "else": _choice("optimizer", list(optimizers()), self.whole)}

    def train(self) -> Json:
        steps = self.method.optimizer_networks
        more = {key: self.optimizer() for key in steps}
        more["scheduler"] = _or_null(_choice(SCHEDULES.kind, SCHEDULES.names(), self.whole))
        return self.section(schema.TrainOptions, "train", more | self.keywords)


def _choice(kind: str, names: list[str], whole: bool) -> Json:
    """One component of a kind; of those that are not `whole`, the `type` need not be said."""
    if not whole:
        return {"anyOf": [_ref(kind, name) for name in names]}
    keys = components()[kind]
    return _cases("type", {name: {"allOf": [_ref(kind, name), {"required": _required(keys[name])}]} for name in names})


def _cases(key: str, cases: dict[str, Json]) -> Json:
    """An object that is held against the case that its `key` names, so that an editor speaks of that one alone."""
    conditions = [
        {"if": {"properties": {key: {"const": name}}, "required": [key]}, "then": then} for name, then in cases.items()
    ]
    return {"type": "object", "required": [key], "properties": {key: {"enum": list(cases)}}, "allOf": conditions}


def _property(p: Parameter, whole: bool) -> Json:
    """One key: its type and range, its meaning and its default."""
    if p.part:
        registry = p.part.registry
        fitting = [n for n in registry.names() if p.part.kind in (None, getattr(registry.get(n), "kind", None))]
        found = _choice(registry.kind, fitting, whole)
        found = found if p.required else _or_null(found)
    else:
        found = _draft7(msgspec.json.schema(p.hint)) | _named_keys(p.hint)
    default = {} if p.required or p.part else {"default": msgspec.to_builtins(p.default)}
    return {**found, "description": p.doc, **default}


def _named_keys(hint: Any) -> Json:
    """The names that a dict's keys may have, of which msgspec's schema says nothing."""
    dicts = (h for h in (hint, *typing.get_args(hint)) if typing.get_origin(h) is dict)
    names = [name for h in dicts for name in choices(typing.get_args(h)[0])]
    return {"propertyNames": {"enum": names}} if names else {}


def _required(parameters: Iterable[Parameter]) -> list[str]:
    return [p.name for p in parameters if p.required and p.name not in INHERITED]


def _idle(*section: str) -> Json:
    """The keys of a section that published files have and that are not read."""
    found = {path[-1]: reason for path, reason in upstream.WITHOUT_MEANING.items() if path[:-1] == section}
    return {key: {"description": f"not read here: {reason}", "deprecated": True} for key, reason in found.items()}


def _object(properties: Json, required: Iterable[str] = ()) -> Json:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/definitions/{kind}.{name}".replace(" ", "%20")}


def _or_null(found: Json) -> Json:
    return {"anyOf": [found, {"type": "null"}]}


def _draft7(node: Any) -> Any:
    """msgspec writes tuples as the later drafts have them, which editors do not all know."""
    if isinstance(node, list):
        return [_draft7(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _draft7(value) for key, value in node.items()}
    if "prefixItems" in node:
        node |= {"items": node.pop("prefixItems"), "additionalItems": False}
    return node
