"""CodeFormer: blind face restoration as the prediction of codes."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from facerestore.archs.layers.adain import adaptive_instance_norm
from facerestore.archs.layers.autoencoder import Decoder, Encoder, keywords_of_encoder
from facerestore.archs.layers.autoencoder_blocks import ResBlock, group_norm
from facerestore.archs.layers.hints import Count, Depth
from facerestore.archs.layers.inference import laid_out
from facerestore.archs.layers.quantizers import VectorQuantizer, squared_distances
from facerestore.archs.layers.recognition import Keywords, State, confirmed, count
from facerestore.archs.outputs import Generator, GeneratorOutput, refuse_other_size
from facerestore.errors import OptionError, listed
from facerestore.registry import ARCHS, WeightFile

Module = Literal["encoder", "quantize", "generator", "feat_emb", "ft_layers", "idx_pred_layer", "fuse_convs_dict", "cnn"]
Predictor = Literal["transformer", "cnn", "nearest", "none"]


@ARCHS.register()
class CodeFormer(Generator):
    """A transformer reads the codes of a clean face off a degraded one; VQGAN's decoder paints them.

    Zhou et al., Towards Robust Blind Face Restoration with Codebook Lookup Transformer, NeurIPS 2022, figure 2: encoder,
    codebook and decoder are a VQAutoEncoder's (section 3.1); a transformer predicts the codes (section 3.2); controllable
    feature transformations carry features of the picture into the decoder, weighted by `w` (section 3.3).

    forward: RGB pictures (N, 3, img_size, img_size) in [-1, 1] to `image` of that shape and range (not clamped), `logits`
    (N, positions, codebook_size), `codes` (N, positions), the likeliest, row by row, and `feat` (N, emb_dim, h, w), the
    encoder's features.  DataError where a picture has another size: the position embedding is bound to it.

    Source of the figures: CodeFormer, basicsr/archs/codeformer_arch.py.
    """

    offers = frozenset({"image", "logits", "codes", "feat"})
    input_range = output_range = (-1.0, 1.0)
    fuses_input = True
    traceless = frozenset({"n_head"})
    weight_files = {"vqgan_path": WeightFile(partial=True, doc="file of the VQAutoEncoder's weights, or 'random'")}

    def __init__(
        self,
        dim_embd: Count = 512,
        n_head: Count = 8,
        n_layers: Depth = 9,
        codebook_size: Count = 1024,
        latent_size: Count | None = None,
        connect_list: Sequence[str] = ("32", "64", "128", "256"),
        fix_modules: Sequence[Module] = ("quantize", "generator"),
        img_size: Count = 512,
        nf: Count = 64,
        ch_mult: Annotated[Sequence[Count], Meta(min_length=1)] = (1, 2, 2, 4, 4, 8),
        res_blocks: Depth = 2,
        attn_resolutions: Sequence[Count] = (16,),
        emb_dim: Count = 256,
        predictor: Predictor = "transformer",
    ):
        """
        Args:
            dim_embd: channels in the transformer or in the CNN, there a multiple of 32
            n_head: heads of the transformer's attention, a divisor of dim_embd
            n_layers: layers of the transformer, or residual blocks of the CNN
            codebook_size: number of codes
            latent_size: number of code positions, which img_size and ch_mult decide; given, it must agree with them
            connect_list: sides of the features that are carried from the encoder into the decoder, in quotes
            fix_modules: parts that are not trained
            img_size: side of the pictures in pixels
            nf: channels of the first features
            ch_mult: channels of each level / nf, from the whole size down; each further level halves the side
            res_blocks: residual blocks of each level
            attn_resolutions: sides of the features among whose positions attention is paid
            emb_dim: channels of a code
            predictor: what names the codes (the paper's ablation): the transformer; residual blocks with convolutions; the
                nearest ones of the features, as in a VQGAN; or none: the features themselves enter the decoder

        Raises:
            OptionError: a size, a width or a number of heads does not fit the others
        """
        super().__init__()
        if dim_embd % n_head:
            raise OptionError(f"`n_head` must divide `dim_embd`, and {n_head} does not divide {dim_embd}", ("n_head",))
        shape = (img_size, nf, ch_mult, res_blocks, attn_resolutions, emb_dim)
        self.in_size = img_size
        self.encoder = Encoder(*shape)
        self.quantize = VectorQuantizer(codebook_size, emb_dim)
        self.generator = Decoder(*shape)

        self.positions = positions = (img_size >> (len(ch_mult) - 1)) ** 2
        if latent_size not in (None, positions):
            raise OptionError(
                f"`latent_size` is {latent_size}, but pictures of {img_size} pixels a side make {positions} codes at "
                f"{len(ch_mult)} levels: leave it out",
                ("latent_size",),
            )
        self.predictor = predictor
        if predictor == "transformer":
            self.position_emb = nn.Parameter(torch.zeros(positions, dim_embd))
            self.feat_emb = nn.Linear(emb_dim, dim_embd)
            self.ft_layers = nn.ModuleList(TransformerLayer(dim_embd, n_head) for _ in range(n_layers))
            self.idx_pred_layer = nn.Sequential(nn.LayerNorm(dim_embd), nn.Linear(dim_embd, codebook_size, bias=False))
        elif predictor == "cnn":
            self.cnn = convolutions(emb_dim, dim_embd, n_layers, codebook_size)

        widths = {str(size): nf * multiple for size, multiple in zip(self.encoder.meeting, ch_mult, strict=True)}
        for i, size in enumerate(connect_list):
            if size not in widths:
                raise OptionError(
                    f"there are no features of {size} pixels a side to connect, only of {listed(list(widths))}",
                    ("connect_list", i),
                )
        self.fuse_convs_dict = nn.ModuleDict({size: Fusion(widths[size]) for size in connect_list})
        self.taken = {self.encoder.meeting[int(size)]: size for size in connect_list}  # block of the encoder -> size
        self.given = {self.generator.meeting[int(size)]: size for size in connect_list}  # block of the decoder -> size
        for i, name in enumerate(fix_modules):
            if name not in dict(self.named_children()):
                raise OptionError(f"with `predictor: {predictor}` there is no module {name!r} to fix", ("fix_modules", i))
            self.get_submodule(name).requires_grad_(False)

    def forward(
        self, x: Tensor, w: float = 0, detach_16: bool = True, code_only: bool = False, adain: bool = False
    ) -> GeneratorOutput:
        """
        Args:
            x: pictures
            w: how much of the picture's own features enters the decoder: 0 quality, 1 fidelity; 0 or less: nothing
            detach_16: whether the picture's terms leave the codebook alone
            code_only: whether only codes are asked for: `image` is None, and nothing is decoded
            adain: whether the codes' features get mean and deviation of the picture's: its colours and light
        """
        refuse_other_size(self, x, self.in_size, "img_size")
        fused = w > 0 and not code_only
        features = {}  # by side
        feat = laid_out(self, x)
        for i, block in enumerate(self.encoder.blocks):
            feat = block(feat)
            if fused and i in self.taken:
                features[self.taken[i]] = feat.detach()  # the picture's terms do not reach the encoder this way

        logits = self.predict(feat)
        codes = logits.argmax(dim=2)
        if code_only:
            return GeneratorOutput(image=None, logits=logits, codes=codes, feat=feat)

        image = feat if self.predictor == "none" else self.code_features(codes)
        if detach_16 and self.predictor != "none":
            image = image.detach()
        if adain:
            image = adaptive_instance_norm(image, feat)
        image = laid_out(self, image)
        for i, block in enumerate(self.generator.blocks):
            image = block(image)
            if fused and i in self.given:
                size = self.given[i]
                image = self.fuse_convs_dict[size](features[size], image, w)
        return GeneratorOutput(image=image, logits=logits, codes=codes, feat=feat)

    def predict(self, feat: Tensor) -> Tensor:
        """Logits (N, h w, codebook_size) from the encoder's features (N, emb_dim, h, w).

        Without a predictor they are the negative squared distances to the codes, so that the nearest is the likeliest.
        """
        if self.predictor == "cnn":
            return self.cnn(feat).flatten(2).transpose(1, 2)
        if self.predictor != "transformer":
            rows = feat.permute(0, 2, 3, 1).flatten(0, 2)
            return -squared_distances(rows, self.codebook).view(len(feat), -1, len(self.codebook))
        tokens = self.feat_emb(feat.flatten(2).transpose(1, 2))
        for layer in self.ft_layers:
            tokens = layer(tokens, self.position_emb)
        return self.idx_pred_layer(tokens)

    def code_features(self, codes: Tensor) -> Tensor:
        """The features (N, emb_dim, h, w) that codes (N, h w) stand for."""
        side = isqrt(codes.shape[1])
        return self.quantize.get_codebook_feat(codes, (len(codes), side, side, self.codebook.shape[1]))

    @property
    def codebook(self) -> nn.Parameter:
        """The codes' features (codebook_size, emb_dim)."""
        return self.quantize.codebook

    def last_layer(self, w: float | None = None) -> nn.Parameter:
        """The weight by whose gradient the adversary is weighted.

        With features carried over (w > 0) it is the last convolution of the shift at the largest of them, else the
        decoder's last convolution.
        """
        if w is not None and w > 0 and self.fuse_convs_dict:
            return self.fuse_convs_dict[max(self.fuse_convs_dict, key=int)].shift[-1].weight
        return self.generator.blocks[-1].weight

    @classmethod
    @confirmed
    def keywords_of(cls, state: State) -> Keywords:
        """Of a network with 8 heads, as all published ones have: they leave no trace in a file."""
        positions, dim_embd = state["position_emb"].shape
        levels = 1 + sum(key.startswith("encoder.") and key.endswith(".conv.weight") for key in state)
        return keywords_of_encoder(state, img_size=isqrt(positions) << (levels - 1)) | {
            "dim_embd": dim_embd,
            "n_head": 8,
            "n_layers": count(state, "ft_layers"),
            "codebook_size": len(state["quantize.embedding.weight"]),
            "connect_list": [key.split(".")[1] for key in state if key.endswith("encode_enc.norm1.weight")],
        }


class TransformerLayer(nn.Module):
    """Self-attention and a two-layer perceptron, each after a norm and beside a shortcut (CodeFormer, section 3.2).

    forward: tokens (N, n, dim) and an embedding (n, dim) of their positions, which is added to queries and keys, to
    tokens (N, n, dim).
    """

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.linear1 = nn.Linear(dim, 2 * dim)
        self.linear2 = nn.Linear(2 * dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        value = self.norm1(tokens)
        query = value + positions
        tokens = tokens + self.self_attn(query, query, value, need_weights=False)[0]
        return tokens + self.linear2(F.gelu(self.linear1(self.norm2(tokens))))


class Fusion(nn.Module):
    """Controllable feature transformation: y + w (scale * y + shift), both predicted from x and y (CodeFormer, section 3.3).

    forward: the encoder's features x and the decoder's y, both (N, C, H, W), and the weight w, to (N, C, H, W).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.encode_enc = ResBlock(2 * channels, channels)
        self.scale = head(channels)
        self.shift = head(channels)

    def forward(self, x: Tensor, y: Tensor, w: float) -> Tensor:
        both = self.encode_enc(torch.cat((x, y), dim=1))
        return y + w * (y * self.scale(both) + self.shift(both))


def convolutions(emb_dim: int, width: int, blocks: int, codebook_size: int) -> nn.Sequential:
    """Features (N, emb_dim, h, w) to logits (N, codebook_size, h, w), each code judged by its neighbourhood."""
    if width % 32:
        raise OptionError(f"`dim_embd` is {width}: of a CNN it must be a multiple of 32", ("dim_embd",))
    return nn.Sequential(
        nn.Conv2d(emb_dim, width, 3, padding=1),
        *(ResBlock(width, width) for _ in range(blocks)),
        group_norm(width),
        nn.SiLU(),
        nn.Conv2d(width, codebook_size, 1),
    )


def head(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1),
    )
