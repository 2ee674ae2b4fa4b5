"""Weights on disk: written whole or not at all, and told by their content when they are read.

Our files are upstream's: a dict with `params` and `params_ema`.  Beside them stands `meta`: the network's type and
keywords, the range of its pictures and the iteration, so that a file is enough to rebuild the network.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from facerestore.errors import CheckpointError, OptionError, first_line, listed
from facerestore.files import atomic_write
from facerestore.registry import ARCHS, PublishedFile, WeightFile, parameters_of, shapes_of

State = dict[str, Tensor]
STATE_KEYS = ("params_ema", "params", "state_dict", "g_ema")  # where published files keep their weights, best first


SUFFIXES = (".pth", ".safetensors")  # what `save_checkpoint` writes


@dataclass
class Checkpoint:
    """A file of weights: its state dicts by name, and what it says about itself."""

    path: str
    states: dict[str, State]
    meta: dict[str, Any] = field(default_factory=dict)

    def state(self, key: str | None = None, network: nn.Module | None = None) -> State:
        """The weights under `key`; by default the averaged ones where there are any, else those that fit `network` best:
        StarGAN v2's files hold a generator, a mapping network and more side by side."""
        if key is None:
            known = next((k for k in STATE_KEYS if k in self.states), None)
            return self.states[known] if known else max(self.states.values(), key=lambda s: _shared(network, s))
        if key not in self.states:
            raise CheckpointError(f"{self.path}: holds no {key!r}, only {listed(sorted(self.states))}")
        return self.states[key]


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Read a file of weights.  CheckpointError where there is none, or it is damaged, or not one."""
    content = _read_safetensors(path) if _is_safetensors(path) else read_torch(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not weights by name")
    if _is_state(content):
        states = {"params": content}
    else:
        states = {k: v for k, v in content.items() if isinstance(v, Mapping) and _is_state(v)}
    if not states:
        held = f"its keys are {listed([str(k) for k in content])}" if content else "it is empty"
        raise CheckpointError(f"{path}: no weights in it ({held})")
    meta = content.get("meta")
    return Checkpoint(str(path), {k: _bare(v) for k, v in states.items()}, meta if isinstance(meta, dict) else {})


def load_weights(
    network: nn.Module,
    path_or_state_dict: str | os.PathLike | Mapping[str, Tensor] | Checkpoint,
    key: str | None = None,
    strict: bool = True,
) -> None:
    """Load this project's or an upstream checkpoint into `network`.

    Args:
        network: the module to fill
        path_or_state_dict: a file (also one that was read already), or its weights by name
        key: which weights of the file (`params`, `params_ema`); the averaged ones by default
        strict: whether file and network must agree in every key; shapes must always agree

    Raises:
        CheckpointError: the file cannot be read, or is another network's (the message says which it looks like), or holds
            NaN or infinity
    """
    if isinstance(path_or_state_dict, Mapping):
        source, state = "the state dict", _bare(path_or_state_dict)
    else:
        given = path_or_state_dict
        file = given if isinstance(given, Checkpoint) else read_checkpoint(given)
        source, state = file.path, file.state(key, network)
    refuse_other_weights(network, state, source, strict)
    own = network.state_dict()
    name = "" if key is None else f"{key}."
    refuse_no_numbers({name + k: state[k] for k in own if k in state}, source)
    network.load_state_dict(state, strict=False)


def refuse_other_weights(network: nn.Module, state: Mapping[str, Tensor], source: str, strict: bool = True) -> None:
    """CheckpointError where `state` is another network's; see :func:`load_weights`.  Both may be without memory."""
    own = network.state_dict()
    missing = [k for k in own if k not in state]
    unexpected = [k for k in state if k not in own]
    differing = [k for k in own if k in state and own[k].shape != state[k].shape]
    if differing or (strict and (missing or unexpected)) or len(missing) == len(own):
        raise CheckpointError(f"{source}: {_mismatch(network, state, missing, unexpected, differing)}")


def refuse_other_kind(file: Checkpoint, cls: type[nn.Module], keywords: Mapping[str, Any]) -> None:
    """CheckpointError where a file's `meta` says another thing than `keywords` of what its weights do not show."""
    said = file.meta.get("keywords")
    if file.meta.get("type") != cls.__name__ or not isinstance(said, Mapping):
        return
    for parameter in parameters_of(cls):
        ours, theirs = (given.get(parameter.name, parameter.default) for given in (keywords, said))
        if parameter.name in cls.traceless and ours != theirs:
            raise CheckpointError(
                f"{file.path}: these weights were trained with `{parameter.name}: {theirs}`, and the options say {ours}: say "
                "as the file does, or take other weights"
            )


def refuse_no_numbers(state: State, source: str) -> None:
    """CheckpointError for weights that hold NaN or infinity: whatever is trained or drawn with them does too."""
    for key, values in state.items():
        if values.is_floating_point() and not values.isfinite().all():
            raise CheckpointError(
                f"{source}: its {key} holds values that are no numbers (NaN or infinity): take an earlier file, of before the "
                "training went wrong"
            )


def load_declared_weights(component: nn.Module, keyword: str, declared: WeightFile, value: str | None) -> None:
    """Fill the part of `component` that `declared` names from the file that the options name.

    Raises:
        CheckpointError: the file is missing, damaged or does not fit; its `path` is the keyword
    """
    value = value or declared.default
    if value is None:
        if declared.required:
            raise CheckpointError(f"{type(component).__name__} needs `{keyword}`: {declared.doc}")
        return
    if value == "random":
        return
    try:
        _fill(component, keyword, declared, value)
    except CheckpointError as error:
        raise error.within((keyword,)) from None


def _fill(component: nn.Module, keyword: str, declared: WeightFile, value: str) -> None:
    part = component.get_submodule(declared.module)
    path = declared_path(part, keyword, value)
    if declared.made_by and not os.path.exists(path):
        raise CheckpointError(f"{path}: this file does not exist: {declared.made_by}")
    file = read_checkpoint(path)
    state = declared_state(component, keyword, declared, file)
    load_weights(part, Checkpoint(file.path, {"params": state}), strict=not declared.partial)


def declared_state(component: nn.Module, keyword: str, declared: WeightFile, file: Checkpoint) -> State:
    """The weights of a file that go into the part of `component` that `declared` names.  CheckpointError where they are another
    network's.  Component and weights may be without memory."""
    kind, part = type(component).__name__, component.get_submodule(declared.module)
    own, state = part.state_dict(), file.state(network=part)
    if declared.extra_keys:
        state = {k: v for k, v in state.items() if k in own}
        if not state:
            raise CheckpointError(f"{file.path}: holds none of the weights that {kind} looks for ({listed(list(own), 3)})")
    if declared.partial and (unknown := [k for k in state if k not in own]):
        raise CheckpointError(f"{file.path}: {kind} has no place for its {listed(unknown, 3)}; `{keyword}` is a {declared.doc}")
    refuse_other_weights(part, state, file.path, strict=not declared.partial)
    return state


def declared_path(part: nn.Module, keyword: str, value: str) -> str | Path:
    """Where the file lies that the options name for `part`.  What is published is fetched first, if it is not there yet.

    Args:
        part: the module that it fills
        keyword: the option that names it
        value: a path, or 'torchvision' or 'published'

    Raises:
        CheckpointError: it could not be fetched, or is not what was published
    """
    if value == "torchvision":
        return fetched(_torchvision_file(part.torchvision_name), keyword)
    return fetched(part.published, keyword) if value == "published" else value


def _torchvision_file(name: str) -> PublishedFile:
    """ImageNet weights of `vgg19` and the like, whose names end with the first digits of their hash."""
    import torchvision

    url = torchvision.models.get_model_weights(name).IMAGENET1K_V1.url
    file = url.rsplit("/", 1)[-1]
    return PublishedFile(url, file, file.removesuffix(".pth").rsplit("-", 1)[-1])


def fetched(published: PublishedFile, keyword: str) -> Path:
    """A published file in torch's cache, downloaded and checked against its hash where it is not there yet."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / published.name
    if file.exists():
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(published.url, str(file), hash_prefix=published.sha256)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"{file.name} is needed and could not be downloaded ({error}): fetch {published.url}, and put it under this name "
            f"into {file.parent}, or name it as `{keyword}`; to do without, leave the section out that asks for it"
        ) from None
    return file


def recognise(path: str | os.PathLike) -> tuple[str, dict[str, Any], Checkpoint]:
    """Type and keywords of the network whose weights a file holds, and the file; see :func:`network_of`."""
    file = read_checkpoint(path)
    return *network_of(file, file.state()), file


def network_of(file: Checkpoint, state: State) -> tuple[str, dict[str, Any]]:
    """Type and keywords of the network whose weights a file's `state` is: what the file says, held to the state's keys and
    shapes; where it says nothing, what they tell.

    Raises:
        CheckpointError: the file says what cannot be, or is not so; or the weights are of no network that is known here
    """
    if "type" in file.meta:
        return _said(file, state)
    found = recognise_state(state)
    if found is None:
        raise CheckpointError(f"{file.path}: its weights are of no network known here (keys such as {listed(list(state), 3)})")
    return found


def _said(file: Checkpoint, state: State) -> tuple[str, dict[str, Any]]:
    """Type and keywords as the `meta` of a file says them, checked as those of an option file are."""
    kind, keywords = file.meta["type"], file.meta.get("keywords") or {}
    remedy = "take another file, or this one's weights without its `meta`, by which they are told then"
    if not isinstance(keywords, Mapping):
        raise CheckpointError(f"{file.path}: its `meta` has {keywords!r:.60} as `keywords`, not a mapping: {remedy}")
    try:
        network = ARCHS.build_unallocated({**keywords, "type": kind})
    except OptionError as error:
        raise CheckpointError(f"{file.path}: its `meta` says of itself what cannot be: {error.message}: {remedy}") from None
    own, held = shapes_of(network.state_dict()), shapes_of(state)
    if own != held:
        missing, unexpected = [k for k in own if k not in held], [k for k in held if k not in own]
        differing = [k for k in own if k in held and own[k] != held[k]]
        what = _mismatch(network, state, missing, unexpected, differing)
        raise CheckpointError(f"{file.path}: its `meta` says {kind}, but {what}: {remedy}")
    return kind, dict(keywords)


def recognise_state(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]] | None:
    """The registered network whose state dict this is, with its keywords."""
    for name in ARCHS.names():
        keywords = ARCHS.get(name).keywords_of(dict(state))
        if keywords is not None:
            return name, keywords
    return None


def save_checkpoint(path: str | os.PathLike, states: Mapping[str, State], meta: Mapping[str, Any]) -> None:
    """Write a network's weights: `states` holds `params` and, where there is an average, `params_ema`.

    A path that ends with .safetensors gets that format, in which tensors are called `params.NAME` and `params_ema.NAME`.
    """
    tensors = {k: {n: t.detach().cpu().contiguous() for n, t in s.items()} for k, s in states.items()}
    if Path(path).suffix == ".safetensors":
        atomic_write(path, _safetensors(tensors, meta))
    else:
        write_torch(path, {**tensors, "meta": dict(meta)})


def _safetensors(states: Mapping[str, State], meta: Mapping[str, Any]) -> bytes:
    """The content of a .safetensors file.  The format has no checksum: ours stands in its metadata, as text, with `meta`."""
    flat = {
        f"{key}.{name}": t.clone() for key, state in states.items() for name, t in state.items()
    }  # it refuses shared memory
    return safetensors.torch.save(flat, {"format": "pt", "meta": json.dumps(dict(meta)), "sha256": _digest(flat)})


def _is_safetensors(path: str | os.PathLike) -> bool:
    """A .safetensors file begins with the length of its header, and the header is JSON."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        start = file.read(9)
    return start[8:] == b"{" or Path(path).suffix == ".safetensors"


def _read_safetensors(path: str | os.PathLike) -> dict[str, Any]:
    """The same content as a .pth file has; CheckpointError where it is damaged."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dict)
        meta = json.loads(facts.get("meta", "{}"))
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged or cut off, or no .safetensors file ({first_line(error)})") from None
    if facts.get("sha256", _digest(flat)) != _digest(flat):
        raise CheckpointError(f"{path}: damaged: the checksum in it is not that of its content")
    states: dict[str, Any] = {}
    for name, tensor in flat.items():
        key, _, rest = name.partition(".")
        if key not in STATE_KEYS:
            return flat  # another program's: the weights alone
        states.setdefault(key, {})[rest] = tensor
    return {**states, "meta": meta}


def _digest(tensors: State) -> str:
    """SHA-256 of tensors with their names, types and shapes."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def read_torch(path: str | os.PathLike, mapped: bool = False) -> Any:
    """torch.load without code execution; CheckpointError that says why where it fails.

    Args:
        path: the file
        mapped: whether tensors stay in the file, unchecked: for a look at what else there is
    """
    if not os.path.exists(path):
        raise CheckpointError(f"{path}: this file does not exist")
    size = os.path.getsize(path)
    try:
        if zipfile.is_zipfile(path) and not mapped:
            _verify(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (PermissionError, IsADirectoryError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except OSError:  # a seek to where the file has ended; its text says nothing of that
        raise CheckpointError(f"{path}: {size:,} bytes, damaged or cut off, or no checkpoint at all") from None
    except Exception as error:  # bytes that are no checkpoint may raise anything at all, with words that help nobody
        reason = ""
        if isinstance(error, CheckpointError):
            reason = f" ({error})"
        elif isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error):
            reason = " (it holds Python objects other than tensors, which could run code)"
        raise CheckpointError(f"{path}: {size:,} bytes, damaged or cut off, or no checkpoint at all{reason}") from None


def _verify(path: str | os.PathLike) -> None:
    """Hold a file of torch.save, which is a zip archive, to the checksums in it: torch.load itself does not look at them."""
    with zipfile.ZipFile(path) as archive:
        if wrong := archive.testzip():
            raise CheckpointError(f"the checksum of {wrong} is not that of its content")


def write_torch(path: str | os.PathLike, content: Any) -> None:
    """torch.save that leaves either the whole new file or the old one."""
    try:
        atomic_write(path, lambda file: torch.save(content, file))
    except RuntimeError as error:  # what torch makes of a disk that is full
        raise CheckpointError(f"{path}: cannot be written: the disk may be full ({str(error).splitlines()[0]})") from None


def _is_state(value: Mapping) -> bool:
    return bool(value) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _bare(state: Mapping[str, Tensor]) -> State:
    """Without the `module.` that DataParallel puts before every key."""
    wrapped = all(k.startswith("module.") for k in state)
    return {k.removeprefix("module.") if wrapped else k: v for k, v in state.items()}


def _shared(network: nn.Module | None, state: State) -> int:
    """How many of a network's keys a state has in the same shape."""
    own = {} if network is None else network.state_dict()
    return sum(k in own and own[k].shape == v.shape for k, v in state.items())


def _mismatch(network: nn.Module, state: State, missing: list, unexpected: list, differing: list) -> str:
    """What differs, and whose weights these seem to be."""
    kind = type(network).__name__
    found = recognise_state(state)
    if found:
        keywords = ", ".join(f"{k}={v!r}" for k, v in found[1].items())
        whose = f"these are weights of {found[0]}({keywords}), which do not fit this {kind}"
    else:
        whose = f"these weights do not fit this {kind}"
    parts = []
    if differing:
        shapes = (f"{k} is {tuple(state[k].shape)}, not {tuple(network.state_dict()[k].shape)}" for k in differing[:2])
        parts.append("; ".join(shapes))
    if missing:
        parts.append(f"{len(missing)} missing ({listed(missing, 3)})")
    if unexpected:
        parts.append(f"{len(unexpected)} unknown ({listed(unexpected, 3)})")
    return f"{whose}: {'; '.join(parts)}"
