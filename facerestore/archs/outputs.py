"""What networks take and return: the contract that lets any generator meet any discriminator, loss and method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from facerestore.errors import DataError

Range = tuple[float, float]


@dataclass
class GeneratorOutput:
    """What a generator returns.  `offers` of its class names the fields that it fills."""

    image: Tensor | None  # (N, C, H, W); None where only codes were asked for
    rgbs: list[Tensor] | None = None  # intermediate pictures, coarse to fine
    latents: Tensor | None = None  # style codes (N, layers, dim)
    logits: Tensor | None = None  # code predictions (N, positions, codes)
    codes: Tensor | None = None  # code indices (N, positions)
    code_loss: Tensor | None = None  # codebook and commitment terms (scalar)
    feat: Tensor | None = None  # encoder features (N, C, h, w)


@dataclass
class LandmarkOutput:
    """What a landmark network returns, stage by stage, the last the best."""

    heatmaps: list[Tensor]  # (N, landmarks + 1, h, w): one for each landmark, and one of the face's outlines
    boundary_channels: list[Tensor]  # (N, 2, h, w): the last two coordinates that the stage was given


@dataclass
class DiscriminatorOutput:
    """What a discriminator returns: logits (a tensor, or one for each scale), and features where it offers them."""

    logits: Tensor | list[Tensor]
    feats: list[Tensor] | None = None


@dataclass
class EncoderOutput:
    """What an encoder or a mapping network returns: who is seen, or in which style."""

    embedding: Tensor  # (N, dim), or (N, layers or domains, dim)


class Network(nn.Module):
    """What every registered network declares beside its layers."""

    takes: ClassVar[tuple[str, ...]] = ("picture",)  # forward's arguments that it cannot do without
    offers: ClassVar[frozenset[str]] = frozenset()  # the output's fields that it fills
    input_range: ClassVar[Range | None] = None  # of pictures; None: it works in any
    output_range: ClassVar[Range | None] = None
    traceless: ClassVar[frozenset[str]] = frozenset()  # keywords that decide its output, and of which weights show nothing

    @classmethod
    def keywords_of(cls, state: dict[str, Tensor]) -> dict[str, Any] | None:
        """Constructor keywords of the network whose state dict this is, or None where it is another class's."""
        return None


class Generator(Network):
    """Maps a picture or a code to a :class:`GeneratorOutput`.

    One that offers `rgbs` computes them where `return_rgb` asks for them.
    """

    offers = frozenset({"image"})
    draws_noise: ClassVar[bool] = False  # whether forward takes `randomize_noise`, without which its pictures stay the same
    fuses_input: ClassVar[bool] = False  # whether forward takes `w` and `adain`: how much of the input's features is kept
    upscale: int = 1  # output side / input side, where a picture comes in
    in_size: int | None = None  # input side, where it takes no other
    out_size: int | None = None  # output side, where it is always the same


class LandmarkNetwork(Network):
    """Maps a picture of a face to a :class:`LandmarkOutput`."""

    offers = frozenset({"heatmaps", "boundary_channels"})


class Discriminator(Network):
    """Maps a picture to a :class:`DiscriminatorOutput`."""

    offers = frozenset({"logits"})


class Encoder(Network):
    """Maps a picture or a code to an :class:`EncoderOutput`."""

    offers = frozenset({"embedding"})


def refuse_other_size(network: nn.Module, x: Tensor, side: int, keyword: str | None = None) -> None:
    """DataError where pictures are not of the one size that a network takes, which `keyword` has set."""
    height, width = x.shape[-2:]
    if (height, width) != (side, side):
        origin = f" (its `{keyword}`)" if keyword else ""
        raise DataError(f"{type(network).__name__} takes pictures of {side} x {side} pixels{origin}, not of {width} x {height}")


def refuse_indivisible(network: nn.Module, x: Tensor, divisor: int) -> None:
    """DataError where the sides of pictures are no multiples of `divisor`."""
    height, width = x.shape[-2:]
    if height % divisor or width % divisor:
        name = type(network).__name__
        raise DataError(f"{name} takes pictures whose sides are multiples of {divisor} pixels, not {width} x {height}")
