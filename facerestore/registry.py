"""Names in a YAML file to classes, with the class's signature as its documentation and its check.

A component is registered by a decorator and built from `{"type": NAME, **keywords}`.  Its keywords are bound against the
constructor's signature and converted by its type hints (msgspec), so that a wrong one is refused in one sentence before
anything is built.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import math
import re
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import torch
from torch import Tensor, nn

from facerestore.errors import CheckpointError, OptionError, first_line, listed, nearest

T = TypeVar("T")
REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class WeightFile:
    """A keyword that names a file of weights.  Declared in a class's `weight_files`; the builder loads it, not the class."""

    module: str = ""  # the part of the component that it fills ("" = all of it)
    default: str | None = None  # a path; "torchvision" or "published" = a file that the part names, which is fetched
    required: bool = False  # whether the component is useless without
    extra_keys: bool = False  # whether the file may hold more than the part needs
    partial: bool = False  # whether the file may hold less than the part needs
    doc: str = "file of weights, or 'random'"
    made_by: str = ""  # who lacks the file is told it


@dataclass(frozen=True)
class PublishedFile:
    """A file of weights that its authors publish.  A part names it as `published`, or as `torchvision_name` one of theirs."""

    url: str
    name: str  # in torch's cache
    sha256: str  # its first digits at least


@dataclass(frozen=True)
class Part:
    """Marks a parameter whose value is itself a registered component, given as `{"type": ..., ...}`."""

    registry: Registry
    kind: str | None = None  # what the component's class must be (`kind` of a loss)
    takes: tuple[str, ...] = ("picture",)  # what a network in this place is called with
    offers: tuple[str, ...] = ()  # what the outputs of a network in this place must hold
    frozen: bool = False  # a network that is only looked through, never trained: it needs weights


@dataclass(frozen=True)
class Parameter:
    """One keyword of a registered component."""

    name: str
    hint: Any
    default: Any
    doc: str

    @property
    def required(self) -> bool:
        return self.default is REQUIRED

    @property
    def part(self) -> Part | None:
        return next((m for m in self.marks if isinstance(m, Part)), None)

    @property
    def iterations(self) -> Literal["every", "after"] | None:
        """What its value says of iterations, where it is a number of them (:data:`Period`, :data:`Iteration`)."""
        extras = (m.extra for m in self.marks if isinstance(m, msgspec.Meta) and m.extra)
        return next((e["iterations"] for e in extras if "iterations" in e), None)

    @property
    def marks(self) -> list[Any]:
        """What its type is annotated with."""
        hints = (self.hint, *typing.get_args(self.hint))  # Loss | None holds Loss
        return [m for hint in hints for m in getattr(hint, "__metadata__", ())]


class Registry:
    """Classes and functions of one kind by name.  `package` is imported at the first look-up, which registers them."""

    def __init__(self, kind: str, package: str):
        self.kind, self.package = kind, package
        self._entries: dict[str, Callable] = {}

    def register(self, name: str | None = None) -> Callable[[T], T]:
        """Decorator: put a class or function under its own name (or `name`)."""

        def decorate(entry: T) -> T:
            key = name or entry.__name__
            if key in self._entries:
                raise ValueError(f"two {self.kind}s are called {key!r}")
            if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(entry).parameters.values()):
                raise TypeError(f"{self.kind} {key!r} takes **kwargs, so its options cannot be checked: name its keywords")
            self._entries[key] = entry
            return entry

        return decorate

    def names(self) -> list[str]:
        importlib.import_module(self.package)
        return sorted(self._entries)

    def get(self, name: str) -> Callable:
        """The class or function called `name`; OptionError where there is none."""
        names = self.names()
        if not isinstance(name, str) or name not in self._entries:
            hint = nearest(name, names) or f" (there are {listed(names)})"
            raise OptionError(f"there is no {self.kind} called {name!r}{hint}", ("type",))
        return self._entries[name]

    def check(self, options: Any, inherited: Mapping[str, Any] | None = None, beside: Collection[str] = ()) -> dict[str, Any]:
        """The converted keywords of `options`, nothing built.

        Args:
            options: `{"type": ..., **keywords}`
            inherited: values for keywords that are left out
            beside: names that stand in the same section of the file and are read by others, for the nearest right name
        """
        if not isinstance(options, Mapping):
            raise OptionError(f"a {self.kind} is given as a mapping with its `type`, not as {options!r:.60}")
        if options.get("type") is None:
            raise OptionError(f"the {self.kind}'s `type` is missing (one of {listed(self.names())})", ("type",))
        entry = self.get(options["type"])
        return check_keywords(entry, {k: v for k, v in options.items() if k != "type"}, options["type"], inherited, beside)

    def build(self, options: Mapping[str, Any], inherited: Mapping[str, Any] | None = None, load_files: bool = True) -> Any:
        """The component of `options`, its parts built and (unless told not to) its weight files loaded."""
        keywords = self.check(options, inherited)
        entry = self.get(options["type"])
        files = {k: keywords.pop(k) for k in weight_files(entry) if k in keywords}
        for parameter in parameters_of(entry):
            if parameter.part and keywords.get(parameter.name) is not None:
                keywords[parameter.name] = _build_part(parameter, keywords[parameter.name], inherited, load_files)
        if not inspect.isclass(entry):
            return functools.partial(entry, **keywords)
        component = entry(**keywords)
        if load_files:
            load_weight_files(component, files)
        return component

    def build_unallocated(self, options: Mapping[str, Any], inherited: Mapping[str, Any] | None = None) -> nn.Module:
        """The component without memory or weights.  OptionError for keywords that do not go together."""
        try:
            with torch.device("meta"):
                return self.build(options, inherited, load_files=False)
        except (RuntimeError, ArithmeticError, LookupError, MemoryError, ValueError, TypeError) as error:
            reason = first_line(error)
            raise OptionError(f"{options['type']} cannot be built with these keywords ({reason:.100})") from None


def _build_part(parameter: Parameter, options: Mapping[str, Any], inherited: Mapping[str, Any] | None, load_files: bool) -> Any:
    try:
        return parameter.part.registry.build(options, inherited, load_files)
    except CheckpointError as error:
        raise error.within((parameter.name,)) from None


ARCHS = Registry("network", "facerestore.archs")
DATASETS = Registry("data set", "facerestore.data")
LOSSES = Registry("loss", "facerestore.losses")
METRICS = Registry("metric", "facerestore.metrics")
MODELS = Registry("method", "facerestore.models")
SCHEDULES = Registry("scheduler", "facerestore.engine.schedules")

# Numbers of iterations.  Beyond the training's last one they mean nothing: the options' notes say where they do.
NEVER = 10**12  # published files write 5e10 for it
Period = Annotated[int, msgspec.Meta(ge=1, le=NEVER, extra={"iterations": "every"})]  # something happens once in so many
Iteration = Annotated[int, msgspec.Meta(ge=0, le=NEVER, extra={"iterations": "after"})]  # something begins or ends after it

# Places for losses.  A loss declares its `kind`, which says how it is called.
PixelTerm = Annotated[nn.Module, Part(LOSSES, kind="pixel")]  # (image, truth) -> term
FeatureTerm = Annotated[nn.Module, Part(LOSSES, kind="feature")]  # (image, truth) -> (perceptual, style), None if left out
AdversarialTerm = Annotated[nn.Module, Part(LOSSES, kind="adversarial")]  # (logits, target_is_real, is_disc) -> term


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shapes in a state dict, without batch norm's counters, which files from before torch 0.4.1 lack."""
    return {k: tuple(v.shape) for k, v in state.items() if not k.endswith("num_batches_tracked")}


def weight_files(entry: Callable) -> dict[str, WeightFile]:
    """Keywords of a component that name files of weights."""
    return getattr(entry, "weight_files", {})


def load_weight_files(component: nn.Module, files: Mapping[str, str | None]) -> None:
    """Load what `files` (keyword -> path, 'random' or None) names into the component's declared parts."""
    from facerestore.checkpoint import load_declared_weights  # which knows the registries in turn

    for keyword, declared in weight_files(type(component)).items():
        load_declared_weights(component, keyword, declared, files.get(keyword))


def parameters_of(entry: Callable) -> list[Parameter]:
    """What may be given in a YAML: a class's constructor keywords, or a function's keyword-only parameters."""
    function = entry.__init__ if inspect.isclass(entry) else entry
    hints = typing.get_type_hints(function, include_extras=True)
    docs = argument_docs(entry)
    found = []
    for name, p in inspect.signature(entry).parameters.items():
        if inspect.isclass(entry) or p.kind is p.KEYWORD_ONLY:
            found.append(Parameter(name, hints.get(name, Any), p.default, docs.get(name, "")))
    for name, declared in weight_files(entry).items():
        found.append(Parameter(name, str | None, declared.default, declared.doc))
    return found


def argument_docs(entry: Callable) -> dict[str, str]:
    """The `Args:` sections of a docstring by parameter; a class has those of its bases too."""
    docs: dict[str, str] = {}
    for holder in reversed(entry.__mro__) if inspect.isclass(entry) else [entry]:
        own = (holder.__doc__, getattr(vars(holder).get("__init__"), "__doc__", None) if inspect.isclass(holder) else None)
        for text in filter(None, own):
            docs |= _argument_section(inspect.cleandoc(text))
    return docs


def _argument_section(text: str) -> dict[str, str]:
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", text, re.MULTILINE)
    docs: dict[str, str] = {}
    name = None
    for line in section[1].splitlines() if section else ():
        if head := re.match(r"^ {4}(\w+):\s*(.*)", line):
            name = head[1]
            docs[name] = head[2]
        elif name and line.strip():
            docs[name] += " " + line.strip()
    return docs


def check_keywords(
    entry: Callable,
    given: Mapping[str, Any],
    what: str,
    inherited: Mapping[str, Any] | None = None,
    beside: Collection[str] = (),
) -> dict[str, Any]:
    """`given` bound against the signature of `entry` and converted by its hints; refuses unknown and missing ones."""
    return bind(parameters_of(entry), given, what, inherited, beside)


def bind(
    parameters: Iterable[Parameter],
    given: Mapping[str, Any],
    what: str,
    inherited: Mapping[str, Any] | None = None,
    beside: Collection[str] = (),
    others: Collection[str] = (),
) -> dict[str, Any]:
    """`given` as values of `parameters`.  `inherited` and `beside` as for :meth:`Registry.check`; `others` are keys of the
    same section that somebody else will read, among which a missing key may hide under a wrong name."""
    known = {p.name: p for p in parameters}
    refuse_unknown(given, known, what, beside)
    values = {k: inherited[k] for k in known if k in (inherited or {})} | dict(given)
    for p in known.values():
        if p.required and p.name not in values:
            if misspelt := difflib.get_close_matches(p.name, list(others), n=1, cutoff=0.8):
                raise OptionError(f"{what} has no option `{misspelt[0]}` (did you mean {p.name!r}?)", (misspelt[0],))
            raise OptionError(f"{what} needs `{p.name}`" + (f": {p.doc}" if p.doc else ""), (p.name,))
    return {name: check_value(known[name], value, inherited) for name, value in values.items()}


def refuse_unknown(given: Iterable[str], known: Collection[str], what: str, beside: Collection[str] = ()) -> None:
    """OptionError for the first key of `given` that is not `known`, with the nearest right name."""
    for key in given:
        if key not in known:
            names = sorted({*known, *beside})
            hint = nearest(key, names) or (f" (it takes {listed(names, 30)})" if names else " (it takes none)")
            raise OptionError(f"{what} has no option `{key}`{hint}", (key,))


def check_value(parameter: Parameter, value: Any, inherited: Mapping[str, Any] | None = None) -> Any:
    """`value` as the parameter's type; OptionError with what was expected where it cannot be one."""
    if parameter.part:
        if value is None and parameter.default is None:
            return None
        try:
            parameter.part.registry.check(value, inherited)
            _refuse_other_kind(parameter.part, value["type"])
            if parameter.part.registry is ARCHS:
                refuse_misfit(parameter, value["type"])
        except OptionError as error:
            raise error.within((parameter.name,)) from None
        return value
    try:
        return convert(value, parameter.hint)
    except OptionError as error:
        raise OptionError(f"`{parameter.name}` {error.message}", (parameter.name, *error.path)) from None


def refuse_misfit(place: Parameter, name: str, owner: str = "this component") -> None:
    """OptionError where the network called `name` takes something else than its place in `owner` gives, or offers less."""
    network, part = ARCHS.get(name), place.part
    if network.takes != part.takes:
        given, taken = (listed([f"`{word}`" for word in words]) for words in (part.takes, network.takes))
        raise OptionError(f"{owner} gives its {place.name} {given}, but {name} takes {taken}", ("type",))
    if missing := [field for field in part.offers if field not in network.offers]:
        raise OptionError(f"{owner} needs `{missing[0]}` of its {place.name}, which {name} does not offer", ("type",))


def _refuse_other_kind(part: Part, name: str) -> None:
    registry = part.registry
    if part.kind is None or getattr(registry.get(name), "kind", None) == part.kind:
        return
    fitting = [n for n in registry.names() if getattr(registry.get(n), "kind", None) == part.kind]
    raise OptionError(f"{name} does not belong here: a {part.kind} {registry.kind} is one of {listed(fitting)}", ("type",))


def convert(value: Any, hint: Any) -> Any:
    """`value` as type `hint`, an integral float (5e3) as an int where that is asked for.  NaN and infinity are refused."""
    _refuse_infinite(value)
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        if isinstance(value, float) and value.is_integer():
            return convert(int(value), hint)
        raise OptionError(_sentence(str(error), value, choices(hint))) from None


def _refuse_infinite(value: Any, path: tuple[str | int, ...] = ()) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise OptionError(f"is {value}, not a finite number" if not path else f"holds {value}, not a finite number", path)
    inside = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, item in inside:
        _refuse_infinite(item, (*path, key))


def choices(hint: Any) -> list[Any]:
    """The values of every Literal in a type hint."""
    if typing.get_origin(hint) is typing.Literal:
        return list(typing.get_args(hint))
    return [choice for part in typing.get_args(hint) for choice in choices(part)]


WORDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "array": "a list",
         "object": "a mapping", "null": "nothing (~)", "|": "or"}  # fmt: skip


def _sentence(message: str, value: Any, allowed: list[Any]) -> str:
    """msgspec's message in a user's words: 'must be a whole number, not "abc"'."""
    place = re.search(r" - at `\$(.*)`", message)
    message = re.sub(r" - at `.*`", "", message)
    where = f" (item {place[1]})" if place and place[1] else ""
    shown = f"{value!r:.60}"
    if allowed and ("enum" in message or "Expected `str`" in message):
        return f"must be one of {listed([str(a) for a in allowed])}, not {shown}{where}"
    expected = re.search(r"Expected (.*?)(?:, got .*)?$", message)
    if not expected:
        return f"is {shown}: {message[0].lower() + message[1:]}"
    words = " ".join(WORDS.get(word, word) for word in expected[1].replace("`", "").split())
    quotes = " (in quotes it is text)" if words.startswith("text") and isinstance(value, (int, float)) else ""
    return f"must be {words}, not {shown}{where}{quotes}"
