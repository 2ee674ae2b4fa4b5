"""Pictures alone: what is restored where there is no ground truth."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from facerestore.data.base import Mean, OnBadImage, PictureDataset, Std
from facerestore.data.storage import IOBackend, Pictures
from facerestore.registry import DATASETS


@DATASETS.register()
class SingleImageDataset(PictureDataset):
    """`lq` (H, W, 3), uint8 RGB, whole, with `lq_path`."""

    provides = frozenset({"lq"})

    def __init__(
        self,
        dataroot_lq: str,
        mean: Mean | None = None,
        std: Std | None = None,
        meta_info_file: str | None = None,
        io_backend: IOBackend | None = None,
        on_bad_image: OnBadImage = "stop",
    ):
        """
        Args:
            dataroot_lq: folder of the pictures
            mean: value in [0, 1] that becomes 0, by channel; 0 by default
            std: width in [0, 1] that becomes 1, by channel; 1 by default
            meta_info_file: text file that lists the pictures to use, one a line; all by default
            io_backend: {type: disk}, {type: lmdb}, or faces that are drawn: {type: synthetic, count: 240, size: 128, start: 0}
            on_bad_image: what training does where a picture cannot be read: stop, or skip it for another
        """
        super().__init__(mean, std, on_bad_image)
        self.lq = Pictures(dataroot_lq, "dataroot_lq", io_backend, meta_info_file)

    @cached_property
    def names(self) -> list[str]:
        return self.lq.names

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        name = self.names[index]
        return {"lq": self.lq.read(name), "lq_path": self.lq.path(name)}
