"""ResNetArcFace, the face recognition network of GFPGAN's identity loss."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta
from torch import Tensor, nn

from facerestore.archs.layers.hints import Depth
from facerestore.archs.layers.recognition import Keywords, State, confirmed, count
from facerestore.archs.outputs import Encoder, EncoderOutput, refuse_other_size
from facerestore.registry import ARCHS

SIDE = 128  # of the pictures


@ARCHS.register()
class ResNetArcFace(Encoder):
    """A residual network that tells who is seen: pictures of one person have embeddings of one direction.

    Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR 2019, section 3.1 (the improved
    residual unit: BN - conv - BN - PReLU - conv - BN).

    forward: gray pictures (N, 1, 128, 128) in [-1, 1] to `embedding` (N, 512).  DataError where a picture has another
    size.

    Source of the figures: GFPGAN, gfpgan/archs/arcface_arch.py.
    """

    input_range = (-1.0, 1.0)

    def __init__(
        self,
        block: Literal["IRBlock"],
        layers: Annotated[list[Depth], Meta(min_length=4, max_length=4)],
        use_se: bool = True,
    ):
        """
        Args:
            block: the residual unit; there is one
            layers: units at each of the four sizes (2, 2, 2, 2 is the ResNet-18 that GFPGAN uses, without `use_se`)
            use_se: whether each unit ends with squeeze-and-excitation
        """
        super().__init__()
        unit = {"IRBlock": IRBlock}[block]
        self.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU()
        self.maxpool = nn.MaxPool2d(2)
        channels = 64
        for i, (wide, depth) in enumerate(zip((64, 128, 256, 512), layers, strict=True)):
            first = unit(channels, wide, 1 if i == 0 else 2, use_se)
            stage = nn.Sequential(first, *(unit(wide, wide, 1, use_se) for _ in range(depth - 1)))
            self.add_module(f"layer{i + 1}", stage)
            channels = wide
        self.bn4 = nn.BatchNorm2d(512)
        self.dropout = nn.Dropout()
        self.fc5 = nn.Linear(512 * (SIDE // 16) ** 2, 512)
        self.bn5 = nn.BatchNorm1d(512)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_normal_(module.weight)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> EncoderOutput:
        refuse_other_size(self, x, SIDE)
        x = self.maxpool(self.prelu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = self.dropout(self.bn4(x))
        return EncoderOutput(embedding=self.bn5(self.fc5(x.flatten(1))))

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords:
        return {
            "block": "IRBlock",
            "layers": [count(state, f"layer{i}") for i in (1, 2, 3, 4)],
            "use_se": "layer1.0.se.fc.0.weight" in state,
        }


class IRBlock(nn.Module):
    """The improved residual unit.  (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, use_se: bool):
        super().__init__()
        self.bn0 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.prelu = nn.PReLU()  # used twice, with one slope
        self.conv2 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.se = SqueezeExcitation(out_channels) if use_se else nn.Identity()
        self.downsample = nn.Sequential()
        if (in_channels, stride) != (out_channels, 1):
            self.downsample.append(nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.prelu(self.bn1(self.conv1(self.bn0(x)))))
        return self.prelu(self.se(self.bn2(out)) + self.downsample(x))


class SqueezeExcitation(nn.Module):
    """Weighs each channel by what all channels are on average (Hu et al., CVPR 2018).  (N, C, H, W) to the same."""

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // reduction),
            nn.PReLU(),
            nn.Linear(channels // reduction, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean(dim=(2, 3)))[:, :, None, None]
