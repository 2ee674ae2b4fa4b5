"""What the loader hands on."""

from __future__ import annotations

from typing import Any

from facerestore.errors import listed


class Batch(dict):
    """A dict whose keys are attributes too: `batch.lq` is `batch["lq"]`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the batch has no `{name}` (it has {listed(sorted(self))})") from None

    __setattr__ = dict.__setitem__
    __delattr__ = dict.__delitem__
