"""What was measured on a data set, how it was to be measured, and the tables of it."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from facerestore.config.schema import ValOptions
from facerestore.data.names import natural
from facerestore.engine.logs import logger, number
from facerestore.engine.measuring import Scores
from facerestore.engine.report import Better, DataSection, Picture, direction
from facerestore.errors import listed
from facerestore.files import atomic_write
from facerestore.inference.tiles import Tiling, tiling_of
from facerestore.metrics.base import AnyMetric

BASELINES = ("bicubic", "input")  # names of the picture that was given, among the methods
TABLE_ROWS = 5000  # pictures of a set in the report's table; a browser takes no more


@dataclass
class DatasetScores:
    """What was measured on one data set."""

    name: str
    scores: dict[str, Scores]  # by picture
    seconds: float = 0.0  # for each picture, all of `own` together
    own: list[str] = field(default_factory=list)  # this run's own methods
    shown: list[Picture] = field(default_factory=list)  # pictures for the report
    of_set: Scores = field(default_factory=dict)  # figures of the set as a whole
    left_out: list[str] = field(default_factory=list)  # metrics that need a truth, where there is none
    untold: list[str] = field(default_factory=list)  # those that need the true codes, where nothing tells them
    lacking: dict[str, list[str]] = field(default_factory=dict)  # method of `others` -> pictures that it has not
    without: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # metric -> method -> pictures without a figure
    protocol: str | None = None  # the named protocol whose pictures these are

    def means(self) -> Scores:
        """Mean over the pictures, or the figure of the whole set, by method and metric.

        Pictures without a figure are left out, and those whose figure is infinite where there are others.
        """
        gathered: dict[str, dict[str, list[float]]] = {}
        for by_method in self.scores.values():
            for method, values in by_method.items():
                for metric, value in values.items():
                    gathered.setdefault(method, {}).setdefault(metric, []).append(value)
        means = {m: {k: float(np.mean(finite(v) or v)) for k, v in metrics.items()} for m, metrics in gathered.items()}
        return {m: means.get(m, {}) | self.of_set.get(m, {}) for m in (*means, *self.of_set)}

    def by_metric(self) -> Scores:
        """The same means, by metric and method: curves that can be compared share a chart."""
        means = self.means()
        metrics = dict.fromkeys(metric for values in means.values() for metric in values)
        return {k: {method: values[k] for method, values in means.items() if k in values} for k in metrics}

    def first(self, count: int) -> list[Picture]:
        """The first `count` pictures of the set: the same ones every time."""
        names = sorted(self.scores, key=natural)[:count]
        return [picture for picture in self.shown if picture.name in names]

    def notes(self) -> list[str]:
        """What is missing among the figures, and why."""
        found = [f"{listed(self.left_out)}: left out, as there is no truth"] if self.left_out else []
        if self.untold:
            found.append(f"{listed(self.untold)}: left out: neither `network_vqgan` nor `latent_gt_path` tells the true codes")
        for method, names in self.lacking.items():
            count = len(self.scores)
            found.append(f"{method}: measured over {count - len(names)} of {count} pictures (it lacks {listed(names, 3)})")
        for metric, by_method in self.without.items():
            for method, names in by_method.items():
                where = f"{len(names)} of {len(self.scores)} pictures ({listed(names, 3)})" if names else "the whole set"
                found.append(f"{metric} of {method}: no figure for {where}")
        return found + self._infinite()

    def _infinite(self) -> list[str]:
        counts: Counter[tuple[str, str]] = Counter()
        for by_method in self.scores.values():
            counts.update((m, k) for m, values in by_method.items() for k, value in values.items() if math.isinf(value))
        return [
            f"{method}: {metric} is infinite for {count} of {len(self.scores)} pictures, which equal the truth"
            + ("; the mean is that of the others" if count < len(self.scores) else "")
            for (method, metric), count in counts.items()
            if not (method in BASELINES and count == len(self.scores))  # nothing is degraded: an autoencoder's set
        ]

    def timing(self) -> str:
        """How long this run's own restorations took."""
        return f"{' and '.join(self.own)}: {number(self.seconds)} s a picture" if self.seconds else ""

    def section(self) -> DataSection:
        """The set in the report: pictures with their images, and those that are in its table alone."""
        means, notes = self.means(), self.notes()
        if self.protocol:
            notes.insert(0, f"protocol {self.protocol}, {len(self.scores)} pictures")
        if self.seconds and len(self.own) == 1 and any(means.values()):
            means.setdefault(self.own[0], {})["seconds"] = self.seconds
        elif self.seconds:  # of several together; or alone, of which there is no table to be made
            notes.append(self.timing() + (" together" if len(self.own) > 1 else ""))
        with_images = {picture.name for picture in self.shown}
        rest = [Picture(name, {}, scores) for name, scores in self.scores.items() if name not in with_images]
        if len(rest) > TABLE_ROWS:
            rest = rest[:TABLE_ROWS]
            notes.append(f"of {len(self.scores)} pictures the table of scores holds {len(rest) + len(self.shown)}")
        pictures = sorted([*self.shown, *rest], key=lambda p: natural(p.name))
        return DataSection(self.name, pictures, means, "; ".join(notes))


def finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


@dataclass(frozen=True)
class Protocol:
    """How pictures are measured and what is kept of them.

    Args:
        metrics: by the user's names
        baseline: what the restorations are compared with: none or bicubic
        save_to: the folder in which they are written
        apart: whether each is written into a folder of its own, as pictures are of which there will be many
        suffix: ending of their names
        shown: how many pictures are kept to be shown, the first ones
        worst: how many the report shows beside them: the worst of each method by each metric
        better: which values of a metric are the better ones
        tiling: how larger pictures are cut
        bar: whether a progress bar is shown
    """

    metrics: dict[str, AnyMetric]
    baseline: str = "none"
    save_to: Path | None = None
    apart: bool = False
    suffix: str = ""
    shown: int = 0
    worst: int = 0
    better: Mapping[str, Better] = field(default_factory=dict)
    tiling: Tiling | None = None
    bar: bool = True


def protocol_of(
    val: ValOptions, metrics: dict[str, AnyMetric], save_to: Path, suffix: str, bar: bool, apart: bool = False, shown: int = 0
) -> Protocol:
    """What `val` says of measuring and keeping; at least `shown` pictures are kept, with or without a report."""
    return Protocol(
        metrics,
        baseline=val.baseline,
        save_to=save_to if val.save_img else None,
        apart=apart,
        suffix=suffix,
        shown=max(val.report_pictures if val.report else 0, shown),
        worst=val.report_worst if val.report else 0,
        better=directions(val),
        tiling=tiling_of(val.tile, val.tile_overlap),
        bar=bar,
    )


def directions(val: ValOptions) -> dict[str, Better]:
    """Which values are the better ones, of the metrics of which that is known."""
    found = {name: m.better or direction(m.type) or direction(name) for name, m in val.metrics.items()}
    return {name: better for name, better in found.items() if better}


def log_means(result: DatasetScores, best: Mapping[str, Mapping[str, str]] | None = None) -> None:
    """One line for each method: its mean over the data set, and what the `best` one was, by method and metric."""
    for method, values in result.means().items():
        so_far = (best or {}).get(method, {})
        figures = ", ".join(f"{k} {number(v)}" + (f" ({so_far[k]})" if k in so_far else "") for k, v in values.items())
        logger.info("%s, %s: %s", result.name, method, figures or "nothing measured")
    for note in result.notes():
        logger.warning("%s: %s", result.name, note)


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
                "protocol": r.protocol,
                "left_out": [*r.left_out, *r.untold],
                "without_a_figure": r.without,
                "lacking": r.lacking,
                "pictures": r.scores,
                "seconds_per_picture": r.seconds,
                "seconds_of": r.own,
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
