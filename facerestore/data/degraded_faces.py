"""Faces with degraded copies made on the fly: the data of GFPGAN (FFHQDegradationDataset) and CodeFormer (FFHQBlind...).

What chance decides about a sample is drawn first, as one record of numbers (:class:`Draw`); the pictures are a pure function of
the ground truth and of it.  So any sample can be replayed, printed and tested.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import cv2
import numpy as np
from msgspec import Meta

from facerestore.data.augment import sample_flips
from facerestore.data.base import Mean, OnBadImage, PictureDataset, SampleKey, Std
from facerestore.data.components import NEEDED, Components, boxes, read_components
from facerestore.data.degradations.blur import Resizing, resize
from facerestore.data.degradations.color import Color, apply_color, sample_adjustments, sample_shift, to_gray
from facerestore.data.degradations.kernels import KernelType, check_kernel_choice
from facerestore.data.degradations.masks import (
    Mask,
    apply_mask,
    make_mask,
    sample_brush_mask,
    sample_free_form_mask,
    sample_polygon_mask,
)
from facerestore.data.degradations.pipeline import Degradation, FaceDegradation, degrade, to_levels
from facerestore.data.drawn import Drawn
from facerestore.data.image_io import PictureError
from facerestore.data.latents import Latents, read_latents
from facerestore.data.storage import IOBackend, Pictures
from facerestore.data.tables import OnMissing
from facerestore.errors import DataError, OptionError
from facerestore.registry import DATASETS

Side = Annotated[int, Meta(ge=8, le=8192)]
Share = Annotated[float, Meta(ge=0, le=1)]
Sigma = Annotated[float, Meta(ge=0.01, le=1000)]
Factor = Annotated[float, Meta(ge=0.25, le=1000)]
Deviation = Annotated[float, Meta(ge=0, le=255)]
Quality = Annotated[float, Meta(ge=0, le=100)]
Gain = Annotated[float, Meta(ge=0, le=100)]
MaskType = Literal["brush", "free_form", "polygons"]
Enlargement = Annotated[float, Meta(gt=0, le=10)]
Turns = Annotated[float, Meta(ge=-0.5, le=0.5)]

LARGE = ("blur_sigma", "downsample_range", "noise_range", "jpeg_range")  # what `lq_large` has ranges of its own for
SAMPLE_MASK = {"brush": sample_brush_mask, "free_form": sample_free_form_mask, "polygons": sample_polygon_mask}


class Draw(NamedTuple):
    """All that chance decides about a sample."""

    mirrored: bool
    lq: Degradation | None = None
    lq_large: Degradation | None = None
    color: Color = Color()
    color_large: Color = Color()
    mask: Mask | None = None


@dataclass(kw_only=True, eq=False)
class DegradedFaces(PictureDataset):
    """What the data sets below share: pictures of one size, mirrored, degraded, changed in colour.

    Args:
        dataroot_gt: folder or LMDB of the faces, aligned and of one size
        io_backend: {type: disk}, {type: lmdb}, or faces that are drawn: {type: synthetic, count: 240, size: 128, start: 0}
        meta_info_file: text file that lists the pictures to use, one a line; all by default
        use_hflip: whether half of the samples are mirrored
        mean: value in [0, 1] that becomes 0, by channel
        std: width in [0, 1] that becomes 1, by channel
        on_bad_image: what training does where a picture cannot be read or has another size: stop, or skip it for another
        blur_kernel_size: side of the kernels in pixels, odd
        kernel_list: types of blur kernels
        kernel_prob: how often each is chosen
        blur_sigma: standard deviations of the kernels in pixels, from ... to
        downsample_range: side of the picture / side of the shrunk one, from ... to
        downsample_modes: how it is shrunk, each as often as the others
        noise_range: standard deviation of Gaussian noise in levels of 0..255, from ... to; ~ for none
        gray_noise_prob: how often noise is the same in all channels
        poisson_prob: how often noise is Poisson's instead of Gauss's
        poisson_scale_range: strength of Poisson's noise, from ... to
        jpeg_range: quality of the JPEG, from ... to; ~ for none
        use_motion_kernel: whether motion blur takes the place of the kernels now and then
        motion_kernel_prob: how often, where it does
        color_jitter_prob: how often the channels are shifted
        color_jitter_shift: by how many levels of 0..255 at most
        color_jitter_pt_prob: how often brightness, contrast, saturation and hue are changed, in random order
        brightness: factors, from ... to; ~ leaves it alone
        contrast: factors, from ... to; ~ leaves it alone
        saturation: factors, from ... to; ~ leaves it alone
        hue: turns around the circle, from ... to; ~ leaves it alone
        gray_prob: how often the degraded picture is gray
        crop_components: whether samples hold the boxes of eyes and mouth (and nose, where the file has it)
        component_path: file of the face parts: JSON (facerestore/data/components.py describes it) or GFPGAN's .pth; of drawn
            faces they are known
        eye_enlarge_ratio: by how much the boxes of the eyes are enlarged
        nose_enlarge_ratio: likewise of the nose
        mouth_enlarge_ratio: likewise of the mouth
        on_missing: what happens where a picture stands in no such file: stop, or skip it
        legacy: whether mirrored boxes lie a pixel too far to the right, as published
    """

    dataroot_gt: str
    io_backend: IOBackend | None = None
    meta_info_file: str | None = None
    use_hflip: bool = False
    mean: Mean = (0.5, 0.5, 0.5)
    std: Std = (0.5, 0.5, 0.5)
    on_bad_image: OnBadImage = "stop"
    blur_kernel_size: Annotated[int, Meta(ge=1, le=255)] = 41
    kernel_list: tuple[KernelType, ...] = ("iso", "aniso")
    kernel_prob: tuple[Share, ...] = (0.5, 0.5)
    blur_sigma: tuple[Sigma, Sigma] = (0.1, 10.0)
    downsample_range: tuple[Factor, Factor] = (0.8, 8.0)
    downsample_modes: tuple[Resizing, ...] = ("bilinear",)
    noise_range: tuple[Deviation, Deviation] | None = (0.0, 20.0)
    gray_noise_prob: Share = 0.0
    poisson_prob: Share = 0.0
    poisson_scale_range: tuple[Gain, Gain] = (0.05, 3.0)
    jpeg_range: tuple[Quality, Quality] | None = (60.0, 100.0)
    use_motion_kernel: bool = False
    motion_kernel_prob: Share = 0.001
    color_jitter_prob: Share | None = None
    color_jitter_shift: Deviation = 20.0
    color_jitter_pt_prob: Share | None = None
    brightness: tuple[Gain, Gain] | None = (0.5, 1.5)
    contrast: tuple[Gain, Gain] | None = (0.5, 1.5)
    saturation: tuple[Gain, Gain] | None = (0.0, 1.5)
    hue: tuple[Turns, Turns] | None = (-0.1, 0.1)
    gray_prob: Share | None = None
    crop_components: bool = False
    component_path: str | None = None
    eye_enlarge_ratio: Enlargement = 1.0
    nose_enlarge_ratio: Enlargement = 1.0
    mouth_enlarge_ratio: Enlargement = 1.0
    on_missing: OnMissing = "stop"
    legacy: bool = False

    split_plateau_iso: ClassVar[bool] = True  # see sample_kernel
    ranges: ClassVar[tuple[str, ...]] = (
        "blur_sigma", "downsample_range", "noise_range", "poisson_scale_range", "jpeg_range",
        "brightness", "contrast", "saturation", "hue",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__init__(self.mean, self.std, self.on_bad_image)
        for name in self.ranges:
            bounds = getattr(self, name)
            if bounds and bounds[0] > bounds[1]:
                raise OptionError(f"`{name}` is {list(bounds)}: the lower bound comes first", (name,))
        if self.blur_kernel_size % 2 == 0:
            raise OptionError(f"`blur_kernel_size` is {self.blur_kernel_size}: it must be odd", ("blur_kernel_size",))
        check_kernel_choice(self.kernel_list, self.kernel_prob)
        if self.blur_kernel_size < 3 and (self.use_motion_kernel or "motion" in self.kernel_list):
            raise OptionError("`blur_kernel_size` is 1: a motion needs 3 at least", ("blur_kernel_size",))
        if not self.downsample_modes:
            raise OptionError("`downsample_modes` is empty: name one at least", ("downsample_modes",))
        self.gt = Pictures(self.dataroot_gt, "dataroot_gt", self.io_backend, self.meta_info_file)
        if self.crop_components and self.component_path is None and not isinstance(self.gt.storage, Drawn):
            raise OptionError("`crop_components` needs `component_path`: the file of the face parts", ("crop_components",))
        if self.component_path is not None and isinstance(self.gt.storage, Drawn):
            raise OptionError("drawn faces come with their parts: leave out `component_path`", ("component_path",))

    @cached_property
    def names(self) -> list[str]:
        return self._known_names()

    def _known_names(self) -> list[str]:
        """The pictures that stand in every file that is asked for."""
        return self.gt.names if self.components is None else self.components.names

    @cached_property
    def components(self) -> Components | None:
        if not self.crop_components or isinstance(self.gt.storage, Drawn):
            return None
        pictures = self.gt.names
        if not os.path.exists(self.component_path):
            raise DataError(
                f"file {self.component_path}, named by `component_path`, does not exist: scripts/prepare_landmarks.py makes one"
            )
        components = read_components(self.component_path, "component_path").select(pictures, self.on_missing)
        return components.measured_on(self.side)

    def picture_shapes(self) -> dict[str, tuple[int, int]]:
        return dict.fromkeys(("gt", "lq"), (self.side, self.side))

    def label_shapes(self) -> dict[str, tuple[int, ...]]:
        return {f"loc_{part}": (4,) for part in NEEDED} if self.crop_components else {}

    @property
    @abstractmethod
    def side(self) -> int:
        """Side of the ground truth in pixels."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Draw:
        """Let chance decide."""

    @abstractmethod
    def render(self, gt: np.ndarray, draw: Draw) -> dict[str, np.ndarray]:
        """The sample's pictures, a pure function of the ground truth (mirrored already) and of what was drawn."""

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        name, draw = self.names[index], self.draw(rng)
        gt = self._ground_truth(name)
        sample = self.render(cv2.flip(gt, 1) if draw.mirrored else gt, draw)
        return sample | self.labels(name, draw.mirrored) | {"gt_path": self.gt.path(name), "lq_path": self.gt.path(name)}

    def labels(self, name: str, mirrored: bool) -> dict[str, np.ndarray]:
        """What is known of a picture: boxes in pixels of the ground truth, `loc_left_eye` and so on, (4,) float32."""
        if not self.crop_components:
            return {}
        eyes, nose, mouth = self.eye_enlarge_ratio, self.nose_enlarge_ratio, self.mouth_enlarge_ratio
        ratios = {"left_eye": eyes, "right_eye": eyes, "nose": nose, "mouth": mouth}
        if isinstance(self.gt.storage, Drawn):
            found = boxes(self.gt.storage.parts(name), self.side, mirrored, ratios, self.legacy)
        else:
            found = self.components.boxes(name, self.side, mirrored, ratios, self.legacy)
        return {f"loc_{part}": box for part, box in found.items()}

    def explain(self, key: SampleKey) -> dict[str, Any]:
        return plain(self.draw(self.rng(key)))

    def _ground_truth(self, name: str) -> np.ndarray:
        gt = self.gt.read(name)
        if gt.shape[:2] != (self.side, self.side):
            raise PictureError(
                f"picture {self.gt.path(name)} is {gt.shape[1]}x{gt.shape[0]}, but this data set's pictures are "
                f"{self.side}x{self.side}: prepare them with scripts/prepare_ffhq.py, or set the size that they have"
            )
        return gt

    def _degradation(self, ending: str = "") -> FaceDegradation:
        """What degradations are drawn from; `ending` picks another set of ranges (`blur_sigma_large`, ...)."""
        return FaceDegradation(
            kernel_list=self.kernel_list,
            kernel_prob=self.kernel_prob,
            blur_kernel_size=self.blur_kernel_size,
            blur_sigma=getattr(self, f"blur_sigma{ending}"),
            downsample_range=getattr(self, f"downsample_range{ending}"),
            noise_range=getattr(self, f"noise_range{ending}"),
            jpeg_range=getattr(self, f"jpeg_range{ending}"),
            downsample_modes=self.downsample_modes,
            gray_noise_prob=self.gray_noise_prob,
            poisson_prob=self.poisson_prob,
            poisson_scale_range=self.poisson_scale_range,
            motion_kernel_prob=self.motion_kernel_prob if self.use_motion_kernel else 0.0,
            split_plateau_iso=self.split_plateau_iso,
        )

    def _draw_colors(self, rng: np.random.Generator, count: int) -> list[Color]:
        """Colour changes of `count` copies: each step for all of them or for none, with numbers of their own."""
        shifted, gray, adjusted = rng.random(3) < [
            self.color_jitter_prob or 0,
            self.gray_prob or 0,
            self.color_jitter_pt_prob or 0,
        ]
        ranges = {name: getattr(self, name) for name in ("brightness", "contrast", "saturation", "hue")}
        return [
            Color(
                shift=sample_shift(rng, self.color_jitter_shift) if shifted else None,
                gray=bool(gray),
                adjustments=sample_adjustments(rng, ranges) if adjusted else (),
            )
            for _ in range(count)
        ]


def plain(record: Any) -> Any:
    """A record of draws as plain words and numbers, without what has its default value."""
    if isinstance(record, tuple) and hasattr(record, "_fields"):
        defaults = record._field_defaults
        given = {k: v for k, v in record._asdict().items() if k not in defaults or v != defaults[k]}
        return {k: plain(v) for k, v in given.items()}
    if isinstance(record, (tuple, list)):
        return [plain(item) for item in record]
    return record


def degraded_copy(gt: np.ndarray, degradation: Degradation | None, color: Color, side: int) -> np.ndarray:
    """uint8 (side, side, 3): the ground truth degraded (or only resized), then changed in colour."""
    if degradation is not None:
        copy = degrade(gt, degradation, (side, side))
    elif color == Color() and len(gt) == side:
        return gt
    else:
        copy = resize(gt.astype(np.float32), (side, side))
    return to_levels(apply_color(copy, color))


@DATASETS.register()
@dataclass(kw_only=True, eq=False)
class FFHQDegradationDataset(DegradedFaces):
    """GFPGAN's training data: `gt` and `lq` (out_size, out_size, 3), uint8 RGB, with `gt_path` and `lq_path`.

    Args:
        out_size: side of the pictures in pixels
        gt_gray: whether the ground truth is gray where `lq` is (no colourisation)
    """

    out_size: Side = 512
    gt_gray: bool = False

    @property
    def side(self) -> int:
        return self.out_size

    def draw(self, rng: np.random.Generator) -> Draw:
        mirrored = sample_flips(rng, self.use_hflip).horizontal
        return Draw(mirrored, lq=self._degradation().sample(rng), color=self._draw_colors(rng, 1)[0])

    def render(self, gt: np.ndarray, draw: Draw) -> dict[str, np.ndarray]:
        lq = degraded_copy(gt, draw.lq, draw.color, self.side)
        return {"gt": to_gray(gt) if self.gt_gray and draw.color.gray else gt, "lq": lq}


@DATASETS.register()
@dataclass(kw_only=True, eq=False)
class FFHQBlindDataset(DegradedFaces):
    """CodeFormer's training data: `gt` (gt_size, gt_size, 3) and `lq` (in_size, in_size, 3), uint8 RGB, with their paths.

    With `gen_inpaint_mask`, `lq` is the ground truth with white strokes, and `mask` (gt_size, gt_size, 1) is 255 there.  With
    `latent_gt_path`, `latent_gt` (K,) int64 are the ground truth's codes, row by row.

    Args:
        gt_size: side of the ground truth in pixels
        in_size: side of `lq` in pixels
        latent_gt_path: file of precomputed codes; without it a method computes them
        use_corrupt: whether `lq` is degraded
        gen_inpaint_mask: whether `lq` is masked, not degraded
        inpaint_masks: kinds of masks, each as often as the others
    """

    gt_size: Side = 512
    in_size: Side = 512
    latent_gt_path: str | None = None
    eye_enlarge_ratio: Enlargement = 1.4
    nose_enlarge_ratio: Enlargement = 1.1
    mouth_enlarge_ratio: Enlargement = 1.3
    blur_sigma: tuple[Sigma, Sigma] = (1.0, 15.0)
    downsample_range: tuple[Factor, Factor] = (4.0, 30.0)
    jpeg_range: tuple[Quality, Quality] | None = (30.0, 80.0)
    use_corrupt: bool = True
    gen_inpaint_mask: bool = False
    inpaint_masks: tuple[MaskType, ...] = ("brush",)

    split_plateau_iso = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gen_inpaint_mask and self.in_size != self.gt_size:
            raise OptionError(f"`in_size` is {self.in_size}: with `gen_inpaint_mask` it must be `gt_size`", ("in_size",))
        if not self.inpaint_masks:
            raise OptionError("`inpaint_masks` is empty: name one at least", ("inpaint_masks",))

    @property
    def side(self) -> int:
        return self.gt_size

    def picture_shapes(self) -> dict[str, tuple[int, int]]:
        inputs = dict.fromkeys(self.provides - {"gt"}, (self.in_size, self.in_size))
        return {"gt": (self.gt_size, self.gt_size), **inputs}

    def _known_names(self) -> list[str]:
        if self.latents is None:
            return super()._known_names()
        if self.use_hflip:
            self.latents.codes(self.latents.names[0], mirrored=True)  # a file without them is refused before training
        return self.latents.names

    @cached_property
    def latents(self) -> Latents | None:
        if self.latent_gt_path is None:
            return None
        return read_latents(self.latent_gt_path, "latent_gt_path").select(super()._known_names(), self.on_missing)

    def labels(self, name: str, mirrored: bool) -> dict[str, np.ndarray]:
        codes = {} if self.latents is None else {"latent_gt": self.latents.codes(name, mirrored)}
        return super().labels(name, mirrored) | codes

    def draw(self, rng: np.random.Generator) -> Draw:
        mirrored = sample_flips(rng, self.use_hflip).horizontal
        if self.gen_inpaint_mask:
            kind = self.inpaint_masks[rng.integers(len(self.inpaint_masks))]
            draw = Draw(mirrored, mask=SAMPLE_MASK[kind](rng, self.gt_size, self.gt_size))
        else:
            draw = Draw(mirrored, lq=self._degradation().sample(rng) if self.use_corrupt else None)
        return draw._replace(color=self._draw_colors(rng, 1)[0])

    def render(self, gt: np.ndarray, draw: Draw) -> dict[str, np.ndarray]:
        if draw.mask is None:
            return {"gt": gt, "lq": degraded_copy(gt, draw.lq, draw.color, self.in_size)}
        mask = make_mask(draw.mask)
        lq = degraded_copy(apply_mask(gt, mask), None, draw.color, self.in_size)
        return {"gt": gt, "lq": lq, "mask": mask[..., None]}


@DATASETS.register()
@dataclass(kw_only=True, eq=False)
class FFHQBlindJointDataset(FFHQBlindDataset):
    """The data of CodeFormer's stage III: as FFHQBlindDataset, and `lq_large`, a second copy degraded more strongly.

    The two are drawn on their own, but for whether colours change.  (Published code calls them `in` and `in_large_de`.)

    Args:
        blur_sigma_large: as blur_sigma, of `lq_large`
        downsample_range_large: as downsample_range, of `lq_large`
        noise_range_large: as noise_range, of `lq_large`
        jpeg_range_large: as jpeg_range, of `lq_large`
    """

    provides = frozenset({"lq", "lq_large", "gt"})

    blur_sigma: tuple[Sigma, Sigma] = (0.1, 10.0)
    downsample_range: tuple[Factor, Factor] = (1.0, 12.0)
    noise_range: tuple[Deviation, Deviation] | None = (0.0, 15.0)
    jpeg_range: tuple[Quality, Quality] | None = (60.0, 100.0)
    blur_sigma_large: tuple[Sigma, Sigma] = (1.0, 15.0)
    downsample_range_large: tuple[Factor, Factor] = (4.0, 30.0)
    noise_range_large: tuple[Deviation, Deviation] | None = (0.0, 20.0)
    jpeg_range_large: tuple[Quality, Quality] | None = (30.0, 80.0)

    ranges = (*DegradedFaces.ranges, *(f"{name}_large" for name in LARGE))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gen_inpaint_mask or not self.use_corrupt:
            keyword = "gen_inpaint_mask" if self.gen_inpaint_mask else "use_corrupt"
            raise OptionError(f"two degraded copies and `{keyword}` exclude each other: use FFHQBlindDataset", (keyword,))

    def draw(self, rng: np.random.Generator) -> Draw:
        mirrored = sample_flips(rng, self.use_hflip).horizontal
        lq, lq_large = self._degradation().sample(rng), self._degradation("_large").sample(rng)
        return Draw(mirrored, lq, lq_large, *self._draw_colors(rng, 2))

    def render(self, gt: np.ndarray, draw: Draw) -> dict[str, np.ndarray]:
        lq_large = degraded_copy(gt, draw.lq_large, draw.color_large, self.in_size)
        return super().render(gt, draw) | {"lq_large": lq_large}
