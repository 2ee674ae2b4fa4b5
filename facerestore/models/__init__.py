"""Training methods, each in a file to be read beside its paper.  A new one is a file, one import below, and a YAML."""

from facerestore.models import codeformer, gfpgan, sr, srgan, srgan_comparison, stargan2, stylegan2, vqgan
from facerestore.models.base import Method, Turn

__all__ = ["Method", "Turn", "codeformer", "gfpgan", "sr", "srgan", "srgan_comparison", "stargan2", "stylegan2", "vqgan"]
