"""Every registered network, small: what the tests that walk the registry build.  A new network needs one line here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from facerestore.archs import build_network
from facerestore.archs.outputs import Network
from tests import parity


@dataclass(frozen=True)
class Small:
    keywords: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...] = ((2, 3, 16, 24),)  # of forward's positional arguments


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
    "MSRResNet": Small({"num_feat": 8, "num_block": 2, "upscale": 3}),
    "RRDBNet": Small(
        {"num_in_ch": 3, "num_out_ch": 3, "scale": 2, "num_feat": 8, "num_block": 1, "num_grow_ch": 4},
        ((2, 3, 14, 17),),
    ),
    "RestoreFormer": Small(
        {"n_embed": 2, "embed_dim": 4, "ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "resolution": 32, "z_channels": 8},
        ((2, 3, 8, 4),),
    ),
    "SRGANDiscriminator": Small({"num_feat": 8, "num_hidden": 16}, ((2, 3, 40, 56),)),
    "SRResNet": Small({"num_feat": 8, "num_block": 2}),
    "SRVGGNetCompact": Small({"num_feat": 8, "num_conv": 3, "upscale": 2}),
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
    return parity.fill_(build_network({"type": name, **SMALL[name].keywords}), seed=1).eval()


def inputs(name: str) -> list[Tensor]:
    return [parity.draw(shape, 2, f"input{i}", 0, 1) for i, shape in enumerate(SMALL[name].shapes)]


def tensors(output: Any) -> list[Tensor]:
    """All floating-point tensors that a network returned."""
    values = [v for value in vars(output).values() for v in (value if isinstance(value, list) else [value])]
    return [v for v in values if isinstance(v, Tensor) and v.is_floating_point()]
