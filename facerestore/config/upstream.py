"""Keys of published option files that are not read here: what happens instead, and why.

Those in WITHOUT_MEANING change nothing and are named once in the log.  Those in SAID_OTHERWISE would change the training,
and are refused with what to write.  `*` stands for any one key, and a class's name for any section of that `type`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from facerestore.errors import OptionError, Path, dotted

NO_COPIES = "degraded copies are made from the ground truth, so none has a name of its own"
PREFETCHED = "batches are always prefetched, by the workers and to the device"

WITHOUT_MEANING = {
    ("find_unused_parameters",): "gradients are exchanged phase by phase, unused parameters or not",
    ("datasets", "*", "prefetch_mode"): PREFETCHED,
    ("datasets", "*", "num_prefetch_queue"): PREFETCHED,
    ("datasets", "*", "pin_memory"): "memory is pinned wherever there is a GPU",
    ("datasets", "*", "persistent_workers"): "workers always stay from one epoch to the next",
    ("datasets", "FFHQBlindDataset", "filename_tmpl"): NO_COPIES,
    ("datasets", "FFHQBlindJointDataset", "filename_tmpl"): NO_COPIES,
    ("datasets", "*", "phase"): "the entry's key (train, val, test_1) says it",
    ("dist_params", "port"): "torchrun --master-port says it",
    ("train", "manual_seed"): "the seed is the one at the top of the file",
}

# Methods of published files that are not here, so that none of ours is suggested in their place
METHODS_ELSEWHERE = (
    "RealESRGANModel", "RealESRNetModel", "VQGANModel", "CodeFormerIdxModel", "CodeFormerModel",
    "CodeFormerJointModel", "HiFaceGANModel", "SwinIRModel", "VideoBaseModel", "EDVRModel",
)  # fmt: skip

SAID_OTHERWISE = {
    ("train", "use_grad_clip"): "give the bound itself: `clip_grad_norm: 0.01`",
    ("path", "pretrain_model_g"): "BasicSR calls it `pretrain_network_g` now",
    ("path", "pretrain_model_d"): "BasicSR calls it `pretrain_network_d` now",
    ("path", "strict_load"): "say for which network: `strict_load_g`",
}


def settle_upstream(data: dict[str, Any]) -> list[str]:
    """Take the keys without meaning out of `data` and return a note for each; OptionError for one that is said otherwise."""
    for pattern, instead in SAID_OTHERWISE.items():
        for path, _ in _matches(data, pattern):
            raise OptionError(f"`{path[-1]}` is not read here: {instead}", path)
    notes = []
    for pattern, reason in WITHOUT_MEANING.items():
        for path, section in _matches(data, pattern):
            del section[path[-1]]
            notes.append(f"`{dotted(path)}` is not read: {reason}")
    return notes


def _matches(section: Any, pattern: Path, at: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The paths of `section` that `pattern` fits, each with the section that holds its last key."""
    if not isinstance(section, dict):
        return
    for key in list(section):
        if pattern[0] not in ("*", key, _type_of(section[key])):
            continue
        if len(pattern) == 1:
            yield (*at, key), section
        else:
            yield from _matches(section[key], pattern[1:], (*at, key))


def _type_of(section: Any) -> Any:
    return section.get("type") if isinstance(section, dict) else None
