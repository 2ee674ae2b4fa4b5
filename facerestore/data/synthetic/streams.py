"""Chance, one named stream per part, so that a part that is added later does not change the others."""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, *names: int | str) -> np.random.Generator:
    """The numbers of (seed, names): the same in every process, independent between any two names."""
    return np.random.default_rng([seed, *(zlib.crc32(n.encode()) if isinstance(n, str) else n for n in names)])


def around(rng: np.random.Generator, mean: float, deviation: float, limit: float = 2.0) -> float:
    """A normal number that stays within `limit` deviations."""
    return float(mean + deviation * np.clip(rng.standard_normal(), -limit, limit))


def chance(rng: np.random.Generator, probability: float) -> bool:
    return bool(rng.random() < probability)
