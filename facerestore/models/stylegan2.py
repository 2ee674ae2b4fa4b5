"""StyleGAN2: faces out of nothing but random codes.

Karras et al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020, section 3 and appendix B: the
non-saturating logistic loss, R1 and path length, both regularised lazily; mixing of styles as in Karras et al., A Style-Based
Generator Architecture for Generative Adversarial Networks, CVPR 2019, section 3.1.
Source of the figures: BasicSR, basicsr/models/stylegan2_model.py.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor, nn

from facerestore.archs.outputs import GeneratorOutput
from facerestore.archs.stylegan2 import StyleSynthesis
from facerestore.data.batch import Batch
from facerestore.losses.regularizers import path_length_penalty
from facerestore.models.adversary import discriminate, lazy_betas, lazy_ratio, refuse_other_sizes
from facerestore.models.base import DiscriminatorNetwork, Method, Turn
from facerestore.registry import ARCHS, MODELS, AdversarialTerm, Iteration, Part, Period

Synthesis = Annotated[StyleSynthesis, Part(ARCHS, takes=("code",), offers=("image", "latents"))]
Weight = Annotated[float, Meta(ge=0, le=1e9)]


@MODELS.register()
class StyleGAN2Model(Method):
    """The generator deceives a discriminator, which tells its pictures from real ones.

    Args:
        network_g: the generator, from codes (N, num_style_feat) to pictures (N, 3, H, W)
        network_d: the discriminator
        gan_opt: the adversarial loss (`l_g`, `l_d`)
        r1_reg_weight: weight of R1's penalty, which counts half of it (`l_d_r1`)
        path_reg_weight: weight of the path length's penalty (`l_g_path`)
        path_batch_shrink: its batch is this many times smaller
        net_g_reg_every: the generator is regularised in every n-th iteration, n times as strongly
        net_d_reg_every: the discriminator is regularised in every n-th iteration, n times as strongly
        mixing_prob: how often coarse layers take one code and fine ones another
        net_d_iters: the generator is updated in every n-th iteration
        net_d_init_iters: the generator is not updated up to this iteration
        lazy_lr_correction: whether learning rates are lowered for lazy regularisation, as in the paper; the published code
            lowers the betas alone
        randomize_noise: whether the generator draws new noise in training; its stored noise makes the pictures to look at
        num_val_samples: how many faces the sheet of samples shows, always of the same codes
    """

    optimizer_networks = {"optim_g": ("net_g",), "optim_d": ("net_d",)}
    ema_decay = 0.5 ** (32 / 10_000)  # a half-life of 10,000 pictures in batches of 32
    reads = ("gt",)
    needed_to_train = ("network_d", "gan_opt")
    differentiated_twice = ("net_g", "net_d")
    makes_samples = True

    def __init__(
        self,
        network_g: Synthesis,
        network_d: DiscriminatorNetwork | None = None,
        gan_opt: AdversarialTerm | None = None,
        r1_reg_weight: Weight = 10.0,
        path_reg_weight: Weight = 2.0,
        path_batch_shrink: Annotated[int, Meta(ge=1, le=4096)] = 2,
        net_g_reg_every: Period = 4,
        net_d_reg_every: Period = 16,
        mixing_prob: Annotated[float, Meta(ge=0, le=1)] = 0.9,
        net_d_iters: Period = 1,
        net_d_init_iters: Iteration = 0,
        lazy_lr_correction: bool = False,
        randomize_noise: bool = True,
        num_val_samples: Annotated[int, Meta(ge=1, le=4096)] = 16,
    ):
        self.g, self.d, self.gan = network_g, network_d, gan_opt
        self.r1_weight = r1_reg_weight / 2 * net_d_reg_every
        self.path_weight, self.path_batch_shrink = path_reg_weight * net_g_reg_every, path_batch_shrink
        self.reg_every = {"optim_g": net_g_reg_every, "optim_d": net_d_reg_every}
        self.mixing_prob = mixing_prob
        self.generator_turn, self.r1_turn = Turn.after(net_d_init_iters, net_d_iters), Turn(net_d_reg_every, net_d_reg_every)
        self.path_turn = Turn.after(net_d_init_iters, math.lcm(net_g_reg_every, net_d_iters))
        self.lazy_lr_correction, self.randomize_noise = lazy_lr_correction, randomize_noise
        self.num_val_samples = num_val_samples
        self.mean_path_length = torch.zeros((), device="cpu")

    @classmethod
    def check(cls, networks: Mapping[str, nn.Module], keywords: Mapping[str, Any], held: Collection[str] | None) -> None:
        refuse_other_sizes(networks)

    def step(self, batch: Batch, it: int) -> None:
        count = len(batch.gt)
        with self.phase("d") as loss:
            with torch.no_grad():
                fake = self.draw_faces("codes of d", count, it).image
            r1_weight = self.r1_weight if self.r1_turn.includes(it) else 0.0
            discriminate(loss, self.d, self.gan, batch.gt, fake, r1_weight)

        if not self.generator_turn.includes(it):
            return
        with self.phase("g") as loss:
            fake = self.draw_faces("codes of g", count, it).image
            loss["l_g"] = self.gan(self.d(fake).logits, True, is_disc=False)
            if self.path_weight and self.path_turn.includes(it):
                loss.backward()
                out = self.draw_faces("codes of the penalty", max(1, count // self.path_batch_shrink), it)
                noise = self.draw("noise of path lengths", out.image.shape, it)
                penalty, length, mean = path_length_penalty(out.image, out.latents, self.mean_path_length, noise)
                loss["l_g_path"] = self.path_weight * penalty
                loss.log["path_length"] = length
                self.mean_path_length = self.mean_over_processes(mean)

    def turning_points(self) -> dict[str, Turn]:
        turns = {"generator is updated": self.generator_turn}
        if self.r1_weight:
            turns["R1"] = self.r1_turn
        if self.path_weight:
            turns["path length"] = self.path_turn
        return turns

    def draw_faces(self, name: str, count: int, it: int) -> GeneratorOutput:
        """Faces (N, 3, H, W) of random codes, and the codes of their layers."""
        z = self.draw(name, (count, self.g.num_style_feat), it)
        if not self.mixing_prob:
            return self.g(z, randomize_noise=self.randomize_noise)
        other = self.draw(f"{name}, mixed in", z.shape, it)
        mixes, where = self.draw_shared(f"{name}, from which layer", (2,), it)
        layers = self.g.num_latent
        cut = torch.where(mixes < self.mixing_prob, 1 + (where * (layers - 1)).floor(), layers)  # stays on the device
        coarse = (torch.arange(layers, device=z.device) < cut)[:, None]
        latents = torch.where(coarse, self.g.get_latent(z)[:, None], self.g.get_latent(other)[:, None])
        return self.g(latents, input_is_latent=True, randomize_noise=self.randomize_noise)

    def restore(self, batch: Batch, ema: bool = True) -> Tensor:
        """A face for each picture of a data set, of the code of its number."""
        return self.faces(batch.index.tolist(), ema)

    def samples(self, ema: bool = True) -> Tensor:
        low, high = self.g.output_range
        return ((self.faces(range(self.num_val_samples), ema) - low) / (high - low)).clamp(0, 1)

    def faces(self, numbers: Iterable[int], ema: bool) -> Tensor:
        """The faces of codes that have numbers, always the same ones."""
        g = self.inference_network("net_g", ema)
        codes = [torch.randn(g.num_style_feat, generator=torch.Generator().manual_seed(number)) for number in numbers]
        like = g.constant_input.weight
        return torch.cat([g(code[None].to(like)).image for code in codes])

    def default_betas(self, optimizer: str) -> tuple[float, float]:
        return lazy_betas(self.reg_every[optimizer])

    def parameter_groups(self, optimizer: str, networks: Mapping[str, nn.Module]) -> list[tuple[list[nn.Parameter], float]]:
        """Plain layers at the rates that equalized ones give theirs (:meth:`StyleSynthesis.rate_of`)."""
        lazy = lazy_ratio(self.reg_every[optimizer]) if self.lazy_lr_correction else 1.0
        groups: dict[float, list[nn.Parameter]] = {}
        for network in networks.values():
            for name, parameter in network.named_parameters():
                if parameter.requires_grad:
                    own = network.rate_of(name) if isinstance(network, StyleSynthesis) else 1.0
                    groups.setdefault(lazy * own, []).append(parameter)
        return [(parameters, factor) for factor, parameters in groups.items()]

    def state(self) -> dict[str, Any]:
        return {"mean_path_length": self.mean_path_length}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.mean_path_length = state["mean_path_length"]
