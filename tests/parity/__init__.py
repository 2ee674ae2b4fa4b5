"""Figures of the published implementations, and the means to rebuild the weights and inputs that gave them.

A case is `cases/NAME.json` (what was run) and `cases/NAME.npz` (what it returned).  Weights and inputs come from
`numpy.random.RandomState`, whose stream is frozen, seeded by the CRC-32 of "SEED:KEY": they depend on names and shapes alone.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch

CASES = Path(__file__).resolve().parent / "cases"


def _normal(seed: int, key: str, shape) -> np.ndarray:
    state = np.random.RandomState(zlib.crc32(f"{seed}:{key}".encode()))
    return state.standard_normal(tuple(shape)).astype(np.float32)


def weight(key: str, shape, seed: int, equalized: bool | float) -> np.ndarray:
    """The value of the parameter or buffer ``key``.

    equalized: weights of two or more dimensions are unit normal (layers that
    scale them at run time); otherwise they are scaled by 1 / sqrt(fan_in).
    A number is a gain on those unit normals and on the biases, for layers that
    also multiply them by a learning rate (100 where that is 0.01).
    """
    n = _normal(seed, key, shape)
    gain = np.float32(equalized or 1)
    name = key.rsplit(".", 1)[-1]
    if name == "running_mean":
        return 0.1 * n
    if name == "running_var":
        return 1 + 0.1 * np.abs(n)
    if len(shape) <= 1:
        if key.endswith("modulation.bias"):
            return 1 + 0.1 * n
        if name == "weight" and n.size > 1:  # a norm's gain, or a PReLU slope
            return 1 + 0.1 * n
        return 0.1 * n * gain
    if equalized or "noise" in name:
        return n * gain
    return n / np.float32(np.sqrt(np.prod(shape[1:])))


@torch.no_grad()
def fill_(module: torch.nn.Module, seed: int = 0, equalized: bool | float | dict[str, bool | float] = False) -> torch.nn.Module:
    """Fill every parameter, batch-norm statistic and stored noise map of ``module``.

    ``equalized`` may map key prefixes to its values (the longest match wins, "" is
    the default), for modules that mix kinds of layer.  The vectors ``*_u`` and
    ``*_v`` of a spectral norm (which torch draws at random) become the leading
    singular vectors of the weight.  Other buffers, and ``num_batches_tracked``,
    keep the value that the module gave them.
    """
    rules = equalized if isinstance(equalized, dict) else {"": equalized}
    parameters = {k for k, _ in module.named_parameters()}
    state = module.state_dict(keep_vars=True)
    for key, tensor in state.items():
        name = key.rsplit(".", 1)[-1]
        drawn = key in parameters or name in ("running_mean", "running_var") or name.startswith("noise")
        if not drawn or not tensor.is_floating_point():
            continue
        rule = rules[max((p for p in rules if key.startswith(p)), key=len)]
        tensor.copy_(torch.from_numpy(weight(key, tensor.shape, seed, rule)))
        stem = key.removesuffix("_orig")
        if stem != key and f"{stem}_u" in state:
            u, _, v = np.linalg.svd(tensor.detach().cpu().double().flatten(1).numpy(), full_matrices=False)
            state[f"{stem}_u"].copy_(torch.from_numpy(u[:, 0].copy()))
            state[f"{stem}_v"].copy_(torch.from_numpy(v[0].copy()))
    return module


def draw(shape, seed: int, name: str = "input", low: float | None = None, high: float | None = None) -> torch.Tensor:
    """An input tensor: unit normal, or uniform in [low, high) where those are given."""
    state = np.random.RandomState(zlib.crc32(f"{seed}:{name}".encode()))
    if low is None:
        return torch.from_numpy(state.standard_normal(tuple(shape)).astype(np.float32))
    return torch.from_numpy(state.uniform(low, high, tuple(shape)).astype(np.float32))


def load(name: str, folder: Path = CASES) -> tuple[dict, dict[str, np.ndarray]]:
    """The two halves of a case: its description, and the reference's arrays."""
    with np.load(folder / f"{name}.npz") as arrays:
        return json.loads((folder / f"{name}.json").read_text()), dict(arrays)


def summary(tensor: torch.Tensor, limit: int = 4096) -> np.ndarray:
    """What a case stores of a tensor: all of it, or an even sample of ``limit`` of its elements."""
    flat = tensor.detach().float().reshape(-1)
    if flat.numel() > limit:
        flat = flat[torch.linspace(0, flat.numel() - 1, limit, dtype=torch.float64).round().long()]
    return flat.cpu().numpy()


def relative_error(mine: torch.Tensor | np.ndarray, reference: np.ndarray) -> float:
    """||mine - reference|| / ||reference||, of a tensor against a stored summary; inf where the sizes differ."""
    if isinstance(mine, torch.Tensor):
        mine = summary(mine, limit=reference.size)
    mine, reference = np.asarray(mine, np.float64).ravel(), np.asarray(reference, np.float64).ravel()
    if mine.shape != reference.shape or not np.isfinite(mine).all():
        return float("inf")
    return float(np.linalg.norm(mine - reference) / max(np.linalg.norm(reference), 1e-12))
