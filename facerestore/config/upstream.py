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

NO_ADVERSARY = "CodeFormerIdxModel has no adversary: it updates its generator in every iteration"

WITHOUT_MEANING_TO = {  # the same, of one method's files
    "CodeFormerIdxModel": {
        ("train", "use_adaptive_weight"): NO_ADVERSARY,
        ("train", "scale_adaptive_gan_weight"): NO_ADVERSARY,
        ("train", "net_g_start_iter"): NO_ADVERSARY,
        ("train", "net_d_iters"): NO_ADVERSARY,
        ("train", "net_d_start_iter"): NO_ADVERSARY,
    },
}

# Methods of published files that are not here, so that none of ours is suggested in their place
METHODS_ELSEWHERE = (
    "RealESRGANModel", "RealESRNetModel", "HiFaceGANModel", "SwinIRModel", "VideoBaseModel", "EDVRModel",
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
    notes = _settle_codes(data)
    idle = WITHOUT_MEANING | WITHOUT_MEANING_TO.get(str(data.get("model_type")), {})
    for pattern, reason in idle.items():
        for path, section in _matches(data, pattern):
            del section[path[-1]]
            notes.append(f"`{dotted(path)}` is not read: {reason}")
    return notes


def _settle_codes(data: dict[str, Any]) -> list[str]:
    """Where the codes of the truth come from: `network_vqgan` is left out where a file holds them, and is otherwise the VQGAN
    of which `network_g` was made.  (Published code never loads it, and trains on the codes of chance.)"""
    if not isinstance(data.get("network_vqgan"), dict):
        return []
    vqgan, path = data["network_vqgan"], _inside(data, "path")
    looks_up = _inside(data, "val").get("compare_lookup")  # the VQGAN is then needed beside the file
    if _inside(data, "datasets", "train").get("latent_gt_path") and not looks_up:
        del data["network_vqgan"]
        for key in ("pretrain_network_vqgan", "param_key_vqgan", "strict_load_vqgan"):
            path.pop(key, None)
        return ["`network_vqgan` is not read: the codes come from `datasets.train.latent_gt_path`"]
    source = _inside(data, "network_g").get("vqgan_path")
    if vqgan.get("weights") or vqgan.get("model_path") or path.get("pretrain_network_vqgan") or not source:
        return []
    vqgan["weights"] = source
    return ["`network_vqgan` has the weights of `network_g.vqgan_path`"]


def _inside(data: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The section under `keys`, empty where there is none."""
    for key in keys:
        value = data.get(key)
        data = value if isinstance(value, dict) else {}
    return data


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
