"""The networks of StarGAN v2: generator, mapping network, style encoder and discriminator.

Choi et al., StarGAN v2: Diverse Image Synthesis for Multiple Domains, CVPR 2020, section 2.1, and the appendix on network
architecture.  Source of the figures: clovaai/stargan-v2, core/model.py.

A picture x is given the style s by G(x, s); s is made for a domain y from chance, F(z, y), or from a picture of that
domain, E(x, y); D(x, y) tells whether x is a real picture of the domain y.  F and E have one head for each domain, D one
logit: all are computed (they are small beside what they share), so that every head gets a gradient, 0 where no sample
asked for it, whatever the labels are and on which process.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from facerestore.archs.layers.hints import Count
from facerestore.archs.layers.init import scaled_kaiming_
from facerestore.archs.layers.instance_norm import InstanceNorm
from facerestore.archs.layers.recognition import Keywords, State, confirmed, count
from facerestore.archs.layers.stargan2_blocks import AdaINBlock, HighPass, ResidualBlock, ToOnePixel
from facerestore.archs.outputs import (
    Discriminator,
    DiscriminatorOutput,
    Encoder,
    EncoderOutput,
    Generator,
    GeneratorOutput,
    refuse_indivisible,
    refuse_other_size,
)
from facerestore.errors import DataError, OptionError
from facerestore.registry import ARCHS

Side = Annotated[int, Meta(ge=8, le=4096)]  # of a picture, in pixels
Strength = Annotated[float, Meta(ge=0, le=1000)]

MASK_OF_SIDE = {32: 0, 64: 1, 128: 1}  # features of these sides are passed on to the decoder, through that mask
PICTURES = (-1.0, 1.0)


class Content(NamedTuple):
    """What the generator knows of pictures before it is told a style."""

    feat: Tensor  # (N, C, h, w)
    passed: dict[int, Tensor]  # high-passed features that are added to the decoder's, by their height

    def detached(self) -> Content:
        """The same as constants."""
        return Content(self.feat.detach(), {side: feat.detach() for side, feat in self.passed.items()})


@ARCHS.register()
class StarGANv2Generator(Generator):
    """G: a picture, and the style that it shall have, to a picture.

    Residual blocks that halve the side, two that keep it, two with AdaIN, and blocks with AdaIN that double it.
    With `w_hpf` (the published CelebA-HQ network) the decoder's blocks have no shortcut; what is kept of the picture
    comes through two masks of the face as high-passed features of the sides 32, 64 and 128.  The published files then
    hold 1 x 1 convolutions of shortcuts that do not exist: here they are kept under their keys, and frozen.

    forward:
        x: pictures (N, 3, H, W) in [-1, 1].  Sides are multiples of 2^levels, where levels = log2(img_size) - 4, or - 3
            with `w_hpf`; they need not be img_size.
        s: styles (N, style_dim)
        masks: the two masks (N, 1, h, w) of :meth:`FAN.get_heatmap`, of any size; without them nothing is passed on
        `image`: (N, 3, H, W), about [-1, 1]: the last convolution has no activation.  DataError where a side does not
            fit, or where masks are given to a network without `w_hpf`.
    """

    takes = ("picture", "style")
    input_range = output_range = PICTURES

    def __init__(
        self,
        img_size: Side = 256,
        base_dim: Count | None = None,
        style_dim: Count = 64,
        max_conv_dim: Count = 512,
        w_hpf: Strength = 1,
    ):
        """
        Args:
            img_size: side of the pictures in pixels, a power of 2: it sets the depth and the default of base_dim
            base_dim: channels of the first features, twice as many after each block; 2^14 / img_size by default
            style_dim: numbers in a style
            max_conv_dim: the most channels that features have
            w_hpf: the high-passed features are divided by it; 0 for a network without them (published for AFHQ)

        Raises:
            OptionError: img_size is no power of 2, or too small
        """
        super().__init__()
        self.style_dim = style_dim
        self.levels = halvings(img_size, 8 if w_hpf else 16, "StarGANv2Generator")
        widths = channels(base_dim, img_size, self.levels, max_conv_dim)
        pairs = list(pairwise(widths))
        deepest = widths[-1]
        shortcut = w_hpf == 0
        self.from_rgb = nn.Conv2d(3, widths[0], 3, padding=1)
        self.encode = nn.ModuleList(
            [ResidualBlock(fine, coarse, normalize=True, halve=True) for fine, coarse in pairs]
            + [ResidualBlock(deepest, deepest, normalize=True) for _ in range(2)]
        )
        self.decode = nn.ModuleList(
            [AdaINBlock(deepest, deepest, style_dim, shortcut) for _ in range(2)]
            + [AdaINBlock(coarse, fine, style_dim, shortcut, double=True) for fine, coarse in reversed(pairs)]
        )
        self.to_rgb = nn.Sequential(InstanceNorm(widths[0]), nn.LeakyReLU(0.2), nn.Conv2d(widths[0], 3, 1))
        self.hpf = HighPass(w_hpf) if w_hpf else None
        scaled_kaiming_(self, 1)
        for block in self.decode:
            block.freeze_unused()

    def forward(self, x: Tensor, s: Tensor, masks: Sequence[Tensor] | None = None) -> GeneratorOutput:
        return GeneratorOutput(image=self.decoded(self.encoded(x, masks), s))

    def encoded(self, x: Tensor, masks: Sequence[Tensor] | None = None) -> Content:
        """The first half of forward, which knows of no style: pictures in several styles need it once."""
        self._refuse_unfit(x, masks)
        feat, passed = self.from_rgb(x), {}
        for block in self.encode:
            if masks is not None and feat.shape[2] in MASK_OF_SIDE:
                passed[feat.shape[2]] = feat
            feat = block(feat)
        return Content(feat, {side: self._high_passed(known, masks) for side, known in passed.items()})

    def decoded(self, content: Content, s: Tensor) -> Tensor:
        """The second half of forward: pictures (N, 3, H, W) of `content` in the styles s (N, style_dim)."""
        feat = content.feat
        for block in self.decode:
            feat = block(feat, s)
            if (side := feat.shape[2]) in content.passed:
                feat = feat + content.passed[side]
        return self.to_rgb(feat)

    def _high_passed(self, feat: Tensor, masks: Sequence[Tensor]) -> Tensor:
        mask = F.interpolate(masks[MASK_OF_SIDE[feat.shape[2]]], feat.shape[2:], mode="bilinear", align_corners=False)
        return self.hpf(mask * feat)

    def _refuse_unfit(self, x: Tensor, masks: Sequence[Tensor] | None) -> None:
        step = 2**self.levels
        refuse_indivisible(self, x, step)
        if x.shape[-2:] == (step, step):  # of one pixel there are no statistics
            raise DataError(f"StarGANv2Generator takes pictures of more than {step} x {step} pixels, not {step} x {step}")
        if masks is not None and self.hpf is None:
            raise DataError("StarGANv2Generator was given masks, but has no place for them: it was built with w_hpf 0")

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords:
        levels = count(state, "encode") - 2
        width, style_dim = state["from_rgb.bias"].numel(), state["decode.0.norm1.fc.weight"].shape[1]
        w_hpf = HighPass.strength_of(state["hpf.filter"]) if "hpf.filter" in state else 0
        return {
            "img_size": (8 if w_hpf else 16) * 2**levels,
            "base_dim": width,
            "style_dim": style_dim,
            "max_conv_dim": state["decode.0.conv1.bias"].numel(),
            "w_hpf": w_hpf,
        }


@ARCHS.register()
class StarGANv2MappingNetwork(Encoder):
    """F: noise and a domain to a style.

    Four dense layers for all domains, then four for each.

    forward: latents z (N, latent_dim), unit normal, and domains y (N), integers below num_domains, to `embedding`
    (N, style_dim).
    """

    takes = ("latent", "domain")

    def __init__(self, latent_dim: Count = 16, style_dim: Count = 64, num_domains: Count = 2, hidden_dim: Count = 512):
        """
        Args:
            latent_dim: numbers in a latent z
            style_dim: numbers in a style
            num_domains: number of domains
            hidden_dim: features of the layers between
        """
        super().__init__()
        self.latent_dim, self.style_dim, self.num_domains = latent_dim, style_dim, num_domains
        self.shared = nn.Sequential(*dense(latent_dim, hidden_dim), *dense(hidden_dim, hidden_dim, 3))
        self.unshared = nn.ModuleList(
            nn.Sequential(*dense(hidden_dim, hidden_dim, 3), nn.Linear(hidden_dim, style_dim)) for _ in range(num_domains)
        )
        scaled_kaiming_(self, 1)

    def forward(self, z: Tensor, y: Tensor) -> EncoderOutput:
        return EncoderOutput(embedding=of_domain(self.unshared, self.shared(z), y))

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords:
        hidden_dim, latent_dim = state["shared.0.weight"].shape
        return {
            "latent_dim": latent_dim,
            "style_dim": state["unshared.0.6.bias"].numel(),
            "num_domains": count(state, "unshared"),
            "hidden_dim": hidden_dim,
        }


@ARCHS.register()
class StarGANv2StyleEncoder(Encoder):
    """E: a picture and its domain to its style.

    Residual blocks that halve the side, then one dense head for each domain.

    forward: pictures x (N, 3, img_size, img_size) in [-1, 1] and domains y (N), integers below num_domains, to
    `embedding` (N, style_dim).  DataError where a picture has another size.
    """

    takes = ("picture", "domain")
    input_range = PICTURES

    def __init__(
        self,
        img_size: Side = 256,
        base_dim: Count | None = None,
        style_dim: Count = 64,
        num_domains: Count = 2,
        max_conv_dim: Count = 512,
    ):
        """
        Args:
            img_size: side of the pictures in pixels, a power of 2
            base_dim: channels of the first features, twice as many after each block; 2^14 / img_size by default
            style_dim: numbers in a style
            num_domains: number of domains
            max_conv_dim: the most channels that features have

        Raises:
            OptionError: img_size is no power of 2
        """
        super().__init__()
        self.img_size, self.style_dim, self.num_domains = img_size, style_dim, num_domains
        trunk, width = to_one_pixel(base_dim, img_size, max_conv_dim, "StarGANv2StyleEncoder")
        self.shared = nn.Sequential(*trunk)
        self.unshared = nn.ModuleList(nn.Linear(width, style_dim) for _ in range(num_domains))
        scaled_kaiming_(self, 1)

    def forward(self, x: Tensor, y: Tensor) -> EncoderOutput:
        refuse_other_size(self, x, self.img_size, "img_size")
        return EncoderOutput(embedding=of_domain(self.unshared, self.shared(x).flatten(1), y))

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords:
        style_dim, width = state["unshared.0.weight"].shape
        return {
            "img_size": 2 ** (count(state, "shared") - 1),  # first and last convolution, an activation; side 4 is left
            "base_dim": state["shared.0.bias"].numel(),
            "style_dim": style_dim,
            "num_domains": count(state, "unshared"),
            "max_conv_dim": width,
        }


@ARCHS.register()
class StarGANv2Discriminator(Discriminator):
    """D: whether a picture is a real one of its domain.

    Residual blocks that halve the side, then one logit for each domain.

    forward: pictures x (N, 3, img_size, img_size) in [-1, 1] and domains y (N), integers below num_domains, to `logits`
    (N).  DataError where a picture has another size.
    """

    takes = ("picture", "domain")
    input_range = PICTURES

    def __init__(self, img_size: Side = 256, base_dim: Count | None = None, num_domains: Count = 2, max_conv_dim: Count = 512):
        """
        Args:
            img_size: side of the pictures in pixels, a power of 2
            base_dim: channels of the first features, twice as many after each block; 2^14 / img_size by default
            num_domains: number of domains
            max_conv_dim: the most channels that features have

        Raises:
            OptionError: img_size is no power of 2
        """
        super().__init__()
        self.img_size, self.num_domains = img_size, num_domains
        trunk, width = to_one_pixel(base_dim, img_size, max_conv_dim, "StarGANv2Discriminator")
        self.main = nn.Sequential(*trunk, nn.Conv2d(width, num_domains, 1))
        scaled_kaiming_(self, 1)

    def forward(self, x: Tensor, y: Tensor) -> DiscriminatorOutput:
        refuse_other_size(self, x, self.img_size, "img_size")
        logits = self.main(x).flatten(1)
        return DiscriminatorOutput(logits=logits.gather(1, y[:, None]).squeeze(1))

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords:
        head = f"main.{count(state, 'main') - 1}.weight"
        num_domains, width = state[head].shape[:2]
        return {
            "img_size": 2 ** (count(state, "main") - 3),
            "base_dim": state["main.0.bias"].numel(),
            "num_domains": num_domains,
            "max_conv_dim": width,
        }


def halvings(img_size: int, smallest: int, kind: str) -> int:
    """How many blocks halve a side of img_size until `smallest` is left; OptionError where none would, or it is no power."""
    levels = int(math.log2(img_size / smallest))
    if levels < 1 or img_size != smallest * 2**levels:
        raise OptionError(f"{kind} is built for a side of 2^n pixels, at least {2 * smallest}, not {img_size}", ("img_size",))
    return levels


def channels(base_dim: int | None, img_size: int, levels: int, most: int) -> list[int]:
    """Channels of the features before and after each block that halves the side."""
    base = base_dim or 2**14 // img_size
    return [base] + [min(base * 2**level, most) for level in range(1, levels + 1)]


def dense(inputs: int, outputs: int, layers: int = 1) -> Iterable[nn.Module]:
    for _ in range(layers):
        yield nn.Linear(inputs, outputs)
        yield nn.ReLU()


def to_one_pixel(base_dim: int | None, img_size: int, max_conv_dim: int, kind: str) -> tuple[list[nn.Module], int]:
    """The layers from a picture to features of one pixel, and how many channels these have."""
    levels = halvings(img_size, 4, kind)
    widths = channels(base_dim, img_size, levels, max_conv_dim)
    blocks = [ResidualBlock(a, b, halve=True) for a, b in pairwise(widths)]
    last = widths[-1]
    end = [nn.LeakyReLU(0.2), ToOnePixel(last, 4), nn.LeakyReLU(0.2)]
    return [nn.Conv2d(3, widths[0], 3, padding=1), *blocks, *end], last


def of_domain(heads: Iterable[nn.Module], feat: Tensor, y: Tensor) -> Tensor:
    """For each sample what the head of its domain makes of its features, (N, dim)."""
    answers = torch.stack([head(feat) for head in heads], dim=1)
    wanted = y[:, None, None].expand(-1, 1, answers.shape[2])  # take_along_dim would wrap a domain that does not exist
    return answers.gather(1, wanted).squeeze(1)
