"""FAN, the face alignment network by which StarGAN v2 finds what to keep of a face."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from facerestore.archs.layers.coord_conv import CoordConv2d
from facerestore.archs.layers.face_masks import face_masks, landmarks_of
from facerestore.archs.layers.hints import Count
from facerestore.archs.layers.recognition import Keywords, State, confirmed
from facerestore.archs.outputs import LandmarkNetwork, LandmarkOutput, refuse_indivisible
from facerestore.registry import ARCHS, WeightFile

Stages = Annotated[int, Meta(ge=1, le=16)]
Width = Annotated[int, Meta(ge=8, le=4096, multiple_of=8)]

SIDE = 256  # of the pictures that the published network was trained on
DEPTH = 4  # how often an hourglass halves the side
STEP = 4 * 2**DEPTH  # sides of pictures are multiples of it


@ARCHS.register()
class FAN(LandmarkNetwork):
    """Stacked hourglasses that draw a heatmap for each landmark of a face.

    Bulat and Tzimiropoulos, How Far Are We From Solving the 2D & 3D Face Alignment Problem?, ICCV 2017, with the
    coordinates of Wang et al., Adaptive Wing Loss for Robust Face Alignment via Heatmap Regression, ICCV 2019, section 5:
    each hourglass is told where it is, and from the second on where the one before saw the face's outlines.

    forward: pictures (N, 3, H, W) in [0, 1], sides multiples of 64, trained at 256, to `heatmaps`, for each stage (N,
    num_landmarks + 1, H / 4, W / 4), the last channel that of the outlines, and to `boundary_channels`.  DataError where
    a side does not fit.

    `get_heatmap` and `get_landmark` take pictures in [-1, 1] of any size, as StarGAN v2 has them, and bring them to 256.

    Source of the figures: clovaai/stargan-v2, core/wing.py, whose network is the first stage of four of protossw512's
    AdaptiveWingLoss.  There points are scaled by whole multiples of 64 pixels, wrong for any other side.
    """

    input_range = (-1.0, 1.0)  # of get_heatmap and get_landmark, which a data set's pictures go through
    traceless = frozenset({"end_relu"})
    weight_files = {
        "fname_pretrained": WeightFile(
            extra_keys=True, doc="file of published weights, which may hold more stages, or 'random'"
        )
    }

    def __init__(self, num_modules: Stages = 1, end_relu: bool = False, num_landmarks: Count = 98, num_features: Width = 256):
        """
        Args:
            num_modules: number of hourglasses, one after the other
            end_relu: whether heatmaps are cut off at 0
            num_landmarks: number of landmarks; 98 for the masks
            num_features: channels of an hourglass, a multiple of 8; a quarter of them at the start
        """
        super().__init__()
        self.num_modules, self.end_relu = num_modules, end_relu
        first, second, width = num_features // 4, num_features // 2, num_features
        self.conv1 = CoordConv2d(3, first, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = ConvBlock(first, second)
        self.conv3 = ConvBlock(second, second)
        self.conv4 = ConvBlock(second, width)
        for stage in range(num_modules):
            self.add_module(f"m{stage}", Hourglass(width, boundary=stage > 0))
            self.add_module(f"top_m_{stage}", ConvBlock(width, width))
            self.add_module(f"conv_last{stage}", nn.Conv2d(width, width, 1))
            self.add_module(f"bn_end{stage}", nn.BatchNorm2d(width))
            self.add_module(f"l{stage}", nn.Conv2d(width, num_landmarks + 1, 1))
            if stage + 1 < num_modules:  # what the next one is given of this one's features and heatmaps
                self.add_module(f"bl{stage}", nn.Conv2d(width, width, 1))
                self.add_module(f"al{stage}", nn.Conv2d(num_landmarks + 1, width, 1))

    def forward(self, x: Tensor) -> LandmarkOutput:
        refuse_indivisible(self, x, STEP)
        feat = F.relu(self.bn1(self.conv1(x)[0]))
        feat = self.conv4(self.conv3(F.avg_pool2d(self.conv2(feat), 2)))
        output = LandmarkOutput(heatmaps=[], boundary_channels=[])
        for stage in range(self.num_modules):
            feat = self._stage(stage, feat, output)
        return output

    def _stage(self, stage: int, feat: Tensor, output: LandmarkOutput) -> Tensor:
        """One hourglass: appends to `output`, and returns what the next one is given."""
        outlines = output.heatmaps[-1][:, -1:] if stage else None
        seen, coordinates = self._layer("m", stage)(feat, outlines)
        seen = self._layer("conv_last", stage)(self._layer("top_m_", stage)(seen))
        seen = F.relu(self._layer("bn_end", stage)(seen))
        heatmaps = self._layer("l", stage)(seen)
        if self.end_relu:
            heatmaps = F.relu(heatmaps)
        output.heatmaps.append(heatmaps)
        output.boundary_channels.append(coordinates)
        if stage + 1 == self.num_modules:
            return seen
        return feat + self._layer("bl", stage)(seen) + self._layer("al", stage)(heatmaps)

    def _layer(self, name: str, stage: int) -> nn.Module:
        return getattr(self, f"{name}{stage}")

    @torch.no_grad()
    def get_heatmap(self, x: Tensor, b_preprocess: bool = True) -> Tensor | tuple[Tensor, Tensor]:
        """The masks of the whole face, and of eyes and nose; or the bare heatmaps.

        Args:
            x: pictures (N, 3, H, W) in [-1, 1]
            b_preprocess: whether heatmaps are made into masks

        Returns:
            two masks (N, 1, 256, 256) in [0, 1]; without `b_preprocess` heatmaps (N, num_landmarks, 64, 64)
        """
        pictures = F.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        heatmaps = self((pictures + 1) / 2).heatmaps[-1][:, :-1]
        if not b_preprocess:
            return heatmaps
        return face_masks(F.interpolate(heatmaps, size=(SIDE, SIDE), mode="bilinear", align_corners=True))

    @torch.no_grad()
    def get_landmark(self, x: Tensor) -> Tensor:
        """The landmarks (N, num_landmarks, 2), x before y, in pixels of the pictures x (N, 3, H, W) in [-1, 1]."""
        heatmaps = self.get_heatmap(x, b_preprocess=False)
        height, width = (side / drawn for side, drawn in zip(x.shape[-2:], heatmaps.shape[-2:], strict=True))
        across, down = landmarks_of(heatmaps).unbind(dim=2)
        return torch.stack([across * width, down * height], dim=2)

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords:
        """`end_relu` leaves no trace; published networks have none."""
        stages = 0
        while f"l{stages}.bias" in state:
            stages += 1
        return {
            "num_modules": stages,
            "num_landmarks": state["l0.bias"].numel() - 1,
            "num_features": state["bn_end0.bias"].numel(),
        }


class Hourglass(nn.Module):
    """Features at five scales, each halved from the one before and added up again on the way back.

    forward: (N, width, H, W), and with `boundary` the heatmap (N, 1, H, W) of the outlines, to (N, width, H, W) and the
    last two coordinates (N, 2, H, W).
    """

    def __init__(self, width: int, boundary: bool):
        super().__init__()
        self.coordconv = CoordConv2d(width, width, 1, boundary=boundary)
        for level in range(DEPTH, 0, -1):
            for name in (f"b1_{level}", f"b2_{level}", f"b3_{level}"):
                self.add_module(name, ConvBlock(width, width))
        self.b2_plus_1 = ConvBlock(width, width)

    def forward(self, x: Tensor, outlines: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, coordinates = self.coordconv(x, outlines)
        return self._level(DEPTH, x), coordinates

    def _level(self, level: int, x: Tensor) -> Tensor:
        kept = getattr(self, f"b1_{level}")(x)
        small = getattr(self, f"b2_{level}")(F.avg_pool2d(x, 2))
        small = self._level(level - 1, small) if level > 1 else self.b2_plus_1(small)
        small = getattr(self, f"b3_{level}")(small)
        return kept + F.interpolate(small, scale_factor=2, mode="nearest")


class ConvBlock(nn.Module):
    """Three convolutions, each of the one before, side by side, and a shortcut; (N, dim_in, H, W) to (N, dim_out, H, W).

    Bulat and Tzimiropoulos, Binarized Convolutional Landmark Localizers, ICCV 2017, figure 4.
    """

    def __init__(self, dim_in: int, dim_out: int):
        super().__init__()
        half, quarter = dim_out // 2, dim_out // 4
        self.bn1, self.conv1 = nn.BatchNorm2d(dim_in), nn.Conv2d(dim_in, half, 3, padding=1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(half), nn.Conv2d(half, quarter, 3, padding=1, bias=False)
        self.bn3, self.conv3 = nn.BatchNorm2d(quarter), nn.Conv2d(quarter, quarter, 3, padding=1, bias=False)
        projection = (nn.BatchNorm2d(dim_in), nn.ReLU(), nn.Conv2d(dim_in, dim_out, 1, bias=False))
        self.downsample = nn.Sequential(*projection) if dim_in != dim_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(F.relu(self.bn1(x)))
        second = self.conv2(F.relu(self.bn2(first)))
        third = self.conv3(F.relu(self.bn3(second)))
        return torch.cat([first, second, third], dim=1) + self.downsample(x)
