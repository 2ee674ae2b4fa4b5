"""The codes of a data set's pictures and of their mirror images, computed once and written to a file.

What CodeFormer's second stage learns to predict (`latent_gt_path`); see :mod:`facerestore.data.latents` for the file.  The
work is done in parts, each kept beside the output until all are there, so that it goes on where it was stopped.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from facerestore.archs import build_network
from facerestore.checkpoint import load_weights, recognise, write_torch
from facerestore.data.image_io import PictureError, decode_image
from facerestore.data.latents import read_latents, write_latents
from facerestore.data.parallel import parallel_map
from facerestore.data.storage import Pictures, Storage
from facerestore.data.tables import read_torch
from facerestore.errors import CheckpointError, DataError, UserError
from facerestore.files import digest, hold, refuse_unwritable, remove_unfinished

PART = 1024  # pictures whose codes are kept together

Codes = dict[str, Tensor]  # by picture


class Outcome(NamedTuple):
    """Numbers of pictures: encoded now, encoded before, and left out."""

    made: int
    present: int
    bad: list[str]


def load_encoder(path: str | os.PathLike, device: torch.device) -> nn.Module:
    """The VQGAN of a checkpoint, ready to encode; CheckpointError where it holds another network."""
    kind, keywords, file = recognise(path)
    network = build_network({"type": kind, **keywords})
    if kind != "VQAutoEncoder":
        raise CheckpointError(f"{path}: holds a {kind}: give the VQAutoEncoder of stage I")
    load_weights(network, file)
    return network.to(device).eval()


@torch.no_grad()
def encode(network: nn.Module, images: Sequence[np.ndarray], device: torch.device) -> tuple[Tensor, Tensor]:
    """Codes (N, K) of uint8 pictures (H, W, 3) of one size, and of their mirror images; on the CPU."""
    pixels = torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2)
    batch = (pixels.float() / 255 - 0.5) / 0.5
    return network(batch, code_only=True).codes.cpu(), network(batch.flip(3), code_only=True).codes.cpu()


def write_codes(
    pictures: Pictures,
    weights: str | os.PathLike,
    output: str | os.PathLike,
    device: torch.device,
    batch: int = 8,
    workers: int = 1,
    skip_bad: bool = False,
    part: int = PART,
    say: Callable[[str], Any] = print,
) -> Outcome:
    """Write the codes of all pictures; parts that an earlier call left are taken as they are.

    Args:
        pictures: the data set's pictures, square and all of one size: that of the first that can be used
        weights: checkpoint of the VQGAN
        output: the file; one that is there is replaced if it holds codes
        device: where the network runs
        batch: pictures that it sees at once
        workers: processes that read pictures
        skip_bad: whether pictures that cannot be used are named and left out
        part: pictures whose codes are kept together
        say: told of progress and of what is left out

    Raises:
        CheckpointError: the checkpoint cannot be used
        DataError: pictures cannot be used, or `output` is a file of something else
        UserError: the file cannot be written, or another process is writing it
    """
    _refuse_output(output)
    network = load_encoder(weights, device)
    names, made_by = pictures.names, digest(weights)
    orig: Codes = {}
    hflip: Codes = {}
    made = present = 0
    bad: list[str] = []
    side: int | None = None
    with _parts_of(output) as kept:
        for number, first in enumerate(range(0, len(names), part)):
            chosen = names[first : first + part]
            file = kept / f"{number:06d}_{_key(made_by, side, chosen, pictures.storage)}.pth"
            found = _read_part(file)
            if found is None or (found["bad"] and not skip_bad):
                found = _encode_part(network, pictures, chosen, side, device, batch, workers, skip_bad)
                write_torch(file, found)
                made += len(found["names"])
            else:
                present += len(found["names"])
            for name in found["bad"]:
                say(f"{name} (left out)")
            bad += found["bad"]
            side = found["side"]
            orig |= dict(zip(found["names"], found["orig"], strict=True))
            hflip |= dict(zip(found["names"], found["hflip"], strict=True))
            say(f"{len(orig)} of {len(names)} pictures")
        if not orig:
            raise DataError("not one picture can be used")
        write_latents(output, orig, hflip, network.codebook)
        for file in kept.glob("*.pth"):
            file.unlink(missing_ok=True)
    return Outcome(made, present, bad)


def _refuse_output(output: str | os.PathLike) -> None:
    """UserError where no codes can be written, DataError where a file of something else (the VQGAN itself) would be lost."""
    refuse_unwritable(output)
    if os.path.exists(output):
        try:
            read_latents(str(output), "--output")
        except DataError:
            raise DataError(f"{output}: is there already and holds no codes: name another file as --output") from None


@contextmanager
def _parts_of(output: str | os.PathLike) -> Iterator[Path]:
    """The folder beside `output` that keeps its parts; UserError where another process works there."""
    kept = Path(f"{output}.parts")
    try:
        kept.mkdir(parents=True, exist_ok=True)
        lock = open(kept / ".lock", "w")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise UserError(f"{kept}: cannot be written: {error.strerror or error}") from None
    with lock:
        with suppress(OSError):  # file systems without locks
            hold(lock, output)
            remove_unfinished(kept)
        try:
            yield kept
        finally:
            with suppress(OSError):
                os.unlink(lock.name)
                kept.rmdir()  # where nothing is kept


def _key(made_by: str, side: int | None, names: Sequence[str], storage: Storage) -> str:
    """What a part was made of: the VQGAN, the size that pictures must have, their names, bytes and times of change."""
    content = json.dumps([made_by, side, [(name, storage.size(name), storage.changed(name)) for name in names]])
    return hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()[:16]


def _read_part(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    with suppress(DataError):  # one that is damaged is made anew
        return read_torch(str(file), str(file))
    return None


def _encode_part(
    network: nn.Module,
    pictures: Pictures,
    names: Sequence[str],
    side: int | None,
    device: torch.device,
    batch: int,
    workers: int,
    skip_bad: bool,
) -> dict[str, Any]:
    """The codes of some pictures, and their `side`: the one that is given, or else that of the first that can be used."""
    used: list[str] = []
    bad: list[str] = []
    codes: list[tuple[Tensor, Tensor]] = []

    def good() -> Iterator[tuple[str, np.ndarray]]:
        nonlocal side
        read = functools.partial(_read, pictures.storage)
        for name, (image, fault) in zip(names, parallel_map(read, names, workers), strict=True):
            if image is not None and (odd := _odd_size(image, side, network.shrinkage)):
                fault = f"picture {pictures.path(name)} is {image.shape[1]}x{image.shape[0]}, {odd}"
            if fault and not skip_bad:
                raise DataError(f"{fault}: mend it, or leave it out (--skip-bad)")
            if fault:
                bad.append(fault)
            else:
                side = len(image)
                yield name, image

    stream = good()
    while group := list(itertools.islice(stream, batch)):
        used += [name for name, _ in group]
        codes.append(encode(network, [image for _, image in group], device))
    empty = torch.zeros(0, 0, dtype=torch.int64)
    orig, hflip = (torch.cat([pair[i] for pair in codes]) if codes else empty for i in (0, 1))
    return {"names": used, "orig": orig, "hflip": hflip, "bad": bad, "side": side}


def _odd_size(image: np.ndarray, side: int | None, multiple: int) -> str | None:
    """Why a picture's size will not do: codes are of square pictures, all of one size."""
    height, width = image.shape[:2]
    if height != width:
        return "which is not square"
    if height % multiple:
        return f"and this VQGAN takes multiples of {multiple}"
    return None if side in (None, height) else f"others are {side}x{side}"


def _read(storage: Storage, name: str) -> tuple[np.ndarray | None, str | None]:
    """A picture, or why there is none."""
    try:
        return decode_image(storage.read(name), storage.path(name)), None
    except PictureError as error:
        return None, str(error)
