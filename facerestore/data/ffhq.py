"""Faces alone: what StyleGAN2 and VQGAN learn from."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import cv2
import numpy as np

from facerestore.data.augment import sample_flips
from facerestore.data.base import Mean, OnBadImage, PictureDataset, SampleKey, Std
from facerestore.data.storage import IOBackend, Pictures
from facerestore.registry import DATASETS


@DATASETS.register()
class FFHQDataset(PictureDataset):
    """`gt` (H, W, 3), uint8 RGB, with `gt_path`."""

    provides = frozenset({"gt"})

    def __init__(
        self,
        dataroot_gt: str,
        io_backend: IOBackend | None = None,
        meta_info_file: str | None = None,
        use_hflip: bool = False,
        mean: Mean = (0.5, 0.5, 0.5),
        std: Std = (0.5, 0.5, 0.5),
        on_bad_image: OnBadImage = "stop",
    ):
        """
        Args:
            dataroot_gt: folder or LMDB of the faces
            io_backend: {type: disk}, {type: lmdb}, or faces that are drawn: {type: synthetic, count: 240, size: 128, start: 0}
            meta_info_file: text file that lists the pictures to use, one a line; all by default
            use_hflip: whether half of the samples are mirrored
            mean: value in [0, 1] that becomes 0, by channel
            std: width in [0, 1] that becomes 1, by channel
            on_bad_image: what training does where a picture cannot be read: stop, or skip it for another
        """
        super().__init__(mean, std, on_bad_image)
        self.use_hflip = use_hflip
        self.gt = Pictures(dataroot_gt, "dataroot_gt", io_backend, meta_info_file)

    @cached_property
    def names(self) -> list[str]:
        return self.gt.names

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        name = self.names[index]
        gt = self.gt.read(name)
        return {"gt": cv2.flip(gt, 1) if self._mirrored(rng) else gt, "gt_path": self.gt.path(name)}

    def explain(self, key: SampleKey) -> dict[str, Any]:
        return {"mirrored": self._mirrored(self.rng(key))}

    def _mirrored(self, rng: np.random.Generator) -> bool:
        return sample_flips(rng, self.use_hflip).horizontal
