"""Where the weights lie that the authors of CodeFormer and GFPGAN publish."""

from __future__ import annotations

import os
from pathlib import Path

RELEASES = {
    "https://github.com/sczhou/CodeFormer/releases/download/v0.1.0/": (
        "codeformer.pth", "codeformer_colorization.pth", "codeformer_inpainting.pth", "vqgan_code1024.pth",
    ),
    "https://github.com/TencentARC/GFPGAN/releases/download/v1.3.0/": ("GFPGANv1.3.pth", "GFPGANv1.4.pth"),
}  # fmt: skip
ADDRESSES = {name: place + name for place, names in RELEASES.items() for name in names}
FOR_TASK = {
    "restore": "codeformer.pth",
    "colorize": "codeformer_colorization.pth",
    "inpaint": "codeformer_inpainting.pth",
}


def where_published(path: str | os.PathLike, task: str) -> str:
    """What a message says of the file that is needed: the missing one, where it is published under this name, or else the
    published one that does the task."""
    name = Path(path).name
    if name in ADDRESSES and not Path(path).exists():
        return f"{name} is published as {ADDRESSES[name]}"
    name = FOR_TASK[task]
    return f"the published weights that {task} are {name}, {ADDRESSES[name]}"
