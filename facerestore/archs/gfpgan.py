"""GFPGAN: a U-Net that finds code and conditions of a degraded face, and a StyleGAN2 that draws it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from facerestore.archs.layers.equalized import SLOPE, EqualizedConv2d, EqualizedLinear, ScaledLeakyReLU, fast_layout
from facerestore.archs.layers.flavour import FIR_TAPS, Flavour, LrMul, Multiplier, Narrow, OutSize, Taps
from facerestore.archs.layers.hints import Count, Depth
from facerestore.archs.layers.recognition import Keywords, State, confirmed, count
from facerestore.archs.layers.resampling_blocks import CleanBlock, CleanConv2d, DownBlock, UpBlock, conv_layer
from facerestore.archs.outputs import Generator, GeneratorOutput, refuse_other_size
from facerestore.archs.stylegan2 import generator_keywords
from facerestore.archs.stylegan2_sft import (
    ConditionedSynthesis,
    StyleGAN2GeneratorBilinearSFT,
    StyleGAN2GeneratorCSFT,
    StyleGAN2GeneratorSFT,
)
from facerestore.errors import OptionError
from facerestore.registry import ARCHS, WeightFile

DECODER = "stylegan_decoder"


class UnetLayers:
    """The U-Net's layers in the equalized form; `flavour` says how its blocks halve the side."""

    def __init__(self, flavour: Flavour):
        self.flavour = flavour

    def conv(self, in_channels: int, out_channels: int, kernel_size: int) -> nn.Module:
        return conv_layer(in_channels, out_channels, kernel_size)

    def down(self, in_channels: int, out_channels: int) -> nn.Module:
        return DownBlock(in_channels, out_channels, self.flavour)

    def up(self, in_channels: int, out_channels: int) -> nn.Module:
        return UpBlock(in_channels, out_channels)

    def to_rgb(self, channels: int) -> nn.Module:
        return EqualizedConv2d(channels, 3, 1)

    def linear(self, in_channels: int, out_channels: int) -> nn.Module:
        return EqualizedLinear(in_channels, out_channels)

    def condition(self, channels: int, out_channels: int, bias: float) -> nn.Module:
        """Scale or shift of features, which starts around `bias`."""
        return nn.Sequential(
            EqualizedConv2d(channels, channels, 3, padding=1),
            ScaledLeakyReLU(),
            EqualizedConv2d(channels, out_channels, 3, padding=1, bias=bias),
        )


class CleanUnetLayers:
    """The U-Net's layers in the clean form: plain convolutions."""

    def conv(self, in_channels: int, out_channels: int, kernel_size: int) -> nn.Module:
        return CleanConv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def down(self, in_channels: int, out_channels: int) -> nn.Module:
        return CleanBlock(in_channels, out_channels, up=False)

    def up(self, in_channels: int, out_channels: int) -> nn.Module:
        return CleanBlock(in_channels, out_channels, up=True)

    def to_rgb(self, channels: int) -> nn.Module:
        return nn.Conv2d(channels, 3, 1)

    def linear(self, in_channels: int, out_channels: int) -> nn.Module:
        return nn.Linear(in_channels, out_channels)

    def condition(self, channels: int, out_channels: int, bias: float) -> nn.Module:
        last = nn.Conv2d(channels, out_channels, 3, padding=1)
        nn.init.constant_(last.bias, bias)
        return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.LeakyReLU(SLOPE), last)


class GFPGAN(Generator):
    """What all forms of GFPGAN share: U-Net, code, conditions, decoder.

    Wang et al., Towards Real-World Blind Face Restoration with Generative Facial Prior, CVPR 2021, figure 2: the U-Net's
    smallest features give the code (equations 1 and 2), its features on the way up the scale and shift of each level of a
    pretrained StyleGAN2 (equations 3 and 4), and pictures of each size for the loss that supervises them (section 3.2).

    forward: degraded faces (N, 3, out_size, out_size) in [-1, 1], RGB, to `image` of the same; `rgbs`, the U-Net's
    pictures (N, 3, side, side) for the sides 8, 16, ... out_size; and `latents` (N, num_latent, num_style_feat).
    DataError where a picture has another size.

    Source of the figures: GFPGAN, gfpgan/archs/gfpganv1_arch.py, gfpgan_bilinear_arch.py, gfpganv1_clean_arch.py.
    """

    offers = frozenset({"image", "rgbs", "latents"})
    input_range = output_range = (-1.0, 1.0)
    draws_noise = True
    traceless = frozenset({"input_is_latent"})
    weight_files = {
        "decoder_load_path": WeightFile(
            DECODER,
            doc="file of the StyleGAN2 generator that becomes the decoder, or 'random'",
            made_by="a training of StyleGAN2 makes it, such as options/stylegan2_ffhq_512.yml or options/faces64_stylegan2.yml",
        )
    }

    def __init__(
        self,
        layers: UnetLayers | CleanUnetLayers,
        decoder: ConditionedSynthesis,
        fix_decoder: bool,
        input_is_latent: bool,
        different_w: bool,
    ):
        """
        Args:
            out_size: side of the pictures that come in and go out, a power of 2
            num_style_feat: components of the decoder's codes
            channel_multiplier: channels from 64 pixels on, times this (1 in the first version, 2 in 1.3 and 1.4)
            fix_decoder: whether the decoder keeps the weights that it starts with
            num_mlp: layers of the decoder's mapping network
            lr_mlp: what the mapping network's learning rate is multiplied by
            input_is_latent: whether the U-Net gives w, and the mapping network (then frozen) is left out
            different_w: whether it gives a code for each layer of the decoder
            narrow: all channels, times this
            sft_half: whether the conditions are for half of the decoder's features
            resample_kernel: taps of the FIR filter, an even number of them

        Raises:
            OptionError: no channels are left, or the taps are no filter
        """
        super().__init__()
        self.in_size = self.out_size = decoder.out_size
        self.num_style_feat = decoder.num_style_feat
        self.input_is_latent = input_is_latent
        sides = decoder.sides
        channels = {side: width // 2 for side, width in decoder.widths.items()}
        if channels[self.out_size] == 0:
            raise OptionError("narrow leaves the U-Net, half as wide as the decoder, no channels: give more", ("narrow",))

        self.conv_body_first = layers.conv(3, channels[self.out_size], 1)
        self.conv_body_down = nn.ModuleList(layers.down(channels[side], channels[side // 2]) for side in reversed(sides))
        self.final_conv = layers.conv(channels[4], channels[4], 3)
        self.conv_body_up = nn.ModuleList(layers.up(channels[side // 2], channels[side]) for side in sides)
        self.toRGB = nn.ModuleList(layers.to_rgb(channels[side]) for side in sides)
        codes = decoder.num_latent if different_w else 1
        self.final_linear = layers.linear(channels[4] * 4 * 4, codes * self.num_style_feat)
        self.stylegan_decoder = decoder
        wide = decoder.condition_widths()
        self.condition_scale, self.condition_shift = (
            nn.ModuleList(layers.condition(channels[side], width, bias) for side, width in zip(sides, wide, strict=True))
            for bias in (1.0, 0.0)
        )
        decoder.requires_grad_(not fix_decoder)
        if input_is_latent:
            decoder.style_mlp.requires_grad_(False)  # which nothing goes through

    def forward(
        self,
        x: Tensor,
        return_latents: bool = True,
        return_rgb: bool = True,
        randomize_noise: bool = False,
        noise: Sequence[Tensor] | None = None,
    ) -> GeneratorOutput:
        """Restore faces.

        Args:
            x: degraded faces (N, 3, out_size, out_size) in [-1, 1]
            return_latents: whether the output holds the codes of all layers
            return_rgb: whether the U-Net's pictures are computed
            randomize_noise: whether the decoder draws its noise; see :meth:`StyleSynthesis.forward`
            noise: the decoder's noise maps; see :meth:`StyleSynthesis.noise_shapes`
        """
        refuse_other_size(self, x, self.out_size, "out_size")
        feat, skips = self.conv_body_first(fast_layout(x)), []
        for down in self.conv_body_down:
            feat = down(feat)
            skips.append(feat)
        feat = self.final_conv(feat)
        code = self.final_linear(feat.flatten(1)).unflatten(1, (-1, self.num_style_feat))
        if code.shape[1] == 1:
            code = code[:, 0]

        conditions: list[Tensor] = []
        rgbs: list[Tensor] = []
        for level, up in enumerate(self.conv_body_up):
            feat = up(feat + skips.pop())
            conditions += [self.condition_scale[level](feat), self.condition_shift[level](feat)]
            if return_rgb:
                rgbs.append(self.toRGB[level](feat))
        decoded = self.stylegan_decoder(
            code,
            conditions,
            input_is_latent=self.input_is_latent,
            noise=noise,
            randomize_noise=randomize_noise,
            return_latents=return_latents,
        )
        return GeneratorOutput(decoded.image, rgbs=rgbs if return_rgb else None, latents=decoded.latents)


@ARCHS.register()
class GFPGANv1(GFPGAN):
    """The paper's GFPGAN: equalized layers, resampled by FIR filters."""

    def __init__(
        self,
        out_size: OutSize,
        num_style_feat: Count = 512,
        channel_multiplier: Multiplier = 1,
        resample_kernel: Taps = FIR_TAPS,
        fix_decoder: bool = True,
        num_mlp: Depth = 8,
        lr_mlp: LrMul = 0.01,
        input_is_latent: bool = False,
        different_w: bool = False,
        narrow: Narrow = 1.0,
        sft_half: bool = False,
    ):
        decoder = StyleGAN2GeneratorSFT(
            out_size, num_style_feat, num_mlp, channel_multiplier, resample_kernel, lr_mlp, narrow, sft_half
        )
        layers = UnetLayers(Flavour(taps=resample_kernel))
        super().__init__(layers, decoder, fix_decoder, input_is_latent, different_w)

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords:
        """GFPGANBilinear has the same keys."""
        return gfpgan_keywords(state) | {"num_mlp": count(state, f"{DECODER}.style_mlp") - 1}


@ARCHS.register()
class GFPGANBilinear(GFPGAN):
    """GFPGAN with bilinear resampling in place of the FIR filters; its keys are GFPGANv1's."""

    def __init__(
        self,
        out_size: OutSize,
        num_style_feat: Count = 512,
        channel_multiplier: Multiplier = 1,
        fix_decoder: bool = True,
        num_mlp: Depth = 8,
        lr_mlp: LrMul = 0.01,
        input_is_latent: bool = False,
        different_w: bool = False,
        narrow: Narrow = 1.0,
        sft_half: bool = False,
    ):
        decoder = StyleGAN2GeneratorBilinearSFT(out_size, num_style_feat, num_mlp, channel_multiplier, lr_mlp, narrow, sft_half)
        super().__init__(UnetLayers(Flavour()), decoder, fix_decoder, input_is_latent, different_w)


@ARCHS.register()
class GFPGANv1Clean(GFPGAN):
    """GFPGAN of plain layers and bilinear resampling: the published versions 1.3 and 1.4."""

    def __init__(
        self,
        out_size: OutSize,
        num_style_feat: Count = 512,
        channel_multiplier: Multiplier = 1,
        fix_decoder: bool = True,
        num_mlp: Depth = 8,
        input_is_latent: bool = False,
        different_w: bool = False,
        narrow: Narrow = 1.0,
        sft_half: bool = False,
    ):
        decoder = StyleGAN2GeneratorCSFT(out_size, num_style_feat, num_mlp, channel_multiplier, narrow, sft_half)
        super().__init__(CleanUnetLayers(), decoder, fix_decoder, input_is_latent, different_w)

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords:
        return gfpgan_keywords(state) | {"num_mlp": count(state, f"{DECODER}.style_mlp") // 2}


def gfpgan_keywords(state: State) -> Keywords:
    """Keywords of any form but the depth of its mapping network.

    `input_is_latent` leaves no trace: true, as in all published files.
    """
    decoder = {k.removeprefix(f"{DECODER}."): v for k, v in state.items() if k.startswith(f"{DECODER}.")}
    keywords = generator_keywords(decoder)
    codes = state["final_linear.bias"].numel() // keywords["num_style_feat"]
    halves, channels = state["condition_scale.0.2.weight"].shape[:2]
    return keywords | {"input_is_latent": True, "different_w": codes > 1, "sft_half": halves == channels}
