"""Restoring pictures with a trained network."""

from facerestore.inference.restorer import Restorer

__all__ = ["Restorer"]
