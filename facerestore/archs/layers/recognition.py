"""From a bare state dict to the constructor keywords of the network that it belongs to."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from facerestore.errors import OptionError

State = dict[str, Tensor]
Keywords = dict[str, Any]
Recogniser = Callable[[type[nn.Module], State], Keywords | None]


def confirmed(derive: Recogniser) -> Recogniser:
    """Decorator of a `keywords_of`: its answer stands if a network built with it has the state's very keys and shapes.

    So `derive` may assume that the state is its own class's and read off only what it needs; a state that lacks a
    key, or has it in another shape, is another class's.  The proof is built on the meta device: it costs no memory.
    """

    @functools.wraps(derive)
    def keywords_of(cls: type[nn.Module], state: State) -> Keywords | None:
        try:
            keywords = derive(cls, state)
            if keywords is None:
                return None
            with torch.device("meta"):
                network = cls(**keywords)
        except (LookupError, ValueError, ArithmeticError, OptionError):
            return None
        return keywords if _shapes(network.state_dict()) == _shapes(state) else None

    return keywords_of


def count(state: State, prefix: str) -> int:
    """How many numbered children `prefix` has in the state: 1 + the greatest N of its `prefix.N.` keys, or 0."""
    found = (re.match(rf"{re.escape(prefix)}\.(\d+)\.", key) for key in state)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _shapes(state: State) -> dict[str, tuple[int, ...]]:
    """All but batch norm's counters, which files from before torch 0.4.1 lack."""
    return {k: tuple(v.shape) for k, v in state.items() if not k.endswith("num_batches_tracked")}
