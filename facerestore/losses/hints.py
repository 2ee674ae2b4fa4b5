"""Constructor keywords that many losses have: their type hints."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

Weight = Annotated[float, Meta(ge=0, le=1e9)]  # what a term is multiplied by
