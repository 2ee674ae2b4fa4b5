"""facerestore: train and test networks that restore, translate and encode faces."""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["Restorer"]


def __getattr__(name: str):
    """Import `Restorer` on first use, so that `import facerestore` stays quick."""
    if name == "Restorer":
        from facerestore.inference.restorer import Restorer

        return Restorer
    raise AttributeError(f"module 'facerestore' has no attribute {name!r}")
