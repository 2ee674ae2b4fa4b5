"""`test.py`: restore, measure and report the data sets of one option file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from facerestore.config import Options
from facerestore.engine import distributed
from facerestore.engine.builder import build_model
from facerestore.engine.distributed import World
from facerestore.engine.evaluation import Protocol, evaluate, evaluation_sets, log_means, page, write_tables
from facerestore.engine.logs import logger, read_curves, start_logging
from facerestore.engine.measuring import build_metrics, protocols
from facerestore.errors import OptionError


def test(options: Options, world: World) -> None:
    """Restore every `test*` (or else `val*`) data set; results go to results/NAME."""
    options = replace(options, train=None)  # of a training's file, what testing needs: no losses, no optimizers
    folder = Path(options.path.results_root) / options.name
    sets = evaluation_sets(options, ("test",)) or evaluation_sets(options, ("val",))
    if not sets:
        raise OptionError(f"{options.source}: datasets: nothing to test: give an entry such as `test_1` or `val`")
    model, metrics = build_model(options, world), build_metrics(options, world)
    start_logging(world.is_main, folder / f"test_{options.name}.log")
    for note in options.notes:
        logger.info("%s", note)
    for key in options.networks:
        if key not in options.path.pretrain and not options.networks[key].weights:
            logger.warning("%s has no weights: its results are those of a network that has learnt nothing", key)
    val = options.val
    results = []
    for key, (section, dataset) in sets.items():
        protocol = Protocol(
            metrics,
            baseline=val.baseline,
            save_to=folder / "visualization" / (section.name or key) if val.save_img else None,
            suffix=f"_{val.suffix or options.name}",
            shown=val.report_pictures if val.report else 0,
            bar=val.pbar,
        )
        results.append(evaluate(model, section, dataset, protocol))
        log_means(results[-1])
    if world.is_main:
        facts = {
            "name": options.name,
            "method": options.model_type,
            "options": str(options.source),
            "weights": dict(options.path.pretrain),
            "metrics": protocols(options, metrics),
        }
        write_tables(folder, results, facts)
        logger.info("tables: %s and scores.json", folder / "scores.csv")
        if val.report:
            page(folder, options, results, _training_curves(options))
    distributed.wait_for_all(world)


def _training_curves(options: Options) -> dict:
    """The curves of the run that made the weights, where they lie beside them (experiments/NAME/models/net_g_N.pth)."""
    for path in options.path.pretrain.values():
        if curves := read_curves(Path(path).parent.parent):
            return curves
    return {}
