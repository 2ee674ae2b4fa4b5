"""From features to the codes of a learned codebook, and how much of the codebook is used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AT_ONCE = 2**26  # distances that are held at a time (256 MiB)


class Quantized(NamedTuple):
    """What a quantizer makes of features (N, C, h, w)."""

    feat: Tensor  # (N, C, h, w), made of codes; gradients pass to what it was made of
    code_loss: Tensor  # scalar
    codes: Tensor  # (N, h w), row by row


class VectorQuantizer(nn.Module):
    """The nearest code of every position.

    Esser et al., Taming Transformers for High-Resolution Image Synthesis (VQGAN), CVPR 2021, eq. 2; the loss is van den
    Oord et al., Neural Discrete Representation Learning, NeurIPS 2017, eq. 3:
    mean (sg[z] - e)^2 + beta mean (z - sg[e])^2, and gradients pass from e to z unchanged (straight through).

    forward: features (N, emb_dim, h, w) to :class:`Quantized`.  Distances and loss are float32 under autocast.

    Source of the figures: CodeFormer, basicsr/archs/vqgan_arch.py.
    """

    def __init__(self, codebook_size: int, emb_dim: int, beta: float = 0.25, legacy: bool = False):
        """
        Args:
            codebook_size: number of codes
            emb_dim: channels of a code
            beta: weight of the commitment term, which draws features to their codes
            legacy: beta weighs the codebook term instead, as published: (z - sg[e])^2 has weight 1
        """
        super().__init__()
        self.embedding = nn.Embedding(codebook_size, emb_dim)
        nn.init.uniform_(self.embedding.weight, -1 / codebook_size, 1 / codebook_size)
        self.codebook_weight, self.commitment_weight = (beta, 1.0) if legacy else (1.0, beta)

    def forward(self, z: Tensor) -> Quantized:
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            codes = self.codes_of(z)
            found = self.get_codebook_feat(codes, (len(z), *z.shape[2:], z.shape[1]))
            loss = self.codebook_weight * F.mse_loss(found, z.detach())
            loss = loss + self.commitment_weight * F.mse_loss(z, found.detach())
            return Quantized(z + (found - z).detach(), loss, codes)

    @torch.no_grad()
    def codes_of(self, z: Tensor) -> Tensor:
        """The nearest codes (N, h w) of features (N, emb_dim, h, w), some rows of distances at a time."""
        return nearest(z.permute(0, 2, 3, 1).flatten(0, 2), self.codebook).view(len(z), -1)

    def distances(self, vectors: Tensor) -> Tensor:
        """Squared distances (n, codebook_size) of vectors (n, emb_dim) to all codes."""
        return squared_distances(vectors, self.codebook)

    @property
    def codebook(self) -> nn.Parameter:
        return self.embedding.weight

    def get_codebook_feat(self, indices: Tensor, shape: Sequence[int]) -> Tensor:
        """The features (N, C, h, w) that codes stand for.

        Args:
            indices: N h w codes in any shape, row by row
            shape: (N, h, w, C)
        """
        return self.embedding(indices.flatten()).view(*shape).permute(0, 3, 1, 2).contiguous()


class GumbelQuantizer(nn.Module):
    """Codes drawn from predicted odds, softly, so that gradients reach the odds.

    Jang et al., Categorical Reparameterization with Gumbel-Softmax, ICLR 2017, eq. 2; `temperature` is 1 until a training
    sets it.  The loss is the divergence of the odds from the uniform distribution, KL(q || 1/K) = sum q log(K q), averaged
    over the positions.

    forward: features (N, emb_dim, h, w) to :class:`Quantized`.  In training codes are drawn by torch's generator, in
    evaluation they are the likeliest: a picture is then always decoded alike (published code draws there too).

    Source: CodeFormer, basicsr/archs/vqgan_arch.py.
    """

    def __init__(self, codebook_size: int, emb_dim: int, straight_through: bool = False, kl_weight: float = 1e-8):
        """
        Args:
            codebook_size: number of codes
            emb_dim: channels of a code, and of the features
            straight_through: whether training takes one code whole, with the gradient of the soft mixture
            kl_weight: weight of the loss
        """
        super().__init__()
        self.straight_through, self.kl_weight = straight_through, kl_weight
        self.proj = nn.Conv2d(emb_dim, codebook_size, 1)
        self.embed = nn.Embedding(codebook_size, emb_dim)
        self.register_buffer("temperature", torch.ones(()), persistent=False)  # a tensor: to change it compiles nothing anew

    def forward(self, z: Tensor) -> Quantized:
        logits = self.proj(z).float()
        if self.training:
            weights = F.gumbel_softmax(logits, self.temperature, hard=self.straight_through, dim=1)
            codes = weights.argmax(dim=1)
            feat = torch.einsum("nkhw,kc->nchw", weights, self.embed.weight)
        else:
            codes = logits.argmax(dim=1)
            feat = self.embed(codes).permute(0, 3, 1, 2).contiguous()
        log_odds = F.log_softmax(logits, dim=1)
        divergence = (log_odds.exp() * (log_odds + math.log(logits.shape[1]))).sum(dim=1).mean()
        return Quantized(feat, self.kl_weight * divergence, codes.flatten(1))

    @property
    def codebook(self) -> nn.Parameter:
        return self.embed.weight


def squared_distances(vectors: Tensor, centres: Tensor) -> Tensor:
    """(n, k), float32, of vectors (n, C) to centres (k, C): z^2 + e^2 - 2 z e.

    Not in bf16, under autocast either: what is left of the large terms decides which centre is the nearest.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        vectors, centres = vectors.float(), centres.float()
        products = torch.addmm(centres.square().sum(dim=1), vectors, centres.t(), alpha=-2)
        return products.add_(vectors.square().sum(dim=1, keepdim=True))


def nearest(vectors: Tensor, centres: Tensor) -> Tensor:
    """The nearest of the centres (k, C) to each vector (n, C), (n,); some rows of distances at a time."""
    parts = vectors.split(max(1, AT_ONCE // len(centres)))
    return torch.cat([squared_distances(part, centres).argmin(dim=1) for part in parts])


def kmeans(points: Tensor, centres: Tensor, rounds: int = 10) -> Tensor:
    """The centres (k, C) of clusters of points (n, C): Lloyd's algorithm from `centres`.  One without points stays."""
    for _ in range(rounds):
        cluster = nearest(points, centres)
        counts = code_counts(cluster, len(centres))[:, None]
        sums = torch.zeros_like(centres).index_add_(0, cluster, points)
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return centres


def code_counts(codes: Tensor, codebook_size: int) -> Tensor:
    """How often each code occurs, (codebook_size,), float32; counts of several batches add up."""
    flat = codes.flatten()
    counts = torch.zeros(codebook_size, device=codes.device)
    return counts.scatter_add_(0, flat, torch.ones_like(flat, dtype=counts.dtype))


def perplexity(counts: Tensor) -> Tensor:
    """exp of the entropy of the codes: how many codes are in use, from 1 to codebook_size (scalar)."""
    return torch.special.entr(counts / counts.sum()).sum().exp()


def dead_codes(counts: Tensor) -> Tensor:
    """How many codes do not occur at all (scalar)."""
    return (counts == 0).sum()
