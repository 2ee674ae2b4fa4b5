"""CodeFormer, stages II and III: the codes of a clean face read off a degraded one, and features carried past them.

Zhou et al., Towards Robust Blind Face Restoration with Codebook Lookup Transformer, NeurIPS 2022, section 3.2 (eq. 5 and 6)
and section 3.3.  The first stage is facerestore/models/vqgan.py.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from facerestore.archs.outputs import GeneratorOutput
from facerestore.data.base import FaceDataset
from facerestore.data.batch import Batch
from facerestore.data.degraded_faces import FFHQBlindDataset
from facerestore.data.latents import Latents
from facerestore.errors import CheckpointError, DataError, OptionError
from facerestore.losses.hints import Weight
from facerestore.metrics.base import TRUTH, Codes
from facerestore.models.adaptive_adversary import AdaptiveAdversary
from facerestore.models.base import DiscriminatorNetwork, Method, Terms, Turn
from facerestore.registry import ARCHS, MODELS, AdversarialTerm, FeatureTerm, Iteration, Part, Period, PixelTerm

log = logging.getLogger("facerestore")

PredictingNetwork = Annotated[nn.Module, Part(ARCHS, offers=("image", "logits", "codes", "feat"))]
CodingNetwork = Annotated[nn.Module, Part(ARCHS, offers=("image", "codes"), frozen=True)]
Fidelity = Annotated[float, Meta(ge=0, le=1)]
TrainingFidelity = Annotated[float, Meta(gt=0, le=10)]  # published training goes beyond 1


@MODELS.register()
class CodeFormerIdxModel(Method):
    """Stage II: the codes of the truth are predicted from the degraded picture, whose features are drawn to the codes'.

    Logged beside the terms: `code_accuracy`, the share of codes that are predicted right.

    Args:
        network_g: the network that predicts codes, its codebook and decoder the VQGAN's
        network_vqgan: the VQGAN of stage I, which tells the codes of the truth; not needed where files hold them
        use_hq_feat_loss: whether features are drawn to those of the true codes (`l_feat_encoder`, eq. 6)
        feat_loss_weight: what that term is multiplied by
        cross_entropy_loss: whether codes are predicted (`cross_entropy_loss`, eq. 5)
        entropy_loss_weight: what that term is multiplied by
        fidelity_weight: w of restored pictures: how much of the picture's own features they take, 0 quality, 1 fidelity
        compared_weights: further values of w that are restored beside it: the methods of the report are then called `w=0.5`
        adain: whether restored pictures take colours and light from the features of the degraded ones
        compare_lookup: whether the VQGAN alone restores beside it, as method `lookup`: by the codes nearest to its features
    """

    optimizer_networks = {"optim_g": ("net_g",)}
    needed_to_train = ("network_vqgan",)
    spared_by = {"network_vqgan": "latent_gt_path"}
    ema_decay = 0.995
    tells_codes = True
    has_codes_alone = True  # iterations in which no picture is restored

    def __init__(
        self,
        network_g: PredictingNetwork,
        network_vqgan: CodingNetwork | None = None,
        use_hq_feat_loss: bool = True,
        feat_loss_weight: Weight = 1.0,
        cross_entropy_loss: bool = True,
        entropy_loss_weight: Weight = 0.5,
        fidelity_weight: Fidelity = 0.0,
        compared_weights: tuple[Fidelity, ...] = (),
        adain: bool = False,
        compare_lookup: bool = False,
    ):
        if compare_lookup and network_vqgan is None:
            raise OptionError("`compare_lookup` needs `network_vqgan`, which looks up", ("val", "compare_lookup"))
        self.g, self.vqgan, self.compare_lookup = network_g, network_vqgan, compare_lookup
        self.feat_weight = feat_loss_weight if use_hq_feat_loss else None
        self.entropy_weight = entropy_loss_weight if cross_entropy_loss else None
        self.fidelity_weight, self.adain = fidelity_weight, adain
        self.compared_weights = {f"w={w:g}": w for w in compared_weights if w != fidelity_weight}  # by their names

    def step(self, batch: Batch, it: int) -> None:
        self.codes_step(batch)

    def codes_step(self, batch: Batch) -> None:
        """An iteration in which codes are predicted, and no picture restored."""
        codes = self.true_codes(batch)
        with self.phase("g") as loss:
            self.code_terms(loss, self.g(batch.lq, code_only=True), codes)

    @torch.no_grad()
    def true_codes(self, batch: Batch) -> Tensor:
        """The codes (N, h w) of the truth: those of a file, or what the VQGAN finds."""
        return batch.latent_gt if "latent_gt" in batch else self.vqgan(batch.gt, code_only=True).codes

    def code_terms(self, loss: Terms, out: GeneratorOutput, codes: Tensor) -> None:
        """Add eq. 5 and 6."""
        if self.feat_weight is not None:
            truth = self.g.code_features(codes).detach()
            loss["l_feat_encoder"] = self.feat_weight * F.mse_loss(out.feat.float(), truth)
        if self.entropy_weight is not None:
            loss["cross_entropy_loss"] = self.entropy_weight * F.cross_entropy(out.logits.float().transpose(1, 2), codes)
        loss.log["code_accuracy"] = (out.codes == codes).float().mean()

    @classmethod
    def check(cls, networks: Mapping[str, nn.Module], keywords: Mapping[str, Any], held: Collection[str] | None) -> None:
        """The VQGAN's codes must be those that are predicted, and something must be minimised."""
        if cls.has_codes_alone and not (keywords.get("cross_entropy_loss", True) or keywords.get("use_hq_feat_loss", True)):
            raise OptionError(
                "nothing is minimised where codes are predicted alone: set this or `use_hq_feat_loss` to true",
                ("train", "cross_entropy_loss"),
            )
        if "network_vqgan" in networks:
            ours, theirs = (networks[key].codebook.shape[0] for key in ("network_g", "network_vqgan"))
            if ours != theirs:
                raise OptionError(
                    f"network_vqgan has a codebook of {theirs} codes, network_g one of {ours}: both are the same VQGAN's",
                    ("network_vqgan", "codebook_size"),
                )

    def check_data(self, data: FaceDataset) -> None:
        """Codes of a file must be as many, and as large, as this VQGAN's."""
        if isinstance(data, FFHQBlindDataset) and data.latents is not None:
            refuse_other_codes(data.latents.source, data.latents.stored(), self.g)

    def check_weights(self, sets: Collection[FaceDataset], random: Collection[str]) -> None:
        """True codes, the VQGAN's and those of files, must be of the codebook of network_g, unless that is trained itself."""
        ours = self.g.codebook
        if ours.requires_grad or "net_g" in random:
            return
        if self.vqgan is not None and "net_vqgan" not in random and not same_codebook(ours, self.vqgan.codebook):
            raise CheckpointError(
                "has another codebook than network_g: name the file of the VQGAN that network_g was made of", ("network_vqgan",)
            )
        for data in sets:
            if isinstance(data, FFHQBlindDataset) and data.latents is not None:
                refuse_other_codebook(data.latents, ours)

    def restore(self, batch: Batch, ema: bool = True) -> Tensor:
        return self.restore_with(batch, self.fidelity_weight, ema)

    def restorations(self, batch: Batch, ema: bool = True) -> dict[str, Tensor]:
        others = {name: self.restore_with(batch, w, ema) for name, w in self.compared_weights.items()}
        if self.compare_lookup:
            others["lookup"] = unmasked(self.vqgan(batch.lq).image, batch)
        return {self.restored_name: self.restore(batch, ema), **others}

    @property
    def restored_name(self) -> str:
        """What restored pictures are called: by their w where others stand beside them."""
        return f"w={self.fidelity_weight:g}" if self.compared_weights else "restored"

    def restorers(self) -> tuple[str, ...]:
        return self.restored_name, *self.compared_weights, *("lookup",) * self.compare_lookup

    def codes(self, batch: Batch, ema: bool = True) -> dict[str | None, Codes]:
        found: dict[str | None, Tensor] = {}
        if self.g.predictor != "none":
            found[self.restored_name] = self.inference_network("net_g", ema)(batch.lq, code_only=True).codes
        if self.compare_lookup:
            found["lookup"] = self.vqgan(batch.lq, code_only=True).codes
        if "latent_gt" in batch or (self.vqgan and "gt" in batch):
            found[TRUTH] = self.true_codes(batch)
        return {name: Codes(codes, len(self.g.codebook)) for name, codes in found.items()}

    def restore_with(self, batch: Batch, w: float, ema: bool) -> Tensor:
        """The restored pictures; where there is a mask, what it leaves free stays as it is."""
        return unmasked(self.inference_network("net_g", ema)(batch.lq, w=w, adain=self.adain).image, batch)


@MODELS.register()
class CodeFormerModel(CodeFormerIdxModel):
    """Stage III at one w: the restored picture, too, is drawn to the truth and judged by a discriminator.

    Args:
        network_g: the network of stage II, with features that are carried from its encoder into its decoder
        network_d: the discriminator
        pixel_opt: distance of pictures (`l_g_pix`)
        perceptual_opt: distance of features (`l_g_percep`)
        gan_opt: the adversarial loss (`l_g_gan`, `l_d_real`, `l_d_fake`)
        scale_adaptive_gan_weight: what the adversarial term is multiplied by, beside the adaptive weight (`d_weight` is both)
        use_adaptive_weight: whether the adversary is weighted so that it pulls as hard as the distances do (VQGAN, eq. 7)
        fidelity_weight: w, of training and of restored pictures
        net_g_start_iter: the generator is not updated up to this iteration
        net_d_iters: the generator is updated in every n-th iteration
        net_d_start_iter: there is no adversary up to this iteration
    """

    optimizer_networks = {"optim_g": ("net_g",), "optim_d": ("net_d",)}
    needed_to_train = ("network_vqgan", "network_d", "gan_opt")
    minimises_one_of = ("pixel_opt", "perceptual_opt")
    ema_decay = 0.997
    has_codes_alone = False

    def __init__(
        self,
        network_g: PredictingNetwork,
        network_vqgan: CodingNetwork | None = None,
        network_d: DiscriminatorNetwork | None = None,
        pixel_opt: PixelTerm | None = None,
        perceptual_opt: FeatureTerm | None = None,
        gan_opt: AdversarialTerm | None = None,
        scale_adaptive_gan_weight: Weight = 0.8,
        use_adaptive_weight: bool = True,
        use_hq_feat_loss: bool = True,
        feat_loss_weight: Weight = 1.0,
        cross_entropy_loss: bool = True,
        entropy_loss_weight: Weight = 0.5,
        fidelity_weight: Fidelity = 1.0,
        compared_weights: tuple[Fidelity, ...] = (),
        adain: bool = False,
        compare_lookup: bool = False,
        net_g_start_iter: Iteration = 0,
        net_d_iters: Period = 1,
        net_d_start_iter: Iteration = 0,
    ):
        super().__init__(
            network_g,
            network_vqgan,
            use_hq_feat_loss,
            feat_loss_weight,
            cross_entropy_loss,
            entropy_loss_weight,
            fidelity_weight,
            compared_weights,
            adain,
            compare_lookup,
        )
        self.adversary = AdaptiveAdversary(
            network_d, pixel_opt, perceptual_opt, gan_opt, scale_adaptive_gan_weight, use_adaptive_weight
        )
        self.generator_turn, self.adversary_turn = Turn.after(net_g_start_iter, net_d_iters), Turn.after(net_d_start_iter)

    def step(self, batch: Batch, it: int) -> None:
        self.step_with(batch, it, self.fidelity_weight)

    def step_with(self, batch: Batch, it: int, w: float) -> None:
        """An iteration in which pictures are restored with `w`."""
        judged = self.adversary_turn.includes(it)
        if self.generator_turn.includes(it):
            codes = self.true_codes(batch)
            with self.phase("g") as loss:
                out = self.g(batch.lq, w=w)
                self.code_terms(loss, out, codes)
                self.adversary.generator_terms(loss, out.image, batch.gt, self.g.last_layer(w), judged)
        else:
            with torch.no_grad():
                out = self.g(batch.lq, w=w)
        if judged:
            with self.phase("d") as loss:
                self.adversary.discriminator_terms(loss, out.image, batch.gt)

    def turning_points(self) -> dict[str, Turn]:
        return {
            "generator is updated": self.generator_turn,
            "adversary": self.adversary_turn,
        }

    @classmethod
    def check(cls, networks: Mapping[str, nn.Module], keywords: Mapping[str, Any], held: Collection[str] | None) -> None:
        """Something must learn from the restored picture: with w = 0 the decoder alone could, which is as a rule fixed."""
        super().check(networks, keywords, held)
        g = networks["network_g"]
        if keywords.get("gan_opt") is None or g.generator.blocks[-1].weight.requires_grad:
            return
        carried = bool(g.fuse_convs_dict) and (keywords.get("fidelity_weight") != 0 or issubclass(cls, CodeFormerJointModel))
        if carried:
            return
        hopeless = "with a fixed decoder nothing learns from the restored picture"
        instead = "or take CodeFormerIdxModel, which trains the codes alone"
        if g.predictor == "none":
            if keywords.get("use_adaptive_weight", True):
                raise OptionError("the last layer is fixed, so that nothing can be balanced there: set it to false",
                                  ("train", "use_adaptive_weight"))  # fmt: skip
        elif g.fuse_convs_dict:
            raise OptionError(f"is 0, and {hopeless}: give another w, {instead}", ("train", "fidelity_weight"))
        else:
            raise OptionError(f"is empty, and {hopeless}: name sizes such as '32', {instead}", ("network_g", "connect_list"))


@MODELS.register()
class CodeFormerJointModel(CodeFormerModel):
    """Stage III as published: pictures that are hardly degraded teach fidelity, and by turns strongly degraded ones the codes.

    1. Up to `w_late_start_iter`: the picture `lq`, restored with `w_early`.
    2. Up to `codes_start_iter`: `lq`, restored with `w_late`.
    3. Up to `mixed_start_iter`: the codes of `lq_large` alone, which is degraded more strongly.
    4. From then on: every `picture_every`-th iteration as 2, the others as 3.

    Args:
        w_early: w of training in part 1
        w_late: w of training in parts 2 and 4
        w_late_start_iter: the last iteration of part 1
        codes_start_iter: the last iteration of part 2
        mixed_start_iter: the last iteration of part 3
        picture_every: period of part 4
        fidelity_weight: w of restored pictures alone
    """

    reads = ("lq", "lq_large", "gt")
    has_codes_alone = True

    def __init__(
        self,
        network_g: PredictingNetwork,
        network_vqgan: CodingNetwork | None = None,
        network_d: DiscriminatorNetwork | None = None,
        pixel_opt: PixelTerm | None = None,
        perceptual_opt: FeatureTerm | None = None,
        gan_opt: AdversarialTerm | None = None,
        scale_adaptive_gan_weight: Weight = 0.8,
        use_adaptive_weight: bool = True,
        use_hq_feat_loss: bool = True,
        feat_loss_weight: Weight = 1.0,
        cross_entropy_loss: bool = True,
        entropy_loss_weight: Weight = 0.5,
        fidelity_weight: Fidelity = 1.0,
        compared_weights: tuple[Fidelity, ...] = (),
        adain: bool = False,
        compare_lookup: bool = False,
        net_g_start_iter: Iteration = 0,
        net_d_iters: Period = 1,
        net_d_start_iter: Iteration = 0,
        w_early: TrainingFidelity = 1.0,
        w_late: TrainingFidelity = 1.3,
        w_late_start_iter: Iteration = 40_000,
        codes_start_iter: Iteration = 80_000,
        mixed_start_iter: Iteration = 120_000,
        picture_every: Period = 15,
    ):
        super().__init__(
            network_g,
            network_vqgan,
            network_d,
            pixel_opt,
            perceptual_opt,
            gan_opt,
            scale_adaptive_gan_weight,
            use_adaptive_weight,
            use_hq_feat_loss,
            feat_loss_weight,
            cross_entropy_loss,
            entropy_loss_weight,
            fidelity_weight,
            compared_weights,
            adain,
            compare_lookup,
            net_g_start_iter,
            net_d_iters,
            net_d_start_iter,
        )
        self.w_early, self.w_late = w_early, w_late
        self.w_late_start_iter, self.codes_start_iter = w_late_start_iter, codes_start_iter
        self.mixed_start_iter, self.picture_every = mixed_start_iter, picture_every

    def step(self, batch: Batch, it: int) -> None:
        if self.restores(it):
            self.step_with(batch, it, self.w_early if it <= self.w_late_start_iter else self.w_late)
        elif self.generator_turn.includes(it):
            self.codes_step(Batch(batch, lq=batch.lq_large))

    def restores(self, it: int) -> bool:
        """Whether iteration `it` restores the picture; the others predict codes alone."""
        if it <= self.mixed_start_iter:
            return it <= self.codes_start_iter
        return it % self.picture_every == 0

    def turning_points(self) -> dict[str, Turn]:
        return super().turning_points() | {
            "another w": Turn.after(self.w_late_start_iter),
            "codes alone": Turn.after(self.codes_start_iter),
            "codes and pictures": Turn.after(self.mixed_start_iter),
            "pictures between codes": Turn.after(self.mixed_start_iter, self.picture_every),
        }


def unmasked(image: Tensor, batch: Batch) -> Tensor:
    """The restored pictures; where there is a mask, the given ones outside of it."""
    return torch.where(batch.mask > 0, image, batch.lq) if "mask" in batch else image


def same_codebook(one: Tensor, other: Tensor) -> bool:
    """Whether two codebooks (codebook_size, emb_dim) are one.

    Their bits may differ: published averages of a codebook that is never trained have rounded in each iteration (1e-6 of a
    value in all), and files in half precision once (5e-4).
    """
    return one.shape == other.shape and torch.allclose(one.float().cpu(), other.float().cpu(), rtol=1e-3, atol=1e-6)


def refuse_other_codebook(latents: Latents, codebook: Tensor) -> None:
    """DataError where the codes of a file are of another codebook; the log is told where the file does not say."""
    if latents.codebook is None:
        log.warning("%s, does not say of which VQGAN its codes are: see to it that they are of network_g's", latents.source)
    elif not same_codebook(latents.codebook, codebook):
        raise DataError(
            f"{latents.source}, has codes of another codebook than that of network_g: name the file of its VQGAN, or make it "
            "with scripts/generate_latent_gt.py"
        )


def refuse_other_codes(source: str, codes: Tensor, network: nn.Module) -> None:
    """DataError where codes (N, K) cannot be those of the VQGAN whose codebook `network` has.

    Args:
        source: where they come from, for the message
    """
    size, positions = len(network.codebook), network.positions
    if codes.shape[1] != positions:
        raise DataError(f"{source}, has {codes.shape[1]} codes a picture, but network_g predicts {positions}: make them anew")
    if (largest := int(codes.max())) >= size:
        raise DataError(
            f"{source}, has a code {largest}, but network_g has a codebook of {size}: they are another VQGAN's; make them anew "
            "with scripts/generate_latent_gt.py"
        )
