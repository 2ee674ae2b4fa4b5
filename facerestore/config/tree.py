"""YAML files as trees that remember where every key stands, so that an error can name file and line."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from facerestore import errors
from facerestore.errors import OptionError

PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
MAX_NODES = 20_000  # an option file has a few hundred; anchors that multiply to more are an attack or a mistake


class _Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):
    """Safe YAML whose plain words mean what they seem to, as in YAML 1.2: 1e-4 is a number, 010 is ten.

    In YAML 1.1, as PyYAML reads it, 1e-4 is text, 010 eight, 1:30 ninety, `no` false and 2024-01-01 a date.  Here all but true,
    false, ~ and decimal numbers is text, which is refused where a number is expected.
    """


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9][0-9_]*", "-+0123456789"),
    ("float", r"[-+]?([0-9][0-9_]*\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+.0123456789"),
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", "<<", "<"),  # to say that it is not read
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _number(kind: type) -> Callable[[yaml.Loader, yaml.Node], Any]:
    """What makes an int or float of a scalar, also where its tag is written (`!!float 1e-4`)."""
    return lambda loader, node: kind(re.sub(r"\.(?=inf|nan)", "", loader.construct_scalar(node).replace("_", "").lower()))


_Loader.add_constructor("tag:yaml.org,2002:int", _number(int))
_Loader.add_constructor("tag:yaml.org,2002:float", _number(float))


class _Dumper(yaml.SafeDumper):
    """YAML that this loader and those of YAML 1.1 read alike: 'yes' and '1e-4' as text are quoted."""


_Dumper.yaml_implicit_resolvers = {
    first: [*_Loader.yaml_implicit_resolvers.get(first, ()), *yaml.SafeLoader.yaml_implicit_resolvers.get(first, ())]
    for first in {*_Loader.yaml_implicit_resolvers, *yaml.SafeLoader.yaml_implicit_resolvers}
}


def to_yaml(data: Any, inline: bool = False) -> str:
    """Plain data as YAML that loads to the same; `inline`: in one line."""
    if inline:
        text = yaml.dump([data], Dumper=_Dumper, default_flow_style=True, width=math.inf, allow_unicode=True, sort_keys=False)
        return text.strip()[1:-1]
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


@dataclass
class Tree:
    """Plain dicts, lists and scalars, and the place ('gfpgan.yml:12') of every key."""

    data: dict[str, Any]
    places: dict[errors.Path, str] = field(default_factory=dict)
    source: str = "the options"

    def place(self, path: errors.Path) -> str:
        """Where `path`, or the nearest section around it, stands."""
        for end in range(len(path), 0, -1):
            if found := self.places.get(path[:end]):
                return found
        return self.source

    def located(self, error: OptionError) -> OptionError:
        """The error with file, line and the key's full path in its sentence."""
        return OptionError(self.sentence(error.message + self._left_over(error.path), error.path), error.path)

    def sentence(self, message: str, path: errors.Path) -> str:
        """A message about the option at `path`, after its place and name."""
        key = f"{errors.dotted(path)}: " if path else ""
        return f"{self.place(path)}: {key}{message}"

    def _left_over(self, path: errors.Path) -> str:
        """What to do where a key is wrong because --set has changed the class of its section."""
        section = path[:-1]
        changed = self.places.get((*section, "type"), "")
        if not changed.startswith("--set") or self.places.get(path, "").startswith("--set"):
            return ""
        return (
            f"; `{changed}` keeps the section's other keys: to replace it, --set '{errors.dotted(section)}={{type: ..., ...}}'"
        )

    def put(self, path: errors.Path, value: Any, place: str) -> None:
        """Set one key, making the sections on the way to it."""
        section = self.data
        for depth, key in enumerate(path[:-1], 1):
            if not isinstance(section.get(key), dict):
                section[key] = {}
                self.places.setdefault(path[:depth], place)
            section = section[key]
        section[path[-1]] = value
        self.places[path] = place


def from_mapping(data: Mapping[str, Any]) -> Tree:
    """A tree of a dict, its keys as text."""
    try:
        return Tree(_with_text_keys(data))
    except RecursionError:
        raise OptionError("the options: nested too deeply") from None


def _with_text_keys(value: Any) -> Any:
    """A copy in which every key is text and every mapping a dict."""
    if isinstance(value, Mapping):
        return {str(k): _with_text_keys(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_text_keys(v) for v in value]
    return value


def from_file(path: str | os.PathLike, _inside: tuple[Path, ...] = ()) -> Tree:
    """Read a YAML file, and the file that its `base:` names underneath it."""
    path = Path(path)
    tree = _parse(path, _text(path))
    base = tree.data.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise tree.located(OptionError("must be the name of a YAML file", ("base",)))
    below = path.parent / base
    if below.resolve() in (*_inside, path.resolve()):
        raise tree.located(OptionError(f"{base} is based on this file in turn", ("base",)))
    if not below.is_file():
        raise tree.located(OptionError(f"the file {below} does not exist", ("base",)))
    return _merged(from_file(below, (*_inside, path.resolve())), tree)


def apply_overrides(tree: Tree, overrides: Iterable[str]) -> None:
    """Put 'train.optim_g.lr=2e-4' (or BasicSR's 'train:optim_g:lr=2e-4') into the tree."""
    for text in overrides:
        key, equals, value = text.partition("=")
        path = tuple(re.split(r"[.:]", key.strip()))
        if not equals or not all(path):
            raise OptionError(f"--set {text!r}: give it as section.key=value")
        try:
            value = _with_text_keys(yaml.load(value, _Loader))
        except (yaml.YAMLError, ValueError, RecursionError):
            raise OptionError(f"--set {text!r}: the value is not YAML") from None
        tree.put(path, value, f"--set {text}")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise OptionError(f"{path}: the option file does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path}: the option file cannot be read ({error})") from None


def _parse(path: Path, text: str) -> Tree:
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            tree = Tree({}, {}, str(path))
            if not isinstance(node, yaml.MappingNode):
                raise OptionError(f"{path}: holds no options (a mapping such as `name: my_run` is expected)")
            tree.data = _Builder(loader, path, tree.places).build(node, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise OptionError(f"{path}{line}: this is not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise OptionError(f"{path}: this is not YAML: {str(error).splitlines()[0]}") from None
    return tree


class _Builder:
    """Nodes to plain values, with a place for every key, no key twice, and a bound on what aliases multiply to."""

    def __init__(self, loader: _Loader, path: Path, places: dict[errors.Path, str]):
        self.loader, self.path, self.places, self.nodes = loader, path, places, 0

    def build(self, node: yaml.Node, at: errors.Path) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise OptionError(f"{self.path}: too large for an option file (over {MAX_NODES} values; repeated aliases?)")
        if not isinstance(node, yaml.ScalarNode) and node.tag not in PLAIN_TAGS:
            raise OptionError(f"{self.path}:{node.start_mark.line + 1}: this is not YAML that is read here: the tag {node.tag}")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, at)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(child, (*at, i)) for i, child in enumerate(node.value)]
        return self.loader.construct_object(node)

    def _item(self, node: yaml.Node, at: errors.Path) -> Any:
        self.places[at] = f"{self.path}:{node.start_mark.line + 1}"
        return self.build(node, at)

    def _mapping(self, node: yaml.MappingNode, at: errors.Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = f"{self.path}:{key_node.start_mark.line + 1}"
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise OptionError(f"{place}: `<<` is not read here; use `base: other.yml`, or repeat the keys")
            key = self.loader.construct_object(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, (str, int)):
                raise OptionError(f"{place}: a key must be a plain word")
            key = str(key)
            if key in result:
                raise OptionError(f"{place}: {errors.dotted((*at, key))}: stands here twice; keep one of the two")
            self.places[(*at, key)] = place
            result[key] = self.build(value_node, (*at, key))
        return result


def _merged(below: Tree, above: Tree) -> Tree:
    """`above` laid over `below`: sections merge key by key, everything else replaces.

    A section that names another `type` replaces the one below it: its keywords are another class's.
    """

    def merge(low: dict, high: dict) -> dict:
        if "type" in high and high["type"] != low.get("type"):
            return high
        result = dict(low)
        for key, value in high.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merge(result[key], value) if both else value
        return result

    return Tree(merge(below.data, above.data), below.places | above.places, above.source)
