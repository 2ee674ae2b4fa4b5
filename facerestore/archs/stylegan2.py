"""StyleGAN2's generator: FIR as in the paper, bilinear, and clean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from facerestore.archs.layers.flavour import (
    CLEAN,
    FIR_TAPS,
    Flavour,
    LrMul,
    Multiplier,
    Narrow,
    OutSize,
    Taps,
    keywords_of_widths,
    widths,
)
from facerestore.archs.layers.hints import Count, Depth
from facerestore.archs.layers.recognition import Keywords, State, confirmed, count
from facerestore.archs.layers.style_blocks import ConstantInput, StyleConv, ToRGB
from facerestore.archs.outputs import Generator, GeneratorOutput
from facerestore.registry import ARCHS

Styles = Tensor | Sequence[Tensor]


class StyleSynthesis(Generator):
    """What all of StyleGAN2's generators share: codes to latents, latents and noise to a picture.

    Karras et al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020, figures 2d and 7b (output skips).

    Source of the figures: BasicSR, basicsr/archs/stylegan2_arch.py; GFPGAN, gfpgan/archs/stylegan2_*_arch.py.
    """

    takes = ("code",)
    offers = frozenset({"image", "latents"})
    output_range = (-1.0, 1.0)
    draws_noise = True

    def __init__(
        self, flavour: Flavour, out_size: int, num_style_feat: int, num_mlp: int, channel_multiplier: int, narrow: float
    ):
        """
        Args:
            out_size: side of the pictures, a power of 2
            num_style_feat: components of the codes z and w
            num_mlp: layers of the mapping network
            channel_multiplier: channels from 64 pixels on, times this (1 in GFPGAN's first version, else 2)
            resample_kernel: taps of the FIR filter, an even number of them
            lr_mlp: what the mapping network's learning rate is multiplied by
            narrow: all channels, times this

        Raises:
            OptionError: no channels are left, or the taps are no filter
        """
        super().__init__()
        self.out_size, self.num_style_feat = out_size, num_style_feat
        self.widths = widths(out_size, channel_multiplier, narrow)
        self.sides = list(self.widths)[1:]  # 8, 16, ... out_size
        self.num_latent = 2 * len(self.sides) + 2  # styles of all layers, as W+ has them

        self.style_mlp = flavour.mapping(num_style_feat, num_mlp)
        channels = self.widths[4]
        self.constant_input = ConstantInput(channels)
        self.style_conv1 = StyleConv(channels, channels, num_style_feat, flavour, upsample=False)
        self.to_rgb1 = ToRGB(channels, num_style_feat, flavour, first=True)
        self.style_convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for side in self.sides:
            wide = self.widths[side]
            self.style_convs.append(StyleConv(channels, wide, num_style_feat, flavour, upsample=True))
            self.style_convs.append(StyleConv(wide, wide, num_style_feat, flavour, upsample=False))
            self.to_rgbs.append(ToRGB(wide, num_style_feat, flavour))
            channels = wide
        self.noises = nn.Module()
        for i, noise in enumerate(self.make_noise()):
            self.noises.register_buffer(f"noise{i}", noise)

    def rate_of(self, parameter: str) -> float:
        """The factor of a parameter, by its name, on the learning rate of a training from scratch."""
        return 1.0

    def get_latent(self, z: Tensor) -> Tensor:
        """w (N, num_style_feat) of z (N, num_style_feat)."""
        return self.style_mlp(z)

    def mean_latent(self, num_latent: int, generator: torch.Generator | None = None) -> Tensor:
        """The mean w (1, num_style_feat) of so many random z, towards which truncation pulls."""
        weight = self.constant_input.weight
        z = torch.randn(num_latent, self.num_style_feat, device=weight.device, dtype=weight.dtype, generator=generator)
        return self.get_latent(z).mean(dim=0, keepdim=True)

    def noise_shapes(self, batch: int = 1) -> list[tuple[int, int, int, int]]:
        """Of the noise maps, coarse to fine: one of 4 pixels a side, two of each following side."""
        return [(batch, 1, side, side) for side in [4, *(side for side in self.sides for _ in (1, 2))]]

    def make_noise(self, batch: int = 1, generator: torch.Generator | None = None) -> list[Tensor]:
        """Fresh noise maps for `noise` of forward."""
        like = self.constant_input.weight
        shapes = self.noise_shapes(batch)
        return [torch.randn(shape, device=like.device, dtype=like.dtype, generator=generator) for shape in shapes]

    def stored_noise(self) -> list[Tensor]:
        """The maps that come with the weights: the same picture every time."""
        return list(self.noises.buffers())

    def layer_latents(
        self,
        styles: Styles,
        input_is_latent: bool,
        truncation: float,
        truncation_latent: Tensor | None,
        inject_index: int | None,
    ) -> Tensor:
        """W+ (N, num_latent, num_style_feat) of one code, of two to be mixed, or of a code for each layer."""
        codes = [styles] if isinstance(styles, Tensor) else list(styles)
        if not input_is_latent:
            codes = [self.get_latent(code) for code in codes]
        if len(codes) > 2 or (len(codes) == 2 and any(code.dim() != 2 for code in codes)):
            raise ValueError(
                "styles are one code (N, num_style_feat), a code for each layer (N, num_latent, num_style_feat), or two "
                f"codes to be mixed, not {[tuple(code.shape) for code in codes]}"
            )
        if truncation < 1:
            if truncation_latent is None:
                raise ValueError("truncation needs truncation_latent, the latent that it pulls towards (see mean_latent)")
            centres = [truncation_latent if code.dim() == 2 else truncation_latent[:, None] for code in codes]
            codes = [centre + truncation * (code - centre) for code, centre in zip(codes, centres, strict=True)]
        if len(codes) == 2:
            if inject_index is None:
                raise ValueError("two styles are mixed from layer inject_index on, which is missing")
            parts = zip(codes, (inject_index, self.num_latent - inject_index), strict=True)
            return torch.cat([code[:, None].expand(-1, layers, -1) for code, layers in parts], dim=1)
        (code,) = codes
        latents = code[:, None].expand(-1, self.num_latent, -1) if code.dim() == 2 else code
        if latents.shape[1] != self.num_latent:
            raise ValueError(f"a picture of {self.out_size} pixels takes {self.num_latent} latents, not {latents.shape[1]}")
        return latents

    def synthesise(self, latents: Tensor, noise: Sequence[Tensor], conditions: Sequence[Tensor] = ()) -> Tensor:
        """The picture (N, 3, out_size, out_size) of W+.

        `conditions`: scale and shift for the features of 8 pixels, of 16, ..., as far as they go.
        """
        feat = self.style_conv1(self.constant_input(len(latents)), latents[:, 0], noise[0])
        picture = self.to_rgb1(feat, latents[:, 1])
        for level, to_rgb in enumerate(self.to_rgbs):
            first = 2 * level + 1
            feat = self.style_convs[2 * level](feat, latents[:, first], noise[first])
            if first < len(conditions):
                feat = transformed(feat, conditions[first - 1], conditions[first])
            feat = self.style_convs[2 * level + 1](feat, latents[:, first + 1], noise[first + 1])
            picture = to_rgb(feat, latents[:, first + 2], picture)
        return picture

    def forward(
        self,
        styles: Styles,
        input_is_latent: bool = False,
        noise: Sequence[Tensor] | None = None,
        randomize_noise: bool = False,
        truncation: float = 1.0,
        truncation_latent: Tensor | None = None,
        inject_index: int | None = None,
        return_latents: bool = True,
    ) -> GeneratorOutput:
        """A picture of each code.

        Args:
            styles: z (N, num_style_feat) or a list of one or two of them; with `input_is_latent` w, or W+ (N,
                num_latent, num_style_feat)
            input_is_latent: whether the mapping network is left out
            noise: maps (N or 1, 1, side, side) of all layers; see :meth:`noise_shapes`
            randomize_noise: whether they are drawn from torch's own random numbers where `noise` is not given; else the
                stored ones are used, and the picture depends on its code alone
            truncation: below 1, latents are pulled towards `truncation_latent`, and lie at this share of their distance
            truncation_latent: (1 or N, num_style_feat)
            inject_index: the first layer that takes the second of two styles
            return_latents: whether the output holds W+
        """
        latents = self.layer_latents(styles, input_is_latent, truncation, truncation_latent, inject_index)
        maps = self.layer_noise(noise, randomize_noise, len(latents))
        return GeneratorOutput(self.synthesise(latents, maps), latents=latents if return_latents else None)

    def layer_noise(self, noise: Sequence[Tensor] | None, randomize_noise: bool, batch: int) -> Sequence[Tensor]:
        if noise is not None:
            return noise
        return self.make_noise(batch) if randomize_noise else self.stored_noise()


def transformed(feat: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Spatial feature transform, scale feat + shift: of the last channels alone where the conditions have fewer."""
    kept, moved = feat.split([feat.shape[1] - scale.shape[1], scale.shape[1]], dim=1)
    return torch.cat((kept, moved * scale + shift), dim=1) if kept.shape[1] else moved * scale + shift


@ARCHS.register()
class StyleGAN2Generator(StyleSynthesis):
    """StyleGAN2's generator, which resamples by FIR filters.

    forward: codes (N, num_style_feat) to `image` (N, 3, out_size, out_size) in [-1, 1] and `latents` (N, num_latent,
    num_style_feat).
    """

    def __init__(
        self,
        out_size: OutSize,
        num_style_feat: Count = 512,
        num_mlp: Depth = 8,
        channel_multiplier: Multiplier = 2,
        resample_kernel: Taps = FIR_TAPS,
        lr_mlp: LrMul = 0.01,
        narrow: Narrow = 1.0,
    ):
        flavour = Flavour(taps=resample_kernel, lr_mlp=lr_mlp)
        super().__init__(flavour, out_size, num_style_feat, num_mlp, channel_multiplier, narrow)

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords:
        """Filter and learning rates leave no trace: StyleGAN2GeneratorBilinear and -SFT have the same keys."""
        return generator_keywords(state) | {"num_mlp": count(state, "style_mlp") - 1}


@ARCHS.register()
class StyleGAN2GeneratorBilinear(StyleSynthesis):
    """StyleGAN2's generator with bilinear enlargement in place of the FIR filters; its keys are the same.

    forward: as StyleGAN2Generator.
    """

    def __init__(
        self,
        out_size: OutSize,
        num_style_feat: Count = 512,
        num_mlp: Depth = 8,
        channel_multiplier: Multiplier = 2,
        lr_mlp: LrMul = 0.01,
        narrow: Narrow = 1.0,
    ):
        super().__init__(Flavour(lr_mlp=lr_mlp), out_size, num_style_feat, num_mlp, channel_multiplier, narrow)


@ARCHS.register()
class StyleGAN2GeneratorClean(StyleSynthesis):
    """StyleGAN2's generator with bilinear enlargement and plain layers, no equalized learning rate.

    forward: as StyleGAN2Generator.
    """

    def __init__(
        self,
        out_size: OutSize,
        num_style_feat: Count = 512,
        num_mlp: Depth = 8,
        channel_multiplier: Multiplier = 2,
        narrow: Narrow = 1.0,
    ):
        super().__init__(CLEAN, out_size, num_style_feat, num_mlp, channel_multiplier, narrow)

    def rate_of(self, parameter: str) -> float:
        """In place of the equalized learning rate: 1/100 for the mapping network, 1/3 for modulated convolutions but not for
        their modulation, as published (basicsr/models/stylegan2_model.py)."""
        if "style_mlp" in parameter:
            return 0.01
        return 1 / 3 if "modulated_conv" in parameter and "modulation" not in parameter else 1.0

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords:
        """StyleGAN2GeneratorCSFT has the same keys."""
        return generator_keywords(state) | {"num_mlp": count(state, "style_mlp") // 2}


def generator_keywords(state: State) -> Keywords:
    """Keywords of any of these generators but the depth of its mapping network."""
    levels = count(state, "to_rgbs")
    at_4, num_style_feat = state["to_rgb1.modulated_conv.modulation.weight"].shape
    last = state[f"to_rgbs.{levels - 1}.modulated_conv.modulation.bias"].numel()
    return keywords_of_widths(4 * 2**levels, at_4, last) | {"num_style_feat": num_style_feat}
