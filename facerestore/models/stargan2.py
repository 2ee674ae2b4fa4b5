"""StarGAN v2: translation of pictures between domains, in styles drawn from chance or taken from a picture.

Choi et al., StarGAN v2: Diverse Image Synthesis for Multiple Domains, CVPR 2020, eq. 1 to 5, with Mescheder et al.'s R1.
Source of the figures: clovaai/stargan-v2, core/solver.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from facerestore.archs.stargan2 import Content
from facerestore.data.base import FaceDataset
from facerestore.data.batch import Batch
from facerestore.data.domains import DomainDataset
from facerestore.errors import DataError, OptionError, listed
from facerestore.losses.gan import GANLoss
from facerestore.losses.regularizers import r1_penalty
from facerestore.models.base import Method, Terms, Turn
from facerestore.registry import ARCHS, MODELS, NEVER, AdversarialTerm, Part

Translator = Annotated[nn.Module, Part(ARCHS, takes=("picture", "style"), offers=("image",))]
LatentStyles = Annotated[nn.Module, Part(ARCHS, takes=("latent", "domain"), offers=("embedding",))]
PictureStyles = Annotated[nn.Module, Part(ARCHS, takes=("picture", "domain"), offers=("embedding",))]
DomainCritic = Annotated[nn.Module, Part(ARCHS, takes=("picture", "domain"), offers=("logits",))]
Landmarks = Annotated[nn.Module, Part(ARCHS, offers=("heatmaps",), frozen=True)]
Samples = Annotated[int, Meta(ge=1, le=1000)]
Frames = Annotated[int, Meta(ge=0, le=10_000)]
Weight = Annotated[float, Meta(ge=0, le=1e6)]
Duration = Annotated[int, Meta(ge=1, le=NEVER, extra={"iterations": "after"})]


@MODELS.register()
class StarGANv2Model(Method):
    """G translates a picture x into a style s of a domain y: s = F(z, y) of a latent code, or s = E(x_ref, y) of a reference.

    An iteration has four updates: D by latent codes, D by references, {G, F, E} by latent codes, G by references.  The graph of
    the first translation, which D sees and G learns by, is kept from the first to the third; of accumulated batches, each
    slice's.

    Args:
        network_g: the generator G
        network_mapping: the mapping network F
        network_style_encoder: the style encoder E
        network_d: the discriminator D, with a logit for each domain
        network_fan: the face alignment network, whose masks say what to keep of a face; for a generator with `w_hpf` above 0
        gan_opt: the adversarial loss (`D/*_real`, `D/*_fake`, `G/*_adv`); the non-saturating one by default
        lambda_reg: weight of the gradient penalty R1 (`D/*_reg`, half of the squared norm)
        lambda_sty: weight of the style reconstruction, eq. 2 (`G/*_sty`)
        lambda_ds: weight of the diversity, eq. 3, at the start (`G/*_ds`)
        ds_iter: iterations over which the diversity's weight falls linearly to 0
        lambda_cyc: weight of the cycle consistency, eq. 4 (`G/*_cyc`)
        styles_by_reference: whether E learns by references too, as in the paper; in the published code G alone does
        samples_per_source: how many translations of each source an evaluation makes, by each way; 10 are published
        grid_size: how many sources and styles a grid shows
        video_frames: frames from one style to the next in the videos of an evaluation; 0 for no videos
    """

    optimizer_networks = {
        "optim_g": ("net_g",),
        "optim_d": ("net_d",),
        "optim_mapping": ("net_mapping",),
        "optim_style_encoder": ("net_style_encoder",),
    }
    averaged = ("net_g", "net_mapping", "net_style_encoder")
    ema_decay = 0.999
    reads = ("x_src", "y_src", "x_ref", "x_ref2", "y_ref", "z_trg", "z_trg2")
    needed_to_train = ("network_d",)
    differentiated_twice = ("net_d",)
    bundled = {
        "net_g": "generator",
        "net_mapping": "mapping_network",
        "net_style_encoder": "style_encoder",
        "net_fan": "fan",
    }

    def __init__(
        self,
        network_g: Translator,
        network_mapping: LatentStyles,
        network_style_encoder: PictureStyles,
        network_d: DomainCritic | None = None,
        network_fan: Landmarks | None = None,
        gan_opt: AdversarialTerm | None = None,
        lambda_reg: Weight = 1.0,
        lambda_sty: Weight = 1.0,
        lambda_ds: Weight = 1.0,
        ds_iter: Duration = 100_000,
        lambda_cyc: Weight = 1.0,
        styles_by_reference: bool = False,
        samples_per_source: Samples = 10,
        grid_size: Samples = 4,
        video_frames: Frames = 0,
    ):
        self.g, self.f, self.e, self.d = network_g, network_mapping, network_style_encoder, network_d
        self.fan, self.gan = network_fan, gan_opt or GANLoss()
        self.lambda_reg, self.lambda_sty, self.lambda_ds, self.lambda_cyc = lambda_reg, lambda_sty, lambda_ds, lambda_cyc
        self.ds_iter, self.styles_by_reference = ds_iter, styles_by_reference
        self.samples_per_source, self.grid_size, self.video_frames = samples_per_source, grid_size, video_frames
        refuse_unlike(network_g, network_mapping, network_style_encoder, network_d)
        refuse_masks_amiss(network_g, network_fan)

    def step(self, batch: Batch, it: int) -> None:
        x = batch.x_src
        with self.phase("g", "mapping"):  # nothing is minimised yet: the pictures by which G will learn are shown to D first
            masks = self.masks(x)
            content = self.g.encoded(x, masks)
            style = self.style("latent", batch)
            image = self.g.decoded(content, style)
        with self.phase("d") as loss:
            self.discriminate(loss, "latent", batch, image.detach())
        with self.phase("d") as loss:
            self.discriminate(loss, "ref", batch, self.g.decoded(content.detached(), self.style("ref", batch)))
        with self.phase("g", "mapping", "style_encoder") as loss:
            self.generate(loss, "latent", batch, it, content, style, image)
        del content, style, image
        with self.phase(*(("g", "style_encoder") if self.styles_by_reference else ("g",))) as loss:
            content, style = self.g.encoded(x, masks), self.style("ref", batch)
            self.generate(loss, "ref", batch, it, content, style, self.g.decoded(content, style))

    @property
    def num_domains(self) -> int:
        """How many domains there are."""
        return self.f.num_domains

    def turning_points(self) -> dict[str, Turn]:
        return {"diversity has ended": Turn.after(self.ds_iter)} if self.lambda_ds else {}

    def default_betas(self, optimizer: str) -> tuple[float, float]:
        return 0.0, 0.99

    def style(self, way: str, batch: Batch, second: bool = False) -> Tensor:
        """Styles (N, style_dim) of the target domains: by `latent` codes, or by references (`ref`)."""
        if way == "latent":
            return self.f(batch.z_trg2 if second else batch.z_trg, batch.y_ref).embedding
        return self.e(batch.x_ref2 if second else batch.x_ref, batch.y_ref).embedding

    def masks(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """What of the faces is passed on to the generator's decoder."""
        return self.fan.get_heatmap(x) if self.fan else None

    def diversity_weight(self, it: int) -> float:
        """The weight of eq. 3 in iteration `it`, from 1."""
        return self.lambda_ds * max(0.0, 1 - (it - 1) / self.ds_iter)

    def discriminate(self, loss: Terms, way: str, batch: Batch, image: Tensor) -> None:
        """D's part of eq. 1: real pictures of their domain, and translations, which are constants here."""
        x = batch.x_src.detach().requires_grad_(self.lambda_reg > 0)
        real = self.d(x, batch.y_src).logits
        loss[f"D/{way}_real"] = self.gan(real, True, is_disc=True)
        if self.lambda_reg:
            weigh(loss, f"D/{way}_reg", self.lambda_reg, r1_penalty(real, x) / 2)
        loss.backward()  # the graph of R1 is the largest of all, and done
        loss[f"D/{way}_fake"] = self.gan(self.d(image, batch.y_ref).logits, False, is_disc=True)

    def generate(self, loss: Terms, way: str, batch: Batch, it: int, content: Content, style: Tensor, image: Tensor) -> None:
        """Eq. 5: the terms of G, F and E for translations `image` of `content` into `style`."""
        loss[f"G/{way}_adv"] = self.gan(self.d(image, batch.y_ref).logits, True, is_disc=False)
        weigh(loss, f"G/{way}_sty", self.lambda_sty, distance(self.e(image, batch.y_ref).embedding, style))
        if weight := self.diversity_weight(it):
            with torch.no_grad():
                other = self.g.decoded(content.detached(), self.style(way, batch, second=True))
            weigh(loss, f"G/{way}_ds", -weight, distance(image, other))
        own = self.e(batch.x_src, batch.y_src).embedding
        back = self.g(image, own, self.masks(image)).image
        weigh(loss, f"G/{way}_cyc", self.lambda_cyc, distance(back, batch.x_src))

    def restore(self, batch: Batch, ema: bool = True) -> Tensor:
        """The sources in the styles of their references."""
        return self._translated(batch, ("ref",), ema)[0]

    def restorations(self, batch: Batch, ema: bool = True) -> dict[str, Tensor]:
        latent, reference = self._translated(batch, ("latent", "ref"), ema)
        return {"latent": latent, "reference": reference}

    def restorers(self) -> tuple[str, ...]:
        return "latent", "reference"

    def _translated(self, batch: Batch, ways: Sequence[str], ema: bool) -> list[Tensor]:
        """The sources in styles of the target domains, from each of the `ways`."""
        g, f, e = (self.inference_network(name, ema) for name in self.averaged)
        content = g.encoded(batch.x_src, self.masks(batch.x_src))
        styles = (f(batch.z_trg, batch.y_ref) if way == "latent" else e(batch.x_ref, batch.y_ref) for way in ways)
        return [g.decoded(content, style.embedding) for style in styles]

    def check_data(self, dataset: FaceDataset) -> None:
        kind = type(dataset).__name__
        if not isinstance(dataset, DomainDataset):
            raise DataError(f"StarGANv2Model translates between domains, of which {kind} knows none: use DomainFolderDataset")
        if len(dataset.domains) != self.num_domains:
            count = len(dataset.domains)
            networks = ("network_mapping", "network_style_encoder", *(("network_d",) if self.d else ()))
            raise DataError(
                f"{kind} has {count} domains ({listed(dataset.domains)}), but the networks are built for "
                f"{self.num_domains}: set their `num_domains` "
                f"(--set {' '.join(f'{network}.num_domains={count}' for network in networks)})"
            )
        if dataset.latent_dim != self.f.latent_dim:
            raise DataError(
                f"{kind} draws latent codes of {dataset.latent_dim} numbers, but network_mapping takes {self.f.latent_dim}: "
                "set `latent_dim` of either"
            )


def weigh(loss: Terms, name: str, weight: float, term: Tensor) -> None:
    """Minimise a term with its weight, and report it without."""
    loss[name] = weight * term
    loss.log[name] = term.detach()


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference, in float32."""
    return F.l1_loss(a.float(), b.float())


def refuse_unlike(g: nn.Module, f: nn.Module, e: nn.Module, d: nn.Module | None) -> None:
    """OptionError where the networks are built for different domains or styles."""
    for key, network in (("network_style_encoder", e), ("network_d", d)):
        if network is not None and network.num_domains != f.num_domains:
            raise OptionError(
                f"{key} is built for {network.num_domains} domains and network_mapping for {f.num_domains}: set one "
                "`num_domains` for all",
                (key, "num_domains"),
            )
    for key, network in (("network_style_encoder", e), ("network_g", g)):
        if network.style_dim != f.style_dim:
            raise OptionError(
                f"styles of {key} have {network.style_dim} numbers and those of network_mapping {f.style_dim}: set one "
                "`style_dim` for all",
                (key, "style_dim"),
            )


def refuse_masks_amiss(g: nn.Module, fan: nn.Module | None) -> None:
    """OptionError where the generator lacks its masks, or has no place for them."""
    if g.hpf is not None and fan is None:
        raise OptionError(
            "network_g has `w_hpf` above 0, so it needs network_fan ({type: FAN, fname_pretrained: wing.ckpt}), which finds "
            "what to keep of a face; `w_hpf: 0` does without",
            ("network_g", "w_hpf"),
        )
    if g.hpf is None and fan is not None:
        raise OptionError("network_fan has nothing to do, as network_g has `w_hpf: 0`: leave it out", ("network_fan",))
