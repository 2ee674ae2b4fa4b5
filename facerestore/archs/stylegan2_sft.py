"""StyleGAN2 generators whose features are moved by conditions: the decoders of GFPGAN."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from facerestore.archs.layers.flavour import CLEAN, FIR_TAPS, Flavour, LrMul, Multiplier, Narrow, OutSize, Taps
from facerestore.archs.layers.hints import Count, Depth
from facerestore.archs.outputs import GeneratorOutput
from facerestore.archs.stylegan2 import Styles, StyleSynthesis
from facerestore.registry import ARCHS


class ConditionedSynthesis(StyleSynthesis):
    """A StyleGAN2 generator with channel-split spatial feature transforms.

    Wang et al., Towards Real-World Blind Face Restoration with Generative Facial Prior, CVPR 2021, equation 4: after
    the first convolution of each level, half of the features pass as they are, the other half becomes scale * features
    + shift; with `sft_half: false` all do.

    Source of the figures: GFPGAN, gfpgan/archs/gfpganv1_arch.py and gfpganv1_clean_arch.py.
    """

    takes = ("code", "conditions")

    def __init__(
        self,
        flavour: Flavour,
        out_size: int,
        num_style_feat: int,
        num_mlp: int,
        channel_multiplier: int,
        narrow: float,
        sft_half: bool,
    ):
        """
        Args:
            sft_half: whether the conditions are for half of the features
        """
        super().__init__(flavour, out_size, num_style_feat, num_mlp, channel_multiplier, narrow)
        self.sft_half = sft_half

    def condition_widths(self) -> list[int]:
        """Channels of scale and shift, for 8 pixels, for 16, ..., out_size."""
        return [self.widths[side] // (2 if self.sft_half else 1) for side in self.sides]

    def forward(
        self,
        styles: Styles,
        conditions: Sequence[Tensor],
        input_is_latent: bool = False,
        noise: Sequence[Tensor] | None = None,
        randomize_noise: bool = False,
        truncation: float = 1.0,
        truncation_latent: Tensor | None = None,
        inject_index: int | None = None,
        return_latents: bool = True,
    ) -> GeneratorOutput:
        """A picture of each code, as :meth:`StyleSynthesis.forward`.

        Args:
            conditions: scale and shift (N, condition_widths(), side, side) for 8 pixels, then for 16, ...; later levels
                may be missing
        """
        for i, condition in enumerate(conditions):
            if condition.shape[1] != self.condition_widths()[i // 2]:
                raise ValueError(
                    f"condition {i} has {condition.shape[1]} channels where {self.condition_widths()[i // 2]} are needed"
                )
        latents = self.layer_latents(styles, input_is_latent, truncation, truncation_latent, inject_index)
        maps = self.layer_noise(noise, randomize_noise, len(latents))
        image = self.synthesise(latents, maps, conditions)
        return GeneratorOutput(image, latents=latents if return_latents else None)


@ARCHS.register()
class StyleGAN2GeneratorSFT(ConditionedSynthesis):
    """StyleGAN2Generator with conditions, GFPGANv1's decoder; its keys are StyleGAN2Generator's.

    forward: codes (N, num_style_feat) and conditions to `image` (N, 3, out_size, out_size) in [-1, 1] and `latents`
    (N, num_latent, num_style_feat).
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
        sft_half: bool = False,
    ):
        flavour = Flavour(taps=resample_kernel, lr_mlp=lr_mlp)
        super().__init__(flavour, out_size, num_style_feat, num_mlp, channel_multiplier, narrow, sft_half)


class StyleGAN2GeneratorBilinearSFT(ConditionedSynthesis):
    """StyleGAN2GeneratorBilinear with conditions, GFPGANBilinear's decoder."""

    def __init__(
        self,
        out_size: int,
        num_style_feat: int,
        num_mlp: int,
        channel_multiplier: int,
        lr_mlp: float,
        narrow: float,
        sft_half: bool,
    ):
        flavour = Flavour(lr_mlp=lr_mlp)
        super().__init__(flavour, out_size, num_style_feat, num_mlp, channel_multiplier, narrow, sft_half)


@ARCHS.register()
class StyleGAN2GeneratorCSFT(ConditionedSynthesis):
    """StyleGAN2GeneratorClean with conditions, GFPGANv1Clean's decoder; its keys are StyleGAN2GeneratorClean's.

    forward: as StyleGAN2GeneratorSFT.
    """

    def __init__(
        self,
        out_size: OutSize,
        num_style_feat: Count = 512,
        num_mlp: Depth = 8,
        channel_multiplier: Multiplier = 2,
        narrow: Narrow = 1.0,
        sft_half: bool = False,
    ):
        super().__init__(CLEAN, out_size, num_style_feat, num_mlp, channel_multiplier, narrow, sft_half)
