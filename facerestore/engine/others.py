"""What other programs made of the same pictures: folders that they wrote, measured beside the run's own results."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from facerestore.config.schema import DatasetOptions, OtherFolder
from facerestore.data.base import FaceDataset
from facerestore.data.image_io import picture_size, read_image
from facerestore.data.paired import counterpart, fitting_template
from facerestore.data.storage import Folder
from facerestore.engine.logs import logger
from facerestore.errors import DataError, listed


@dataclass(frozen=True)
class OtherResults:
    """The pictures that another program wrote.

    Args:
        method: what the program is called in tables
        folder: what it wrote
        template: name of a result, where {} stands for the picture's own
        lacking: pictures of which it holds none, and that are not measured
    """

    method: str
    folder: Folder
    template: str
    lacking: tuple[str, ...] = ()

    def pictures(self, names: Sequence[str], size: tuple[int, int]) -> dict[str, Tensor]:
        """The results of those of `names` that it has: (3, H, W), RGB in [0, 1].

        Raises:
            DataError: one cannot be read, or is not of `size` (H, W)
        """
        return {name: self._picture(self.path(name), size) for name in names if name not in self.lacking}

    def path(self, name: str) -> str:
        """Where the result of a picture lies."""
        return self.folder.path(counterpart(name, self.template))

    def refuse_size(self, path: str, found: tuple[int, ...], size: tuple[int, int], whose: str) -> None:
        """DataError for a picture that cannot be compared, pixel by pixel, with one of `size` (H, W)."""
        if tuple(found) != tuple(size):
            raise DataError(
                f"picture {path}, a result of `others.{self.method}`, is {found[1]}x{found[0]} and {whose} is "
                f"{size[1]}x{size[0]}: only pictures of one size can be compared"
            )

    def _picture(self, path: str, size: tuple[int, int]) -> Tensor:
        image = read_image(path)
        self.refuse_size(path, image.shape[:2], size, "this run's own")
        return torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255


def other_results(section: DatasetOptions, dataset: FaceDataset) -> list[OtherResults]:
    """What `others` of a data set names.  The folders are listed; no picture is read yet.

    Raises:
        DataError: a folder is missing, or lacks the results of some pictures
    """
    if not section.others:
        return []
    names = [dataset.name(i) for i in range(len(dataset))]
    return [_matched(method, place, names) for method, place in section.others.items()]


def refuse_unfit(results: Sequence[OtherResults], dataset: FaceDataset) -> None:
    """DataError for a result that is damaged or not of its truth's size, as far as its header tells: before hours of training
    rather than after them."""
    for other in results:
        for i, name in enumerate(dataset.name(i) for i in range(len(dataset))):
            if name in other.lacking:
                continue
            path = other.path(name)
            found = picture_size(other.folder.read(counterpart(name, other.template)), path)
            if truth := dataset.truth_size(i):
                other.refuse_size(path, found, truth, "the truth")


def note_surplus(results: Sequence[OtherResults], dataset: FaceDataset) -> None:
    """Say where a folder holds more than was asked for: it may be of another data set."""
    names = [dataset.name(i) for i in range(len(dataset))]
    for other in results:
        used = {counterpart(name, other.template) for name in names}
        if rest := [name for name in other.folder.names() if name not in used]:
            logger.warning(
                "folder %s, named by `others.%s`, holds %d pictures that are not measured: %s",
                other.folder.root, other.method, len(rest), listed(rest, 3),
            )  # fmt: skip


def _matched(method: str, place: OtherFolder, names: list[str]) -> OtherResults:
    place = {"folder": place} if isinstance(place, str) else place
    root, template = _root_and_template(place["folder"])
    folder = Folder(root, f"others.{method}")
    held, skip = folder.files, place.get("missing") == "skip"
    lacking = [name for name in names if counterpart(name, template) not in held]
    if lacking and not (skip and len(lacking) < len(names)):
        missing = [counterpart(name, template) for name in lacking]
        better = fitting_template(names, held)
        raise DataError(
            f"folder {root}, named by `others.{method}`, lacks the results of {len(missing)} of {len(names)} pictures: no "
            f"{listed(missing, 3)} among {listed(list(held), 3)}"
            + (f" (did you mean {posixpath.join(root, better)!r}?)" if better else "")
            + ("" if better or skip else f"; to measure the others: `{method}: {{folder: {place['folder']!r}, missing: skip}}`")
        )
    return OtherResults(method, folder, template, tuple(lacking))


def _root_and_template(place: str) -> tuple[str, str]:
    """`results/GFPGAN/{}_out` to its folder and the template of its names."""
    root, _, last = place.rpartition("/")
    return (root or ".", last) if "{}" in last else (place, "{}")
