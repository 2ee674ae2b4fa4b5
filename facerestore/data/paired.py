"""Pictures with their low-resolution pictures: the data of super-resolution (SRResNet, ESRGAN)."""

from __future__ import annotations

import posixpath
from collections.abc import Collection
from functools import cached_property
from typing import Any, Literal

import numpy as np

from facerestore.data.augment import (
    Crop,
    Flips,
    apply_crop,
    apply_flips,
    crop_and_flips,
    crop_to_multiple,
    sample_crop,
    sample_flips,
)
from facerestore.data.base import Mean, OnBadImage, PictureDataset, SampleKey, Scale, Side, Std
from facerestore.data.resize import imresize, pil_resize
from facerestore.data.storage import IOBackend, Pictures
from facerestore.errors import DataError, OptionError, listed
from facerestore.registry import DATASETS


@DATASETS.register()
class PairedImageDataset(PictureDataset):
    """Ground truth `gt` (scale·h, scale·w, 3) and `lq` (h, w, 3), uint8 RGB, with `gt_path` and `lq_path`.

    Pairs are matched by name, never by their place in a list.  Without `dataroot_lq`, the low-resolution picture is the
    ground truth (or its crop) shrunk bicubically, as the published `LR_bicubic` sets were made.
    """

    def __init__(
        self,
        dataroot_gt: str,
        dataroot_lq: str | None = None,
        scale: Scale = 4,
        gt_size: Side | None = None,
        use_hflip: bool = False,
        use_rot: bool = False,
        mean: Mean | None = None,
        std: Std | None = None,
        filename_tmpl: str = "{}",
        meta_info_file: str | None = None,
        io_backend: IOBackend | None = None,
        downsample: Literal["matlab_bicubic", "pil_bicubic"] = "matlab_bicubic",
        on_bad_image: OnBadImage = "stop",
    ):
        """
        Args:
            dataroot_gt: folder of the ground truth
            dataroot_lq: folder of the low-resolution pictures; made from the ground truth by default
            scale: side of the ground truth / side of the low-resolution picture; what exceeds a multiple is cut off
            gt_size: side of the square that is cut from each ground truth for training; the whole picture by default
            use_hflip: whether half of the samples are mirrored
            use_rot: whether samples are also flipped vertically and turned by quarters
            mean: value in [0, 1] that becomes 0, by channel; 0 by default
            std: width in [0, 1] that becomes 1, by channel; 1 by default
            filename_tmpl: name of a low-resolution picture, where {} stands for the ground truth's ('{}x4')
            meta_info_file: text file that lists the ground truths to use, one a line; all by default
            io_backend: {type: disk}, {type: lmdb}, or faces that are drawn: {type: synthetic, count: 240, size: 128, start: 0}
            downsample: which bicubic shrinking makes the low-resolution picture where `dataroot_lq` is not given
            on_bad_image: what training does where a picture cannot be read: stop, or skip it for another
        """
        super().__init__(mean, std, on_bad_image)
        if filename_tmpl.count("{}") != 1:
            raise OptionError(f"`filename_tmpl` is {filename_tmpl!r}: it must hold {{}} once", ("filename_tmpl",))
        if gt_size and gt_size % scale:
            raise OptionError(f"`gt_size` is {gt_size}: it must be a multiple of the scale, {scale}", ("gt_size",))
        self.scale, self.gt_size = scale, gt_size
        self.use_hflip, self.use_rot = use_hflip, use_rot
        self.filename_tmpl, self.downsample = filename_tmpl, downsample
        self.gt = Pictures(dataroot_gt, "dataroot_gt", io_backend, meta_info_file)
        self.lq = Pictures(dataroot_lq, "dataroot_lq", io_backend) if dataroot_lq is not None else None

    @cached_property
    def names(self) -> list[str]:
        """The ground truths' names, once it is clear that each has its low-resolution picture."""
        if self.lq is not None:
            self._check_names(self.gt.names, self.lq.names)
        return self.gt.names

    def lq_name(self, name: str) -> str:
        return counterpart(name, self.filename_tmpl)

    def picture_shapes(self) -> dict[str, tuple[int, int]]:
        return square_shapes(self.gt_size, self.scale) if self.gt_size else {}

    def truth_size(self, index: int) -> tuple[int, int]:
        height, width = self.gt.header(self.names[index])
        return super().truth_size(index) or (height - height % self.scale, width - width % self.scale)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        name = self.names[index]
        gt = crop_to_multiple(self.gt.read(name), self.scale)
        lq = self._read_lq(name, gt) if self.lq else None
        if min(gt.shape[:2]) < (self.gt_size or self.scale):
            raise DataError(
                f"picture {self.gt.path(name)} is {_size(gt)}, smaller than "
                + (f"`gt_size` {self.gt_size}" if self.gt_size else f"`scale` {self.scale}")
                + f": lower `{'gt_size' if self.gt_size else 'scale'}`, or remove the picture"
            )
        crop, flips = self._draw(gt, rng)
        if crop:
            gt, lq = apply_crop(gt, crop.times(self.scale)), apply_crop(lq, crop) if self.lq else None
        if lq is None:
            lq = self._shrink(gt)
        return {
            "gt": apply_flips(gt, flips),
            "lq": apply_flips(lq, flips),
            "gt_path": self.gt.path(name),
            "lq_path": self.lq.path(self.lq_name(name)) if self.lq else self.gt.path(name),
        }

    def explain(self, key: SampleKey) -> dict[str, Any]:
        gt = crop_to_multiple(self.gt.read(self.names[key.index]), self.scale)
        crop, flips = self._draw(gt, self.rng(key))
        return crop_and_flips(crop.times(self.scale) if crop else None, flips)

    def _draw(self, gt: np.ndarray, rng: np.random.Generator) -> tuple[Crop | None, Flips]:
        """Which part of the low-resolution picture (all of it: None), and in which pose."""
        rows, columns = (n // self.scale for n in gt.shape[:2])
        crop = sample_crop(rng, rows, columns, self.gt_size // self.scale) if self.gt_size else None
        return crop, sample_flips(rng, self.use_hflip, self.use_rot)

    def _read_lq(self, name: str, gt: np.ndarray) -> np.ndarray:
        lq = self.lq.read(self.lq_name(name))
        if gt.shape[:2] != (lq.shape[0] * self.scale, lq.shape[1] * self.scale):
            raise DataError(
                f"pictures {self.gt.path(name)} ({_size(gt)}) and {self.lq.path(self.lq_name(name))} ({_size(lq)}) are "
                f"no pair: the first must be {self.scale} times larger, as `scale` says"
            )
        return lq

    def _shrink(self, gt: np.ndarray) -> np.ndarray:
        size = (gt.shape[0] // self.scale, gt.shape[1] // self.scale)
        return imresize(gt, size=size) if self.downsample == "matlab_bicubic" else pil_resize(gt, size)

    def _check_names(self, names: list[str], lq_names: list[str]) -> None:
        """Refuse a ground truth without its low-resolution picture, and (where all are used) the reverse."""
        wanted, held = {self.lq_name(n) for n in names}, set(lq_names)
        missing = [n for n in map(self.lq_name, names) if n not in held]
        extra = [n for n in lq_names if n not in wanted]
        if missing:
            better = fitting_template(names, dict.fromkeys(lq_names))
            hint = f" (did you mean `filename_tmpl: '{better}'`?)" if better else ""
            raise DataError(
                f"{len(missing)} of the {len(names)} pictures of {self.gt.root} have no counterpart in {self.lq.root}: "
                f"it lacks {listed(missing, 5)}" + (f" and holds {listed(extra, 5)} instead" if extra else "") + hint
            )
        if extra and self.gt.meta_info_file is None:
            raise DataError(
                f"{len(extra)} of {len(lq_names)} pictures of {self.lq.root} have no counterpart in {self.gt.root}: "
                f"{listed(extra, 5)}; remove them, or list the ground truths to use in a `meta_info_file`"
            )


def square_shapes(side: int, scale: int) -> dict[str, tuple[int, int]]:
    """Height and width of a square ground truth and of its low-resolution picture."""
    return {"gt": (side, side), "lq": (side // scale, side // scale)}


def counterpart(name: str, template: str) -> str:
    """The name of the picture that belongs to `name`: the template says its last part, the folder stays."""
    folder, last = posixpath.split(name)
    return posixpath.join(folder, template.replace("{}", last))


def fitting_template(names: list[str], held: Collection[str]) -> str | None:
    """The template by which every one of `names` has a counterpart among `held`, where there is one."""
    first = posixpath.basename(names[0])
    for like in (n for n in map(posixpath.basename, held) if first in n):
        template = like.replace(first, "{}", 1)
        if all(counterpart(name, template) in held for name in names):
            return template
    return None


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
