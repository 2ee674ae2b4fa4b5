"""VQGAN: faces as codes of a learned codebook; the first stage of CodeFormer.

Esser et al., Taming Transformers for High-Resolution Image Synthesis (VQGAN), CVPR 2021, eq. 4 to 7; Zhou et al., Towards
Robust Blind Face Restoration with Codebook Lookup Transformer (CodeFormer), NeurIPS 2022, eq. 2 to 4.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta
from torch import Tensor, nn

from facerestore.archs.layers.quantizers import GumbelQuantizer, VectorQuantizer, code_counts, kmeans, perplexity
from facerestore.data.batch import Batch
from facerestore.errors import OptionError
from facerestore.losses.hints import Weight
from facerestore.metrics.base import TRUTH, Codes
from facerestore.models.adaptive_adversary import AdaptiveAdversary
from facerestore.models.base import DiscriminatorNetwork, Method, Terms, Turn
from facerestore.registry import ARCHS, MODELS, AdversarialTerm, FeatureTerm, Iteration, Part, Period, PixelTerm, parameters_of

CodingNetwork = Annotated[nn.Module, Part(ARCHS, offers=("image", "codes", "code_loss", "feat"))]
Temperature = Annotated[float, Meta(gt=0, le=1)]

USAGE_DECAY = 0.99  # of the running shares of the codes
CODEBOOK_CARE, GUMBEL = ("codebook_kmeans_iter", "dead_codes_restart_every"), ("gumbel_cooling", "gumbel_coldest")  # keywords
DEAD = 0.01  # a code is dead whose running share is below this part of an equal share: unused for 460 iterations


@MODELS.register()
class VQGANModel(Method):
    """An autoencoder through a codebook minimises its distance to the picture and deceives a discriminator.

    Logged beside the terms: `codebook_perplexity`, how many codes the batches of all processes use; `codebook_dead`, how many
    have hardly been used for some hundred iterations; and `codebook_usage`, the share of the others.  A code that was put
    elsewhere (`dead_codes_restart_every`) counts as used until it has had as many iterations: of such a training only pictures
    that are held out tell the truth (`calculate_codebook_usage`).

    Args:
        network_g: the autoencoder, from pictures (N, 3, H, W) to codes and back
        network_d: the discriminator
        pixel_opt: distance of pictures (`l_g_pix`)
        perceptual_opt: distance of features (`l_g_percep`)
        gan_opt: the adversarial loss (`l_g_gan`, `l_d_real`, `l_d_fake`)
        codebook_opt: `loss_weight` of the codebook's loss (`l_codebook`), 1 by default
        disc_weight: what the adversarial term is multiplied by, beside the adaptive weight (`d_weight` is both)
        use_adaptive_weight: whether the adversary is weighted so that it pulls as hard as the distances do (eq. 7)
        net_g_start_iter: the generator is not updated up to this iteration
        net_d_iters: the generator is updated in every n-th iteration
        net_d_start_iter: there is no adversary up to this iteration
        codebook_kmeans_iter: before this iteration the codebook becomes the centres of its batch's features; 0: never
        dead_codes_restart_every: in every n-th iteration dead codes become features of its batch; by default never
        gumbel_cooling: iterations in which the temperature of gumbel codes would fall from 1 to 0, as published
        gumbel_coldest: where it stops: a mixture of codes that is nearly one, as in evaluation
    """

    optimizer_networks = {"optim_g": ("net_g",), "optim_d": ("net_d",)}
    needed_to_train = ("network_d", "gan_opt")
    minimises_one_of = ("pixel_opt", "perceptual_opt")
    reads = ("gt",)
    ema_decay = 0.995
    tells_codes = True

    def __init__(
        self,
        network_g: CodingNetwork,
        network_d: DiscriminatorNetwork | None = None,
        pixel_opt: PixelTerm | None = None,
        perceptual_opt: FeatureTerm | None = None,
        gan_opt: AdversarialTerm | None = None,
        codebook_opt: dict[Literal["loss_weight"], Weight] | None = None,
        disc_weight: Weight = 0.8,
        use_adaptive_weight: bool = True,
        net_g_start_iter: Iteration = 0,
        net_d_iters: Period = 1,
        net_d_start_iter: Iteration = 0,
        codebook_kmeans_iter: Iteration = 0,
        dead_codes_restart_every: Period | None = None,
        gumbel_cooling: Period = 160_000,
        gumbel_coldest: Temperature = 1 / 16,
    ):
        self.g = network_g
        self.adversary = AdaptiveAdversary(network_d, pixel_opt, perceptual_opt, gan_opt, disc_weight, use_adaptive_weight)
        self.codebook_weight = (codebook_opt or {}).get("loss_weight", 1.0)
        self.generator_turn, self.adversary_turn = Turn.after(net_g_start_iter, net_d_iters), Turn.after(net_d_start_iter)
        self.kmeans_iter, self.restart_every = codebook_kmeans_iter, dead_codes_restart_every
        self.cooling, self.coldest = gumbel_cooling, gumbel_coldest
        self.shares: Tensor | None = None  # running shares of the codes (codebook_size,), once there are any

    def step(self, batch: Batch, it: int) -> None:
        judged = self.adversary_turn.includes(it)
        if it == self.kmeans_iter:
            self.start_codebook(batch.gt, it)
        if isinstance(self.g.quantize, GumbelQuantizer):
            self.g.quantize.temperature.fill_(max(self.coldest, 1 - it / self.cooling))
        if self.generator_turn.includes(it):
            with self.phase("g") as loss:
                out = self.g(batch.gt)
                self.adversary.generator_terms(loss, out.image, batch.gt, self.g.last_layer(), judged)
                loss["l_codebook"] = self.codebook_weight * out.code_loss
                self.note_usage(loss, out.codes)
        else:
            with torch.no_grad():
                out = self.g(batch.gt)
        if judged:
            with self.phase("d") as loss:
                self.adversary.discriminator_terms(loss, out.image, batch.gt)
        if self.restart_every and it % self.restart_every == 0 and self.shares is not None:  # the generator may not have begun
            self.restart_dead_codes(out.feat, it)

    def turning_points(self) -> dict[str, Turn]:
        turns = {
            "generator is updated": self.generator_turn,
            "adversary": self.adversary_turn,
        }
        if self.kmeans_iter:
            turns["codebook of centres"] = Turn(self.kmeans_iter)
        if self.restart_every:
            turns["dead codes restart"] = Turn(self.restart_every, self.restart_every)
        return turns

    def note_usage(self, loss: Terms, codes: Tensor) -> None:
        """How much of the codebook this batch uses, and the last some hundred did."""
        counts = self.mean_over_processes(code_counts(codes, len(self.g.codebook)))
        now = counts / counts.sum()
        before = torch.full_like(now, 1 / len(now)) if self.shares is None else self.shares.to(now)
        self.shares = before + (1 - USAGE_DECAY) * (now - before)
        loss.log["codebook_perplexity"] = perplexity(counts)
        dead = self.dead_codes().float()
        loss.log["codebook_dead"], loss.log["codebook_usage"] = dead.sum(), 1 - dead.mean()

    def dead_codes(self) -> Tensor:
        """Which codes are hardly used, (codebook_size,)."""
        return self.shares < DEAD / len(self.shares)

    @torch.no_grad()
    def start_codebook(self, pictures: Tensor, it: int) -> None:
        """Make the codebook the centres of the features of a batch (all processes'), so that no code begins far off."""
        codebook = self.g.codebook
        points = self.features_of_all(self.g(pictures).feat)
        centres = kmeans(points, points[self.some(len(points), it)])
        codebook.copy_(self.mean_over_processes(centres))  # sums in another order must not set the processes apart

    @torch.no_grad()
    def restart_dead_codes(self, feat: Tensor, it: int) -> None:
        """Put dead codes where features are: each becomes one of the batch's (all processes'), drawn at random."""
        codebook, points = self.g.codebook, self.features_of_all(feat)
        fresh = points[self.some(len(points), it)]
        dead = self.dead_codes() & fresh.isfinite().all(dim=1)
        codebook.copy_(torch.where(dead[:, None], fresh, codebook))
        self.shares = self.shares.masked_fill(dead, 1 / len(dead))

    def features_of_all(self, feat: Tensor) -> Tensor:
        """Features (N, C, h, w) of every process as (positions, C), float32."""
        return self.gathered(feat.float().permute(0, 2, 3, 1).flatten(0, 2))

    def some(self, count: int, it: int) -> Tensor:
        """As many indices below `count` as there are codes, none twice before all have come; the same on all processes."""
        order = self.draw_shared("features", (count,), it).argsort()
        return order[torch.arange(len(self.g.codebook), device=order.device) % count]

    def state(self) -> dict[str, Any]:
        return {} if self.shares is None else {"codebook_shares": self.shares}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.shares = state.get("codebook_shares")

    @classmethod
    def check(cls, networks: Mapping[str, nn.Module], keywords: Mapping[str, Any], held: Collection[str] | None) -> None:
        """Only codes that are looked up by their distance can be put where features are; only drawn ones have a temperature."""
        looked_up = isinstance(networks["network_g"].quantize, VectorQuantizer)
        defaults = {p.name: p.default for p in parameters_of(cls)}
        for keyword in GUMBEL if looked_up else CODEBOOK_CARE:
            if keywords.get(keyword, defaults[keyword]) != defaults[keyword]:
                kind, why = ("gumbel", "drawn by chance") if looked_up else ("nearest", "found by distance")
                raise OptionError(f"`{keyword}` needs `quantizer: {kind}`: other codes are not {why}", (keyword,))

    def restore(self, batch: Batch, ema: bool = True) -> Tensor:
        return self.inference_network("net_g", ema)(batch.lq).image

    def codes(self, batch: Batch, ema: bool = True) -> dict[str | None, Codes]:
        g = self.inference_network("net_g", ema)
        pictures = {"restored": batch.lq} | ({TRUTH: batch.gt} if "gt" in batch else {})
        return {name: Codes(g(x, code_only=True).codes, len(g.codebook)) for name, x in pictures.items()}
