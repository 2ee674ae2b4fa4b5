"""Which keys of an option file a run reads: its options, watched.

The watched options are the same classes with the same values; each attribute that is looked up is noted.  A component's own
keys go together: they are bound to its signature, every part of which it uses (`tests/test_structure.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from facerestore.config import Options
from facerestore.config.schema import own_fields
from facerestore.config.upstream import settle_upstream
from facerestore.errors import Path, dotted

Note = Callable[[Collection[Path]], None]
INHERITED = {"randomize_noise": ("train", "randomize_noise")}  # where a key stands that is not at the top of the file
QUALIFIERS = ("param_key_", "strict_load_")  # of path.pretrain_network_X


class OptionReads:
    """`options`, a watched copy of what it is made from, and what of the file nobody has read.

    Args:
        plain: the checked options
        known: keys that are read before or beside what is watched
    """

    def __init__(self, plain: Options, known: Collection[Path] = ()):
        self.plain, self.read = plain, set(known)
        self.options: Options = _watched_options(plain, self.read.update)

    def keys(self) -> list[Path]:
        """The keys of the file that say something: not those that are told to mean nothing here, empty ones, or those of
        data sets that only test.py reads."""
        data = _copied(self.plain.raw)
        settle_upstream(data)
        return [path for path in _leaves(data) if not _of_a_test(path) and not self._qualifies_nothing(path)]

    def unread(self) -> list[Path]:
        """Those of them that nobody has read."""
        return [path for path in self.keys() if not any(path[:n] in self.read for n in range(1, len(path) + 1))]

    def unread_names(self) -> list[str]:
        """The same in short: of a section that was not touched at all, its own name."""
        keys, unread = self.keys(), self.unread()
        untouched = {path[:n] for path in unread for n in range(1, len(path) + 1)}
        untouched -= {path[:n] for path in set(keys) - set(unread) for n in range(1, len(path) + 1)}
        sections = [next(path[:n] for n in range(1, len(path) + 1) if path[:n] in untouched) for path in unread]
        named = (path if sections.count(section) == 1 else section for path, section in zip(unread, sections, strict=True))
        return list(dict.fromkeys(map(dotted, named)))

    def _qualifies_nothing(self, path: Path) -> bool:
        """Upstream's files say how a network's weights are loaded and then that there are none (`~`)."""
        for prefix in QUALIFIERS:
            if path[0] == "path" and str(path[1]).startswith(prefix):
                network = f"pretrain_network_{str(path[1]).removeprefix(prefix)}"
                return network in self.plain.raw["path"] and self.plain.raw["path"][network] is None
        return False


def _watched_options(options: Options, note: Note) -> Options:
    train, val, path = options.train, options.val, options.path
    if train:
        optimizers = {k: _watched_component(s, ("train", k), note) for k, s in train.optimizers.items()}
        train = _watched(train, ("train",), note, {"method": list(train.method)}, optimizers=optimizers)
    metrics = {k: _watched_component(s, ("val", "metrics", k), note) for k, s in val.metrics.items()}
    short = {k: k.removeprefix("network_") for k in options.networks}
    by_network = {
        "pretrain": _WatchedDict(path.pretrain, note, lambda k: ("path", f"pretrain_{k}")),
        "param_key": _WatchedDict(path.param_key, note, lambda k: ("path", f"param_key_{short.get(k, k)}")),
        "strict_load": _WatchedDict(path.strict_load, note, lambda k: ("path", f"strict_load_{short.get(k, k)}")),
    }
    inherited = {
        name: _WatchedDict(getattr(options, name), note, lambda k: INHERITED.get(k, (k,)))
        for name in ("inherited", "inherited_by_data")
    }
    return _watched(
        options,
        (),
        note,
        properties=inherited,
        datasets={k: _watched_component(s, ("datasets", k), note) for k, s in options.datasets.items()},
        networks={k: _watched_component(s, (k,), note) for k, s in options.networks.items()},
        path=_watched(path, ("path",), note, **by_network),
        train=train,
        val=_watched(val, ("val",), note, {"method": list(val.method)}, metrics=metrics),
        logger=_watched(options.logger, ("logger",), note),
        dist_params=_watched(options.dist_params, ("dist_params",), note),
    )


def _watched_component(section: Any, path: Path, note: Note) -> Any:
    """A section whose other keys are a component's own."""
    return _watched(section, path, note, {"component": list(section.component)})


def _watched(
    section: Any,
    place: Path,
    note: Note,
    gathered: Mapping[str, Collection[str]] | None = None,
    properties: Mapping[str, Any] | None = None,
    **replaced: Any,
) -> Any:
    """A copy of a section that notes which of its keys are looked up.

    Args:
        place: where it stands in the file
        gathered: fields that hold several keys of the section, which are read together
        properties: values in the place of the class's properties
        replaced: values in the place of fields
    """
    cls = type(section)
    keys = {p.name: [(*place, p.name)] for p in own_fields(cls)}
    keys |= {name: [(*place, key) for key in names] for name, names in (gathered or {}).items()}
    values = {f.name: getattr(section, f.name) for f in dataclasses.fields(cls)} | replaced

    class Watched(cls):
        def __getattribute__(self, name: str) -> Any:
            if name in keys:
                note(keys[name])
            return properties[name] if properties and name in properties else super().__getattribute__(name)

    copy = object.__new__(Watched)
    vars(copy).update(values)
    return copy


class _WatchedDict(dict):
    """A dict that notes which of its keys are looked up.  `stands` says where a key stands in the file."""

    def __init__(self, values: Mapping[str, Any], note: Note, stands: Callable[[str], Path]):
        super().__init__(values)
        self.note, self.stands = note, stands

    def __getitem__(self, key: str) -> Any:
        self.note([self.stands(key)])
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.note([self.stands(key)])
        return super().get(key, default)


def _of_a_test(path: Path) -> bool:
    return path[0] == "datasets" and str(path[1]).startswith("test")


def _leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    if isinstance(value, Mapping):
        for key, inside in value.items():
            yield from _leaves(inside, (*path, key))
    elif value is not None:
        yield path


def _copied(value: Any) -> Any:
    return {k: _copied(v) for k, v in value.items()} if isinstance(value, Mapping) else value
