"""Constructor keywords that many networks have: their type hints, and what they must agree in."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from facerestore.errors import OptionError

# Upper bounds lie far beyond what is used: they catch a slip of the hand.
Count = Annotated[int, Meta(ge=1, le=16_384)]  # of channels
Depth = Annotated[int, Meta(ge=1, le=512)]  # blocks or layers, one after the other
Enlargement = Annotated[int, Meta(ge=1, le=64)]  # output side / input side


def refuse_unaddable(num_in_ch: int, num_out_ch: int) -> None:
    """OptionError where the enlarged input cannot be added to the output."""
    if num_in_ch not in (1, num_out_ch):
        raise OptionError(
            f"the input's {num_in_ch} channels are added to the output's, so num_out_ch cannot be {num_out_ch}: "
            "give both the same number",
            ("num_out_ch",),
        )
