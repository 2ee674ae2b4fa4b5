"""Whether translations are what they should be: of the target domain, laid out as their sources, unlike each other.

FID and LPIPS, which papers report (Choi et al., StarGAN v2, CVPR 2020), need the weights of large networks and many pictures.
These need neither: a small classifier learns the domains from the real pictures that the data set gives, and edges are
compared.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from facerestore.metrics.base import TranslationMetric
from facerestore.metrics.psnr_ssim import luma, prepare
from facerestore.registry import METRICS

BATCH, SHIFT = 32, 4  # pictures of a batch; pixels by which learnt ones are moved
FLAT = 1e-6  # of edges that are but rounding
Batches = Annotated[int, Meta(ge=1, le=1_000_000)]


@METRICS.register()
def calculate_difference(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference in levels of 8 bits; between translations of one source, what latent codes change.

    Args:
        image: (N, 3, H, W), RGB in [0, 1]
        target: the same

    Returns:
        (N,), float64

    Raises:
        DataError: the shapes differ
    """
    one, other = prepare(image, target, 0, False)
    return 255 * (one - other).abs().mean((1, 2, 3))


@METRICS.register("calculate_domain_agreement")
class DomainAgreement(TranslationMetric):
    """How many translations a classifier of the real pictures' domains takes for pictures of the target.  Higher is better.

    The share of held-out real pictures that it knows stands beside it: agreement says no more than that.
    """

    learns = "a classifier learns the domains"

    def __init__(self, batches: Batches = 400, learning_rate: Annotated[float, Meta(gt=0, le=1)] = 1e-3):
        """
        Args:
            batches: of 32 real pictures, from which the classifier learns; the same number from each domain
            learning_rate: of Adam, which falls to 0 in a cosine
        """
        super().__init__()
        self.batches, self.learning_rate = batches, learning_rate
        self.classifier: nn.Module | None = None
        self.learnt: list[int] = []  # of which pictures

    def learn(self, real: Sequence[Tensor], held_out: Sequence[Tensor]) -> float:
        known = [zlib.crc32(pictures.cpu().contiguous().numpy()) for pictures in real]
        if known != self.learnt:  # at the first of a training's validations, not at all
            self.classifier, self.learnt = self._classifier(real), known
        right = [self(x, x, domain) for domain, x in enumerate(held_out) if len(x)]
        return float(torch.stack([values.mean() for values in right]).mean()) if right else math.nan

    @torch.no_grad()
    def forward(self, image: Tensor, source: Tensor, target: int) -> Tensor:
        with torch.autocast(image.device.type, enabled=False):
            found = torch.cat([self.classifier(2 * part - 1).argmax(1) for part in self.seen(image).split(256)])
        return (found == target).cpu().double()

    def _classifier(self, real: Sequence[Tensor]) -> nn.Module:
        """Trained on as many pictures of each domain, mirrored and moved by chance."""
        device = real[0].device
        chance = torch.Generator().manual_seed(0)
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            torch.manual_seed(0)
            classifier = small_classifier(len(real), self.side).to(device)
            optimizer = torch.optim.Adam(classifier.parameters(), self.learning_rate)
            share = math.ceil(BATCH / len(real))
            domains = torch.arange(len(real), device=device).repeat_interleave(share)
            for batch in range(self.batches):
                optimizer.param_groups[0]["lr"] = self.learning_rate * (1 + math.cos(math.pi * batch / self.batches)) / 2
                drawn = [x[torch.randint(len(x), (share,), generator=chance).to(device)] for x in real]
                loss = F.cross_entropy(classifier(2 * varied(torch.cat(drawn), chance) - 1), domains)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return classifier.eval().requires_grad_(False)

    def protocol(self) -> dict[str, Any]:
        return {
            "network": "four convolutions of stride 2 with batch norm, trained on the real pictures",
            "colours": f"RGB, shrunk to {self.side} x {self.side}",
        }


@METRICS.register("calculate_layout")
class Layout(TranslationMetric):
    """How much of a source's layout its translation has: the correlation of their edges.  Higher is better.

    1 is a picture with the same edges.  What pictures of two domains that have nothing to do with each other share stands
    beside it.
    """

    def __init__(self) -> None:
        super().__init__()

    def learn(self, real: Sequence[Tensor], held_out: Sequence[Tensor]) -> float:
        one, other = held_out[:2]
        count = min(len(one), len(other))
        return float(self(one[:count], other[:count], 0).mean())

    def forward(self, image: Tensor, source: Tensor, target: int) -> Tensor:
        one, other = (centred(edges(self.seen(x))) for x in (image, source))
        lengths = one.norm(dim=1) * other.norm(dim=1)
        found = (one * other).sum(1) / lengths
        return found.where(lengths > FLAT, math.nan).cpu().double()

    def protocol(self) -> dict[str, Any]:
        return {
            "colours": f"luma, shrunk to {self.side} x {self.side}",
            "edges": "lengths of Sobel's gradients, mean of 3 x 3",
        }


def small_classifier(domains: int, side: int) -> nn.Module:
    """Pictures (N, 3, side, side) about 0 to logits (N, domains)."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 128), (128, 128)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(outputs * (side // 16) ** 2, domains))


def varied(pictures: Tensor, chance: torch.Generator) -> Tensor:
    """Half of the pictures mirrored, all of them moved by up to SHIFT pixels; what lies at their border goes on there."""
    mirrored = torch.rand(len(pictures), generator=chance).lt(0.5).to(pictures.device)
    pictures = torch.where(mirrored[:, None, None, None], pictures.flip(3), pictures)
    top, left = torch.randint(2 * SHIFT + 1, (2,), generator=chance).tolist()
    height, width = pictures.shape[2:]
    return F.pad(pictures, (SHIFT,) * 4, mode="replicate")[:, :, top : top + height, left : left + width]


def edges(pictures: Tensor) -> Tensor:
    """Where RGB pictures (N, 3, H, W) change: lengths of the luma's gradient, blurred, (N, H W)."""
    grey = F.pad(luma(pictures), (1, 1, 1, 1), mode="replicate")
    sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=grey.device)
    gradient = F.conv2d(grey, torch.stack([sobel, sobel.T])[:, None])
    return F.avg_pool2d(gradient.square().sum(1, keepdim=True).sqrt(), 3, 1, 1).flatten(1)


def centred(values: Tensor) -> Tensor:
    return values - values.mean(1, keepdim=True)
