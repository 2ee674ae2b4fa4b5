"""Translations of a data set of several domains: every picture into every other domain, measured and shown.

Choi et al., StarGAN v2, CVPR 2020, appendix on evaluation metrics: ten samples for each source, by latent codes and by
references that are drawn from the target domain; the distance of all samples to real pictures of the target (FID), and the
mean distance of all pairs of samples of one source to each other (LPIPS), of which higher is more diverse.  Beside these, what
compares a translation with its source and its domain.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations, islice, permutations

import numpy as np
import torch
from torch import Tensor

from facerestore.config.schema import DatasetOptions
from facerestore.data.base import SampleKey
from facerestore.data.domains import DomainDataset
from facerestore.data.image_io import tensor_to_image, write_image
from facerestore.data.loader import evaluation_loader
from facerestore.engine import distributed
from facerestore.engine.batches import to_unit_range, upload
from facerestore.engine.evaluation import DatasetScores, Protocol
from facerestore.engine.logs import progress_bar
from facerestore.engine.measuring import TRUTH, Scores, SetFigures, sent, split_off_nan
from facerestore.engine.report import Picture
from facerestore.engine.training import TrainingModel
from facerestore.inference.translator import Translator, write_video
from facerestore.metrics.base import AnyMetric, PictureMetric, SetMetric, TranslationMetric, needs_truth

WAYS = ("latent", "reference")
HELD_OUT = "real pictures"  # beside the translations: what the same figures say of pictures that were not learnt from
LEARNT = 2000  # real pictures of each domain at most, from which metrics learn
HELD_EVERY = 4  # where there are no others, one of so many real pictures is held out


@dataclass
class Seen:
    """What one process has measured and kept."""

    scores: dict[str, Scores] = field(default_factory=dict)
    shown: list[Picture] = field(default_factory=list)
    seconds: float = 0.0
    count: int = 0


class Evaluation:
    """Translates the pictures of a data set.

    Args:
        model: with a method of StarGAN v2's kind
        options: of the data set's entry
        dataset: the sources, and the references
        protocol: metrics, and what is kept
    """

    def __init__(self, model: TrainingModel, options: DatasetOptions, dataset: DomainDataset, protocol: Protocol):
        self.model, self.options, self.dataset, self.protocol = model, options, dataset, protocol
        method = model.method
        networks = (method.inference_network(name, ema=True) for name in ("net_g", "net_mapping", "net_style_encoder"))
        self.translator = Translator(*networks, model.networks.get("net_fan"))
        self.samples, self.side, self.frames = method.samples_per_source, method.grid_size, method.video_frames
        self.seen = Seen()

    def run(self) -> DatasetScores:
        """All ordered pairs of domains; every process takes its share, all return the whole."""
        domains, world = self.dataset.domains, self.model.world
        pairs = list(permutations(range(len(domains)), 2))
        total = sum(len(self.dataset.names_of(source)) for source, _ in pairs)
        name = self.options.name or self.options.type
        bar = progress_bar(total, what=name, unit="img", shown=self.protocol.bar and world.is_main)
        of_set = self._learn()
        for target in range(len(domains)):
            sets = SetFigures(self.protocol.metrics)
            self._see_reals(sets, target)
            with self.model.autocast():
                styles = torch.cat([self.translator.styles_of_references(x, target) for _, x in self._pictures(target)])
            for source in (s for s, t in pairs if t == target):
                for names, x in self._pictures(source, shared=True):
                    self._translate(names, x, source, target, styles, sets)
                    bar.update(min(len(names) * world.size, bar.total - bar.n))
                if self.protocol.save_to and world.is_main:
                    with self.model.autocast():
                        self._draw(source, target)
            of_set |= sets.merged(world).figures()
        bar.close()
        return self._whole(name, of_set)

    def _label(self, source: int, target: int, way: str) -> str:
        return f"{self.dataset.domains[source]} to {self.dataset.domains[target]}, {way}"

    def _pictures(
        self, domain: int, shared: bool = False, dataset: DomainDataset | None = None
    ) -> Iterator[tuple[list[str], Tensor]]:
        """Names and pictures (N, 3, H, W) of a domain in batches, on the device: all, or where `shared` this process's."""
        world = self.model.world
        pictures = (dataset or self.dataset).pictures_of(domain)
        rank, size = (world.rank, world.size) if shared else (0, 1)
        batch, workers = self.options.batch_size_per_gpu, self.options.num_worker_per_gpu
        for found in evaluation_loader(pictures, batch, workers, self.dataset.seed, rank, size, name=self.options.name):
            yield [pictures.name(i) for i in found.index.tolist()], self._uploaded(found.picture)

    def _uploaded(self, pictures: Tensor) -> Tensor:
        return upload({"x": pictures}, self.model.world.device, self.dataset.mean, self.dataset.std).x

    def _learn(self) -> Scores:
        """Show the metrics of translations real pictures; what they say of others, which they have not seen."""
        learning = {name: m for name, m in self.protocol.metrics.items() if isinstance(m, TranslationMetric)}
        if not learning:
            return {}
        metric = next(iter(learning.values()))
        domains, reals = range(len(self.dataset.domains)), self.dataset.reals()
        real = [self._small(domain, reals, metric) for domain in domains]
        if reals is self.dataset:
            places = [torch.arange(len(x), device=x.device) % HELD_EVERY == 1 for x in real]
            held_out = [x[place] for x, place in zip(real, places, strict=True)]
            real = [x[~place] for x, place in zip(real, places, strict=True)]
        else:
            held_out = [self._small(domain, self.dataset, metric) for domain in domains]
        return {HELD_OUT: {name: m.learn(real, held_out) for name, m in learning.items()}}

    def _small(self, domain: int, dataset: DomainDataset, metric: TranslationMetric) -> Tensor:
        """The first pictures of a domain as a metric looks at them: (N, 3, side, side) in [0, 1], on the device."""
        batches = islice(self._pictures(domain, dataset=dataset), math.ceil(LEARNT / self.options.batch_size_per_gpu))
        unit = (to_unit_range(x.float(), self.dataset.mean, self.dataset.std) for _, x in batches)
        return torch.cat([metric.seen(pictures) for pictures in unit])

    def _see_reals(self, sets: SetFigures, target: int) -> None:
        if any(needs_truth(metric) for metric in sets.metrics.values()):
            for _, x in self._pictures(target, shared=True, dataset=self.dataset.reals()):
                sets.take(TRUTH, self._unit(x))

    def _unit(self, x: Tensor) -> Tensor:
        return to_unit_range(x.float(), self.dataset.mean, self.dataset.std).cpu()

    def _translate(self, names: list[str], x: Tensor, source: int, target: int, styles: Tensor, sets: SetFigures) -> None:
        """A batch of sources by both ways: measured, and kept for the report."""
        begin = time.perf_counter()
        rngs = [self._rng(name, target) for name in names]
        z = np.stack([rng.standard_normal((self.samples, self.dataset.latent_dim)) for rng in rngs])
        chosen = np.stack([rng.choice(len(styles), self.samples, replace=len(styles) < self.samples) for rng in rngs])
        latents = torch.from_numpy(z).to(x.device, torch.float32).flatten(0, 1)
        with self.model.autocast():
            of = {
                "latent": self.translator.styles_of_latents(latents, target).unflatten(0, (len(names), self.samples)),
                "reference": styles[torch.from_numpy(chosen).to(x.device)],
            }
            pictures = {way: self.translator.translate(x, of[way]).flatten(0, 1) for way in WAYS}
        made = {way: self._unit(translated) for way, translated in pictures.items()}
        self.seen.seconds += time.perf_counter() - begin
        self.seen.count += sum(map(len, made.values()))
        own = self._unit(x)
        for way, pictures in made.items():
            sets.take(self._label(source, target, way), pictures)
        for n, name in enumerate(names):
            entry = f"{name} to {self.dataset.domains[target]}"
            samples = {way: pictures.unflatten(0, (len(names), self.samples))[n] for way, pictures in made.items()}
            self.seen.scores[entry] = {
                self._label(source, target, way): sample_figures(self.protocol.metrics, samples[way], own[n], target)
                for way in WAYS
            }
            if len(self.seen.shown) < self.protocol.shown:
                reference = self._one(target, chosen[n, 0])
                shown = {
                    "source": own[n],
                    "latent": samples["latent"][0],
                    **({"another latent": samples["latent"][1]} if self.samples > 1 else {}),
                    "reference": self._unit(reference)[0],
                    "by reference": samples["reference"][0],
                }
                images = {label: tensor_to_image(picture) for label, picture in shown.items()}
                self.seen.shown.append(Picture(entry, images, self.seen.scores[entry]))

    def _rng(self, name: str, target: int) -> np.random.Generator:
        """Whence the samples of a source come: the same for any number of processes, and batches of any size."""
        said = f"{name} to {self.dataset.domains[target]}".encode(errors="surrogateescape")
        return np.random.default_rng((self.dataset.seed, zlib.crc32(said)))

    def _one(self, domain: int, place: int) -> Tensor:
        return self._uploaded(self.dataset.pictures_of(domain).load(SampleKey(int(place)))["picture"][None])

    def _first(self, domain: int) -> Tensor:
        """The first pictures of a domain."""
        return torch.cat([self._one(domain, i) for i in range(min(self.side, len(self.dataset.names_of(domain))))])

    def _draw(self, source: int, target: int) -> None:
        """Grids and videos of the first pictures of two domains."""
        between = f"{self.dataset.domains[source]}_to_{self.dataset.domains[target]}{self.protocol.suffix}"
        sources, references = self._first(source), self._first(target)
        rng = self._rng("grid", target)
        z = torch.from_numpy(rng.standard_normal((self.side, self.dataset.latent_dim))).to(sources)
        folder = self.protocol.save_to
        by_reference = self.translator.styles_of_references(references, target)
        by_latent = self.translator.styles_of_latents(z, target)
        write_image(folder / f"reference_{between}.png", self.translator.reference_grid(sources, references, by_reference))
        write_image(folder / f"latent_{between}.png", self.translator.style_grid(sources, by_latent))
        for way, styles in (("reference", by_reference), ("latent", by_latent)) if self.frames else ():
            around = torch.cat((styles, styles[:1]))  # and back to the first
            write_video(folder / f"{way}_{between}.mp4", self.translator.interpolation(sources, around, self.frames))

    def _whole(self, name: str, of_set: Scores) -> DatasetScores:
        """What all processes have seen, with the means over all pairs of domains."""
        parts = distributed.gather(self.seen, self.model.world)
        shown = sorted((p for part in parts for p in part.shown), key=lambda p: p.name)[: self.protocol.shown]
        count = sum(part.count for part in parts)
        result = DatasetScores(
            name=name,
            scores=dict(sorted(item for part in parts for item in part.scores.items())),
            seconds=sum(part.seconds for part in parts) / max(count, 1),
            own=["translations"],
            shown=shown,
        )
        for label, figures in of_set.items():
            result.of_set[label], blank = split_off_nan(figures)
            for metric in blank:
                result.without.setdefault(metric, {})[label] = []
        result.of_set |= means_of_ways(result.means())
        return result


def evaluate_translations(
    model: TrainingModel, options: DatasetOptions, dataset: DomainDataset, protocol: Protocol
) -> DatasetScores:
    """Translate, measure and show all pictures of `dataset`; methods of the result are 'SOURCE to TARGET, WAY'."""
    with model.evaluating(), torch.autocast(model.world.device.type, enabled=False):  # metrics measure in float32
        return Evaluation(model, options, dataset, protocol).run()


def sample_figures(metrics: Mapping[str, AnyMetric], samples: Tensor, source: Tensor, target: int) -> dict[str, float]:
    """Figures of the samples (K, 3, H, W) of one source (3, H, W): of a metric that compares, the mean over all pairs of them;
    of others the mean of all."""
    figures = {}
    one, other = torch.tensor(list(combinations(range(len(samples)), 2)), dtype=torch.long).reshape(-1, 2).T
    for name, metric in metrics.items():
        alone = isinstance(metric, TranslationMetric) or not needs_truth(metric)
        if isinstance(metric, SetMetric) or not (alone or len(one)):
            continue
        pictures = sent(samples, metric)
        if isinstance(metric, TranslationMetric):
            values = metric(pictures, sent(source, metric).expand_as(pictures), target)
        elif not needs_truth(metric):
            values = metric(pictures)
        elif isinstance(metric, PictureMetric):
            values = metric(pictures[one], pictures[other])
        else:
            pairs = zip(pictures[one].split(1), pictures[other].split(1), strict=True)
            values = torch.tensor([float(metric(a, b)) for a, b in pairs])
        figures[name] = float(values.double().nanmean())
    return split_off_nan(figures)[0]


def means_of_ways(means: Scores) -> Scores:
    """The mean over all pairs of domains, by way and metric."""
    found: Scores = {}
    for way in WAYS:
        rows = [figures for label, figures in means.items() if label.endswith(f", {way}")]
        metrics = dict.fromkeys(metric for row in rows for metric in row)
        found[f"all, {way}"] = {m: float(np.mean([row[m] for row in rows if m in row])) for m in metrics}
    return {label: figures for label, figures in found.items() if figures}
