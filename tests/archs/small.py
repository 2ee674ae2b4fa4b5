"""Every registered network, small: what the tests that walk the registry build.  A new network needs one line here."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from facerestore.archs import build_network
from facerestore.archs.outputs import Network
from tests import parity

Shape = tuple[int, ...]


class Labels(Shape):
    """Not a shape, but domains, one for each sample: given as they are."""


@dataclass(frozen=True)
class Small:
    keywords: dict[str, Any]
    shapes: tuple[Shape | list[Shape], ...] = ((2, 3, 16, 24),)  # of forward's positional arguments; of lists of them too


STYLEGAN2 = {"out_size": 16, "num_style_feat": 16, "num_mlp": 2, "narrow": 1 / 32}
SFT = Small(STYLEGAN2 | {"sft_half": True}, ((2, 16), [(2, 8, 8, 8)] * 2 + [(2, 8, 16, 16)] * 2))
GFPGAN = Small(
    STYLEGAN2 | {"fix_decoder": False, "input_is_latent": True, "different_w": True, "sft_half": True},
    ((2, 3, 16, 16),),
)

SMALL: dict[str, Small] = {
    "CodeFormer": Small(
        {
            "dim_embd": 32,
            "n_layers": 2,
            "codebook_size": 3,  # so few that bfloat16 chooses none other
            "connect_list": [],  # what is connected takes part with w > 0 alone: test_codeformer.py
            "img_size": 16,
            "nf": 32,
            "ch_mult": [1, 2, 2],
            "res_blocks": 1,
            "attn_resolutions": [4],
            "emb_dim": 16,
        },
        ((2, 3, 16, 16),),
    ),
    "FAN": Small({"num_landmarks": 5, "num_features": 16}, ((2, 3, 64, 128),)),
    "FacialComponentDiscriminator": Small({}, ((1, 3, 16, 20),)),
    "GFPGANBilinear": GFPGAN,
    "GFPGANv1": GFPGAN,
    "GFPGANv1Clean": GFPGAN,
    "MSRResNet": Small({"num_feat": 8, "num_block": 2, "upscale": 3}),
    "RRDBNet": Small(
        {"num_in_ch": 3, "num_out_ch": 3, "scale": 2, "num_feat": 8, "num_block": 1, "num_grow_ch": 4},
        ((2, 3, 14, 17),),
    ),
    "ResNetArcFace": Small({"block": "IRBlock", "layers": [1, 1, 1, 1], "use_se": True}, ((2, 1, 128, 128),)),
    "RestoreFormer": Small(
        {"n_embed": 2, "embed_dim": 4, "ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "resolution": 32, "z_channels": 8},
        ((2, 3, 8, 4),),
    ),
    "SRGANDiscriminator": Small({"num_feat": 8, "num_hidden": 16}, ((2, 3, 40, 56),)),
    "SRResNet": Small({"num_feat": 8, "num_block": 2}),
    "SRVGGNetCompact": Small({"num_feat": 8, "num_conv": 3, "upscale": 2}),
    "StarGANv2Discriminator": Small(
        {"img_size": 16, "base_dim": 8, "num_domains": 3, "max_conv_dim": 12},
        ((2, 3, 16, 16), Labels((2, 0))),
    ),
    "StarGANv2Generator": Small(
        {"img_size": 32, "base_dim": 8, "style_dim": 5, "max_conv_dim": 12, "w_hpf": 1},
        ((2, 3, 64, 32), (2, 5), [(2, 1, 40, 40), (2, 1, 64, 32)]),
    ),
    "StarGANv2MappingNetwork": Small(
        {"latent_dim": 6, "style_dim": 5, "num_domains": 3, "hidden_dim": 8},
        ((2, 6), Labels((2, 0))),
    ),
    "StarGANv2StyleEncoder": Small(
        {"img_size": 16, "base_dim": 8, "style_dim": 5, "num_domains": 3, "max_conv_dim": 12},
        ((2, 3, 16, 16), Labels((2, 0))),
    ),
    "StyleGAN2Discriminator": Small({"out_size": 16, "narrow": 1 / 32}, ((6, 3, 16, 16),)),
    "StyleGAN2Generator": Small(STYLEGAN2, ((2, 16),)),
    "StyleGAN2GeneratorBilinear": Small(STYLEGAN2, ((2, 16),)),
    "StyleGAN2GeneratorCSFT": SFT,
    "StyleGAN2GeneratorClean": Small(STYLEGAN2, ((2, 16),)),
    "StyleGAN2GeneratorSFT": SFT,
    "UNetDiscriminatorSN": Small({"num_in_ch": 3, "num_feat": 8}, ((2, 3, 20, 27),)),
    "VGGStyleDiscriminator": Small({"num_in_ch": 3, "num_feat": 4}, ((2, 3, 128, 128),)),
    "VQAutoEncoder": Small(
        {"img_size": 32, "nf": 32, "ch_mult": [1, 2], "res_blocks": 1, "codebook_size": 2, "emb_dim": 4},
        ((2, 3, 8, 4),),
    ),
    "VQGANDiscriminator": Small({"ndf": 8, "n_layers": 2}),
}


def build(name: str) -> Network:
    """The small network, filled from its keys, in evaluation mode."""
    return copy.deepcopy(filled(name))


@functools.cache
def filled(name: str) -> Network:
    return parity.fill_(build_network({"type": name, **SMALL[name].keywords}), seed=1).eval()


def inputs(name: str) -> list[Tensor | list[Tensor]]:
    return [drawn(shape, f"input{i}") for i, shape in enumerate(SMALL[name].shapes)]


def drawn(shape: Shape | list[Shape], name: str) -> Tensor | list[Tensor]:
    if isinstance(shape, list):
        return [drawn(part, f"{name}.{i}") for i, part in enumerate(shape)]
    return torch.tensor(shape) if isinstance(shape, Labels) else parity.draw(shape, 2, name, 0, 1)


def channels_last(value: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    """A picture, or a list of them, in this memory format; a code as it is."""
    if isinstance(value, list):
        return [channels_last(part) for part in value]
    return value.to(memory_format=torch.channels_last) if value.dim() == 4 else value


def tensors(output: Any) -> list[Tensor]:
    """All floating-point tensors that a network returned."""
    values = [v for value in vars(output).values() for v in (value if isinstance(value, list) else [value])]
    return [v for v in values if isinstance(v, Tensor) and v.is_floating_point()]
