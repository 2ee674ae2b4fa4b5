"""Stand-ins for what takes an optional library."""

from __future__ import annotations

import pytest

from facerestore.registry import ARCHS
from tests.metrics.standins import StandInFaces, TinyIdentity


@pytest.fixture
def standins(monkeypatch) -> None:
    """Faces are found without a library, and there is an identity network TinyIdentity."""
    for name in ("dlib_faces", "mtcnn_faces"):
        monkeypatch.setattr(f"facerestore.metrics.identity.{name}", StandInFaces)
    monkeypatch.setitem(ARCHS._entries, "TinyIdentity", TinyIdentity)
