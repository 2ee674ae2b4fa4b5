"""SRResNet, the generator of SRGAN."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from facerestore.archs.layers.hints import Count, Depth, Enlargement
from facerestore.archs.layers.recognition import Keywords, State, confirmed, count
from facerestore.archs.outputs import Generator, GeneratorOutput
from facerestore.errors import OptionError
from facerestore.registry import ARCHS


@ARCHS.register()
class SRResNet(Generator):
    """The generator of SRGAN, with batch norm and PReLU.

    Ledig et al., Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network, CVPR 2017,
    figure 4 (top): k9n64 - 16 x (k3n64, BN, PReLU, k3n64, BN, sum) - k3n64, BN, sum - 2 x (k3n256, shuffle 2, PReLU)
    - k9n3.

    forward: pictures (N, num_in_ch, H, W) of any range to `image` (N, num_out_ch, upscale H, upscale W) of the range
    that it was trained for; the last convolution has no activation.

    No official code exists; where the figure is silent: convolutions have biases, a PReLU has one slope for all its
    channels, and the long skip starts after the first PReLU.
    """

    def __init__(
        self,
        num_in_ch: Count = 3,
        num_out_ch: Count = 3,
        num_feat: Count = 64,
        num_block: Depth = 16,
        upscale: Enlargement = 4,
        norm: Literal["bn", "none"] = "bn",
        act: Literal["prelu", "relu"] = "prelu",
    ):
        """
        Args:
            num_in_ch: channels of the pictures that come in
            num_out_ch: channels of the pictures that go out
            num_feat: channels of the features
            num_block: number of residual blocks
            upscale: output side / input side, a power of 2
            norm: normalisation in the body: bn as published, or none
            act: activation: prelu as published (one slope for all channels), or relu

        Raises:
            OptionError: upscale is no power of 2
        """
        super().__init__()
        doublings = upscale.bit_length() - 1
        if upscale != 2**doublings:
            raise OptionError(f"SRResNet enlarges by powers of 2 (1, 2, 4, 8, ...), not by {upscale}", ("upscale",))
        self.upscale = upscale
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 9, padding=4)
        self.prelu_first = activation(act)
        self.body = nn.Sequential(*(ResidualBlock(num_feat, norm, act) for _ in range(num_block)))
        self.conv_body = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.bn_body = normalisation(norm, num_feat)
        self.upsample = nn.Sequential(*(Doubling(num_feat, act) for _ in range(doublings)))
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 9, padding=4)

    def forward(self, x: Tensor) -> GeneratorOutput:
        feat = self.prelu_first(self.conv_first(x))
        feat = feat + self.bn_body(self.conv_body(self.body(feat)))
        return GeneratorOutput(image=self.conv_last(self.upsample(feat)))

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords:
        num_feat, num_in_ch = state["conv_first.weight"].shape[:2]
        return {
            "num_in_ch": num_in_ch,
            "num_out_ch": state["conv_last.bias"].numel(),
            "num_feat": num_feat,
            "num_block": count(state, "body"),
            "upscale": 2 ** count(state, "upsample"),
            "norm": "bn" if "bn_body.weight" in state else "none",
            "act": "prelu" if "prelu_first.weight" in state else "relu",
        }


class ResidualBlock(nn.Module):
    """x + BN(conv(PReLU(BN(conv(x))))), all (N, num_feat, H, W)."""

    def __init__(self, num_feat: int, norm: str, act: str):
        super().__init__()
        self.conv1 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.bn1 = normalisation(norm, num_feat)
        self.prelu = activation(act)
        self.conv2 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.bn2 = normalisation(norm, num_feat)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn2(self.conv2(self.prelu(self.bn1(self.conv1(x)))))


class Doubling(nn.Module):
    """(N, num_feat, H, W) to (N, num_feat, 2H, 2W) by sub-pixel convolution (Shi et al., CVPR 2016)."""

    def __init__(self, num_feat: int, act: str):
        super().__init__()
        self.conv = nn.Conv2d(num_feat, 4 * num_feat, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        self.prelu = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        return self.prelu(self.shuffle(self.conv(x)))


def normalisation(norm: str, num_feat: int) -> nn.Module:
    return nn.BatchNorm2d(num_feat) if norm == "bn" else nn.Identity()


def activation(act: str) -> nn.Module:
    return nn.PReLU() if act == "prelu" else nn.ReLU()
