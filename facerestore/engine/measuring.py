"""What metrics measure: built once, pictures one by one, data sets as a whole, and how it was done."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from facerestore.checkpoint import declared_path
from facerestore.config import Options
from facerestore.data.base import FaceDataset
from facerestore.data.domains import DomainDataset
from facerestore.engine import distributed
from facerestore.engine.distributed import World
from facerestore.engine.seeds import seed_of
from facerestore.errors import OptionError
from facerestore.files import digest
from facerestore.metrics import build_metric
from facerestore.metrics.base import (
    TRUTH,
    AnyMetric,
    Codes,
    Metric,
    SetMetric,
    Statistics,
    TranslationMetric,
    needs_truth,
    reads_codes,
)
from facerestore.registry import METRICS, parameters_of, weight_files

Scores = dict[str, dict[str, float]]  # method -> metric -> value
Seen = TypeVar("Seen", Tensor, Codes)  # what metrics look at


def build_metrics(options: Options, world: World) -> dict[str, AnyMetric]:
    """The metrics of `options` by the user's names for them, on the process's device.

    Raises:
        UserError: a file or a library that one of them needs is missing
    """
    metrics = {}
    for name, section in options.val.metrics.items():
        with torch.random.fork_rng(devices=[]), options.naming("val", "metrics", name):
            torch.manual_seed(seed_of(options.manual_seed, "metric", name))  # of random weights
            metric = build_metric(section.component)
        metrics[name] = metric.to(world.device) if isinstance(metric, nn.Module) else metric
    return metrics


def measurable(metrics: Mapping[str, AnyMetric], has_truth: bool) -> dict[str, AnyMetric]:
    """Those that there is something to measure for."""
    return {name: metric for name, metric in metrics.items() if has_truth or not needs_truth(metric)}


def refuse_without_domains(options: Options, sets: Iterable[FaceDataset]) -> None:
    """OptionError for a metric of translations where a data set knows no domains."""
    kinds = {name: METRICS.get(section.type) for name, section in options.val.metrics.items()}
    named = [name for name, kind in kinds.items() if inspect.isclass(kind) and issubclass(kind, TranslationMetric)]
    for dataset in (data for data in sets if named and not isinstance(data, DomainDataset)):
        raise OptionError(
            f"val.metrics.{named[0]} measures translations between domains, of which {type(dataset).__name__} knows none: "
            "leave it out",
            ("val", "metrics", named[0]),
        )


def looking_at(codes: bool, metrics: Mapping[str, AnyMetric]) -> dict[str, AnyMetric]:
    """Those that look at codes, or those that look at pictures."""
    return {name: metric for name, metric in metrics.items() if reads_codes(metric) == codes}


def picture_figures(metrics: Mapping[str, AnyMetric], image: Seen, truth: Seen | None) -> dict[str, float]:
    """Figures of one picture (1, 3, H, W), or of its codes, by metric; NaN where it has none."""
    pairs = {n: m for n, m in metrics.items() if not isinstance(m, SetMetric)}
    return {n: float(m(sent(image, m), None if truth is None else sent(truth, m))) for n, m in pairs.items()}


def sent(pictures: Seen, metric: AnyMetric) -> Seen:
    """Pictures (or codes) on the device where a metric's network lies."""
    weight = next(metric.parameters(), None) if isinstance(metric, nn.Module) else None
    return pictures if weight is None else pictures.to(weight.device)


class SetFigures:
    """What the set metrics among `metrics` have seen of a data set, on this process or on all."""

    def __init__(self, metrics: Mapping[str, AnyMetric]):
        self.metrics = {name: m for name, m in metrics.items() if isinstance(m, SetMetric)}
        self.seen: dict[str, dict[str | None, Statistics]] = {name: {} for name in self.metrics}

    def see(self, methods: Mapping[str, Seen], truth: Seen | None, codes: bool = False) -> None:
        """Take a batch: what each method made of it, and its truth; or the `codes` of both."""
        for name, metric in measurable(looking_at(codes, self.metrics), truth is not None).items():
            compared = {TRUTH: truth} if metric.needs_truth else {}
            for method, pictures in {**methods, **compared}.items():
                self._add(name, method, pictures)

    def take(self, method: str | None, pictures: Tensor) -> None:
        """Take pictures of one method, or those of the truth (`TRUTH`)."""
        for name in self.metrics:
            self._add(name, method, pictures)

    def _add(self, name: str, method: str | None, pictures: Seen) -> None:
        metric = self.metrics[name]
        self.seen[name].setdefault(method, metric.statistics()).add(metric.features(sent(pictures, metric)))

    def merged(self, world: World) -> SetFigures:
        """What all processes have seen, in their order."""
        whole = SetFigures(self.metrics)
        for part in distributed.gather(self.seen, world):
            for name, by_method in part.items():
                for method, statistics in by_method.items():
                    whole.seen[name].setdefault(method, self.metrics[name].statistics()).merge(statistics)
        return whole

    def figures(self) -> Scores:
        """Figures by method and metric; NaN where a set has none."""
        found: Scores = {}
        for name, by_method in self.seen.items():
            for method, statistics in by_method.items():
                if method is not TRUTH:
                    value = self.metrics[name].compute(statistics, by_method.get(TRUTH))
                    found.setdefault(method, {})[name] = value
        return found


def split_off_nan(values: Mapping[str, float]) -> tuple[dict[str, float], list[str]]:
    """Figures that are numbers, and the names of those that are not."""
    return {k: v for k, v in values.items() if not math.isnan(v)}, [k for k, v in values.items() if math.isnan(v)]


def protocols(options: Options, metrics: Mapping[str, AnyMetric]) -> dict[str, dict[str, Any]]:
    """How each metric measures: its type, all keywords, colours, network, and the files that filled it with their hashes."""
    return {name: protocol(options.val.metrics[name].component, metric) for name, metric in metrics.items()}


def protocol(component: Mapping[str, Any], metric: AnyMetric) -> dict[str, Any]:
    """How the metric that was built from `component` measures."""
    entry = METRICS.get(component["type"])
    files = weight_files(entry)
    keywords = {p.name: component.get(p.name, p.default) for p in parameters_of(entry) if p.name not in files}
    what = {"measures": inspect.cleandoc(entry.__doc__).splitlines()[0]}
    if isinstance(metric, Metric):
        how = metric.protocol()
    else:
        how = {"colours": "Y of BT.601 in studio swing" if keywords.get("test_y_channel") else "RGB"}
    weights = {
        keyword: file_facts(metric.get_submodule(declared.module), keyword, component.get(keyword) or declared.default)
        for keyword, declared in files.items()
    }
    return {"type": component["type"], **keywords, **what, **how, **weights}


def file_facts(part: nn.Module, keyword: str, value: str) -> str | dict[str, str]:
    """Which file filled a part of a metric."""
    if value == "random":
        return value
    path = Path(declared_path(part, keyword, value))
    stat = path.stat()
    return {"file": str(path), "sha256": _digest(path, stat.st_size, stat.st_mtime_ns)}


@functools.lru_cache(maxsize=32)
def _digest(path: Path, size: int, changed: int) -> str:
    """The file's digest, read once for all validations; `size` and `changed` tell a file that was replaced."""
    return digest(path)
