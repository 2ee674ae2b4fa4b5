"""`load_options`: read, merge, check.  No data is touched; the first fault ends it in one sentence."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

from facerestore.config import schema
from facerestore.config.checks import check_components
from facerestore.config.tree import Tree, apply_overrides, from_file, from_mapping
from facerestore.config.upstream import METHODS_ELSEWHERE, settle_upstream
from facerestore.errors import OptionError, listed, nearest
from facerestore.registry import ARCHS, MODELS, bind, check_value, parameters_of, refuse_unknown

S = TypeVar("S")
RESERVED_COLUMNS = ("dataset", "picture", "method")
RESERVED_METHODS = ("restored", "bicubic", "input", "LR", "HR")  # columns of a report that are there anyway
SECTIONS = ("datasets", "path", "train", "val", "logger", "dist_params")


def load_options(path_or_dict: str | os.PathLike | Mapping[str, Any], overrides: Iterable[str] = ()) -> schema.Options:
    """The checked options of a YAML file (or of a dict).

    Args:
        path_or_dict: the file, which may name another by `base:`, or its content
        overrides: 'train.optim_g.lr=2e-4' and the like, laid over it

    Raises:
        OptionError: a key is unknown, missing, given twice or of a wrong type; the message names file, line, the key's
            full path and the nearest right name
    """
    if not isinstance(path_or_dict, (str, os.PathLike, Mapping)):
        raise OptionError(f"options are a file or a mapping, not a {type(path_or_dict).__name__}")
    tree = from_mapping(path_or_dict) if isinstance(path_or_dict, Mapping) else from_file(path_or_dict)
    apply_overrides(tree, overrides)
    try:
        options = _options(tree)
        notes, of_training = check_components(options)
    except OptionError as error:
        raise tree.located(error) from None
    return dataclasses.replace(options, notes=(*options.notes, *notes, *of_training), training_notes=tuple(of_training))


def _options(tree: Tree) -> schema.Options:
    data = from_mapping(tree.data).data
    notes = settle_upstream(data)
    if "model_type" in data:  # first of all: other keys may be those of a method that is not here
        _method_exists(data["model_type"])
    networks = {k: data.pop(k) for k in list(data) if k.startswith("network_")}
    left_out = {k for k in known_networks() if k in networks and networks[k] is None}  # `network_identity: ~`
    networks = {k: section for k, section in networks.items() if k not in left_out}
    given = {k: data.pop(k) for k in SECTIONS if k in data}
    refuse_unknown(
        data, {*SECTIONS, "network_g", "network_d", *(p.name for p in schema.own_fields(schema.Options))}, "an option file"
    )
    top = bind(schema.own_fields(schema.Options), data, "an option file")
    _refuse_no_file_name(top["name"], ("name",))
    paths, absent = _without_absent(_mapping(given, "path"), networks, left_out)
    return schema.Options(
        **top,
        networks={k: _split(schema.NetworkOptions, v, (k,)) for k, v in networks.items()},
        datasets=_datasets(_mapping(given, "datasets")),
        path=_path(paths, networks),
        train=_train(_mapping(given, "train")) if "train" in given else None,
        val=_val(_mapping(given, "val")),
        logger=_section(schema.LoggerOptions, _mapping(given, "logger"), ("logger",)),
        dist_params=_section(schema.DistOptions, _mapping(given, "dist_params"), ("dist_params",)),
        notes=(*notes, *absent),
        source=tree.source,
        raw=tree.data,
        tree=tree,
    )


def _refuse_no_file_name(name: str, path: tuple[str, ...]) -> None:
    """What becomes a folder's or a file's name must be one."""
    plain = name.isprintable() and not re.search(r"[/\\]", name) and name == name.strip() and not name.startswith(".")
    if not plain or not 1 <= len(name.encode(errors="surrogatepass")) <= 200:
        raise OptionError(
            f"{name!r:.40} cannot be a file's name: it needs 1 to 200 characters, no slash, and no dot or space at its start",
            path,
        )


def _mapping(sections: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = sections.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise OptionError(f"must be a section of `key: value` lines, not {value!r:.60}", (key,))
    return value or {}


def _section(cls: type[S], data: Mapping[str, Any], path: tuple[str, ...], **derived: Any) -> S:
    """A section's own keys and what is `derived` from the others."""
    others = [key for part in derived.values() if isinstance(part, Mapping) for key in part]
    try:
        return cls(**bind(schema.own_fields(cls), data, f"`{path[-1]}`", others=others), **derived)
    except OptionError as error:
        raise error.within(path) from None


def _split(cls: type[S], data: Any, path: tuple[str, ...]) -> S:
    """A component's section: the engine's keys as fields, `type` and all others as the component's."""
    if not isinstance(data, Mapping):
        raise OptionError(f"must be a section with a `type`, not {data!r:.60}", path)
    own = {p.name for p in schema.own_fields(cls)}
    component = {k: v for k, v in data.items() if k == "type" or k not in own}
    return _section(cls, {k: v for k, v in data.items() if k in own}, path, component=component)


def _datasets(data: Mapping[str, Any]) -> dict[str, schema.DatasetOptions]:
    """Data sets by their key: `train`, and any number of `val...` and `test...`.  Each has a name of its own."""
    datasets: dict[str, schema.DatasetOptions] = {}
    for key, section in data.items():
        path = ("datasets", key)
        if key != "train" and not key.startswith(("val", "test")):
            hint = nearest(key, ("train", "val", "test_1")) or " (it has train, val, val_2, ..., test_1, ...)"
            raise OptionError(f"`datasets` has no entry `{key}`{hint}", path)
        options = _split(schema.DatasetOptions, section, path)
        options = options if options.name else dataclasses.replace(options, name=key)
        _refuse_no_file_name(options.name, (*path, "name"))
        if key != "train" and options.name in {d.name for k, d in datasets.items() if k != "train"}:
            raise OptionError(
                f"two data sets are called {options.name!r}, so one's results would replace the other's", (*path, "name")
            )
        _check_others(key, options)
        datasets[key] = options
    return datasets


def _refuse_unknown_at(path: tuple[str, ...], given: Mapping[str, Any], known: Collection[str]) -> None:
    try:
        refuse_unknown(given, known, f"`{path[-1]}`")
    except OptionError as error:
        raise error.within(path) from None


def _check_others(key: str, options: schema.DatasetOptions) -> None:
    """Names and folders of what other programs made of a data set's pictures."""
    path = ("datasets", key, "others")
    if options.others and key == "train":
        raise OptionError("the training's pictures are not measured: give `others` to a `val` or `test` entry", path)
    for name, place in (options.others or {}).items():
        if name in RESERVED_METHODS:
            raise OptionError(f"{name!r} is what the report calls a column of its own: give it another name", (*path, name))
        if not name.strip() or not name.isprintable():
            raise OptionError(f"{name!r:.40} cannot be what a program is called in tables: give it a plain name", path)
        if not isinstance(place, str):
            _refuse_unknown_at((*path, name), place, ("folder", "missing"))
        folder = place if isinstance(place, str) else place.get("folder")
        if folder is None:
            raise OptionError("needs `folder`: what the program wrote", (*path, name))
        if not isinstance(place, str) and place.get("missing", "stop") not in ("stop", "skip"):
            raise OptionError(f"must be stop or skip, not {place['missing']!r:.60}", (*path, name, "missing"))
        if not folder or "\0" in folder:
            raise OptionError(f"is {folder!r:.60}, which cannot be a folder's path", (*path, name))
        if folder.count("{}") > 1 or "{}" in folder.rpartition("/")[0]:
            raise OptionError(f"is {folder!r}: {{}} may stand once, in its last part, for a picture's name", (*path, name))


def _train(data: Mapping[str, Any]) -> schema.TrainOptions:
    own = {p.name for p in schema.own_fields(schema.TrainOptions)}
    optimizers = {k: v for k, v in data.items() if k.startswith("optim_")}
    method = {k: v for k, v in data.items() if k not in own and k not in optimizers}
    return _section(
        schema.TrainOptions,
        {k: v for k, v in data.items() if k in own},
        ("train",),
        optimizers={k: _split(schema.OptimizerOptions, v, ("train", k)) for k, v in optimizers.items()},
        method=method,
    )


def _val(data: Mapping[str, Any]) -> schema.ValOptions:
    own = {p.name for p in schema.own_fields(schema.ValOptions)}
    metrics = data.get("metrics")
    if metrics is not None and not isinstance(metrics, Mapping):
        raise OptionError("must be a section with one entry for each metric", ("val", "metrics"))
    for name in metrics or ():
        if name in RESERVED_COLUMNS:
            raise OptionError(
                f"a metric cannot be called {name!r}: scores.csv has a column of that name", ("val", "metrics", name)
            )
    if isinstance(suffix := data.get("suffix"), str):
        _refuse_no_file_name(f"NAME_{suffix}", ("val", "suffix"))
    val = _section(
        schema.ValOptions,
        {k: v for k, v in data.items() if k in own},
        ("val",),
        metrics={k: _split(schema.MetricOptions, v, ("val", "metrics", k)) for k, v in (metrics or {}).items()},
        method={k: v for k, v in data.items() if k not in own and k != "metrics"},
    )
    if val.tile and val.tile_overlap and 2 * val.tile_overlap > val.tile:
        raise OptionError(
            f"is {val.tile_overlap}: tiles of {val.tile} pixels overlap by at most {val.tile // 2}", ("val", "tile_overlap")
        )
    return val


def _method_exists(name: Any) -> None:
    if name in METHODS_ELSEWHERE and name not in MODELS.names():
        raise OptionError(f"{name} is not here (there are {listed(MODELS.names())})", ("model_type",))
    try:
        MODELS.get(name)
    except OptionError as error:
        raise OptionError(error.message, ("model_type",)) from None


def _without_absent(
    data: Mapping[str, Any], networks: Collection[str], left_out: Collection[str]
) -> tuple[dict[str, Any], list[str]]:
    """`path` without keys of networks that other methods have and this file has not, and a note for each: published files
    carry `strict_load_d` where there is no `network_d`.  One that names a file is a mistake, and stays to be refused (but
    where the network was left out by `~`, which the file below did not know)."""
    absent = known_networks() - set(networks)
    keys = {k: network for network in absent for k in schema.path_keys(network) if k in data}
    idle = {k for k, network in keys.items() if network in left_out or not _names_a_file(k, data[k])}
    notes = [f"`path.{key}` is not read: this file has no such network" for key in data if key in idle]
    return {k: v for k, v in data.items() if k not in idle}, notes


def _names_a_file(key: str, value: Any) -> bool:
    return key.startswith("pretrain_network_") and value is not None


def known_networks() -> set[str]:
    """`network_g`, `network_d` and all others that some method has."""
    parameters = (p for name in MODELS.names() for p in parameters_of(MODELS.get(name)))
    return {p.name for p in parameters if p.part and p.part.registry is ARCHS}


def _path(data: Mapping[str, Any], networks: Collection[str]) -> schema.PathOptions:
    """`path`, its keys for single networks (`pretrain_network_g`, `param_key_g`, `strict_load_g`) gathered by kind."""
    keys = {key: (network, *found) for network in networks for key, found in schema.path_keys(network).items()}
    gathered: dict[str, dict[str, Any]] = {kind: {} for _, kind, _ in keys.values()}
    try:
        refuse_unknown(data, {*keys, *(p.name for p in schema.own_fields(schema.PathOptions))}, "`path`")
        for key, (network, kind, parameter) in keys.items():
            value = check_value(parameter, data.get(key))
            if value is not None:
                gathered[kind][network] = value
    except OptionError as error:
        raise error.within(("path",)) from None
    return _section(schema.PathOptions, {k: v for k, v in data.items() if k not in keys}, ("path",), **gathered)
