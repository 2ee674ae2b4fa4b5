"""Codes of pictures computed beforehand (CodeFormer's stage II, `latent_gt_path`): what the transformer learns to predict.

A picture has codes of itself and of its mirror image; the second are not the first mirrored, since the encoder sees another
picture.  A file of ours holds them as (N, K) whole numbers of as few bytes as they need, mapped into memory: 70,000 pictures
of FFHQ with 2 x 256 codes are 72 MB, which all loader workers share.  Beside them it holds the codebook whose rows they
number (1 MB).  Upstream's own file (`latent_gt_code*.pth`), one array a picture and no codebook, is read too, within seconds.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facerestore.data.tables import Table, read_torch
from facerestore.errors import DataError, listed
from facerestore.files import atomic_write

WHICH = ("orig", "hflip")  # upstream's names of the picture and its mirror image
LARGEST = np.iinfo(np.int32).max
ODD = f"holds something else than tables of whole numbers from 0 to {LARGEST} as codes"


@dataclass(frozen=True, eq=False)
class Latents(Table):
    """The codes of every picture of a file; `select` names them by a data set's pictures.

    Attributes:
        orig: (N, K) whole numbers: codes of the pictures, row by row of the code map
        hflip: (N, K) codes of the mirrored pictures; None where the file holds none
        codebook: (codebook_size, emb_dim) float32: what the codes stand for; None where the file does not say
    """

    orig: Tensor
    hflip: Tensor | None
    codebook: Tensor | None

    def stored(self) -> Tensor:
        """All codes of the file, of pictures and of their mirror images, (N or 2 N, K)."""
        return self.orig if self.hflip is None else torch.cat((self.orig, self.hflip))

    def codes(self, name: str, mirrored: bool) -> np.ndarray:
        """(K,) int64: the codes of a picture or of its mirror image; K = 256 for 512 pixels.  DataError where it has none."""
        codes = self.hflip if mirrored else self.orig
        if codes is None:
            raise DataError(f"{self.source}, has no codes of mirrored pictures (`hflip`): set use_hflip: false, or make them")
        return codes[self.row(name)].numpy().astype(np.int64)


def read_latents(path: str, key: str = "latent_gt_path") -> Latents:
    """The codes of a file, ours (:func:`write_latents`) or upstream's.

    Args:
        path: the file
        key: the option that named it, for errors

    Raises:
        DataError: it is missing, damaged, or holds something else
    """
    source = f"file {path}, named by `{key}`"
    content = read_torch(path, source)
    if not isinstance(content, Mapping) or "orig" not in content:
        raise DataError(f"{source}, holds no codes: {{orig: ..., hflip: ...}} is expected")
    codebook = content.get("codebook")
    if not (codebook is None or _is_codebook(codebook)):
        raise DataError(f"{source}, holds something else than a table of float32 as `codebook`")
    if "names" not in content:
        content = _gathered(content, source)
    names, orig, hflip = content["names"], content["orig"], content.get("hflip")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{source}, holds codes without names of pictures")
    _refuse_doubles(names, source)
    for codes in (orig,) if hflip is None else (orig, hflip):
        _check(codes, (len(names), None if codes is orig else orig.shape[1]), source)
    return Latents(source, {name: row for row, name in enumerate(names)}, orig, hflip, codebook)


def write_latents(
    path: str | os.PathLike,
    orig: Mapping[str, Any],
    hflip: Mapping[str, Any] | None = None,
    codebook: Tensor | None = None,
) -> None:
    """Write a file that :func:`read_latents` maps into memory; whole or not at all.

    Args:
        path: the file
        orig: the code map of each picture, (h, w) or (h * w,) whole numbers, by its name
        hflip: the same of the mirrored pictures
        codebook: (codebook_size, emb_dim) what the codes stand for, by which a training knows them again

    Raises:
        DataError: the maps differ in size or names, or are no whole numbers from 0 to 2^31 - 1
        UserError: the file cannot be written
    """
    source = f"file {path}"
    content = _gathered({"orig": orig} | ({} if hflip is None else {"hflip": hflip}), source)
    for which in WHICH:
        if which in content:
            _check(content[which], content["orig"].shape, source)
    if codebook is not None:
        content["codebook"] = codebook.detach().float().cpu().contiguous()
    try:
        atomic_write(path, lambda file: torch.save(content, file))
    except RuntimeError as error:  # what torch makes of a disk that is full
        raise DataError(f"{source}, cannot be written: the disk may be full ({str(error).splitlines()[0]})") from None


def _gathered(content: Mapping[str, Any], source: str) -> dict[str, Any]:
    """{'orig': {name: codes}, 'hflip': ...} as names and one tensor (N, K) each."""
    tables = {which: content[which] for which in WHICH if content.get(which) is not None}
    names = list(tables.get("orig", {})) if all(isinstance(t, Mapping) for t in tables.values()) else []
    if not names:
        raise DataError(f"{source}, holds no codes: {{orig: {{NAME: codes, ...}}, hflip: ...}} is expected")
    for which, table in tables.items():
        if odd := set(table).symmetric_difference(names):
            raise DataError(f"{source}, has codes of {str(min(odd, key=str))!r} in only one of `orig` and `{which}`")
    written = [str(name) for name in names]
    _refuse_doubles(written, source)
    return {"names": written} | {which: _stacked([table[n] for n in names], source) for which, table in tables.items()}


def _refuse_doubles(names: list[str], source: str) -> None:
    if doubles := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{source}, has codes of {len(doubles)} pictures twice ({listed(doubles, 3)}): write each name once")


def _stacked(maps: list[Any], source: str) -> Tensor:
    """(N, K), the smallest type that holds all codes."""
    arrays = [_whole_numbers(codes, source).reshape(-1) for codes in maps]
    if len({array.shape for array in arrays}) > 1:
        raise DataError(f"{source}, holds code maps of several sizes")
    codes = np.stack(arrays)
    if not codes.size or codes.min() < 0 or codes.max() > LARGEST:
        raise DataError(f"{source}, {ODD}")
    return torch.from_numpy(codes.astype(np.int16 if codes.max() <= np.iinfo(np.int16).max else np.int32))


def _whole_numbers(codes: Any, source: str) -> np.ndarray:
    """Codes as an array, not copied where they lie in memory; tensors that are sparse, quantised or without data do not."""
    try:
        array = np.asarray(codes)
    except (ValueError, TypeError, RuntimeError):
        raise DataError(f"{source}, {ODD}") from None
    if array.dtype.kind not in "iu":
        raise DataError(f"{source}, {ODD}")
    return array


def _is_codebook(value: Any) -> bool:
    plain = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
    return plain and value.dtype == torch.float32 and value.ndim == 2


def _check(codes: Any, shape: tuple[int, int | None], source: str) -> None:
    """Refuse what is no (N, K) whole numbers from 0 to LARGEST."""
    good = isinstance(codes, Tensor) and codes.ndim == 2 and codes.numel() > 0
    array = _whole_numbers(codes, source) if good else np.empty((0, 0))
    fitting = good and array.shape[0] == shape[0] and shape[1] in (None, array.shape[1])
    if not fitting or array.min() < 0 or array.max() > LARGEST:
        raise DataError(f"{source}, {ODD}")
