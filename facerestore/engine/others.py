"""What other programs made of the same pictures: folders that they wrote, measured beside the run's own results."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from facerestore.config.schema import DatasetOptions
from facerestore.data.base import FaceDataset
from facerestore.data.image_io import read_image
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
    """

    method: str
    folder: Folder
    template: str

    def pictures(self, names: Sequence[str], size: tuple[int, int]) -> Tensor:
        """The results of `names`: (N, 3, H, W), RGB in [0, 1].

        Raises:
            DataError: one cannot be read, or is not of `size` (H, W)
        """
        return torch.stack([self._picture(counterpart(name, self.template), size) for name in names])

    def _picture(self, name: str, size: tuple[int, int]) -> Tensor:
        path = self.folder.path(name)
        image = read_image(path)
        if image.shape[:2] != size:
            raise DataError(
                f"picture {path}, a result of `others.{self.method}`, is {image.shape[1]}x{image.shape[0]} and this run's own "
                f"is {size[1]}x{size[0]}: only pictures of one size can be compared"
            )
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


def _matched(method: str, place: str, names: list[str]) -> OtherResults:
    root, template = _root_and_template(place)
    other = OtherResults(method, Folder(root, f"others.{method}"), template)
    held = other.folder.files
    if missing := [result for result in (counterpart(name, template) for name in names) if result not in held]:
        better = fitting_template(names, held)
        raise DataError(
            f"folder {root}, named by `others.{method}`, lacks the results of {len(missing)} of {len(names)} pictures: no "
            f"{listed(missing, 3)} among {listed(list(held), 3)}"
            + (f" (did you mean {posixpath.join(root, better)!r}?)" if better else "")
        )
    return other


def _root_and_template(place: str) -> tuple[str, str]:
    """`results/GFPGAN/{}_out` to its folder and the template of its names."""
    root, _, last = place.rpartition("/")
    return (root or ".", last) if "{}" in last else (place, "{}")
