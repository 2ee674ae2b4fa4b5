"""Training methods, each in a file to be read beside its paper.  A new one is a file, one import below, and a YAML."""

from facerestore.models import gfpgan, sr, srgan, srgan_comparison, stylegan2
from facerestore.models.base import Method, Turn

__all__ = ["Method", "Turn", "gfpgan", "sr", "srgan", "srgan_comparison", "stylegan2"]
