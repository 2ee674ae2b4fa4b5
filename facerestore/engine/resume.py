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
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from facerestore.checkpoint import SUFFIXES, load_weights, read_checkpoint, read_torch, save_checkpoint, write_torch
from facerestore.config.schema import net_of
from facerestore.engine.logs import logger
from facerestore.engine.states import what_is_wrong
from facerestore.engine.training import TrainingModel
from facerestore.errors import CheckpointError, dotted
from facerestore.files import digest

HALF_DELETED = ".deleted"  # what a state is called while the checkpoint is being removed


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
        "optimizers": {k: _optimizer_state(o) for k, o in model.optimizers.items()},
        "loss_scales": model.loss_scales.state_dict(),
        "method": model.method.state(),
        "models": checksums,
        "world_size": model.world.size,
        "passed_over": model.passed_over,
        "options": json.dumps(raw_options),
    }
    save_bundle(folder / "models" / "nets_ema_latest.pth", model, it)
    for name in checksums:
        latest = folder / "models" / f"{name.rpartition('_')[0]}_latest{suffix}"
        _link(folder / "models" / name, latest)
        remove_other_format(latest)
    write_torch(_state_file(folder, it), state)
    if keep:
        for old in saved_iterations(folder)[:-keep]:
            _delete(_state_file(folder, old), model.networks)
        for state in (folder / "training_states").glob(f"*{HALF_DELETED}"):  # a process that was killed in between
            _delete(state, model.networks)


def _optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    state = optimizer.state_dict()
    return {"type": type(optimizer).__name__, "remembered": len(state["state"]), **state}


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
        save_checkpoint(path, states, {"iteration": it, **model.learnt_from})


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
    try:
        model.method.load_state(state["method"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        kind = type(model.method).__name__
        raise CheckpointError(f"{state_file}: what it holds as `method` is not what {kind} remembers ({error})") from None
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
    if wrong := what_is_wrong(state):
        raise CheckpointError(f"{path}: {wrong}")
    for name, checksum in state["models"].items():
        file = path.parent.parent / "models" / name
        if not file.is_file():
            raise CheckpointError(f"{file}: belongs to this checkpoint and does not exist")
        if digest(file) != checksum:
            raise CheckpointError(f"{file}: {file.stat().st_size:,} bytes, damaged or cut off")
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


BY_ELEMENT = (  # what torch's optimizers remember of each element of a parameter
    "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg", "grad_avg", "acc_delta", "sum",
    "prev", "step_size", "ax",
)  # fmt: skip
FLAVOURS = ("amsgrad", "momentum", "nesterov", "centered")  # options that change what an optimizer remembers


def _load_optimizer(key: str, optimizer: torch.optim.Optimizer, state: dict[str, Any], source: Path) -> None:
    """Running averages from the checkpoint, everything that the YAML says (rates, betas, decay) from the YAML."""
    own = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    before = state["param_groups"][0]
    changed = [k for k in FLAVOURS if bool(before.get(k)) != bool(own[0].get(k))]
    if state["type"] != type(optimizer).__name__ or changed:
        logger.warning("%s is of another kind now and starts with nothing remembered", key)
        return
    groups = [{**saved, **values} for saved, values in zip(state["param_groups"], own, strict=False)]
    groups += state["param_groups"][len(groups) :]
    try:  # with the flags of now (`fused` and the like), which say where its counters belong
        optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
        _lay_out_as_parameters(optimizer)
    except ValueError as error:
        raise CheckpointError(f"{source}: its {key} does not fit these networks ({error})") from None


def _lay_out_as_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Bring what is remembered of a parameter, element by element, to its memory format: fused optimizers walk both as plain
    memory, and `channels_last` may have changed.  ValueError where it is of another shape."""
    for parameter, remembered in optimizer.state.items():
        for name, value in remembered.items():
            shape = value.shape if isinstance(value, torch.Tensor) else None
            if name in BY_ELEMENT and value is not None and shape != parameter.shape:
                raise ValueError(f"{name} is {shape and tuple(shape)} for a parameter of {tuple(parameter.shape)}")
            if shape == parameter.shape and value.stride() != parameter.stride():
                remembered[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


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


def remove_other_format(path: Path) -> None:
    """Of a file that was written, remove what an earlier run left in the other format: it would be mistaken for the newest."""
    for suffix in SUFFIXES:
        if suffix != path.suffix:
            path.with_suffix(suffix).unlink(missing_ok=True)


def _delete(state: Path, networks: Iterable[str]) -> None:
    """Remove a checkpoint.  Its state counts as one no more before its networks go, and goes last: it knows which they are."""
    with suppress(OSError):
        state = state.replace(state.with_suffix(HALF_DELETED))
        for name in _files_of(state, networks):
            (state.parent.parent / "models" / name).unlink(missing_ok=True)
        state.unlink()


def _files_of(state_file: Path, networks: Iterable[str]) -> list[str]:
    """The networks' files of a checkpoint: those that its state names, or where it cannot be read, those of `networks`."""
    try:
        state = read_torch(state_file, mapped=True)
    except CheckpointError:
        state = None
    if what_is_wrong(state) is None:
        return list(state["models"])
    return [f"{name}_{state_file.stem}{suffix}" for name in networks for suffix in SUFFIXES]
