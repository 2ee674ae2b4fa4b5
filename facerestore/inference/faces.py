"""Pictures of aligned faces, restored, coloured or in-painted by one network; what was not masked is kept to the byte."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from facerestore.data.degradations.masks import apply_mask
from facerestore.data.image_io import read_image
from facerestore.data.names import by_name, without_extension
from facerestore.data.resize import pil_resize
from facerestore.data.storage import walk
from facerestore.errors import CheckpointError, DataError
from facerestore.inference.published import where_published
from facerestore.inference.restorer import Restorer

TaskName = Literal["restore", "colorize", "inpaint"]
MASKED = 128  # values of a mask file from which on a pixel is painted anew


class Conditions(NamedTuple):
    """What CodeFormer is told beside the picture: see :meth:`Restorer.restore_batch`."""

    w: float
    adain: bool


# As its authors use it.  Colourisation stops at stage II, so nothing of the gray features is carried over (w = 0);
# in-painting was trained at w = 1 alone.
CONDITIONS: dict[TaskName, Conditions] = {
    "restore": Conditions(0.5, True),
    "colorize": Conditions(0.0, True),
    "inpaint": Conditions(1.0, False),
}


class Face(NamedTuple):
    """A picture that was read: as it is, uint8 (H, W, 3); as the network sees it; and where it is painted anew, bool (H, W)."""

    name: str
    path: str
    image: np.ndarray
    seen: np.ndarray
    mask: np.ndarray | None


@dataclass(frozen=True)
class Result:
    """What became of a picture.

    Args:
        name: its path below the folder that was given, without ending
        path: its file
        given: what the network saw, uint8 (H, W, 3)
        images: the restored pictures, uint8 (H', W', 3), by w (by None of a network without); none where there is a fault
        fault: why it was left out
        resized: whether the network saw it resized
        painted: share of its pixels that were painted anew, where there is a mask
    """

    name: str
    path: str
    given: np.ndarray | None = None
    images: Mapping[float | None, np.ndarray] | None = None
    fault: str | None = None
    resized: bool = False
    painted: float | None = None


@dataclass(eq=False)
class Faces:
    """How pictures of faces are worked on.

    Args:
        restorer: the network
        task: `restore`; `colorize`, which differs in nothing but the weights and what they are told; or `inpaint`, which
            changes only what is masked
        ws: how much of the input's features is kept, one picture for each; (None,) for a network that knows no w
        adain: whether colours and light are the input's; None for a network that knows none
        masks: of in-painting, a file for all pictures, or a folder with one of each picture's name; white is painted anew;
            by default the pure white of the picture itself
        other_size: whether square pictures of another size than the network's are resized, or refused
        batch: pictures that the network sees at once

    Raises:
        CheckpointError: the network repeats pictures, and restores none
        DataError: there are no masks where they were said to be
    """

    restorer: Restorer
    task: TaskName = "restore"
    ws: Sequence[float | None] = (None,)
    adain: bool | None = None
    masks: str | os.PathLike | None = None
    other_size: Literal["resize", "refuse"] = "resize"
    batch: int = 1
    mask_files: dict[str, str] | str | None = field(init=False)  # by name, or the one for all

    def __post_init__(self) -> None:
        if self.restorer.kind == "VQAutoEncoder":
            raise CheckpointError(
                f"{self.restorer.source}: holds a VQAutoEncoder, which repeats faces and restores none; "
                + where_published("", self.task)
            )
        self.mask_files = None if self.masks is None else _mask_files(self.masks)

    def results(self, pictures: Mapping[str, str]) -> Iterator[Result]:
        """Work on files by name; a picture that cannot be used has a fault in its result, and the others go on."""
        group: list[Face] = []
        for name, path in pictures.items():
            try:
                face = self._read(name, path)
            except DataError as error:
                yield Result(name, path, fault=str(error))
                continue
            if group and (len(group) == self.batch or group[0].seen.shape != face.seen.shape):
                yield from self._restored(group)
                group = []
            group.append(face)
        if group:
            yield from self._restored(group)

    def _read(self, name: str, path: str) -> Face:
        image = read_image(path)
        mask = self._mask(name, path, image) if self.task == "inpaint" else None
        side = self.restorer.network.in_size
        height, width = image.shape[:2]
        seen, seen_mask = image, mask
        if side and (height, width) != (side, side):
            sizes = f"picture {path} is {width}x{height}, but the {self.restorer.kind} takes {side}x{side}"
            if height != width:
                raise DataError(f"{sizes}: cut a square out of it, with the face where aligned faces have it")
            if self.other_size == "refuse":
                raise DataError(f"{sizes}: resize it, or let it be resized")
            seen = pil_resize(image, (side, side))
            seen_mask = None if mask is None else pil_resize(mask.astype(np.uint8) * 255, (side, side)) > 0
        return Face(name, path, image, seen if seen_mask is None else apply_mask(seen, seen_mask), mask)

    def _mask(self, name: str, path: str, image: np.ndarray) -> np.ndarray:
        """Where the picture is painted anew: bool (H, W)."""
        if self.mask_files is None:
            mask = (image == 255).all(axis=2)
            if not mask.any():
                raise DataError(
                    f"picture {path} has no stroke of pure white: draw some and save it as PNG (JPEG changes values), or name "
                    "a file of masks"
                )
            return mask
        file = self.mask_files.get(name) if isinstance(self.mask_files, dict) else self.mask_files
        if file is None:
            raise DataError(f"picture {path} has no mask: there is none called {name!r} in folder {self.masks}")
        found = read_image(file)
        if found.shape != image.shape:
            sizes = f"{found.shape[1]}x{found.shape[0]}, its picture {path} {image.shape[1]}x{image.shape[0]}"
            raise DataError(f"mask {file} is {sizes}: make it of the picture's size")
        mask = found.max(axis=2) >= MASKED
        if not mask.any():
            raise DataError(f"mask {file} of picture {path} is black: paint white what is missing")
        return mask

    def _restored(self, group: Sequence[Face]) -> Iterator[Result]:
        """The results of pictures of one size."""
        try:
            by_w = {w: self.restorer.restore_batch([face.seen for face in group], w, self.adain) for w in self.ws}
        except DataError as error:
            if len(group) > 1:  # one picture's fault is not the others'
                for face in group:
                    yield from self._restored([face])
            else:
                yield Result(group[0].name, group[0].path, fault=f"picture {group[0].path}: {error}")
            return
        for i, face in enumerate(group):
            images = {w: composed(face.image, images[i], face.mask) for w, images in by_w.items()}
            resized, painted = face.seen.shape != face.image.shape, None if face.mask is None else float(face.mask.mean())
            yield Result(face.name, face.path, face.seen, images, resized=resized, painted=painted)


def composed(image: np.ndarray, restored: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The restored picture; with a mask, bool (H, W), only there, and all else as it was given.

    A restored picture of another size is resized to the one that was given where there is a mask.
    """
    if mask is None:
        return restored
    if restored.shape != image.shape:
        restored = pil_resize(restored, image.shape[:2])
    return np.where(mask[..., None], restored, image)


def find_pictures(places: Sequence[str]) -> dict[str, str]:
    """Picture files by name: those that are given, and all below the folders that are given.

    Raises:
        DataError: there is none, one is missing, or two would have results of one name
    """
    found: dict[str, str] = {}
    for place in places:
        if Path(place).is_dir():
            new = {name: os.path.join(place, file) for name, file in by_name(walk(place), f"folder {place}").items()}
        elif Path(place).exists():
            new = {without_extension(Path(place).name): place}
        else:
            raise DataError(f"{place}: there is no such picture or folder")
        for name, path in new.items():
            if name in found and not os.path.samefile(path, found[name]):
                raise DataError(f"two pictures are called {name!r} ({found[name]}, {path}): restore them one after the other")
            found[name] = path
    return found


def _mask_files(place: str | os.PathLike) -> dict[str, str] | str:
    """Mask files by name, or the one for all; DataError where there are none."""
    if not Path(place).exists():
        raise DataError(f"{place}: there is no such mask, nor a folder of masks")
    if not Path(place).is_dir():
        return str(place)
    return {name: os.path.join(place, file) for name, file in by_name(walk(str(place)), f"folder {place}").items()}
