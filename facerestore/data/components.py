"""Boxes of face parts (GFPGAN, section 3.5; CodeFormer's data): centre and half length of each part, by picture.

A part is (x, y, half length) in pixels of the picture, (0, 0) the middle of the first pixel.  Its box (x1, y1, x2, y2) is
(x - half + 1, y - half + 1, x + half, y + half), as published: numbers of the pixels' borders, where pixel i lies between i
and i + 1, as in `picture[y1:y2, x1:x2]` or in torchvision's `roi_align(..., aligned=True)`.  (So the middle of the box is the
middle of pixel (x, y), and the mirror image of a box is the box of the mirrored part at W - 1 - x, exactly.)  GFPGANModel's
crops, as published, take the numbers for middles of pixels: half a pixel further right and down, in true and restored faces.

A file is JSON, {"size": 512, "components": {NAME: {"left_eye": [x, y, half], "right_eye": ..., "mouth": ..., "nose": ...}}}
where `size` is the side of the pictures that it was measured on; or the inner mapping alone; or upstream's
`FFHQ_eye_mouth_landmarks_512.pth`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from facerestore.data.tables import Table, read_torch, shown
from facerestore.errors import DataError

PARTS = ("left_eye", "right_eye", "nose", "mouth")  # left and right as seen in the picture
NEEDED = ("left_eye", "right_eye", "mouth")  # the nose is CodeFormer's alone
LARGEST = 1 << 20  # pixels of a side that OpenCV reads
BEYOND = 0.25  # of the side: how far outside of the picture the middle of a part may lie, where the border cuts the face
MIRRORED = {"left_eye": "right_eye", "right_eye": "left_eye"}

Part = Sequence[float]  # x, y, half length
Parts = Mapping[str, Part]


@dataclass(frozen=True, eq=False)
class Components(Table):
    """The parts of every picture of a file; `select` names them by a data set's pictures.

    Attributes:
        parts: which parts the file has
        values: (N, len(parts), 3) x, y and half length, float64
        size: side in pixels of the pictures that they belong to; None where the file does not say
    """

    parts: tuple[str, ...]
    values: np.ndarray
    size: int | None = None

    def __getitem__(self, name: str) -> dict[str, tuple[float, float, float]]:
        """The parts of a picture, as the file has them; DataError where it has none."""
        return dict(zip(self.parts, map(tuple, self.values[self.row(name)].tolist()), strict=True))

    def boxes(
        self, name: str, side: int, mirrored: bool = False, ratios: Mapping[str, float] | None = None, legacy: bool = False
    ) -> dict[str, np.ndarray]:
        """The boxes of a picture whose side is `side`; see :func:`boxes`."""
        if self.size is None:
            own = replace(self, rows={name: self.row(name)})
            return own.measured_on(side).boxes(name, side, mirrored, ratios, legacy)
        return scaled(boxes(self[name], self.size, mirrored, ratios, legacy), side / self.size)

    def measured_on(self, side: int) -> Components:
        """The same parts, of pictures of `side` pixels where the file does not say; DataError where they lie outside."""
        if self.size is not None:
            return self
        self._refuse_outside(
            side, '; if they were measured on larger ones, make it JSON, {"size": SIDE OF THOSE, "components": {...}}'
        )
        return replace(self, size=side)

    def _refuse_outside(self, side: int, hint: str = "") -> None:
        values = self.values[list(self.rows.values())]
        x, y, half = np.moveaxis(values, -1, 0)
        low, high = -BEYOND * side, (1 + BEYOND) * side
        outside = np.argwhere((np.minimum(x, y) < low) | (np.maximum(x, y) > high) | (half > side))
        if len(outside):
            row, part = outside[0]
            raise DataError(
                f"{self.source}, has {shown(values[row, part].tolist())} as `{self.parts[part]}` of picture "
                f"{self.names[row]!r:.80}, which lies outside of a picture of {side}x{side}: correct it{hint}"
            )


def boxes(
    parts: Parts, side: int, mirrored: bool = False, ratios: Mapping[str, float] | None = None, legacy: bool = False
) -> dict[str, np.ndarray]:
    """The box of each part: (4,) float32 as x1, y1, x2, y2.  `parts` is left as it is.

    Args:
        parts: x, y and half length by part, in a picture that is not mirrored
        side: width of that picture
        mirrored: whether the boxes are those of its mirror image, where the left eye is the other one
        ratios: by how much half lengths are multiplied (upstream: 1.4 for the eyes, in CodeFormer 1.1 for the nose and 1.3
            for the mouth); 1 where a part is not named
        legacy: whether x becomes W - x in the mirror, as published, which is a pixel too far to the right
    """
    found = {}
    for part in parts:
        x, y, half = (float(v) for v in parts[MIRRORED.get(part, part) if mirrored else part])
        if mirrored:
            x = side - x if legacy else side - 1 - x
        half *= (ratios or {}).get(part, 1.0)
        found[part] = np.array([x - half + 1, y - half + 1, x + half, y + half], np.float32)
    return found


def scaled(found: Mapping[str, np.ndarray], factor: float) -> dict[str, np.ndarray]:
    """Boxes in a picture that is `factor` times larger."""
    return {part: box * np.float32(factor) for part, box in found.items()}


def read_components(path: str, key: str) -> Components:
    """The face parts of a file (JSON or upstream's .pth).

    Args:
        path: the file
        key: the option that named it, for errors

    Raises:
        DataError: it is missing, damaged, or holds something else; an entry lacks a part, is no three numbers, or lies outside
            of a picture of the file's size (what no picture has, where it says none)
    """
    source = f"file {path}, named by `{key}`"
    content = _read_json(path, source) if str(path).lower().endswith(".json") else read_torch(path, source)
    size = None
    if isinstance(content, Mapping) and not isinstance(content.get("size", {}), Mapping):
        size, content = content["size"], content.get("components")
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= LARGEST:
            raise DataError(
                f"{source}, says that its pictures' `size` is {shown(size)}, not a number of pixels from 1 to {LARGEST}"
            )
    if not isinstance(content, Mapping) or not content:
        raise DataError(f"{source}, holds no face parts: {{NAME: {{left_eye: [x, y, half length], ...}}, ...}} is expected")
    parts = tuple(p for p in PARTS if p in NEEDED or all(isinstance(e, Mapping) and p in e for e in content.values()))
    values = np.array([[_part(entry, part, name, source) for part in parts] for name, entry in content.items()])
    components = Components(source, {str(name): row for row, name in enumerate(content)}, parts, values, size)
    components._refuse_outside(size or LARGEST)
    return components


def components_json(entries: Mapping[str, Parts], size: int) -> str:
    """The text of a file that :func:`read_components` reads.

    Args:
        entries: x, y and half length by part, by picture
        size: side in pixels of the pictures
    """
    rounded = {n: {p: [round(float(v), 3) for v in e[p]] for p in PARTS if p in e} for n, e in entries.items()}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(parts)}" for name, parts in rounded.items())
    return f'{{\n "size": {size},\n "components": {{\n{lines}\n }}\n}}\n'


def _part(entry: Any, part: str, name: Any, source: str) -> np.ndarray:
    """(3,) x, y and half length."""
    if not isinstance(entry, Mapping) or part not in entry:
        raise DataError(f"{source}, has no `{part}` for picture {str(name)!r:.80}: write it as [x, y, half length]")
    try:
        values = np.asarray(entry[part])
    except (ValueError, TypeError, RuntimeError):  # lists of several lengths and the like
        values = np.empty(0)
    if values.shape != (3,) or values.dtype.kind not in "iuf" or not np.isfinite(values).all() or values[2] <= 0:
        raise DataError(
            f"{source}, has {shown(entry[part])} as `{part}` of picture {str(name)!r:.80}: x, y and a half length above 0 are "
            "expected"
        )
    return values.astype(np.float64)


def _read_json(path: str, source: str) -> Any:
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
        raise DataError(f"{source}, cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}, is no JSON, or cut off: {str(error) or 'nested too deeply'}") from None
