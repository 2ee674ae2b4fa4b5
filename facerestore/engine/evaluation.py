"""Validation and test: restore every picture of a data set, measure, write, and keep some for the report."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from dataclasses import dataclass, field, replace
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
from facerestore.engine.measuring import Scores, SetFigures, measurable, picture_figures, split_off_nan
from facerestore.engine.report import DataSection, Picture, direction, write_report
from facerestore.engine.training import TrainingModel
from facerestore.errors import listed
from facerestore.files import atomic_write
from facerestore.metrics.base import AnyMetric
from facerestore.registry import DATASETS


@dataclass
class DatasetScores:
    """What was measured on one data set."""

    name: str
    scores: dict[str, Scores]  # by picture
    seconds: float = 0.0  # for each picture, all methods
    shown: list[Picture] = field(default_factory=list)  # pictures for the report
    of_set: Scores = field(default_factory=dict)  # figures of the set as a whole
    left_out: list[str] = field(default_factory=list)  # metrics that need a truth, where there is none
    without: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # metric -> method -> pictures without a figure

    def means(self) -> Scores:
        """Mean over the pictures, or the figure of the whole set, by method and metric; pictures without one are left out."""
        gathered: dict[str, dict[str, list[float]]] = {}
        for by_method in self.scores.values():
            for method, values in by_method.items():
                for metric, value in values.items():
                    gathered.setdefault(method, {}).setdefault(metric, []).append(value)
        means = {m: {k: float(np.mean(v)) for k, v in metrics.items()} for m, metrics in gathered.items()}
        return {m: means.get(m, {}) | self.of_set.get(m, {}) for m in (*means, *self.of_set)}

    def by_metric(self) -> Scores:
        """The same means, by metric and method: curves that can be compared share a chart."""
        means = self.means()
        metrics = dict.fromkeys(metric for values in means.values() for metric in values)
        return {k: {method: values[k] for method, values in means.items() if k in values} for k in metrics}

    def notes(self) -> list[str]:
        """What is missing among the figures, and why."""
        found = [f"{listed(self.left_out)}: left out, as there is no truth"] if self.left_out else []
        for metric, by_method in self.without.items():
            for method, names in by_method.items():
                where = f"{len(names)} of {len(self.scores)} pictures ({listed(names, 3)})" if names else "the whole set"
                found.append(f"{metric} of {method}: no figure for {where}")
        return found

    def section(self) -> DataSection:
        return DataSection(self.name, self.shown, self.means(), "; ".join(self.notes()))


@dataclass(frozen=True)
class Protocol:
    """How pictures are measured and what is kept of them."""

    metrics: dict[str, AnyMetric]
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
    result, sets = DatasetScores(name, {}), SetFigures(protocol.metrics)
    bar = progress_bar(len(dataset), what=name, unit="img", shown=protocol.bar and world.is_main)
    seconds = 0.0
    for batch in loader:
        moved = upload(batch, world.device, dataset.mean, dataset.std)
        start = time.perf_counter()
        restored = {method: images.cpu() for method, images in model.restorations(moved).items()}
        seconds += time.perf_counter() - start
        names = [dataset.name(i) for i in batch.index.tolist()]
        metrics = measurable(protocol.metrics, "gt" in batch)
        result.left_out = [metric for metric in protocol.metrics if metric not in metrics]
        _measure_batch(batch, names, restored, dataset, replace(protocol, metrics=metrics), result, sets)
        bar.update(min(len(names) * world.size, bar.total - bar.n))
    bar.close()
    return _joined(result, sets, seconds, protocol.shown, world)


def _measure_batch(
    batch: Batch,
    names: list[str],
    restored: dict[str, Tensor],
    dataset: FaceDataset,
    protocol: Protocol,
    result: DatasetScores,
    sets: SetFigures,
) -> None:
    """Score, write and keep the pictures of one batch."""
    methods = {m: to_unit_range(x, dataset.mean, dataset.std) for m, x in restored.items()}
    truth = batch["gt"] / 255 if "gt" in batch else None
    if protocol.baseline == "bicubic" and truth is not None:
        same_size = batch["lq"].shape == batch["gt"].shape
        methods = {"input" if same_size else "bicubic": enlarge(batch["lq"], truth.shape[-2:]), **methods}
    sets.see(methods, truth)
    for i, name in enumerate(names):
        one = slice(i, i + 1)
        result.scores[name] = {}
        for method, images in methods.items():
            figures = picture_figures(protocol.metrics, images[one], None if truth is None else truth[one])
            result.scores[name][method], blank = split_off_nan(figures)
            for metric in blank:
                result.without.setdefault(metric, {}).setdefault(method, []).append(name)
        pictures = {m: tensor_to_image(x[i]) for m, x in methods.items()}
        if protocol.save_to:
            for method in restored:
                label = f"_{method}" if len(restored) > 1 else ""
                write_image(protocol.save_to / f"{name}{label}{protocol.suffix}.png", pictures[method])
        if len(result.shown) < protocol.shown:
            given = {"LR": _picture(batch["lq"][i])} if "lq" in batch else {}
            wanted = {"HR": _picture(batch["gt"][i])} if truth is not None else {}
            result.shown.append(Picture(name, {**given, **pictures, **wanted}, result.scores[name]))


def _picture(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).contiguous().numpy()


def enlarge(lq: Tensor, size: tuple[int, int]) -> Tensor:
    """MATLAB's bicubic enlargement of uint8 pictures (N, 3, h, w) to `size`, in [0, 1] at 8-bit levels."""
    return imresize(lq.float() / 255, size=size).clamp(0, 1).mul(255).round().div(255)


def _joined(result: DatasetScores, sets: SetFigures, seconds: float, limit: int, world: World) -> DatasetScores:
    """The scores of all processes as one, in the order of names."""
    parts = distributed.gather((result.scores, result.shown, seconds, result.without, result.left_out), world)
    scores = {name: values for part in parts for name, values in part[0].items()}
    shown = [picture for part in parts for picture in part[1]]
    without: dict[str, dict[str, list[str]]] = {}
    for metric, by_method in (item for part in parts for item in part[3].items()):
        for method, names in by_method.items():
            together = without.setdefault(metric, {})
            together[method] = sorted([*together.get(method, []), *names])
    of_set: Scores = {}
    for method, figures in sets.merged(world).figures().items():
        of_set[method], blank = split_off_nan(figures)
        for metric in blank:
            without.setdefault(metric, {})[method] = []
    return DatasetScores(
        name=result.name,
        scores=dict(sorted(scores.items())),
        seconds=sum(part[2] for part in parts) / max(len(scores), 1),
        shown=sorted(shown, key=lambda p: p.name)[:limit],
        of_set=of_set,
        left_out=list(dict.fromkeys(metric for part in parts for metric in part[4])),
        without=without,
    )


def evaluation_sets(options: Options, prefixes: tuple[str, ...]) -> dict[str, tuple[DatasetOptions, FaceDataset]]:
    """The data sets whose keys begin with one of `prefixes` ('val', 'test')."""
    chosen = {k: section for k, section in options.datasets.items() if k.startswith(prefixes)}
    return {k: (section, dataset_of(section, options)) for k, section in chosen.items()}


def dataset_of(section: DatasetOptions, options: Options) -> FaceDataset:
    """The data set of one entry, with the run's seed."""
    dataset = DATASETS.build(section.component, options.inherited_by_data)
    dataset.seed = options.manual_seed
    return dataset


def log_means(result: DatasetScores) -> None:
    """One line for each method: its mean over the data set."""
    for method, values in result.means().items():
        figures = ", ".join(f"{k} {number(v)}" for k, v in values.items())
        logger.info("%s, %s: %s", result.name, method, figures or "nothing measured")
    for note in result.notes():
        logger.warning("%s: %s", result.name, note)


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
        better={k: better for k, m in options.val.metrics.items() if (better := m.better or direction(m.type))},
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
        "datasets": {
            r.name: {
                "mean": r.means(),
                "count": len(r.scores),
                "left_out": r.left_out,
                "without_a_figure": r.without,
                "pictures": r.scores,
                "seconds_per_picture": r.seconds,
            }
            for r in results
        },
    }
    atomic_write(folder / "scores.json", json.dumps(_finite(content), indent=2))


def _finite(value: Any) -> Any:
    """JSON knows no infinity: 'inf' as text."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
