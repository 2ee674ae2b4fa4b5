"""Drawn faces that are kept in memory."""

from __future__ import annotations

from collections import OrderedDict

from facerestore.data.synthetic.face import Face, render_face


class FaceCache:
    """Drawn faces of this process, the least recently used dropped beyond `limit` bytes."""

    def __init__(self, limit: int):
        self.limit, self.bytes = limit, 0
        self.faces: OrderedDict[tuple, Face] = OrderedDict()

    def get(self, *key: int | None) -> Face:
        """`render_face(*key)`.  Its arrays are shared: they cannot be written to."""
        if key in self.faces:
            self.faces.move_to_end(key)
            return self.faces[key]
        face = self.faces[key] = render_face(*key)
        for array in (face.image, face.regions, face.points5, face.landmarks68):
            array.setflags(write=False)
        self.bytes += face.image.nbytes + face.regions.nbytes
        while self.bytes > self.limit and len(self.faces) > 1:
            _, dropped = self.faces.popitem(last=False)
            self.bytes -= dropped.image.nbytes + dropped.regions.nbytes
        return face


CACHE = FaceCache(limit=512 << 20)
