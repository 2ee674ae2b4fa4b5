"""Face parts of all pictures of a folder: in parallel, and to be gone on with where it was stopped."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from facerestore.data.components import Parts, boxes, components_json
from facerestore.data.contact_sheet import Card, Panel, contact_sheet
from facerestore.data.face_detectors import detector
from facerestore.data.image_io import PictureError, decode_image
from facerestore.data.landmarks import Labels, parts_of, refuse_outside, resized
from facerestore.data.parallel import parallel_map
from facerestore.data.storage import Storage
from facerestore.errors import DataError, UserError
from facerestore.files import atomic_write

EYES = 1.4  # by how much GFPGAN enlarges the boxes of the eyes


class Measured(NamedTuple):
    """A face's parts, in the pixels of its picture, whose side is `side`."""

    side: int
    parts: Parts


@dataclass(frozen=True, eq=False)
class FromLabels:
    """Finds a picture's parts in a file of landmarks; `names` are its entries by picture."""

    labels: Labels
    names: Mapping[str, str]

    def __call__(self, name: str, image: np.ndarray, path: str) -> Parts:
        return self.labels.parts(self.names[name], len(image))


@dataclass(frozen=True)
class FromDetector:
    """Finds them by a detector (see :mod:`facerestore.data.face_detectors`)."""

    kind: str
    model: str | None = None

    def __call__(self, name: str, image: np.ndarray, path: str) -> Parts:
        points = detector(self.kind, self.model)(image)
        if points is None:
            raise PictureError(f"picture {path}: {self.kind} finds no face in it: leave it out, or try another --detector")
        parts = parts_of(points, len(image))
        refuse_outside(parts, len(image), f"picture {path}")
        return parts


Finder = FromLabels | FromDetector


class Progress:
    """The faces that are measured already, a line each, beside the file that they are for; of other settings, none.

    A line begins with the line break, so that one that was cut off (by a kill) ends where the next begins.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any]):
        self.file = output.with_name(f".{output.name}.progress")
        self.settings = json.dumps(settings, sort_keys=True)
        self.done: dict[str, Measured] = {}

    def __enter__(self) -> Progress:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._read()
            self._lines = self.file.open("a", encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UserError(f"{self.file}: cannot be used: {getattr(error, 'strerror', None) or error}") from None
        if not self.done:
            self._lines.truncate(0)
            self._write(self.settings)
        return self

    def _read(self) -> None:
        settings, *lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else [""]
        for line in lines if settings == self.settings else ():
            with suppress(ValueError, TypeError):  # cut off
                name, side, parts = json.loads(line)
                self.done[name] = Measured(side, parts)

    def note(self, name: str, face: Measured) -> None:
        self.done[name] = face
        self._write(f"\n{json.dumps([name, *face])}")

    def _write(self, text: str) -> None:
        try:
            self._lines.write(text)
            self._lines.flush()
        except OSError as error:
            raise UserError(f"{self.file}: cannot be written: {error.strerror or error}") from None

    def __exit__(self, *_: object) -> None:
        self._lines.close()


def measure(
    source: Storage,
    finder: Finder,
    output: Path,
    settings: Mapping[str, Any],
    workers: int = 1,
    skip_bad: bool = False,
) -> dict[str, Measured]:
    """Write the file of components of all pictures of a source; the parts by picture, in order of names.

    Its `size` is the largest side; parts of smaller pictures are enlarged to it.

    Args:
        source: the pictures, which must be square
        finder: what finds their parts
        output: the file, .json
        settings: what the finder's results depend on: a run that was stopped is gone on with where they are the same
        workers: processes
        skip_bad: whether a picture that cannot be used is named and left out

    Raises:
        PictureError: a picture cannot be used: it is damaged, no square, or without a face
        DataError: none can
    """
    names = source.names()
    with Progress(output, settings) as progress:
        missing = [name for name in names if name not in progress.done]
        results = parallel_map(partial(_measured, source, finder), missing, workers)
        with tqdm(total=len(names), initial=len(names) - len(missing), unit="face") as bar:
            for name, result in zip(missing, results, strict=True):
                if not isinstance(result, PictureError):
                    progress.note(name, result)
                elif skip_bad:
                    bar.write(f"left out: {result}", file=sys.stderr)
                else:
                    raise PictureError(f"{result} (--skip-bad leaves out all such)")
                bar.update()
        faces = {name: progress.done[name] for name in names if name in progress.done}
        if not faces:
            raise DataError(f"{output}: not one picture of the input can be used")
        size = max(face.side for face in faces.values())
        entries = {name: resized(face.parts, size / face.side) for name, face in faces.items()}
        atomic_write(output, components_json(entries, size))
    progress.file.unlink()
    return faces


def _measured(source: Storage, finder: Finder, name: str) -> Measured | PictureError:
    path = source.path(name)
    try:
        image = decode_image(source.read(name), path)
        if image.shape[0] != image.shape[1]:
            raise PictureError(
                f"picture {path} is {image.shape[1]}x{image.shape[0]}: faces must be square: cut it, or leave it out"
            )
        return Measured(len(image), finder(name, image, path))
    except PictureError as error:
        return error


def sheet(source: Storage, faces: Mapping[str, Measured], title: str, subtitle: str, count: int) -> np.ndarray:
    """uint8 RGB (H, W, 3): of `count` pictures, from the first to the last, the boxes that a training cuts out."""
    names = list(faces)
    places = np.unique(np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int))
    cards = [_card(source, names[place], faces[names[place]]) for place in places]
    return contact_sheet(title, subtitle, cards)


def _card(source: Storage, name: str, face: Measured) -> Card:
    image = decode_image(source.read(name), source.path(name))
    found = boxes(face.parts, face.side, ratios={"left_eye": EYES, "right_eye": EYES})
    marked: dict[str, Sequence[float]] = {part: box.tolist() for part, box in found.items()}
    return Card(name, "", [Panel("face", image, f"{face.side}x{face.side}", marked)], [])
