"""What a training state must hold before anything is taken from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WANTED = {"iter": int, "optimizers": dict, "method": dict, "models": dict, "world_size": int, "options": str}
LATER = {"passed_over": int, "loss_scales": dict}  # states of before there were any have none
SCALES = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")
MAY_REMEMBER_NOTHING = ("SGD",)  # without momentum; states of now say how many parameters are `remembered`


def what_is_wrong(state: Any) -> str | None:
    """Why a training cannot go on from what was read as its state; None where it can."""
    if not isinstance(state, dict) or not all(isinstance(state.get(k), kind) for k, kind in WANTED.items()):
        return "this is no training state of facerestore"
    for key, kind in LATER.items():
        if key in state and not isinstance(state[key], kind):
            return f"damaged: its `{key}` is a {type(state[key]).__name__}, not {kind.__name__}"
    return _in_options(state) or _in_models(state) or _in_optimizers(state) or _in_scales(state.get("loss_scales", {}))


def _in_options(state: Mapping[str, Any]) -> str | None:
    try:
        read = json.loads(state["options"])
    except ValueError:
        read = None
    return None if isinstance(read, dict) else "damaged: its `options` are no JSON object"


def _in_models(state: Mapping[str, Any]) -> str | None:
    models = state["models"]
    if state["iter"] > 0 and not models:
        return "damaged: its `models` name no file of a network that was trained"
    if any(not isinstance(name, str) or not isinstance(sha, str) or Path(name).name != name for name, sha in models.items()):
        return "damaged: its `models` are no digests by names of files"
    return None


def _in_optimizers(state: Mapping[str, Any]) -> str | None:
    optimizers = state["optimizers"]
    for key, optimizer in optimizers.items():
        for part, kind in (("type", str), ("state", dict), ("param_groups", list)):
            if not isinstance(optimizer, dict) or not isinstance(optimizer.get(part), kind):
                return f"damaged: its {key} has no `{part}`"
        groups = optimizer["param_groups"]
        if not groups or not all(isinstance(g, dict) and isinstance(g.get("params"), list) for g in groups):
            return f"damaged: the `param_groups` of its {key} name no parameters"
        if not all(isinstance(remembered, dict) for remembered in optimizer["state"].values()):
            return f"damaged: what its {key} remembers of a parameter is not there by name"
        if len(optimizer["state"]) != optimizer.get("remembered", len(optimizer["state"])):
            return f"damaged: its {key} has lost what it remembered of its parameters"
    uncounted = [o for o in optimizers.values() if "remembered" not in o and o["type"] not in MAY_REMEMBER_NOTHING]
    if state["iter"] > 0 and uncounted and not any(o["state"] for o in uncounted):
        return f"damaged: after iteration {state['iter']} none of {', '.join(optimizers)} remembers anything"
    return None


def _in_scales(scales: Mapping[str, Any]) -> str | None:
    for key, scaler in scales.items():
        values = [scaler.get(name) for name in SCALES] if isinstance(scaler, dict) else [None]
        if not isinstance(key, str) or not all(isinstance(v, (int, float)) for v in values):
            return f"damaged: its `loss_scales` hold no scale for {key}"
    return None
