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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from facerestore.config.schema import DatasetOptions
from facerestore.data.base import SampleKey
from facerestore.data.domains import DomainDataset
from facerestore.data.image_io import tensor_to_image, write_image
from facerestore.data.loader import evaluation_loader
from facerestore.engine import distributed
from facerestore.engine.batches import to_unit_range, upload
from facerestore.engine.logs import logger, progress_bar
from facerestore.engine.measuring import TRUTH, Scores, SetFigures, sent, split_off_nan
from facerestore.engine.report import Picture
from facerestore.engine.scores import DatasetScores, Protocol
from facerestore.engine.training import TrainingModel
from facerestore.errors import listed
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
        self.name = options.name or options.type
        self.seen = Seen()

    def run(self) -> DatasetScores:
        """All ordered pairs of domains; every process takes its share, all return the whole."""
        domains, world = self.dataset.domains, self.model.world
        of_set = self._learn()
        for target in range(len(domains)):
            sets = SetFigures(self.protocol.metrics)
            self._see_reals(sets, target)
            sources = [source for source in range(len(domains)) if source != target]
            self._translate_all(sources, target, sets)
            if self.protocol.save_to and world.is_main:  # the others wait in `merged`, up to distributed.TIMEOUT
                self._draw_all(sources, target)
            of_set |= sets.merged(world).figures()
        return self._whole(of_set)

    def _begin(self, said: str, total: int) -> tqdm:
        """Say what begins, and show how far it is: of all processes' pictures, or steps."""
        logger.info("%s: %s", self.name, said)
        return progress_bar(total, what=self.name, unit="img", shown=self.protocol.bar and self.model.world.is_main)

    def _translate_all(self, sources: Sequence[int], target: int, sets: SetFigures) -> None:
        """This process's share of the pictures of all `sources`."""
        total = sum(len(self.dataset.names_of(source)) for source in sources)
        with self.model.autocast():
            styles = torch.cat([self.translator.styles_of_references(x, target) for _, x in self._pictures(target)])
        said = (
            f"translating {total} pictures to {self.dataset.domains[target]}, x {self.samples} by latent codes and references"
        )
        with self._begin(said, total) as bar:
            for source in sources:
                for names, x in self._pictures(source, shared=True):
                    self._translate(names, x, source, target, styles, sets)
                    advance(bar, len(names) * self.model.world.size)

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
        metric, reals = next(iter(learning.values())), self.dataset.reals()
        real = self._small(reals, metric)
        if reals is self.dataset:
            places = [torch.arange(len(x), device=x.device) % HELD_EVERY == 1 for x in real]
            held_out = [x[place] for x, place in zip(real, places, strict=True)]
            real = [x[~place] for x, place in zip(real, places, strict=True)]
        else:
            held_out = self._small(self.dataset, metric)
        figures = {}
        for name, metric in learning.items():
            if metric.learns:
                logger.info("%s: %s: %s from %d real pictures", self.name, name, metric.learns, sum(map(len, real)))
            figures[name] = metric.learn(real, held_out)
        return {HELD_OUT: figures}

    def _small(self, dataset: DomainDataset, metric: TranslationMetric) -> list[Tensor]:
        """The first pictures of each domain as a metric looks at them: (N, 3, side, side) in [0, 1], on the device."""
        batch, domains = self.options.batch_size_per_gpu, range(len(dataset.domains))
        total = sum(min(len(dataset.names_of(domain)), math.ceil(LEARNT / batch) * batch) for domain in domains)
        found: list[list[Tensor]] = [[] for _ in domains]
        with self._begin(f"reading {total} real pictures, to know the domains by", total) as bar:
            for domain in domains:
                for _, x in islice(self._pictures(domain, dataset=dataset), math.ceil(LEARNT / batch)):
                    found[domain].append(metric.seen(to_unit_range(x.float(), self.dataset.mean, self.dataset.std)))
                    advance(bar, len(x))
        return [torch.cat(parts) for parts in found]

    def _see_reals(self, sets: SetFigures, target: int) -> None:
        compared = [name for name, metric in sets.metrics.items() if needs_truth(metric)]
        if not compared:
            return
        reals = self.dataset.reals()
        total = len(reals.names_of(target))
        said = f"{listed(compared)}: looking at {total} real pictures of {self.dataset.domains[target]}"
        with self._begin(said, total) as bar:
            for _, x in self._pictures(target, shared=True, dataset=reals):
                sets.take(TRUTH, self._unit(x))
                advance(bar, len(x) * self.model.world.size)

    def _unit(self, x: Tensor) -> Tensor:
        return to_unit_range(x.float(), self.dataset.mean, self.dataset.std).cpu()

    def _translate(self, names: list[str], x: Tensor, source: int, target: int, styles: Tensor, sets: SetFigures) -> None:
        """A batch of sources by both ways: measured, and kept for the report."""
        begin = time.perf_counter()
        z, chosen = self._drawn(names, target, len(styles))
        made = self._translated(x, z, styles[torch.from_numpy(chosen).to(x.device)], target)
        self.seen.seconds += time.perf_counter() - begin
        self.seen.count += len(WAYS) * len(names) * self.samples
        for way, pictures in made.items():
            sets.take(self._label(source, target, way), pictures.flatten(0, 1))
        for n, (name, own) in enumerate(zip(names, self._unit(x), strict=True)):
            entry, samples = f"{name} to {self.dataset.domains[target]}", {way: pictures[n] for way, pictures in made.items()}
            self.seen.scores[entry] = {
                self._label(source, target, way): sample_figures(self.protocol.metrics, samples[way], own, target)
                for way in WAYS
            }
            if len(self.seen.shown) < self.protocol.shown:
                images = self._shown(own, samples, self._one(target, chosen[n, 0]))
                self.seen.shown.append(Picture(entry, images, self.seen.scores[entry]))

    def _drawn(self, names: Sequence[str], target: int, references: int) -> tuple[np.ndarray, np.ndarray]:
        """For each source, its latent codes (N, samples, latent_dim), and which of the references it takes (N, samples)."""
        rngs = [self._rng(name, target) for name in names]
        z = [rng.standard_normal((self.samples, self.dataset.latent_dim)) for rng in rngs]
        chosen = [rng.choice(references, self.samples, replace=references < self.samples) for rng in rngs]
        return np.stack(z), np.stack(chosen)

    def _translated(self, x: Tensor, z: np.ndarray, of_references: Tensor, target: int) -> dict[str, Tensor]:
        """By each way (N, samples, 3, H, W) in [0, 1], on the CPU: so the device has done its work when this returns."""
        latents = torch.from_numpy(z).to(x.device, torch.float32).flatten(0, 1)
        with self.model.autocast():
            of_latents = self.translator.styles_of_latents(latents, target).unflatten(0, z.shape[:2])
            styles = {"latent": of_latents, "reference": of_references}
            pictures = {way: self.translator.translate(x, styles[way]) for way in WAYS}
        return {way: self._unit(images.flatten(0, 1)).unflatten(0, z.shape[:2]) for way, images in pictures.items()}

    def _shown(self, own: Tensor, samples: Mapping[str, Tensor], reference: Tensor) -> dict[str, np.ndarray]:
        """What the report shows of one source."""
        shown = {
            "source": own,
            "latent": samples["latent"][0],
            **({"another latent": samples["latent"][1]} if self.samples > 1 else {}),
            "reference": self._unit(reference)[0],
            "by reference": samples["reference"][0],
        }
        return {label: tensor_to_image(picture) for label, picture in shown.items()}

    def _rng(self, name: str, target: int) -> np.random.Generator:
        """Whence the samples of a source come: the same for any number of processes, and batches of any size."""
        said = f"{name} to {self.dataset.domains[target]}".encode(errors="surrogateescape")
        return np.random.default_rng((self.dataset.seed, zlib.crc32(said)))

    def _one(self, domain: int, place: int) -> Tensor:
        return self._uploaded(self.dataset.pictures_of(domain).load(SampleKey(int(place)))["picture"][None])

    def _first(self, domain: int) -> Tensor:
        """The first pictures of a domain."""
        return torch.cat([self._one(domain, i) for i in range(min(self.side, len(self.dataset.names_of(domain))))])

    def _draw_all(self, sources: Sequence[int], target: int) -> None:
        """Grids and videos of the first pictures of each of the `sources`."""
        kinds = ("grids and videos" if self.frames else "grids") + f" to {self.dataset.domains[target]}"
        with self._begin(f"drawing {kinds}", len(sources)) as bar, self.model.autocast():
            for source in sources:
                self._draw(source, target)
                advance(bar, 1)

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

    def _whole(self, of_set: Scores) -> DatasetScores:
        """What all processes have seen, with the means over all pairs of domains."""
        parts = distributed.gather(self.seen, self.model.world)
        shown = sorted((p for part in parts for p in part.shown), key=lambda p: p.name)[: self.protocol.shown]
        count = sum(part.count for part in parts)
        result = DatasetScores(
            name=self.name,
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


def advance(bar: tqdm, count: int) -> None:
    """Move a bar on, at most to its end: the last batches of several processes may be smaller than this one's."""
    bar.update(min(count, bar.total - bar.n))


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
