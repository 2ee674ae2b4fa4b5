"""The best weights of a run by a metric, beside its checkpoints: `models/net_g_best_psnr.pth`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from facerestore.checkpoint import SUFFIXES, read_checkpoint
from facerestore.config import Options
from facerestore.engine.logs import Curves, logger, number
from facerestore.engine.report import Better, direction
from facerestore.engine.resume import remove_other_format, save_network
from facerestore.engine.scores import DatasetScores
from facerestore.engine.training import TrainingModel
from facerestore.errors import CheckpointError, OptionError


def keep_best(
    folder: Path, model: TrainingModel, it: int, results: Sequence[DatasetScores], directions: Mapping[str, str], suffix: str
) -> None:
    """Write the networks as they are after iteration `it` under every metric of `directions` by which they are the best.

    What they must beat stands in the file itself, so a resumed run goes on comparing with all that came before.

    Args:
        folder: the run's folder
        model: what was validated
        it: the iteration
        results: of the validation
        directions: `higher` or `lower` by metric
        suffix: of the files, `.pth` or `.safetensors`
    """
    for metric, better in directions.items():
        value = mean_over_sets(results, metric)
        names = [n for n in model.networks if n not in model.frozen]
        paths = {n: folder / "models" / f"{n}_best_{metric}{suffix}" for n in names}
        before = _value_of(paths[names[-1]])  # the file that is written last
        if value is None or (before is not None and not (value > before if better == "higher" else value < before)):
            continue
        for name, path in paths.items():
            save_network(path, model, name, {"iteration": it, "best": {metric: value}})
            remove_other_format(path)
        logger.info("iteration %d is the best so far by %s (%s)", it, metric, number(value))


def best_so_far(curves: Curves, result: DatasetScores, better: Mapping[str, Better]) -> dict[str, dict[str, str]]:
    """The best that the run's own methods have reached on a set, and when, by method and metric: `best 25.08 at 4000`.

    Args:
        curves: the run's, with what has just been measured
        result: of the validation set
        better: which values of a metric are the better ones
    """
    found: dict[str, dict[str, str]] = {method: {} for method in result.own}
    for metric, side in better.items():
        for method, points in curves.get(f"{result.name}: {metric}", {}).items():
            if method in found:
                pick = max if side == "higher" else min
                it, value = pick(points, key=lambda point: point[1])
                found[method][metric] = f"best {number(value)} at {it}"
    return found


def best_directions(options: Options) -> dict[str, str]:
    """`higher` or `lower` by each metric of `val.keep_best`; OptionError where nothing says which is the better."""
    found = {}
    for key in options.val.keep_best:
        metric = options.val.metrics[key]
        better = metric.better or direction(metric.type)
        if better is None:
            raise OptionError(f"val.keep_best: which values of {key!r} are the better ones? Give it `better: higher` or lower")
        found[key] = better
    return found


def mean_over_sets(results: Sequence[DatasetScores], metric: str) -> float | None:
    """A metric's mean over the validation sets and the run's own methods, without baselines and other programs' results;
    None where nothing was measured."""
    values = [v[metric] for r in results for m, v in r.means().items() if m in r.own and metric in v]
    finite = [v for v in values if math.isfinite(v)]
    return sum(finite) / len(finite) if finite and len(finite) == len(values) else None


def _value_of(path: Path) -> float | None:
    """The value under which a file was kept, in whatever format; None where there is none, or a damaged one, which is then
    replaced."""
    path = next((p for suffix in (path.suffix, *SUFFIXES) if (p := path.with_suffix(suffix)).exists()), path)
    if not path.exists():
        return None
    try:
        return next(iter(read_checkpoint(path).meta.get("best", {}).values()), None)
    except CheckpointError as error:
        logger.warning("%s; it is replaced", error)
        return None
