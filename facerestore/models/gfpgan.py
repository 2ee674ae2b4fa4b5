"""GFPGAN: blind restoration of faces by the prior of a generator of faces.

Wang et al., Towards Real-World Blind Face Restoration with Generative Facial Prior, CVPR 2021, section 3: pixel and
perceptual distances (equation 5), restoration at all sizes (section 3.2), the adversary (equation 6), an adversary for each
eye and the mouth with a style loss of its features (equation 7), and identity (equation 8).
Source of the figures: GFPGAN, gfpgan/models/gfpgan_model.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from facerestore.archs.outputs import GeneratorOutput
from facerestore.data.batch import Batch
from facerestore.errors import OptionError
from facerestore.losses.perceptual import gram_matrix
from facerestore.losses.pixel import L1Loss
from facerestore.metrics.identity import network_input
from facerestore.models.adversary import BETA_2, discriminate, lazy_betas, refuse_other_sizes
from facerestore.models.base import DiscriminatorNetwork, GeneratorNetwork, Method, Terms, Turn
from facerestore.models.regions import roi_align
from facerestore.registry import ARCHS, MODELS, NEVER, AdversarialTerm, FeatureTerm, Iteration, Part, Period, PixelTerm

IdentityNetwork = Annotated[nn.Module, Part(ARCHS, offers=("embedding",), frozen=True)]
Weight = Annotated[float, Meta(ge=0, le=1e9)]

PARTS = {"left_eye": 80, "right_eye": 80, "mouth": 120}  # sides of the crops of a face of FULL pixels
FULL = 512
IDENTITY_SIDE = 128  # of the gray pictures that the identity network takes


@MODELS.register()
class GFPGANModel(Method):
    """The generator restores a face that deceives discriminators of the whole and of its parts, and stays the person.

    Args:
        network_g: the generator, from degraded faces (N, 3, H, W) to restored ones
        network_d: the discriminator of whole faces
        network_d_left_eye: the discriminator of left eyes, as seen in the picture
        network_d_right_eye: the discriminator of right eyes
        network_d_mouth: the discriminator of mouths
        network_identity: the network that tells who is seen in a gray picture of 128 pixels, in the pictures' range
        pixel_opt: distance of pictures (`l_g_pix`)
        L1_opt: distance of pyramids, of parts' styles and of identities; L1Loss by default
        pyramid_loss_weight: weight of the pictures that the generator gives on its way, at each size (`l_p_8`, `l_p_16`, ...)
        remove_pyramid_loss: the last iteration in which they count
        perceptual_opt: distance of features and of their Gram matrices (`l_g_percep`, `l_g_style`)
        gan_opt: the adversarial loss (`l_g_gan`, `l_d`)
        r1_reg_weight: weight of R1's penalty, which counts half of it (`l_d_r1`)
        gan_component_opt: the parts' adversarial loss (`l_g_gan_left_eye`, `l_d_left_eye`, ...)
        comp_style_weight: weight of the distance of the parts' Gram matrices (`l_g_comp_style_loss`)
        identity_weight: weight of the distance of identities (`l_identity`)
        net_d_iters: the generator is updated in every n-th iteration
        net_d_init_iters: the generator is not updated up to this iteration
        net_d_reg_every: the discriminator is regularised in every n-th iteration, n times as strongly
        randomize_noise: whether the generator draws new noise in training; restoring takes its stored noise
    """

    optimizer_networks = {
        "optim_g": ("net_g",),
        "optim_d": ("net_d",),
        "optim_component": tuple(f"net_d_{part}" for part in PARTS),
    }
    term_networks = {
        "identity_weight": ("net_identity",),
        "gan_component_opt": optimizer_networks["optim_component"],
        "comp_style_weight": optimizer_networks["optim_component"],
    }
    ema_decay = 0.5 ** (32 / 10_000)  # a half-life of 10,000 pictures in batches of 32
    needed_to_train = ("network_d", "gan_opt")
    differentiated_twice = ("net_d",)

    def __init__(
        self,
        network_g: GeneratorNetwork,
        network_d: DiscriminatorNetwork | None = None,
        network_d_left_eye: DiscriminatorNetwork | None = None,
        network_d_right_eye: DiscriminatorNetwork | None = None,
        network_d_mouth: DiscriminatorNetwork | None = None,
        network_identity: IdentityNetwork | None = None,
        pixel_opt: PixelTerm | None = None,
        L1_opt: PixelTerm | None = None,  # noqa: N803  (upstream's name)
        pyramid_loss_weight: Weight = 0.0,
        remove_pyramid_loss: Iteration = NEVER,
        perceptual_opt: FeatureTerm | None = None,
        gan_opt: AdversarialTerm | None = None,
        r1_reg_weight: Weight = 10.0,
        gan_component_opt: AdversarialTerm | None = None,
        comp_style_weight: Weight = 0.0,
        identity_weight: Weight = 1.0,
        net_d_iters: Period = 1,
        net_d_init_iters: Iteration = 0,
        net_d_reg_every: Period = 16,
        randomize_noise: bool = True,
    ):
        self.g, self.d, self.identity = network_g, network_d, network_identity
        judges = dict(zip(PARTS, (network_d_left_eye, network_d_right_eye, network_d_mouth), strict=True))
        self.judges = {part: judge for part, judge in judges.items() if judge is not None}
        self.pixel, self.l1, self.perceptual = pixel_opt, L1_opt or L1Loss(), perceptual_opt
        self.gan, self.component_gan = gan_opt, gan_component_opt
        self.pyramid_weight, self.remove_pyramid_loss = pyramid_loss_weight, remove_pyramid_loss
        self.comp_style_weight, self.identity_weight = comp_style_weight, identity_weight
        self.generator_turn, self.r1_turn = Turn.after(net_d_init_iters, net_d_iters), Turn(net_d_reg_every, net_d_reg_every)
        self.net_d_reg_every = net_d_reg_every
        self.r1_weight = r1_reg_weight / 2 * net_d_reg_every
        self.randomize_noise = randomize_noise

    @classmethod
    def check(cls, networks: Mapping[str, nn.Module], keywords: Mapping[str, Any], held: Collection[str] | None) -> None:
        refuse_other_sizes(networks)
        judges = {part: networks[f"network_d_{part}"] for part in PARTS if f"network_d_{part}" in networks}
        if keywords.get("pyramid_loss_weight"):
            refuse_without("rgbs", networks, "network_g", "pyramid_loss_weight")
        if judges and "gan_component_opt" not in keywords:
            raise OptionError(
                f"network_d_{next(iter(judges))} needs `gan_component_opt`: the parts' adversarial loss", ("train",)
            )
        for part in judges:
            if keywords.get("comp_style_weight"):
                refuse_without("feats", networks, f"network_d_{part}", "comp_style_weight")
            if held is not None and f"loc_{part}" not in held:
                raise OptionError(
                    f"network_d_{part} looks at boxes, `loc_{part}`, which this data set does not give: set "
                    "`crop_components: true` and `component_path`, the file of the face parts",
                    ("datasets", "train"),
                )

    def step(self, batch: Batch, it: int) -> None:
        true_parts = dict(self.crops(batch.gt, batch))
        if self.generator_turn.includes(it):
            pyramid = self.pyramid_weight > 0 and it <= self.remove_pyramid_loss
            with self.phase("g") as loss:
                out = self.generate(batch.lq, pyramid)
                image, parts = out.image, dict(self.crops(out.image, batch))
                if self.pixel:
                    loss["l_g_pix"] = self.pixel(image, batch.gt)
                if pyramid:
                    loss |= self.pyramid_terms(out.rgbs, batch.gt)
                elif self.pyramid_weight:
                    loss.log |= dict.fromkeys(pyramid_names(image.shape[-1]), image.new_zeros(()))
                if self.perceptual:
                    found = zip(("l_g_percep", "l_g_style"), self.perceptual(image, batch.gt), strict=True)
                    loss |= {name: term for name, term in found if term is not None}
                loss["l_g_gan"] = self.gan(self.d(image).logits, True, is_disc=False)
                if self.judges:
                    self.deceive_judges(loss, parts, true_parts)
                if self.identity and self.identity_weight:
                    loss["l_identity"] = self.identity_weight * self.distance_of_identities(image, batch.gt)
        else:
            with torch.no_grad():
                image = self.generate(batch.lq, pyramid=False).image
                parts = dict(self.crops(image, batch))

        with self.phase("d", *(f"d_{part}" for part in self.judges)) as loss:
            r1_weight = self.r1_weight if self.r1_turn.includes(it) else 0.0
            discriminate(loss, self.d, self.gan, batch.gt, image.detach(), r1_weight)
            for part, judge in self.judges.items():
                real, fake = judge(true_parts[part]).logits, judge(parts[part].detach()).logits
                loss[f"l_d_{part}"] = self.component_gan(real, True, is_disc=True) + self.component_gan(
                    fake, False, is_disc=True
                )

    def turning_points(self) -> dict[str, Turn]:
        turns = {"generator is updated": self.generator_turn}
        if self.r1_weight:
            turns["R1"] = self.r1_turn
        if self.pyramid_weight and self.remove_pyramid_loss < NEVER:
            turns["pyramid is over"] = Turn.after(self.remove_pyramid_loss)
        return turns

    def generate(self, lq: Tensor, pyramid: bool) -> GeneratorOutput:
        """Restored faces, in training."""
        asked: dict[str, bool] = {}
        if "rgbs" in self.g.offers:
            asked["return_rgb"] = pyramid
        if self.g.draws_noise:
            asked["randomize_noise"] = self.randomize_noise
        return self.g(lq, **asked)

    def pyramid_terms(self, rgbs: list[Tensor], truth: Tensor) -> dict[str, Tensor]:
        """The generator's pictures of each size against the truth, which is halved from size to size."""
        truths = [truth]
        for _ in rgbs[1:]:
            truths.insert(0, F.avg_pool2d(truths[0], 2))
        names = pyramid_names(truth.shape[-1])
        return {name: self.pyramid_weight * self.l1(*pair) for name, *pair in zip(names, rgbs, truths, strict=True)}

    def distance_of_identities(self, image: Tensor, truth: Tensor) -> Tensor:
        """Equation 8, without its weight."""

        def embedded(face: Tensor) -> Tensor:
            return self.identity(network_input(face, "gray", IDENTITY_SIDE)).embedding

        with torch.no_grad():
            wanted = embedded(truth)
        return self.l1(embedded(image), wanted)

    def crops(self, image: Tensor, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """The parts of a face that have a discriminator."""
        for part in self.judges:
            yield part, roi_align(image, batch[f"loc_{part}"], crop_side(part, image.shape[-1]))

    def deceive_judges(self, loss: Terms, parts: Mapping[str, Tensor], true_parts: Mapping[str, Tensor]) -> None:
        """Equation 7: the parts' adversaries, and by their features the style loss."""
        styles = []
        for part, judge in self.judges.items():
            seen = judge(parts[part])
            loss[f"l_g_gan_{part}"] = self.component_gan(seen.logits, True, is_disc=False)
            if self.comp_style_weight:
                with torch.no_grad():
                    wanted = judge(true_parts[part]).feats
                fine, coarse = (self.l1(gram_matrix(a), gram_matrix(b)) for a, b in zip(seen.feats, wanted, strict=True))
                styles += [fine / 2, coarse]
        if styles:
            loss["l_g_comp_style_loss"] = self.comp_style_weight * torch.stack(styles).sum()

    def restore(self, batch: Batch, ema: bool = True) -> Tensor:
        return self.inference_network("net_g", ema)(batch.lq).image

    def default_betas(self, optimizer: str) -> tuple[float, float]:
        return {
            "optim_g": (0.0, BETA_2),
            "optim_d": lazy_betas(self.net_d_reg_every),
            "optim_component": (0.9, BETA_2),
        }[optimizer]


def refuse_without(field: str, networks: Mapping[str, nn.Module], key: str, weight: str) -> None:
    """OptionError where the network `key` does not offer the `field` of which a term is made."""
    if field not in networks[key].offers:
        raise OptionError(
            f"needs `{field}`, which {type(networks[key]).__name__}, the {key}, does not offer", ("train", weight)
        )


def pyramid_names(side: int) -> list[str]:
    """The terms of all sizes, from 8 pixels up to the whole picture; they are reported, as 0, when the pyramid is over."""
    return [f"l_p_{2**level}" for level in range(3, side.bit_length())]


def crop_side(part: str, face_side: int) -> int:
    """Side of a part's crop in pixels: the published one in proportion to the face, a multiple of 4 (the discriminators halve
    it twice) and 8 at least."""
    return max(8, 4 * round(PARTS[part] * face_side / FULL / 4))
