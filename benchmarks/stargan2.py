"""One training iteration of StarGAN v2, beside the published procedure.

python benchmarks/stargan2.py

Exit code 1 where an iteration here is not at least 1.3 times as fast in float32, or 2.5 times with bf16 and channels-last on a
processor that multiplies bf16 (a device does).

Both sides have the same weights and batches.  The published side makes the passes that the published loop makes: four
updates, in each of which every network's gradients are computed and those of the others thrown away; each translation is
a whole pass of the generator, also the second one, whose graph is built and never used; style codes are computed whenever
they are needed.  The sides run in turns, so that all meet the same load, and what counts is the median of the ratios.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.archs.layers.stargan2_blocks import AdaINBlock, ResidualBlock, ToOnePixel
from facerestore.config import load_options
from facerestore.engine import build_model
from facerestore.engine.ema import averaged_copy, update_average
from facerestore.engine.training import TrainingModel

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
LEAST = {"float32": 1.3, "bf16, channels-last": 2.5}  # times as fast as published
STYLE, LATENT, DOMAINS = 64, 16, 2
AVERAGED = ("net_g", "net_mapping", "net_style_encoder")


def build(side: int, base_dim: int, precision: str, channels_last: bool) -> TrainingModel:
    """The method as an option file gives it."""
    picture = {"img_size": side, "base_dim": base_dim}
    adam = {"type": "Adam", "lr": 1e-4, "weight_decay": 1e-4, "fused": True}
    return build_model(
        load_options(
            {
                "name": "benchmark",
                "model_type": "StarGANv2Model",
                "num_gpu": "auto",
                "network_g": {"type": "StarGANv2Generator", **picture, "style_dim": STYLE, "w_hpf": 0},
                "network_mapping": {
                    "type": "StarGANv2MappingNetwork", "latent_dim": LATENT, "style_dim": STYLE, "num_domains": DOMAINS,
                },
                "network_style_encoder": {
                    "type": "StarGANv2StyleEncoder", **picture, "style_dim": STYLE, "num_domains": DOMAINS,
                },
                "network_d": {"type": "StarGANv2Discriminator", **picture, "num_domains": DOMAINS},
                "train": {
                    "total_iter": 1000,
                    "precision": precision,
                    "channels_last": channels_last,
                    "optim_g": adam,
                    "optim_d": adam,
                    "optim_style_encoder": adam,
                    "optim_mapping": {**adam, "lr": 1e-6},
                },
            }
        )
    )  # fmt: skip


def plain_residual(block: ResidualBlock, x: Tensor) -> Tensor:
    """A residual block as it is published: every convolution at the larger side, the shortcut's too."""
    residual = block.conv1(F.leaky_relu(block.norm1(x), 0.2))
    x = block.conv1x1(x)
    if block.halve:
        residual, x = F.avg_pool2d(residual, 2), F.avg_pool2d(x, 2)
    return (x + block.conv2(F.leaky_relu(block.norm2(residual), 0.2))) / math.sqrt(2)


def plain_adain(block: AdaINBlock, x: Tensor, s: Tensor) -> Tensor:
    """The same with a style; it enlarges before it convolves."""
    residual = F.leaky_relu(block.norm1(x, s), 0.2)
    if block.double:
        residual, x = (F.interpolate(t, scale_factor=2, mode="nearest") for t in (residual, x))
    residual = block.conv2(F.leaky_relu(block.norm2(block.conv1(residual), s), 0.2))
    return (block.conv1x1(x) + residual) / math.sqrt(2)


class Published:
    """The published iteration, on networks with the same weights, whose blocks compute as published."""

    def __init__(self, model: TrainingModel):
        self.networks = model.networks
        for module in (m for network in self.networks.values() for m in network.modules()):
            if isinstance(module, ResidualBlock):
                module.forward = functools.partial(plain_residual, module)
            elif isinstance(module, AdaINBlock):
                module.forward = functools.partial(plain_adain, module)
            elif isinstance(module, ToOnePixel):
                module.forward = functools.partial(nn.Conv2d.forward, module)
        self.g, self.f, self.e, self.d = (model.networks[n] for n in (*AVERAGED, "net_d"))
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), 1e-4, (0.0, 0.99), weight_decay=1e-4)
            for name, network in self.networks.items()
        }
        self.averages = {name: averaged_copy(self.networks[name]) for name in AVERAGED}

    def step(self, batch: dict[str, Tensor]) -> None:
        y = batch["y_ref"]
        by_latent = [lambda k=k: self.f(batch[k], y).embedding for k in ("z_trg", "z_trg2")]
        by_reference = [lambda k=k: self.e(batch[k], y).embedding for k in ("x_ref", "x_ref2")]
        self.update(self.discriminate(batch, by_latent[0]), "net_d")
        self.update(self.discriminate(batch, by_reference[0]), "net_d")
        self.update(self.generate(batch, *by_latent), *AVERAGED)
        self.update(self.generate(batch, *by_reference), "net_g")
        for name, average in self.averages.items():
            update_average(average, self.networks[name], 0.999)

    def update(self, terms: list[Tensor], *updated: str) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        torch.stack(terms).sum().backward()
        for name in updated:
            self.optimizers[name].step()
        for term in terms:
            term.item()

    def discriminate(self, batch: dict[str, Tensor], style: Callable[[], Tensor]) -> list[Tensor]:
        x = batch["x_src"].detach().requires_grad_()
        real = self.d(x, batch["y_src"]).logits
        gradient = torch.autograd.grad(real.sum(), x, create_graph=True)[0]
        with torch.no_grad():
            image = self.g(x, style()).image
        fake = self.d(image, batch["y_ref"]).logits
        penalty = gradient.square().flatten(1).sum(1).mean() / 2
        return [F.softplus(-real).mean(), F.softplus(fake).mean(), penalty]

    def generate(self, batch: dict[str, Tensor], style: Callable, second_style: Callable) -> list[Tensor]:
        x, y = batch["x_src"], batch["y_ref"]
        target = style()
        image = self.g(x, target).image
        adversarial = F.softplus(-self.d(image, y).logits).mean()
        reconstruction = F.l1_loss(self.e(image, y).embedding, target)
        other = self.g(x, second_style()).image.detach()
        back = self.g(image, self.e(x, batch["y_src"]).embedding).image
        return [adversarial, reconstruction, -F.l1_loss(image, other), F.l1_loss(back, x)]


def draw(side: int, batch: int, device: torch.device) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    pictures = {k: torch.rand((batch, 3, side, side), generator=generator) * 2 - 1 for k in ("x_src", "x_ref", "x_ref2")}
    latents = {k: torch.randn((batch, LATENT), generator=generator) for k in ("z_trg", "z_trg2")}
    labels = {k: torch.randint(DOMAINS, (batch,), generator=generator) for k in ("y_src", "y_ref")}
    return {k: v.to(device) for k, v in {**pictures, **latents, **labels}.items()}


def seconds(step: Callable[[], object], device: torch.device) -> float:
    begin = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def machine(device: torch.device) -> str:
    """What a reader must know to compare figures."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    known = processor_flags()
    return f"CPU with {', '.join(f for f in FLAGS if f in known) or 'none of ' + ', '.join(FLAGS)}"


def processor_flags() -> set[str]:
    """What this processor can do, in the kernel's words; nothing where it does not say."""
    info = Path("/proc/cpuinfo")
    return set(info.read_text().split()) if info.exists() else set()


def demanded(device: torch.device) -> dict[str, float]:
    """How many times as fast each kind must be at least on this machine."""
    has_bf16 = device.type == "cuda" or not BF16_FLAGS.isdisjoint(processor_flags())
    return {kind: least for kind, least in LEAST.items() if has_bf16 or "bf16" not in kind}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=64, help="of pictures, a power of 2 (default: 64; 256 is for a GPU)")
    parser.add_argument(
        "--base-dim",
        type=int,
        default=64,
        help="channels of the first features (default: 64, the published ones of 256 pixels)",
    )
    parser.add_argument("--batch", type=int, default=4, help="pictures (default: 4; 8 is published)")
    parser.add_argument("--rounds", type=int, default=5, help="of which the median ratio counts (default: 5)")
    given = parser.parse_args()
    torch.manual_seed(0)
    published = build(given.side, given.base_dim, "fp32", False)
    device = published.world.device
    batch, loop = draw(given.side, given.batch, device), Published(published)
    kinds = {"float32": ("fp32", False), "float32, channels-last": ("fp32", True), "bf16, channels-last": ("bf16", True)}
    here = {kind: build(given.side, given.base_dim, *how) for kind, how in kinds.items()}
    print(f"torch {torch.__version__}, {machine(device)}, {torch.get_num_threads()} threads")
    print(f"{given.side} x {given.side} pixels, batch {given.batch}; ms of an iteration, and how many times faster\n")
    sides: dict[str, Callable[[], object]] = {"published, float32": lambda: loop.step(batch)}
    sides |= {f"here, {kind}": lambda model=model: model.step(batch, 1) for kind, model in here.items()}
    demands, missed = demanded(device), []
    rounds = [{name: seconds(step, device) for name, step in sides.items()} for _ in range(given.rounds + 1)][1:]
    for name in sides:
        took = statistics.median(r[name] for r in rounds)
        ratio = statistics.median(r["published, float32"] / r[name] for r in rounds)
        least = demands.get(name.removeprefix("here, "), 0.0)
        missed += [name] if ratio < least else []
        print(f"{name:32} {1e3 * took:9.1f} {ratio:8.2f}" + (f"   at least {least}" if least else ""))
    print(f"\ntoo slow: {'; '.join(missed)}" if missed else "\nall as fast as they must be")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
