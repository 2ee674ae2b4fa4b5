"""Picture files to arrays and back, and tensors to arrays.

Everywhere in this project a picture is RGB; OpenCV's BGR exists in this file alone.  An array is uint8 (H, W, 3).
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from facerestore.errors import DataError
from facerestore.files import atomic_write

JPEG_START, PNG_START = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # inside coded data: neither a stuffed byte, fill, nor a restart
JPEG_AFTER_CODED = frozenset((0xC4, 0xCC, *range(0xDA, 0xDE), *range(0xE0, 0xF0), 0xFE))  # tables, scans, APPn, comments
EXIF_ORIENTATION = 0x0112
UNKNOWN_TO_PILLOW = (OSError, ValueError, SyntaxError, TypeError, Image.DecompressionBombError)
HOLE = bytes(64)  # what a disk gives for blocks that were never written; the codes of a flat picture may look like it
LIBJPEG_WARNINGS = (b"Corrupt JPEG data", b"Warning: unknown JFIF", b"Invalid SOS parameters")
_stream_is_mine = threading.Lock()


class PictureError(DataError):
    """A file is missing or is no whole picture.  `on_bad_image: skip` passes over these alone."""


def read_image(path: str | os.PathLike) -> np.ndarray:
    """The picture of a file: uint8 (H, W, 3), RGB.  See :func:`decode_image`."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise PictureError(f"picture {path} cannot be read: {error.strerror or error}") from None
    return decode_image(data, str(path))


def decode_image(data: bytes, path: str, strict: bool = False) -> np.ndarray:
    """A picture file's bytes to uint8 (H, W, 3), RGB.

    Gray becomes three equal channels, transparency is dropped, of 16 bits the upper eight are kept, and a photograph is
    turned upright as its EXIF orientation says (all as `cv2.imread`, which the published results were read with).

    A damaged PNG does not pass its checksums.  JPEG has none: found are a missing end, markers where none may be (as
    another file's blocks hold), and coded data that do not come out even where a run of zeros (a block that was never
    written) makes them suspect.  With `strict`, the coded data of every JPEG must come out even.  Of JPEGs with 512 zeros in
    place of one of a disk's sectors some 5 % pass either way, since the decoder finds its way back; with 4096, none was seen
    to.  A few wrong bytes often pass.  BMP, TIFF, PPM and WebP are not looked into: what their decoder takes is taken.

    Args:
        data: the bytes
        path: what errors call it
        strict: whether to look for damage harder; takes the process's error stream, so for data preparation

    Raises:
        PictureError: the file is truncated (OpenCV may decode the rest as gray bars), damaged, or nothing that OpenCV reads.
    """
    state = _state(data)
    _refuse_damaged(state, path)
    try:
        if state == "suspect" or (strict and data.startswith(JPEG_START)):
            bgr, complaint = _decode_listening(data)
            if complaint:
                raise PictureError(f"picture {path} is damaged ({complaint}): copy it again, or leave it out")
        else:
            bgr = _decode(data)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in str(error):
            limit = os.environ.get("OPENCV_IO_MAX_IMAGE_PIXELS", "2^30")
            raise PictureError(
                f"picture {path} has more pixels than OpenCV reads ({limit}): shrink or cut it, or leave it out"
            ) from None
        bgr = None  # no bytes at all
    if bgr is None:
        raise PictureError(f"picture {path} cannot be decoded: convert it to PNG or JPEG, or leave it out")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def picture_size(data: bytes, path: str) -> tuple[int, int]:
    """Height and width of the picture that :func:`decode_image` makes of `data`, as its header says; few are
    decoded for it (what Pillow cannot read, and what EXIF says is turned).

    Raises:
        PictureError: the file's structure is damaged or cut off, or it is no picture
    """
    _refuse_damaged(_state(data), path)
    with contextlib.suppress(*UNKNOWN_TO_PILLOW), Image.open(io.BytesIO(data)) as image:
        if image.getexif().get(EXIF_ORIENTATION, 1) == 1:  # else OpenCV may turn it
            return image.height, image.width
    return decode_image(data, path).shape[:2]


def _refuse_damaged(state: str, path: str) -> None:
    if state in ("truncated", "damaged"):
        raise PictureError(f"picture {path} is {state}: copy it again, or leave it out")


def _decode(data: bytes) -> np.ndarray | None:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def _state(data: bytes) -> Literal["whole", "suspect", "damaged", "truncated"]:
    """What a PNG's or JPEG's structure says; other formats are left to the decoder, which refuses what is cut off."""
    if data.startswith(PNG_START):
        return "whole" if PNG_END in data else "truncated"
    return _jpeg_state(data) if data.startswith(JPEG_START) else "whole"


def _jpeg_state(data: bytes) -> Literal["whole", "suspect", "damaged", "truncated"]:
    """Walk the segments to the end-of-image marker (a search for its bytes would find the EXIF thumbnail's)."""
    at, coded = 2, 0  # where the next segment is looked for, and where coded data begin
    while marker := JPEG_MARKER.search(data, at):
        kind = data[marker.start() + 1]
        if kind == 0xD9:
            return "suspect" if coded and data.find(HOLE, coded, marker.start()) >= 0 else "whole"
        if coded and kind not in JPEG_AFTER_CODED:
            return "damaged"
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
        coded = coded or (at if kind == 0xDA else 0)
    return "truncated"


def _decode_listening(data: bytes) -> tuple[np.ndarray | None, str]:
    """The picture, and what libjpeg says against its data.

    libjpeg decodes damaged data to the end, and only warns, on the process's error stream, that codes were left over or
    missing.  So the stream is led into a file while it decodes; all else that was written meanwhile is passed on.
    """
    with _stream_is_mine, tempfile.TemporaryFile() as heard:
        kept = os.dup(2)
        os.dup2(heard.fileno(), 2)
        try:
            image = _decode(data)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        heard.seek(0)
        lines = heard.read().splitlines(keepends=True)
    if others := [line for line in lines if not line.startswith(LIBJPEG_WARNINGS)]:
        os.write(2, b"".join(others))
    return image, next((line.decode().strip() for line in lines if line.startswith(LIBJPEG_WARNINGS[0])), "")


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write uint8 (H, W, 3) RGB, or (H, W) gray, in the format that the ending of `path` says.

    Folders are made.  The file appears under its name only once it is whole.
    """
    path = Path(path)
    atomic_write(path, encode_image(image, path.suffix, str(path)), durable=False)


def encode_image(image: np.ndarray, extension: str, path: str, parameters: Sequence[int] = ()) -> bytes:
    """The bytes of a picture file.

    Args:
        image: uint8 (H, W, 3) RGB, or (H, W) gray
        extension: the format, as the ending of a name: `.png`
        path: what errors call it
        parameters: OpenCV's, in pairs: `(cv2.IMWRITE_JPEG_QUALITY, 95)`
    """
    try:
        done, data = cv2.imencode(extension, image[..., ::-1] if image.ndim == 3 else image, parameters)
    except cv2.error:
        done = False
    if not done:
        raise DataError(f"picture {path} of shape {image.shape} cannot be encoded: let its name end with .png or .jpg")
    return data.tobytes()


def tensor_to_image(tensor: Tensor, min_max: tuple[float, float] = (0.0, 1.0)) -> np.ndarray:
    """A float picture to uint8: clamped to `min_max`, stretched to 0..255, rounded half to even.

    (3, H, W) gives (H, W, 3); (1, H, W) and (H, W) give gray (H, W); (N, 3, H, W) gives (N, H, W, 3).  NaN becomes the
    lowest value.  The caller's tensor is left alone.
    """
    low, high = min_max
    levels = tensor.detach().float().cpu().nan_to_num(nan=low).clamp(low, high).sub(low).div(high - low).mul(255)
    image = levels.round().to(torch.uint8)
    if image.ndim > 2:
        image = image.movedim(-3, -1)
    return np.ascontiguousarray((image[..., 0] if image.ndim > 2 and image.shape[-1] == 1 else image).numpy())


def image_grid(
    tensor: Tensor, min_max: tuple[float, float] = (0.0, 1.0), columns: int | None = None, padding: int = 2
) -> np.ndarray:
    """(N, 3, H, W) to one uint8 picture of all, row by row, on black; `columns` is the root of N by default."""
    images = tensor_to_image(tensor, min_max)
    count, height, width, channels = images.shape
    columns = min(columns or math.isqrt(count), count)
    rows = math.ceil(count / columns)
    grid = np.zeros((rows * (height + padding) + padding, columns * (width + padding) + padding, channels), np.uint8)
    for i, image in enumerate(images):
        top, left = padding + i // columns * (height + padding), padding + i % columns * (width + padding)
        grid[top : top + height, left : left + width] = image
    return grid
