"""The kinds of iterations that a training has: where each begins, and how many there are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from facerestore.config import Options
from facerestore.engine.builder import build_schedule
from facerestore.engine.schedules import rate_turns
from facerestore.models.base import Turn

Kind = tuple[bool, ...]  # of an iteration: which of the method's turns hold in it


@dataclass(frozen=True)
class Phase:
    """Iterations that are run to see what happens in a part of the schedule."""

    label: str
    iterations: tuple[int, ...]


def phases_of(options: Options, turns: Mapping[str, Turn], start: int = 0) -> list[Phase]:
    """What to run of a training that goes on after iteration `start`, in order: two iterations wherever something changes.

    Turns that hold in every n-th iteration only are run once more n iterations later, and again after every other turn,
    so that what they do then is seen too.  The last phase is the training's end.
    """
    total = options.train.total_iter
    end = max(total - 1, start + 1)
    found: dict[int, tuple[list[str], set[int]]] = {}

    def add(label: str, first: int, *more: int) -> None:
        if start < first <= total:
            labels, iterations = found.setdefault(min(first, end), ([], set()))
            labels.append(label)
            iterations.update({first, first + 1, *more})

    add("first iteration", start + 1)
    for label, first in rate_turns(build_schedule(options), options.train.warmup_iter).items():
        add(label, first)
    lasting = {label: max(turn.first, start + 1) for label, turn in turns.items() if turn.every == 1}
    for label, first in lasting.items():
        if first > start + 1:
            add(label, first)
    for label, (first, every) in turns.items():
        if every > 1:
            begins = {max(first, _multiple(p, every)) for p in (start + 1, *lasting.values())}
            for it in sorted(begins):
                add(f"{label}, every {every}", it, it + every)
    add("last iteration", end)
    order = sorted(found, key=lambda first: (first == end, first))
    return [Phase(", ".join(dict.fromkeys(found[f][0])), tuple(i for i in sorted(found[f][1]) if i <= total)) for f in order]


def _multiple(at_least: int, of: int) -> int:
    return -(-at_least // of) * of


def kind_of(turns: Mapping[str, Turn], it: int) -> Kind:
    """What iteration `it` is, as far as the method is concerned."""
    return tuple(turn.includes(it) for turn in turns.values())


def count_kinds(turns: Mapping[str, Turn], start: int, total: int) -> dict[Kind, int]:
    """How many iterations of each kind there are from `start + 1` to `total`."""
    firsts = {turn.first for turn in turns.values() if start + 1 < turn.first <= total}
    period = math.lcm(*(turn.every for turn in turns.values()))  # between two firsts, kinds repeat after so many
    counts: Counter[Kind] = Counter()
    for begin, end in pairwise(sorted({start + 1, *firsts, total + 1})):
        for it in range(begin, min(begin + period, end)):
            counts[kind_of(turns, it)] += (end - 1 - it) // period + 1
    return dict(counts)


def nearest_kind(kind: Kind, known: Mapping[Kind, float]) -> float:
    """The seconds of the kind that is most alike (the slower of two)."""
    return max((-sum(a != b for a, b in zip(kind, other, strict=True)), seconds) for other, seconds in known.items())[1]
