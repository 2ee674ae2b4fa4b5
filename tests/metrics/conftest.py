"""Stand-ins for what takes an optional library."""

from __future__ import annotations

import sys

import pytest

from facerestore.registry import ARCHS
from tests.metrics.standins import StandInFaces, StandInPyIQA, TinyIdentity


@pytest.fixture
def standins(monkeypatch) -> None:
    """Faces are found without a library, pyiqa is there, and an identity network TinyIdentity."""
    monkeypatch.setitem(sys.modules, "pyiqa", StandInPyIQA())
    monkeypatch.setattr("facerestore.metrics.pyiqa.metadata.version", lambda name: "0.1")
    for name in ("dlib_faces", "mtcnn_faces"):
        monkeypatch.setattr(f"facerestore.metrics.identity.{name}", StandInFaces)
    monkeypatch.setitem(ARCHS._entries, "TinyIdentity", TinyIdentity)
