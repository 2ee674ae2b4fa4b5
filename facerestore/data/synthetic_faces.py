"""Drawn portraits as a data set: every method can be trained and tested without a download."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta

from facerestore.data.augment import Crop, Flips, apply_crop, apply_flips, crop_and_flips, sample_crop, sample_flips
from facerestore.data.base import FaceDataset, Mean, SampleKey, Scale, Side, Std
from facerestore.data.components import NEEDED
from facerestore.data.paired import square_shapes
from facerestore.data.resize import imresize, pil_resize
from facerestore.data.synthetic import DOMAINS, Face
from facerestore.data.synthetic.cache import CACHE
from facerestore.errors import OptionError
from facerestore.registry import DATASETS

Domain = Literal["feminine", "masculine", 0, 1]
Number = Annotated[int, Meta(ge=0, le=10**9)]
SMALLEST = 32  # pixels of a side


@DATASETS.register()
class SyntheticFaceDataset(FaceDataset):
    """`gt` (size, size, 3) or (gt_size, gt_size, 3) and, `scale` times smaller, `lq`: uint8 RGB, with `gt_path`, `lq_path`.

    Faces are framed as in FFHQ, drawn when they are first asked for (0.08 s at 128 pixels, 0.65 s at 512) and kept in memory.
    Picture i of the set shows person i // pictures_per_person; other pictures of a person differ in pose, expression,
    light and place.

    With `labels`: `points5` (5, 2) and `landmarks68` (68, 2) in pixels of `gt`, `loc_left_eye`, `loc_right_eye` and `loc_mouth`
    (4,) as x1, y1, x2, y2 (float32 all), and the numbers `domain` and `identity`.
    """

    def __init__(
        self,
        count: Annotated[int, Meta(ge=1, le=10**9)],
        size: Annotated[int, Meta(ge=SMALLEST, le=4096)] = 128,
        seed: Number = 0,
        start: Number = 0,
        pictures_per_person: Annotated[int, Meta(ge=1, le=10**9)] = 1,
        domain: Domain | None = None,
        scale: Scale = 1,
        gt_size: Side | None = None,
        use_hflip: bool = False,
        use_rot: bool = False,
        mean: Mean | None = None,
        std: Std | None = None,
        downsample: Literal["matlab_bicubic", "pil_bicubic"] = "matlab_bicubic",
        labels: bool = False,
    ):
        """
        Args:
            count: how many pictures
            size: side of a picture in pixels
            seed: which people and pictures; not the run's `manual_seed`
            start: number of the first picture, so that one set can follow another (training and validation)
            pictures_per_person: how many pictures in a row show the same person
            domain: only feminine (0) or only masculine (1) faces; both by default
            scale: side of the ground truth / side of the low-resolution picture
            gt_size: side of the square that is cut from each picture for training; the whole picture by default
            use_hflip: whether half of the samples are mirrored
            use_rot: whether samples are also flipped vertically and turned by quarters; not with `labels`
            mean: value in [0, 1] that becomes 0, by channel; 0 by default
            std: width in [0, 1] that becomes 1, by channel; 1 by default
            downsample: which bicubic shrinking makes the low-resolution picture
            labels: whether samples hold landmarks, boxes, domain and identity
        """
        super().__init__(mean, std)
        side, keyword = (size, "size") if gt_size is None else (gt_size, "gt_size")
        if side % scale:
            raise OptionError(f"`{keyword}` is {side}: it must be a multiple of the scale, {scale}", (keyword,))
        if side > size:
            raise OptionError(f"`gt_size` is {gt_size}: it must not be larger than the picture's `size`, {size}", ("gt_size",))
        if labels and use_rot:
            raise OptionError("`labels` are of upright faces: leave out `use_rot`", ("use_rot",))
        self.count, self.size, self.world, self.start = count, size, seed, start
        self.pictures_per_person = pictures_per_person
        self.domain = DOMAINS.index(domain) if isinstance(domain, str) else domain
        self.scale, self.gt_size = scale, gt_size
        self.use_hflip, self.use_rot = use_hflip, use_rot
        self.downsample, self.labels = downsample, labels

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        folder = f"{self.world}" if self.domain is None else f"{self.world}/{DOMAINS[self.domain]}"
        return f"synthetic/{folder}/{self.start + index:06d}"

    def face(self, index: int) -> Face:
        """Picture `index` of the set, with all that is known of it; read-only."""
        if not 0 <= index < self.count:
            raise IndexError(f"the data set has {self.count} pictures, so none with the index {index}")
        picture = self.start + index
        return CACHE.get(self.world, picture, self.size, picture // self.pictures_per_person, self.domain)

    def picture_shapes(self) -> dict[str, tuple[int, int]]:
        return square_shapes(self.gt_size or self.size, self.scale)

    def label_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"points5": (5, 2), "landmarks68": (68, 2), **{f"loc_{p}": (4,) for p in NEEDED}} if self.labels else {}

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        face = self.face(index)
        crop, flips = self._draw(rng)
        gt = apply_crop(face.image, crop)
        sample = {
            "gt": apply_flips(gt, flips),
            "lq": apply_flips(self._shrink(gt), flips),
            "gt_path": self.name(index),
            "lq_path": self.name(index),
        }
        return sample | (placed_labels(face, crop, flips.horizontal) if self.labels else {})

    def explain(self, key: SampleKey) -> dict[str, Any]:
        crop, flips = self._draw(self.rng(key))
        return crop_and_flips(crop if self.gt_size else None, flips)

    def _draw(self, rng: np.random.Generator) -> tuple[Crop, Flips]:
        """Which part of the picture, and in which pose."""
        crop = Crop(0, 0, self.size, self.size)
        if self.gt_size:
            cells, part = self.size // self.scale, self.gt_size // self.scale
            crop = sample_crop(rng, cells, cells, part).times(self.scale)
        return crop, sample_flips(rng, self.use_hflip, self.use_rot)

    def _shrink(self, gt: np.ndarray) -> np.ndarray:
        if self.scale == 1:
            return gt
        size = (gt.shape[0] // self.scale, gt.shape[1] // self.scale)
        return imresize(gt, size=size) if self.downsample == "matlab_bicubic" else pil_resize(gt, size)


def placed_labels(face: Face, crop: Crop, mirrored: bool) -> dict[str, Any]:
    """The labels in pixels of the part that `crop` cuts out of the picture, which is then mirrored or not."""
    if mirrored:
        face, crop = face.mirrored(), crop._replace(left=face.image.shape[1] - crop.left - crop.width)
    corner = np.array([crop.left, crop.top], np.float32)
    boxes = {f"loc_{part}": np.float32(box) - np.tile(corner, 2) for part, box in face.boxes.items()}
    return {
        "points5": face.points5 - corner,
        "landmarks68": face.landmarks68 - corner,
        **boxes,
        "domain": face.domain,
        "identity": face.identity,
    }
