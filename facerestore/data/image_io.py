"""Picture files to arrays and back, and tensors to arrays.

Everywhere in this project a picture is RGB; OpenCV's BGR exists in this file alone.  An array is uint8 (H, W, 3).
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from facerestore.errors import DataError
from facerestore.files import atomic_write

JPEG_START, PNG_START = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # inside coded data: neither a stuffed byte, fill, nor a restart


class PictureError(DataError):
    """A file is missing or is no whole picture.  `on_bad_image: skip` passes over these alone."""


def read_image(path: str | os.PathLike) -> np.ndarray:
    """The picture of a file: uint8 (H, W, 3), RGB.  See :func:`decode_image`."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise PictureError(f"picture {path} cannot be read: {error.strerror or error}") from None
    return decode_image(data, str(path))


def decode_image(data: bytes, path: str) -> np.ndarray:
    """A picture file's bytes to uint8 (H, W, 3), RGB.

    Gray becomes three equal channels, transparency is dropped, of 16 bits the upper eight are kept, and a photograph is
    turned upright as its EXIF orientation says (all as `cv2.imread`, which the published results were read with).

    Args:
        data: the bytes
        path: what errors call it

    Raises:
        PictureError: the file is truncated (OpenCV may decode the rest as gray bars) or nothing that OpenCV reads.
    """
    if not _is_complete(data):
        raise PictureError(f"picture {path} is truncated: copy it again, or leave it out")
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # no bytes at all, or more pixels than OpenCV's limit
        bgr = None
    if bgr is None:
        raise PictureError(f"picture {path} cannot be decoded: convert it to PNG or JPEG, or leave it out")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _is_complete(data: bytes) -> bool:
    """Whether a PNG or JPEG has its end; other formats are left to the decoder, which refuses what is cut off."""
    if data.startswith(PNG_START):
        return PNG_END in data
    return _jpeg_is_complete(data) if data.startswith(JPEG_START) else True


def _jpeg_is_complete(data: bytes) -> bool:
    """Walk the segments to the end-of-image marker (a search for its bytes would find the EXIF thumbnail's)."""
    at = 2
    while marker := JPEG_MARKER.search(data, at):
        kind = data[marker.start() + 1]
        if kind == 0xD9:
            return True
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return False


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write uint8 (H, W, 3) RGB, or (H, W) gray, in the format that the ending of `path` says.

    Folders are made.  The file appears under its name only once it is whole.
    """
    path = Path(path)
    try:
        done, data = cv2.imencode(path.suffix, image[..., ::-1] if image.ndim == 3 else image)
    except cv2.error:
        done = False
    if not done:
        raise DataError(f"picture {path} of shape {image.shape} cannot be encoded: let its name end with .png or .jpg")
    atomic_write(path, data.tobytes(), durable=False)


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
