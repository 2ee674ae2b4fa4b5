"""Portraits drawn from two numbers: people, their pictures, and exact labels.  See :func:`render_face`."""

from facerestore.data.synthetic.face import Face, render_face
from facerestore.data.synthetic.identity import DOMAINS
from facerestore.data.synthetic.scene import REGIONS

__all__ = ["DOMAINS", "REGIONS", "Face", "render_face"]
