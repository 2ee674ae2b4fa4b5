"""Validation and test: restore every picture of a data set, measure, write, and keep some for the report."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from facerestore.config import Options
from facerestore.config.schema import DatasetOptions
from facerestore.data.base import FaceDataset
from facerestore.data.batch import Batch
from facerestore.data.image_io import tensor_to_image, write_image
from facerestore.data.loader import evaluation_loader
from facerestore.data.resize import imresize
from facerestore.engine import distributed
from facerestore.engine.batches import to_unit_range, upload
from facerestore.engine.distributed import World
from facerestore.engine.logs import Curves, logger, number, progress_bar
from facerestore.engine.report import DataSection, Picture, write_report
from facerestore.engine.training import TrainingModel
from facerestore.files import atomic_write
from facerestore.metrics import build_metric
from facerestore.registry import DATASETS

Metric = Callable[[Tensor, Tensor], Tensor]
Scores = dict[str, dict[str, float]]  # method -> metric -> value


@dataclass
class DatasetScores:
    """What was measured on one data set."""

    name: str
    scores: dict[str, Scores]  # by picture
    seconds: float = 0.0  # for each picture, all methods
    shown: list[Picture] = field(default_factory=list)  # pictures for the report

    def means(self) -> Scores:
        """Mean over the pictures, by method and metric; pictures without a value (no truth) are left out."""
        gathered: dict[str, dict[str, list[float]]] = {}
        for by_method in self.scores.values():
            for method, values in by_method.items():
                for metric, value in values.items():
                    gathered.setdefault(method, {}).setdefault(metric, []).append(value)
        return {m: {k: float(np.mean(v)) for k, v in metrics.items()} for m, metrics in gathered.items()}

    def by_metric(self) -> Scores:
        """The same means, by metric and method: curves that can be compared share a chart."""
        means = self.means()
        metrics = dict.fromkeys(metric for values in means.values() for metric in values)
        return {k: {method: values[k] for method, values in means.items() if k in values} for k in metrics}

    def section(self) -> DataSection:
        return DataSection(self.name, self.shown, self.means())


@dataclass(frozen=True)
class Protocol:
    """How pictures are measured and what is kept of them."""

    metrics: dict[str, Metric]
    baseline: str = "none"
    save_to: Path | None = None
    suffix: str = ""
    shown: int = 0
    bar: bool = True


def evaluate(model: TrainingModel, options: DatasetOptions, dataset: FaceDataset, protocol: Protocol) -> DatasetScores:
    """Restore and measure all pictures of `dataset`; every process takes its share, all return the whole."""
    world, name = model.world, options.name or options.type
    loader = evaluation_loader(
        dataset,
        options.batch_size_per_gpu,
        options.num_worker_per_gpu,
        seed=dataset.seed,
        rank=world.rank,
        world_size=world.size,
        name=name,
    )
    result = DatasetScores(name, {})
    bar = progress_bar(len(dataset), what=name, unit="img", shown=protocol.bar and world.is_main)
    seconds = 0.0
    for batch in loader:
        moved = upload(batch, world.device, dataset.mean, dataset.std)
        start = time.perf_counter()
        restored = {method: images.cpu() for method, images in model.restorations(moved).items()}
        seconds += time.perf_counter() - start
        names = [dataset.name(i) for i in batch.index.tolist()]
        _measure_batch(batch, names, restored, dataset, protocol, result)
        bar.update(min(len(names) * world.size, bar.total - bar.n))
    bar.close()
    return _joined(result, seconds, protocol.shown, world)


def _measure_batch(
    batch: Batch,
    names: list[str],
    restored: dict[str, Tensor],
    dataset: FaceDataset,
    protocol: Protocol,
    result: DatasetScores,
) -> None:
    """Score, write and keep the pictures of one batch."""
    methods = {m: to_unit_range(x, dataset.mean, dataset.std) for m, x in restored.items()}
    truth = batch["gt"] / 255 if "gt" in batch else None
    if protocol.baseline == "bicubic" and truth is not None and batch["lq"].shape != batch["gt"].shape:
        methods = {"bicubic": enlarge(batch["lq"], truth.shape[-2:]), **methods}
    for i, name in enumerate(names):
        result.scores[name] = {m: _scores(x[i : i + 1], truth, i, protocol.metrics) for m, x in methods.items()}
        pictures = {m: tensor_to_image(x[i]) for m, x in methods.items()}
        if protocol.save_to:
            for method in restored:
                label = f"_{method}" if len(restored) > 1 else ""
                write_image(protocol.save_to / f"{name}{label}{protocol.suffix}.png", pictures[method])
        if len(result.shown) < protocol.shown:
            given = {"LR": _picture(batch["lq"][i])} if "lq" in batch else {}
            wanted = {"HR": _picture(batch["gt"][i])} if truth is not None else {}
            result.shown.append(Picture(name, {**given, **pictures, **wanted}, result.scores[name]))


def _scores(image: Tensor, truth: Tensor | None, i: int, metrics: Mapping[str, Metric]) -> dict[str, float]:
    if truth is None:
        return {}
    return {name: float(metric(image, truth[i : i + 1])) for name, metric in metrics.items()}


def _picture(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).contiguous().numpy()


def enlarge(lq: Tensor, size: tuple[int, int]) -> Tensor:
    """MATLAB's bicubic enlargement of uint8 pictures (N, 3, h, w) to `size`, in [0, 1] at 8-bit levels."""
    return imresize(lq.float() / 255, size=size).clamp(0, 1).mul(255).round().div(255)


def _joined(result: DatasetScores, seconds: float, limit: int, world: World) -> DatasetScores:
    """The scores of all processes as one, in the order of names."""
    parts = distributed.gather((result.scores, result.shown, seconds), world)
    scores = {name: values for part in parts for name, values in part[0].items()}
    shown = [picture for part in parts for picture in part[1]]
    count = max(len(scores), 1)
    ordered = dict(sorted(scores.items()))
    total = sum(part[2] for part in parts)
    first = sorted(shown, key=lambda p: p.name)[:limit]
    return DatasetScores(result.name, ordered, total / count, first)


def evaluation_sets(options: Options, prefixes: tuple[str, ...]) -> dict[str, tuple[DatasetOptions, FaceDataset]]:
    """The data sets whose keys begin with one of `prefixes` ('val', 'test')."""
    chosen = {k: section for k, section in options.datasets.items() if k.startswith(prefixes)}
    return {k: (section, dataset_of(section, options)) for k, section in chosen.items()}


def dataset_of(section: DatasetOptions, options: Options) -> FaceDataset:
    """The data set of one entry, with the run's seed."""
    dataset = DATASETS.build(section.component, options.inherited_by_data)
    dataset.seed = options.manual_seed
    return dataset


def build_metrics(options: Options) -> dict[str, Metric]:
    return {name: build_metric(section.component) for name, section in options.val.metrics.items()}


def log_means(result: DatasetScores) -> None:
    """One line for each method: its mean over the data set."""
    for method, values in result.means().items():
        figures = ", ".join(f"{k} {number(v)}" for k, v in values.items())
        logger.info("%s, %s: %s", result.name, method, figures or "no metrics (no truth, or none asked for)")


def page(folder: Path, options: Options, results: list[DatasetScores], curves: Curves) -> None:
    """Write report.html: pictures, scores and the curves of the training."""
    facts = {"method": options.model_type, "options": str(options.source)}
    facts |= {f"weights of {key}": path for key, path in options.path.pretrain.items()}
    path = write_report(
        folder / "report.html",
        title=options.name,
        sections=[r.section() for r in results],
        curves=curves,
        facts=facts,
        better={k: m.better for k, m in options.val.metrics.items() if m.better},
    )
    logger.info("report: %s", path)


def write_tables(folder: Path, results: list[DatasetScores], facts: dict[str, Any]) -> None:
    """`scores.csv` (a row for each picture and method) and `scores.json` (with the means and what was measured how)."""
    rows = [
        {"dataset": r.name, "picture": picture, "method": method, **values}
        for r in results
        for picture, by_method in r.scores.items()
        for method, values in by_method.items()
    ]
    columns = list(dict.fromkeys(k for row in rows for k in row))
    table = io.StringIO()
    writer = csv.DictWriter(table, columns)
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(folder / "scores.csv", table.getvalue())
    content = {
        **facts,
        "datasets": {r.name: {"mean": r.means(), "pictures": r.scores, "seconds_per_picture": r.seconds} for r in results},
    }
    atomic_write(folder / "scores.json", json.dumps(_finite(content), indent=2))


def _finite(value: Any) -> Any:
    """JSON knows no infinity: 'inf' as text."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
