"""Checkpoints of a training: written so that a run that was killed at any moment goes on as if it had not been.

`models/net_g_N.pth` holds a network (`params`) and its average (`params_ema`), `training_states/N.state` all else.  The state
is written last: where it is whole, so is what it names.  It knows the digests of the networks' files, and carries checksums of
its own content.  Random draws and the sampler's place are functions of the iteration and need no state; which checkpoint is the
last is told by the iterations in the names, not by the files' times.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from facerestore.checkpoint import SUFFIXES, load_weights, read_checkpoint, read_torch, save_checkpoint, write_torch
from facerestore.config.schema import net_of
from facerestore.engine.logs import logger
from facerestore.engine.training import TrainingModel
from facerestore.errors import CheckpointError, dotted
from facerestore.files import digest


def save_training(
    folder: Path, model: TrainingModel, it: int, raw_options: Mapping[str, Any], keep: int | None, suffix: str = ".pth"
) -> None:
    """Write the checkpoint of iteration `it`, and `net_X_latest` beside it; delete all but the last `keep`.

    The networks' files are torch's (`suffix` .pth) or .safetensors.
    """
    checksums = {}
    for name in model.networks:
        if name in model.frozen:
            continue
        path = folder / "models" / f"{name}_{it}{suffix}"
        save_network(path, model, name, {"iteration": it})
        checksums[path.name] = digest(path)
    state = {
        "iter": it,
        "optimizers": {k: {"type": type(o).__name__, **o.state_dict()} for k, o in model.optimizers.items()},
        "loss_scales": model.loss_scales.state_dict(),
        "method": model.method.state(),
        "models": checksums,
        "world_size": model.world.size,
        "passed_over": model.passed_over,
        "options": json.dumps(raw_options),
    }
    save_bundle(folder / "models" / "nets_ema_latest.pth", model, it)
    for name in checksums:
        _link(folder / "models" / name, folder / "models" / f"{name.rpartition('_')[0]}_latest{Path(name).suffix}")
    write_torch(_state_file(folder, it), state)
    if keep:
        for old in saved_iterations(folder)[:-keep]:
            _delete(folder, old)


def save_network(path: Path, model: TrainingModel, name: str, more: Mapping[str, Any]) -> None:
    """Write the network `name` with its average, and in `meta` what it is and `more`."""
    states = {"params": model.networks[name].state_dict()}
    if name in model.ema:
        states["params_ema"] = model.ema[name].state_dict()
    save_checkpoint(path, states, {**model.meta.get(name, {}), **more})


def save_bundle(path: Path, model: TrainingModel, it: int) -> None:
    """Write the networks that work together, as their averages, in one file: enough to use what was trained."""
    names = {n: published for n, published in model.method.bundled.items() if n in model.networks}
    if names:
        states = {published: model.ema.get(n, model.networks[n]).state_dict() for n, published in names.items()}
        save_checkpoint(path, states, {"iteration": it})


def resume_training(
    model: TrainingModel, state_file: Path, raw_options: Mapping[str, Any], ignore: list[str] | None = None
) -> int:
    """Put the checkpoint that `state_file` belongs to into `model`; returns its iteration.

    Networks in `ignore` (`network_identity`) keep the weights they have.
    """
    state = read_state(state_file)
    folder, it = state_file.parent.parent, state["iter"]
    ignored = {net_of(key) for key in ignore or ()}
    for name, network in model.networks.items():
        if name in model.frozen or name in ignored:
            continue
        file = read_checkpoint(_network_file(folder, name, it, state["models"]))
        load_weights(network, file, key="params")
        if name in model.ema:
            load_weights(model.ema[name], file, key="params_ema" if "params_ema" in file.states else "params")
    for key, optimizer in model.optimizers.items():
        if key not in state["optimizers"]:
            raise CheckpointError(f"{state_file}: holds no {key}, which these options train")
        _load_optimizer(key, optimizer, state["optimizers"][key], state_file)
    model.loss_scales.load_state_dict(state.get("loss_scales", {}))  # states of before there were any have none
    model.method.load_state(state["method"])
    model.passed_over = state.get("passed_over", 0)  # states of older versions know none
    _tell_changes(json.loads(state["options"]), json.loads(json.dumps(raw_options)))
    if state["world_size"] != model.world.size:
        logger.info("processes: %d now, %d before", model.world.size, state["world_size"])
    return it


def latest_state(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run; damaged ones are named and passed over."""
    for it in reversed(saved_iterations(folder)):
        path = _state_file(folder, it)
        try:
            read_state(path)
            return path
        except CheckpointError as error:
            logger.warning("checkpoint %d is passed over: %s", it, error)
    return None


def read_state(path: Path) -> dict[str, Any]:
    """A training state whose network files are there and whole."""
    state = read_torch(path)
    wanted = {"iter": int, "optimizers": dict, "method": dict, "models": dict, "world_size": int, "options": str}
    if not isinstance(state, dict) or not all(isinstance(state.get(k), kind) for k, kind in wanted.items()):
        raise CheckpointError(f"{path}: this is no training state of facerestore")
    for name, checksum in state["models"].items():
        file = path.parent.parent / "models" / name
        if not file.is_file():
            raise CheckpointError(f"{file}: belongs to this checkpoint and does not exist")
        if digest(file) != checksum:
            raise CheckpointError(f"{file}: damaged or cut off")
    return state


def saved_iterations(folder: Path) -> list[int]:
    """Iterations that have a training state, oldest first."""
    return sorted(int(p.stem) for p in (folder / "training_states").glob("*.state") if p.stem.isdigit())


def _network_file(folder: Path, name: str, it: int, stored: Mapping[str, str]) -> Path:
    """Where a checkpoint keeps a network, whatever the format it was written in."""
    file = next((f for f in stored if Path(f).stem == f"{name}_{it}"), f"{name}_{it}.pth")
    return folder / "models" / file


def _state_file(folder: Path, it: int) -> Path:
    return folder / "training_states" / f"{it}.state"


FLAVOURS = ("amsgrad", "momentum", "nesterov", "centered")  # options that change what an optimizer remembers


def _load_optimizer(key: str, optimizer: torch.optim.Optimizer, state: dict[str, Any], source: Path) -> None:
    """Running averages from the checkpoint, everything that the YAML says (rates, betas, decay) from the YAML."""
    own = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    before = state["param_groups"][0]
    changed = [k for k in FLAVOURS if bool(before.get(k)) != bool(own[0].get(k))]
    if state["type"] != type(optimizer).__name__ or changed:
        logger.warning("%s is of another kind now and starts with nothing remembered", key)
        return
    try:
        optimizer.load_state_dict({k: v for k, v in state.items() if k != "type"})
    except ValueError as error:
        raise CheckpointError(f"{source}: its {key} does not fit these networks ({error})") from None
    for group, values in zip(optimizer.param_groups, own, strict=True):
        group.update(values)


def _tell_changes(before: Any, now: Any, path: tuple[str, ...] = ()) -> None:
    """Name every option that differs from the interrupted run's.  What stands in the file now is what runs."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            _tell_changes(before.get(key), now.get(key), (*path, key))
    elif before != now:
        logger.info("`%s` was %s before this run was resumed and is %s now", dotted(path), before, now)


def _link(source: Path, target: Path) -> None:
    """`target` becomes another name of `source` (a copy where the file system knows no links), in one step."""
    temporary = target.with_name(f".{target.name}.part")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)


def _delete(folder: Path, it: int) -> None:
    """Remove a checkpoint, its state first, so that none is left that names missing files."""
    with suppress(OSError):
        _state_file(folder, it).unlink()
        for path in [p for suffix in SUFFIXES for p in (folder / "models").glob(f"*_{it}{suffix}")]:
            path.unlink()
