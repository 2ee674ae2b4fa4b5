"""From a bare state dict to the constructor keywords of the network that it belongs to."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from facerestore.errors import OptionError
from facerestore.registry import check_keywords, shapes_of

State = dict[str, Tensor]
Keywords = dict[str, Any]
Recogniser = Callable[[type[nn.Module], State], Keywords | None]


def confirmed(derive: Recogniser) -> Recogniser:
    """Decorator of a `keywords_of`: its answer stands if a network built with it has the state's very keys and shapes.

    So `derive` may assume that the state is its own class's and read off only what it needs; a state that lacks a
    key, or has it in another shape, is another class's.  The proof is built on the meta device: it costs no memory.
    Keywords that an option file could not give (no layer at all) are no answer.
    """

    @functools.wraps(derive)
    def keywords_of(cls: type[nn.Module], state: State) -> Keywords | None:
        try:
            keywords = derive(cls, state)
            if keywords is None:
                return None
            check_keywords(cls, keywords, cls.__name__)
            with torch.device("meta"):
                network = cls(**keywords)
        except (LookupError, ValueError, ArithmeticError, OptionError):
            return None
        return keywords if shapes_of(network.state_dict()) == shapes_of(state) else None

    return keywords_of


def count(state: State, prefix: str) -> int:
    """How many numbered children `prefix` has in the state: 1 + the greatest N of its `prefix.N.` keys, or 0."""
    found = (re.match(rf"{re.escape(prefix)}\.(\d+)\.", key) for key in state)
    return 1 + max((int(match[1]) for match in found if match), default=-1)
