"""Keys of published option files that have no meaning here: what happens instead, and why.

Each is named once in the log.  `*` stands for any one key.
"""

from __future__ import annotations

from typing import Any

from facerestore.errors import dotted

WITHOUT_MEANING = {
    ("find_unused_parameters",): "gradients are exchanged phase by phase, unused parameters or not",
    ("datasets", "*", "prefetch_mode"): "batches are always prefetched, by the workers and to the device",
    ("datasets", "*", "num_prefetch_queue"): "batches are always prefetched, by the workers and to the device",
    ("datasets", "*", "phase"): "the entry's key (train, val, test_1) says it",
    ("dist_params", "port"): "torchrun --master-port says it",
    ("logger", "wandb"): "curves are written for TensorBoard and into report.html",
    ("train", "manual_seed"): "the seed is the one at the top of the file",
}


def remove_meaningless(data: dict[str, Any]) -> list[str]:
    """Take those keys out of `data` and return a note for each."""
    notes = []
    for pattern, reason in WITHOUT_MEANING.items():
        for path, section in _matches(data, pattern, ()):
            del section[path[-1]]
            notes.append(f"`{dotted(path)}` is not read: {reason}")
    return notes


def _matches(section: Any, pattern: tuple[str, ...], at: tuple[str, ...]):
    if not isinstance(section, dict):
        return
    for key in list(section) if pattern[0] == "*" else [pattern[0]]:
        if key not in section:
            continue
        if len(pattern) == 1:
            yield (*at, key), section
        else:
            yield from _matches(section[key], pattern[1:], (*at, key))
