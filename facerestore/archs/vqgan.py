"""VQAutoEncoder, the generator of VQGAN: faces as codes of a learned codebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta
from torch import Tensor, nn

from facerestore.archs.layers.autoencoder import Decoder, Encoder, keywords_of_encoder
from facerestore.archs.layers.hints import Count, Depth
from facerestore.archs.layers.inference import laid_out
from facerestore.archs.layers.quantizers import GumbelQuantizer, VectorQuantizer
from facerestore.archs.layers.recognition import Keywords, State, confirmed
from facerestore.archs.outputs import Generator, GeneratorOutput, refuse_indivisible
from facerestore.registry import ARCHS, WeightFile

Weight = Annotated[float, Meta(ge=0, le=1e9)]


@ARCHS.register()
class VQAutoEncoder(Generator):
    """A picture to a small grid of codes and back.

    Esser et al., Taming Transformers for High-Resolution Image Synthesis (VQGAN), CVPR 2021, section 3.1; CodeFormer's
    first stage (Zhou et al., Towards Robust Blind Face Restoration with Codebook Lookup Transformer, NeurIPS 2022, section
    3.1), where 512 x 512 pixels become 16 x 16 codes.

    forward: RGB pictures (N, 3, H, W) in [-1, 1], both sides multiples of f = 2^(levels - 1), to `image` of that shape and
    range (not clamped), `codes` (N, h w) with h = H / f and w = W / f, `code_loss`, and `feat` (N, emb_dim, h, w), the
    features before they became codes.  DataError where a side is no multiple of f.

    Source of the figures: CodeFormer, basicsr/archs/vqgan_arch.py.
    """

    offers = frozenset({"image", "codes", "code_loss", "feat"})
    input_range = output_range = (-1.0, 1.0)
    weight_files = {"model_path": WeightFile(doc="file of this network's weights, or 'random'")}

    def __init__(
        self,
        img_size: Count,
        nf: Count,
        ch_mult: Annotated[Sequence[Count], Meta(min_length=1)],
        quantizer: Literal["nearest", "gumbel"] = "nearest",
        res_blocks: Depth = 2,
        attn_resolutions: Sequence[Count] = (16,),
        codebook_size: Count = 1024,
        emb_dim: Count = 256,
        beta: Weight = 0.25,
        gumbel_straight_through: bool = False,
        gumbel_kl_weight: Weight = 1e-8,
        legacy: bool = False,
    ):
        """
        Args:
            img_size: side of the pictures in pixels, which says at which level `attn_resolutions` are; others go in too
            nf: channels of the first features
            ch_mult: channels of each level / nf, from the whole size down; each further level halves the side
            quantizer: how features become codes: the nearest one, or drawn from predicted odds (gumbel)
            res_blocks: residual blocks of each level
            attn_resolutions: sides of the features among whose positions attention is paid
            codebook_size: number of codes
            emb_dim: channels of a code
            beta: weight of the commitment term of the nearest quantizer's loss
            gumbel_straight_through: whether the gumbel quantizer trains with one code whole instead of a mixture
            gumbel_kl_weight: weight of the gumbel quantizer's loss
            legacy: whether beta weighs the codebook term instead of the commitment term, as published

        Raises:
            OptionError: img_size cannot be halved as often as ch_mult asks, or the channels cannot be normalised in groups
        """
        super().__init__()
        self.shrinkage = 2 ** (len(ch_mult) - 1)
        shape = (img_size, nf, ch_mult, res_blocks, attn_resolutions, emb_dim)
        self.encoder = Encoder(*shape)
        if quantizer == "nearest":
            self.quantize = VectorQuantizer(codebook_size, emb_dim, beta, legacy)
        else:
            self.quantize = GumbelQuantizer(codebook_size, emb_dim, gumbel_straight_through, gumbel_kl_weight)
        self.generator = Decoder(*shape)

    def forward(self, x: Tensor, code_only: bool = False) -> GeneratorOutput:
        """With `code_only`, `image` is None and nothing is decoded."""
        refuse_indivisible(self, x, self.shrinkage)
        feat = self.encoder(laid_out(self, x))
        found = self.quantize(feat)
        image = None if code_only else self.generator(laid_out(self, found.feat))
        return GeneratorOutput(image=image, codes=found.codes, code_loss=found.code_loss, feat=feat)

    @property
    def codebook(self) -> nn.Parameter:
        """The codes' features (codebook_size, emb_dim)."""
        return self.quantize.codebook

    def last_layer(self, w: float | None = None) -> nn.Parameter:
        """The weight of the last convolution, by whose gradient VQGAN's adversary is weighted.  `w` changes nothing here."""
        return self.generator.blocks[-1].weight

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords:
        """Of a network with attention at 16 x 16, as all published ones have: the pictures' size leaves no trace."""
        nearest = "quantize.embedding.weight" in state
        codebook = state["quantize.embedding.weight" if nearest else "quantize.embed.weight"]
        return keywords_of_encoder(state) | {
            "quantizer": "nearest" if nearest else "gumbel",
            "codebook_size": len(codebook),
        }
