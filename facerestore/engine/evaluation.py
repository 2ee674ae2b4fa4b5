"""Validation and test: restore every picture of a data set, measure, write, and keep some for the report."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facerestore.checkpoint import read_checkpoint
from facerestore.config import Options
from facerestore.config.schema import DatasetOptions
from facerestore.data.base import FaceDataset, SampleKey
from facerestore.data.batch import Batch
from facerestore.data.contact_sheet import facts
from facerestore.data.domains import DomainDataset
from facerestore.data.image_io import tensor_to_image, write_image
from facerestore.data.loader import evaluation_loader
from facerestore.data.names import natural
from facerestore.data.protocols import named_protocol, refuse_other_pictures
from facerestore.data.resize import imresize
from facerestore.engine import distributed
from facerestore.engine.batches import to_unit_range, upload
from facerestore.engine.distributed import World
from facerestore.engine.logs import Curves, logger, progress_bar
from facerestore.engine.measuring import (
    Scores,
    SetFigures,
    looking_at,
    measurable,
    picture_figures,
    refuse_without_domains,
    split_off_nan,
)
from facerestore.engine.others import OtherResults, note_surplus, other_results, refuse_unfit
from facerestore.engine.report import Picture, write_report
from facerestore.engine.scores import BASELINES, DatasetScores, Protocol, directions
from facerestore.engine.training import TrainingModel
from facerestore.engine.translation import evaluate_translations
from facerestore.errors import OptionError, listed
from facerestore.inference.tiles import Tiling, restore_in_tiles, tiling_of
from facerestore.metrics.base import TRUTH, AnyMetric, Codes
from facerestore.registry import DATASETS


def evaluate(model: TrainingModel, options: DatasetOptions, dataset: FaceDataset, protocol: Protocol) -> DatasetScores:
    """Restore and measure all pictures of `dataset`; every process takes its share, all return the whole."""
    if isinstance(dataset, DomainDataset):
        return evaluate_translations(model, options, dataset, protocol)
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
    others, clock = other_results(options, dataset), _Stopwatch()
    lacking = {other.method: list(other.lacking) for other in others if other.lacking}
    result, sets = DatasetScores(name, {}, lacking=lacking, protocol=options.protocol), SetFigures(protocol.metrics)
    bar = progress_bar(len(dataset), what=name, unit="img", shown=protocol.bar and world.is_main)
    for batch in loader:
        names = [dataset.name(i) for i in batch.index.tolist()]
        if model.method.makes_samples:  # nothing was degraded, and nothing is restored
            batch.pop("lq", None)
        moved = upload(batch, world.device, dataset.mean, dataset.std)
        with clock.running(len(names)):
            restored = _restorations(model, moved, protocol.tiling)
        result.own = list(restored)
        metrics = looking_at(False, protocol.metrics)
        measured = replace(protocol, metrics=measurable(metrics, "gt" in batch))
        result.left_out = [metric for metric in metrics if metric not in measured.metrics]
        methods = _compared(batch, names, restored, dataset, protocol, others)
        _measure_batch(batch, names, methods, measured, result, sets)
        if metrics := looking_at(True, protocol.metrics):
            _measure_codes(model.codes(moved), names, metrics, result, sets)
        bar.update(min(len(names) * world.size, bar.total - bar.n))
    bar.close()
    whole = _joined(result, sets, clock, protocol, world)
    _explain(whole.shown, dataset)
    return whole


def look_at_samples(model: TrainingModel, path: Path | None) -> list[DatasetScores]:
    """A sheet of what the method makes of fixed codes, written to `path`; nothing where it makes no samples."""
    if not model.method.makes_samples:
        return []
    sheet = tensor_to_image(tiled(model.samples()))
    if path:
        write_image(path, sheet)
    return [DatasetScores("samples", {}, shown=[Picture("samples", {"samples": sheet})])]


def tiled(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) as one picture, row by row, as many columns as rows; what is left over is black."""
    count, channels, height, width = pictures.shape
    columns = math.ceil(count**0.5)
    rows = math.ceil(count / columns)
    blank = pictures.new_zeros(rows * columns - count, channels, height, width)
    grid = torch.cat((pictures, blank)).view(rows, columns, channels, height, width)
    return grid.permute(2, 0, 3, 1, 4).reshape(channels, rows * height, columns * width)


class _Stopwatch:
    """Seconds that restoring takes.  The first batch, in which devices and libraries warm up, counts only where it is alone."""

    def __init__(self) -> None:
        self.batches: list[tuple[float, int]] = []  # seconds and pictures

    @contextmanager
    def running(self, pictures: int) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.batches.append((time.perf_counter() - start, pictures))

    def total(self) -> tuple[float, int]:
        """Seconds and pictures."""
        counted = self.batches[1:] or self.batches
        return sum(seconds for seconds, _ in counted), sum(pictures for _, pictures in counted)


def _restorations(model: TrainingModel, batch: Batch, tiling: Tiling | None) -> dict[str, Tensor]:
    """What each method makes of a batch, on the CPU: so the device has done its work when this returns."""
    if tiling is None or "lq" not in batch:
        return {method: images.cpu() for method, images in model.restorations(batch).items()}
    height, width = batch["lq"].shape[-2:]

    def restore(rows: slice, columns: slice) -> dict[str, Tensor]:
        return model.restorations(Batch({k: v[..., rows, columns] if is_cut(v) else v for k, v in batch.items()}))

    def is_cut(value: Any) -> bool:  # the input, and what lies over it pixel by pixel
        return isinstance(value, Tensor) and value.dim() == 4 and value.shape[-2:] == (height, width)

    return restore_in_tiles(restore, height, width, tiling)


def _compared(
    batch: Batch,
    names: list[str],
    restored: dict[str, Tensor],
    dataset: FaceDataset,
    protocol: Protocol,
    others: Sequence[OtherResults],
) -> dict[str, dict[str, Tensor]]:
    """The pictures (3, H, W) in [0, 1] of every method by name: the baseline's, this run's own, other programs'."""
    own = {m: to_unit_range(x, dataset.mean, dataset.std) for m, x in restored.items()}
    if taken := [other.method for other in others if other.method in own]:
        raise OptionError(f"`others` names {listed(taken)}, as a method of this run is called: give it another name")
    given = {}
    if protocol.baseline == "bicubic" and {"lq", "gt"} <= batch.keys():
        same_size = batch["lq"].shape == batch["gt"].shape
        given = {"input" if same_size else "bicubic": enlarge(batch["lq"], batch["gt"].shape[-2:])}
    size = tuple(next(iter(own.values())).shape[-2:])
    whole = {method: dict(zip(names, images, strict=True)) for method, images in {**given, **own}.items()}
    return whole | {other.method: other.pictures(names, size) for other in others}


def _measure_codes(
    codes: dict[str | None, Codes],
    names: list[str],
    metrics: dict[str, AnyMetric],
    result: DatasetScores,
    sets: SetFigures,
) -> None:
    """Add the figures of one batch's codes to those of its pictures."""
    own = {method: found for method, found in codes.items() if method is not TRUTH}
    truth = codes.get(TRUTH)
    measured = measurable(metrics, truth is not None)
    result.untold = [metric for metric in metrics if metric not in measured]
    sets.see(own, truth, codes=True)
    for i, name in enumerate(names):
        for method, found in own.items():
            figures = picture_figures(measured, found.of(i), None if truth is None else truth.of(i))
            result.scores[name].setdefault(method, {}).update(figures)


def _measure_batch(
    batch: Batch,
    names: list[str],
    methods: dict[str, dict[str, Tensor]],
    protocol: Protocol,
    result: DatasetScores,
    sets: SetFigures,
) -> None:
    """Score, write and keep the pictures of one batch."""
    truth = batch["gt"] / 255 if "gt" in batch else None
    sets.see({method: torch.stack(list(images.values())) for method, images in methods.items() if images}, truth)
    for i, name in enumerate(names):
        result.scores[name] = {}
        mine = {method: images[name] for method, images in methods.items() if name in images}
        for method, image in mine.items():
            figures = picture_figures(protocol.metrics, image[None], None if truth is None else truth[i : i + 1])
            result.scores[name][method], blank = split_off_nan(figures)
            for metric in blank:
                result.without.setdefault(metric, {}).setdefault(method, []).append(name)
        pictures = {method: tensor_to_image(image) for method, image in mine.items()}
        if protocol.save_to:
            for method in result.own:
                label = f"_{method}" if len(result.own) > 1 else ""
                path = protocol.save_to / name / Path(name).name if protocol.apart else protocol.save_to / name
                write_image(path.with_name(f"{path.name}{label}{protocol.suffix}.png"), pictures[method])
        if protocol.shown:
            given = {"LR": _picture(batch["lq"][i])} if "lq" in batch and "input" not in pictures else {}
            wanted = {"HR": _picture(batch["gt"][i])} if truth is not None else {}
            result.shown.append(Picture(name, {**given, **pictures, **wanted}, result.scores[name]))
    result.shown = _kept(result.shown, protocol)


def _kept(pictures: list[Picture], protocol: Protocol) -> list[Picture]:
    """Those that the report shows, in the order of their names: the first ones, and the worst of each method by each metric."""
    ordered = sorted(pictures, key=lambda p: natural(p.name))
    kept = {p.name for p in ordered[: protocol.shown]}
    values: dict[tuple[str, str], list[tuple[float, str]]] = {}  # smallest: worst
    for picture in ordered:
        for method, figures in picture.scores.items():
            for metric, value in figures.items():
                sign = -1 if protocol.better.get(metric) == "lower" else 1
                if method not in BASELINES:
                    values.setdefault((method, metric), []).append((sign * value, picture.name))
    for found in values.values():
        kept |= {name for _, name in sorted(found)[: protocol.worst]}
    return [p for p in ordered if p.name in kept]


def _explain(pictures: list[Picture], dataset: FaceDataset) -> None:
    """Say of each picture what chance decided about it: the parameters of its degradation."""
    indices = {dataset.name(i): i for i in range(len(dataset))} if pictures else {}
    for picture in pictures:
        said = dataset.explain(SampleKey(indices[picture.name]))
        picture.facts = {key: "yes" for key, value in said.items() if value is True} | dict(facts(said, {}))


def _picture(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).contiguous().numpy()


def enlarge(lq: Tensor, size: tuple[int, int]) -> Tensor:
    """MATLAB's bicubic enlargement of uint8 pictures (N, 3, h, w) to `size`, in [0, 1] at 8-bit levels."""
    return imresize(lq.float() / 255, size=size).clamp(0, 1).mul(255).round().div(255)


def _joined(result: DatasetScores, sets: SetFigures, clock: _Stopwatch, protocol: Protocol, world: World) -> DatasetScores:
    """The scores of all processes as one, in the order of names."""
    parts = distributed.gather((result, clock.total()), world)
    results = [part for part, _ in parts]
    without: dict[str, dict[str, list[str]]] = {}
    for metric, by_method in (item for part in results for item in part.without.items()):
        for method, names in by_method.items():
            together = without.setdefault(metric, {})
            together[method] = sorted([*together.get(method, []), *names])
    of_set: Scores = {}
    for method, figures in sets.merged(world).figures().items():
        of_set[method], blank = split_off_nan(figures)
        for metric in blank:
            without.setdefault(metric, {})[method] = []
    seconds, pictures = (sum(values) for values in zip(*(time for _, time in parts), strict=True))
    return DatasetScores(
        name=result.name,
        scores=dict(sorted(item for part in results for item in part.scores.items())),
        seconds=seconds / max(pictures, 1),
        own=list(dict.fromkeys(method for part in results for method in part.own)),
        shown=_kept([picture for part in results for picture in part.shown], protocol),
        of_set=of_set,
        left_out=list(dict.fromkeys(metric for part in results for metric in part.left_out)),
        untold=list(dict.fromkeys(metric for part in results for metric in part.untold)),
        lacking=result.lacking,
        without=without,
        protocol=result.protocol,
    )


def evaluation_sets(options: Options, prefixes: tuple[str, ...]) -> dict[str, tuple[DatasetOptions, FaceDataset]]:
    """The data sets whose keys begin with one of `prefixes` ('val', 'test').  Results of other programs are looked for."""
    chosen = {k: section for k, section in options.datasets.items() if k.startswith(prefixes)}
    sets = {k: (section, dataset_of(section, options)) for k, section in chosen.items()}
    refuse_without_domains(options, [dataset for _, dataset in sets.values()])
    for key, (section, dataset) in sets.items():
        with options.naming("datasets", key):
            _look_at(section, dataset)
    return sets


def _look_at(section: DatasetOptions, dataset: FaceDataset) -> None:
    """Refuse a data set whose pictures, or other programs' results of them, are not there or not what they should be."""
    count = len(dataset)  # which looks for them
    others = other_results(section, dataset)
    refuse_unfit(others, dataset)
    note_surplus(others, dataset)
    if section.protocol:
        root = section.component.get("dataroot_lq") or section.component.get("dataroot_gt")
        refuse_other_pictures(named_protocol(section.protocol), [dataset.name(i) for i in range(count)], root)


def dataset_of(section: DatasetOptions, options: Options) -> FaceDataset:
    """The data set of one entry, with the run's seed."""
    dataset = DATASETS.build(section.component, options.inherited_by_data)
    dataset.seed = options.manual_seed
    return dataset


def page(
    folder: Path,
    options: Options,
    results: list[DatasetScores],
    curves: Curves,
    protocols: Mapping[str, Mapping[str, Any]],
    more: Mapping[str, str] | None = None,
) -> None:
    """Write report.html: pictures, scores, how they were measured, and the curves of the training; `more` in its head."""
    said = {"method": options.model_type, "options": str(options.source)}
    said |= {f"weights of {key}": path for key, path in options.path.pretrain.items()}
    said |= {str(key): str(value) for key, value in (more or {}).items()}
    path = write_report(
        folder / "report.html",
        title=options.name,
        sections=[r.section() for r in results],
        curves=curves,
        facts=said,
        better=directions(options.val),
        protocols=protocols,
    )
    logger.info("report: %s", path)


def iterations_of_weights(options: Options) -> dict[str, int]:
    """The iteration of its training from which each network's weights come, where their file says it."""
    found = {key: read_checkpoint(path).meta.get("iteration") for key, path in options.path.pretrain.items()}
    return {key: it for key, it in found.items() if it is not None}


def how_timed(options: Options, world: World) -> dict[str, dict[str, Any]]:
    """What the seconds beside the scores are, in the words of a metric's protocol."""
    val, on_gpu = options.val, world.device.type == "cuda"
    tiling = tiling_of(val.tile, val.tile_overlap)
    return {
        "seconds": {
            "measures": "Time from a batch on the device to its pictures on the CPU, by picture; the first batch is left out.",
            "device": torch.cuda.get_device_name(world.device) if on_gpu else f"CPU, {torch.get_num_threads()} threads",
            "processes": world.size,
            "batches of": {d.name: d.batch_size_per_gpu for key, d in options.datasets.items() if key != "train"},
            "tiles": f"{tiling.side} pixels, overlapping by {tiling.overlap}" if tiling else "none",
        }
    }
