"""`test.py`: restore, measure and report the data sets of one option file."""

from __future__ import annotations

from pathlib import Path

from facerestore.config import Options
from facerestore.config.checks import has_weights
from facerestore.config.schema import net_of
from facerestore.engine import distributed
from facerestore.engine.builder import build_model
from facerestore.engine.distributed import World
from facerestore.engine.evaluation import evaluate, evaluation_sets, how_timed, iterations_of_weights, look_at_samples, page
from facerestore.engine.logs import log_notes, logger, read_curves, start_logging
from facerestore.engine.measuring import build_metrics, protocols
from facerestore.engine.scores import log_means, protocol_of, write_tables
from facerestore.errors import OptionError
from facerestore.registry import MODELS


def test(options: Options, world: World) -> None:
    """Restore every `test*` (or else `val*`) data set; results go to results/NAME."""
    options = options.to_test()
    folder = Path(options.path.results_root) / options.name
    sets = evaluation_sets(options, ("test",)) or evaluation_sets(options, ("val",))
    if not sets and not MODELS.get(options.model_type).makes_samples:
        raise OptionError(f"{options.source}: datasets: nothing to test: give an entry such as `test_1` or `val`")
    refuse_untrained(options)
    model, metrics = build_model(options, world), build_metrics(options, world)
    for _, dataset in sets.values():
        model.method.check_data(dataset)
    start_logging(world.is_main, folder / f"test_{options.name}.log")
    log_notes(options.notes, world.is_main)
    iterations = iterations_of_weights(options)
    for key, it in iterations.items():
        logger.info("weights of %s: iteration %d", key, it)
    val = options.val
    results = []
    for key, (section, dataset) in sets.items():
        if contents := dataset.contents():
            logger.info("%s, %s", section.name or key, contents)
        save_to = folder / "visualization" / (section.name or key)
        protocol = protocol_of(val, metrics, save_to, f"_{val.suffix or options.name}", val.pbar)
        results.append(evaluate(model, section, dataset, protocol))
        log_means(results[-1])
        logger.info("%s, %s", results[-1].name, results[-1].timing())
    if world.is_main:
        sheet = folder / "visualization" / f"samples_{val.suffix or options.name}.png"
        samples = look_at_samples(model, sheet if val.save_img else None)
        measured = {**protocols(options, metrics), **how_timed(options, world)}
        facts = {
            "name": options.name,
            "method": options.model_type,
            "options": str(options.source),
            "weights": dict(options.path.pretrain),
            "iterations": iterations,
            "metrics": measured,
        }
        write_tables(folder, results, facts)
        logger.info("tables: %s and scores.json", folder / "scores.csv")
        if val.report:
            page(folder, options, results + samples, _training_curves(options), measured,
                 {f"iteration of {key}": it for key, it in iterations.items()})  # fmt: skip
    distributed.wait_for_all(world)


def refuse_untrained(options: Options) -> None:
    """OptionError for a network that restores and has no weights: figures of one that has learnt nothing say nothing."""
    for_training = MODELS.get(options.model_type).needed_to_train
    for key, network in options.networks.items():
        if key in for_training or has_weights(key, network, options):
            continue
        trained = Path(options.path.experiments_root) / options.name / "models" / f"{net_of(key)}_latest.pth"
        hint = f"{trained} is there" if trained.exists() else "`weights: random` in its section, to try out"
        raise OptionError(f"{options.source}: {key} has no weights: name their file as path.pretrain_{key} ({hint})")


def _training_curves(options: Options) -> dict:
    """The curves of the run that made the weights, where they lie beside them (experiments/NAME/models/net_g_N.pth)."""
    for path in options.path.pretrain.values():
        if curves := read_curves(Path(path).parent.parent):
            return curves
    return {}
