"""From pictures as they were published to a folder or an LMDB to train from: in parallel, and to be gone on with.

A conversion may be killed at any time; the same call again does what is missing, and ends with the same pictures.
"""

from __future__ import annotations

import io
import json
import os
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from facerestore.data.archives import Tar, Zip
from facerestore.data.image_io import PictureError, decode_image, encode_image
from facerestore.data.lmdb_storage import DATA, LOCK, PROGRESS, Lmdb, LmdbWriter
from facerestore.data.names import leads_out, without_extension
from facerestore.data.parallel import parallel_map
from facerestore.data.storage import Folder, Storage, walk
from facerestore.errors import DataError, UserError, listed
from facerestore.files import atomic_write

SETTINGS = "settings.json"  # what all pictures of an output share
SOURCES = "sources.txt"  # what each of them was made from
COMPARED = 16  # pictures of an earlier call that are read to tell whether the input is the same
ORIENTATION = 0x0112  # EXIF's


@dataclass(frozen=True)
class Recipe:
    """What becomes of each picture.

    Args:
        format: of the files; `keep` leaves the bytes of 8-bit RGB or gray PNGs and JPEGs as they are, where the size is too
        size: pixels that the shorter side is shrunk to; None leaves all sizes
        square: whether all must come out as `size` x `size`; otherwise smaller ones are left as they are
        filter: how they are shrunk
        quality: of JPEG and WebP, 1 to 100
        compression: of PNG, 0 (none) to 9 (slow)
    """

    format: Literal["keep", "png", "jpg", "webp"] = "png"
    size: int | None = None
    square: bool = False
    filter: Literal["area", "bicubic", "lanczos"] = "area"
    quality: int = 95
    compression: int = 1

    def convert(self, data: bytes, path: str) -> Converted:
        """A picture file from another; PictureError where it is damaged, or has a size that cannot be used."""
        image = decode_image(data, path, strict=True)
        fitted = self._fit(image, path)
        if self.format == "keep" and fitted is image and (channels := storable_channels(data)):
            return Converted(data, (*image.shape[:2], channels), self.compression)
        extension = ".png" if self.format == "keep" else f".{self.format}"
        parameters = {
            ".png": (cv2.IMWRITE_PNG_COMPRESSION, self.compression),
            ".jpg": (cv2.IMWRITE_JPEG_QUALITY, self.quality),
            ".webp": (cv2.IMWRITE_WEBP_QUALITY, self.quality),
        }[extension]
        return Converted(encode_image(fitted, extension, path, parameters), fitted.shape, self.compression)

    def _fit(self, image: np.ndarray, path: str) -> np.ndarray:
        """The picture, shrunk if it is larger than `size`."""
        height, width = image.shape[:2]
        side = min(height, width)
        if self.square and (height != width or side < self.size):
            raise PictureError(
                f"picture {path} is {width}x{height}: it must be a square of at least {self.size}; cut it, or leave it out"
            )
        if self.size is None or side <= self.size:
            return image
        return shrink(image, (round(height * self.size / side), round(width * self.size / side)), self.filter)


class Converted(NamedTuple):
    """A picture file: its bytes, (height, width, channels), and the PNG compression that a list states."""

    data: bytes
    shape: tuple[int, int, int]
    compression: int


def shrink(image: np.ndarray, size: tuple[int, int], filter: Literal["area", "bicubic", "lanczos"]) -> np.ndarray:
    """uint8 (H, W, 3) to (height, width), antialiased.

    `area` gives the mean of the pixels that a new one covers: from 1024 to 512, of 2x2.  It cannot overshoot, so truth has
    no halos that a network would learn to draw.  `bicubic` and `lanczos` (Pillow's) are crisper, and ring at strong edges.
    """
    if filter == "area":
        return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    resampling = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}[filter]
    return np.array(Image.fromarray(image).resize(size[::-1], resampling))


def storable_channels(data: bytes) -> Literal[1, 3] | None:
    """Channels of a PNG or JPEG that every reader decodes alike: 8 bits, RGB or gray, upright, opaque; else None."""
    with Image.open(io.BytesIO(data)) as picture:
        plain = (
            picture.format in ("PNG", "JPEG")
            and picture.mode in ("RGB", "L")
            and not (picture.format == "PNG" and data[24] != 8)  # IHDR's bit depth, which the mode does not tell
            and "transparency" not in picture.info
            and picture.getexif().get(ORIENTATION, 1) == 1
        )
        return {"RGB": 3, "L": 1}[picture.mode] if plain else None


def open_source(path: str, key: str) -> Storage:
    """The pictures of a folder, an LMDB, a .zip or a .tar."""
    if not os.path.exists(path):
        raise DataError(f"{path}, given as {key}, does not exist: correct the path (from {os.getcwd()})")
    if os.path.isdir(path):
        return (Lmdb if os.path.exists(os.path.join(path, DATA)) else Folder)(path, key)
    kinds = {".zip": Zip, ".tar": Tar}
    if kind := next((kind for ending, kind in kinds.items() if path.lower().endswith(ending)), None):
        return kind(path, key)
    raise DataError(f"{path}, given as {key}, is neither a folder nor a .zip or .tar (unpack other archives)")


class Output(Protocol):
    """What pictures are put in, inside of `with`; `done` knows those that are there."""

    done: Mapping[str, Any]

    def put(self, name: str, data: bytes, shape: tuple[int, int, int], compression: int) -> None: ...
    def finish(self) -> None: ...
    def __enter__(self) -> Output: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class FolderWriter:
    """One file a picture, under its name only once it is whole."""

    def __init__(self, root: str | os.PathLike, extension: str):
        self.root, self.extension = Path(root), extension
        self.done: dict[str, str] = {}

    def __enter__(self) -> FolderWriter:
        self.done = {without_extension(file): file for file in walk(str(self.root))}
        return self

    def put(self, name: str, data: bytes, shape: tuple[int, int, int], compression: int) -> None:
        if leads_out(name):
            raise DataError(f"picture {name!r:.200} would be written outside of {self.root}: rename it")
        file = f"{name}{self.extension}"
        atomic_write(self.root / file, data, durable=False)
        self.done[name] = file

    def finish(self) -> None:
        """The files are all there is."""

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""


class Origin(NamedTuple):
    """What tells one picture file from another: its length in bytes and CRC-32."""

    size: int
    crc: int


class Sources:
    """What the pictures of an output were made from, wherever that lay: a line each, in the output's folder.

    A line is written before its picture, so that none is there without; a later line of the same name counts.  It begins
    with the line break, so that one that was cut off (by a kill) ends where the next begins.
    """

    def __init__(self, output: Path):
        self.output, self.file = output, output / SOURCES
        self.origins: dict[str, Origin] = {}

    def __enter__(self) -> Sources:
        try:
            self._lines = open(self.file, "a+", encoding="utf-8")
            self._lines.seek(0)
            for line in self._lines.read().splitlines():
                with suppress(ValueError, TypeError):  # cut off
                    name, size, crc = json.loads(line)
                    self.origins[name] = Origin(size, crc)
        except (OSError, ValueError) as error:
            raise UserError(f"{self.file} cannot be read ({error}): remove {self.output}, and start again") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()

    def note(self, name: str, origin: Origin) -> None:
        try:
            self._lines.write(f"\n{json.dumps([name, *origin])}")
            self._lines.flush()
        except OSError as error:
            raise UserError(f"{self.file}: cannot be written: {error.strerror or error}") from None
        self.origins[name] = origin

    def compare(self, source: Storage, names: Mapping[str, str], done: Sequence[str]) -> None:
        """Refuse an input of which pictures that are there were not made: by the length of all, and the content of some.

        Args:
            source: the input
            names: names in the source by names in the output
            done: pictures that are there
        """
        changed = [name for name in done if source.size(names[name]) != self.origins[name].size]
        if not changed:
            some = done[:: -(-len(done) // COMPARED) or 1]
            changed = [name for name in some if zlib.crc32(source.read(names[name])) != self.origins[name].crc]
        if changed:
            raise DataError(
                f"{self.output} holds pictures that were made from others of the same names ({listed(changed, 3)}): "
                "choose another output, or remove it where the input has changed"
            )


class Outcome(NamedTuple):
    """Numbers of pictures: made now, there already, and left out."""

    made: int
    present: int
    bad: int

    def __str__(self) -> str:
        if not self.made:
            return f"{self.present} pictures were there already"
        return f"{self.made + self.present} pictures" + (f" ({self.present} were there already)" if self.present else "")


def convert(
    source: Storage,
    names: Mapping[str, str],
    chosen: Iterable[str],
    recipe: Recipe,
    output: str,
    workers: int = 1,
    skip_bad: bool = False,
) -> Outcome:
    """Write the pictures of a source to a folder, or to an LMDB where `output` ends with .lmdb.

    A call that is refused before its first picture is written leaves nothing behind.

    Args:
        source: where they come from
        names: all that the output may hold: names in the source by names in the output
        chosen: which of them to write now
        recipe: what becomes of each
        output: a new folder, or one that an earlier call with the same recipe and source left (it may have moved)
        workers: processes
        skip_bad: whether a picture that cannot be used is named and left out, instead of ending the conversion

    Raises:
        DataError: a picture cannot be used; `output` holds pictures of another kind or source
    """
    existed, empty = os.path.isdir(output), not (os.path.isdir(output) and os.listdir(output))
    try:
        settle(Path(output), asdict(recipe))
        return _fill(source, names, list(chosen), recipe, output, workers, skip_bad)
    except DataError:  # not: another process is writing there
        if empty:
            _withdraw(Path(output), existed)
        raise


def _fill(
    source: Storage,
    names: Mapping[str, str],
    chosen: Sequence[str],
    recipe: Recipe,
    output: str,
    workers: int,
    skip_bad: bool,
) -> Outcome:
    bad = 0
    writer: Output = LmdbWriter(output) if is_lmdb(output) else FolderWriter(output, f".{recipe.format}")
    with writer, Sources(Path(output)) as sources:
        if foreign := [name for name in writer.done if name not in names]:
            raise DataError(
                f"{output} holds {len(foreign)} pictures that the input does not ({listed(foreign, 3)}): choose another output"
            )
        done = [name for name in names if name in writer.done and name in sources.origins]
        sources.compare(source, names, done)
        missing = [name for name in chosen if name not in writer.done or name not in sources.origins]
        results = parallel_map(partial(_convert, source, recipe), [names[name] for name in missing], workers)
        with tqdm(total=len(chosen), initial=len(chosen) - len(missing), unit="picture") as bar:
            for name, result in zip(missing, results, strict=True):
                if not isinstance(result, PictureError):
                    origin, picture = result
                    sources.note(name, origin)
                    writer.put(name, *picture)
                elif skip_bad:
                    bad += 1
                    bar.write(f"left out: {result}", file=sys.stderr)
                else:
                    raise PictureError(f"{result} (--skip-bad leaves out all such)")
                bar.update()
        if bad == len(missing) and not writer.done:
            raise DataError(f"{output}: not one picture of the input can be used")
        writer.finish()
    return Outcome(len(missing) - bad, len(chosen) - len(missing), bad)


def _withdraw(output: Path, existed: bool) -> None:
    """Take away what a refused call has made, unless there are pictures."""
    made = (SETTINGS, SOURCES, DATA, LOCK, PROGRESS)
    with suppress(OSError):  # the refusal is what the user must read
        if _is_without_pictures(output, made):
            for name in made:
                (output / name).unlink(missing_ok=True)
            if not existed:
                output.rmdir()


def _is_without_pictures(output: Path, made: Sequence[str]) -> bool:
    if PROGRESS in (held := set(os.listdir(output))) and (output / PROGRESS).stat().st_size:
        return False
    return held <= set(made)


def _convert(source: Storage, recipe: Recipe, name: str) -> tuple[Origin, Converted] | PictureError:
    try:
        data = source.read(name)
        return Origin(len(data), zlib.crc32(data)), recipe.convert(data, source.path(name))
    except PictureError as error:
        return error


def is_lmdb(output: str) -> bool:
    return output.rstrip("/").endswith(".lmdb")


def settle(output: Path, settings: dict[str, Any]) -> None:
    """Write down what the output's pictures share; refuse one of others."""
    if output.exists() and not output.is_dir():
        raise DataError(f"{output} is a file: name a folder, or NAME.lmdb")
    file = output / SETTINGS
    try:
        before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}): remove {output}, and start again") from None
    if before is None and output.exists() and any(output.iterdir()):
        raise DataError(f"{output} holds other files: choose an empty or a new folder")
    if before is not None and before != settings:
        changed = [f"{k} {before.get(k)} instead of {v}" for k, v in settings.items() if before.get(k) != v]
        raise DataError(f"{output} holds pictures that were made with {listed(changed)}: choose another output")
    if before is None:
        atomic_write(file, json.dumps(settings, indent=1) + "\n")
