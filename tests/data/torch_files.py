"""Files of torch.save as others wrote them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

# Where numpy keeps its constructors, as a pickle of protocol 2 names them: any length may stand in the other's place.
MODULES = (b"cnumpy.core.multiarray\n", b"cnumpy._core.multiarray\n")


def save_as(path: Path, content: Any, numpy_version: int) -> Path:
    """torch.save in an environment with numpy 1 or 2."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            for module in MODULES if name.endswith("data.pkl") else ():
                data = data.replace(module, MODULES[numpy_version - 1])
            target.writestr(name, data)
    return path


class Code:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple:
        return print, ("ran",)


def damaged_files(folder: Path) -> dict[str, Path]:
    """Files that cannot be read, by a word of the sentence that says so."""
    folder.mkdir(exist_ok=True)
    whole = folder / "whole.pth"
    torch.save({"orig": {"a": np.zeros(4096)}}, whole)
    data = whole.read_bytes()
    files = {"cut off": data[: len(data) // 2], "damaged": b"", "no file of torch.save": b"hello", "Python objects": None}
    for number, content in enumerate(files.values()):
        if content is None:
            torch.save({"orig": Code()}, folder / f"{number}.pth")
        else:
            (folder / f"{number}.pth").write_bytes(content)
    paths = {word: folder / f"{number}.pth" for number, word in enumerate(files)}
    return paths | {"No such file": folder / "none.pth", "cannot be read": folder}
