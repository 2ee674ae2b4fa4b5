"""What weights and figures come from, as digests: those of other options or weights than today's are told by it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from facerestore.config import Options
from facerestore.errors import UserError
from facerestore.files import atomic_write, digest

ORIGIN_FILE = "origin.json"  # in the folder of a training
DECIDING = ("model_type", "scale", "manual_seed", "legacy", "train")  # beside networks, the training's data and `path`
NOT_DECIDING = ("name", "num_worker_per_gpu")  # of a data set


@dataclass(frozen=True)
class Origin:
    """Digests of what something was made of.

    Args:
        options: of what its options say
        weights: of the files that it took, by what took them
    """

    options: str
    weights: dict[str, str]

    @classmethod
    def of(cls, options: Any, files: Mapping[str, Path]) -> Origin:
        """The origin of what is made now: of `options`, plain data, and `files`, of which some may not be there yet."""
        content = json.dumps(options, sort_keys=True)
        found = {key: digest(file) for key, file in files.items() if file.exists()}
        return cls(hashlib.sha256(content.encode()).hexdigest(), found)

    def other_weights(self, now: Origin) -> list[str]:
        """What takes other weights now."""
        return [key for key in {**self.weights, **now.weights} if self.weights.get(key) != now.weights.get(key)]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def read_origin(path: Path) -> Origin | None:
    """What an earlier run wrote; None where there is no file.  UserError where it is damaged."""
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Origin)
    except (msgspec.DecodeError, OSError):
        raise UserError(
            f"{path} is no record that was written here: remove it, and what lies there is taken as it is"
        ) from None


def write_origin(path: Path, origin: Origin) -> None:
    atomic_write(path, json.dumps(origin.as_json(), indent=1))


def deciding(options: Options, taken: Collection[str]) -> dict[str, Any]:
    """Of a training's options those that decide its weights; nothing of validations, logs and places.

    Args:
        options: as loaded
        taken: files whose content counts, so that their names do not
    """
    raw = _without(options.raw, taken)
    data, path = (raw.get("datasets") or {}).get("train") or {}, raw.get("path") or {}
    return {
        **{k: v for k, v in raw.items() if k in DECIDING or k.startswith("network_")},
        "data": {k: v for k, v in data.items() if k not in NOT_DECIDING},
        "path": {k: v for k, v in path.items() if k.startswith(("pretrain_", "param_key_", "strict_load_"))},
    }


def _without(value: Any, names: Collection[str]) -> Any:
    if isinstance(value, dict):
        return {k: _without(v, names) for k, v in value.items()}
    if isinstance(value, list):
        return [_without(v, names) for v in value]
    return None if isinstance(value, str) and value in names else value
