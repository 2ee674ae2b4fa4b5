"""`--dry-run`: check what an option file says, and tell what would happen, without touching data or files of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)

from facerestore.config import Options
from facerestore.config.resolved import resolved_yaml
from facerestore.engine.evaluation import dataset_of
from facerestore.engine.logs import bytes_text
from facerestore.engine.memory import (
    Labels,
    Phases,
    Shapes,
    measure_iterations,
    measure_restoring,
    module_bytes,
    state_bytes,
    unallocated_model,
)
from facerestore.engine.tester import refuse_untrained
from facerestore.engine.training import TrainingModel
from facerestore.errors import OptionError, UserError, first_line
from facerestore.registry import MODELS

NEEDS_CONTENT = (
    AttributeError,  # a batch holds more than pictures
    NotImplementedError,
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)
NOT_COUNTED = (
    "not counted: Python and its libraries, the device's own context and workspaces (cuDNN), what its allocator holds in "
    "reserve, what the optimizers' steps need for a moment, and the exchange between processes"
)


def dry_run_training(options: Options) -> None:
    """Print what train.py would do with `options`; OptionError where there is nothing to train or an iteration fails."""
    if options.train is None:
        raise OptionError(f"{options.source}: has no `train` section; to test, run test.py")
    if "train" not in options.datasets:
        raise OptionError(f"{options.source}: datasets: needs an entry `train`")
    _print_training_memory(print_options(options), options)
    for key in options.datasets:
        if key.startswith("val"):
            _print_restoring(key, options)
    folder = Path(options.path.experiments_root) / options.name
    _print_end(options, f"would train {options.train.total_iter} iterations, results in {folder}")


def dry_run_testing(options: Options) -> None:
    """Print what test.py would do with `options`: what is only for training is not looked at any further."""
    keys = [k for k in options.datasets if k.startswith("test")] or [k for k in options.datasets if k.startswith("val")]
    if not keys and not MODELS.get(options.model_type).makes_samples:
        raise OptionError(f"{options.source}: datasets: nothing to test: give an entry such as `test_1` or `val`")
    refuse_untrained(options)
    options = replace(options.to_test(), datasets={k: options.datasets[k] for k in keys})
    print_options(options)
    for key in keys:
        _print_restoring(key, options)
    names = ", ".join(options.datasets[k].name for k in keys)
    measured = f", measured by {', '.join(options.val.metrics)}" if options.val.metrics else ""
    folder = Path(options.path.results_root) / options.name
    _print_end(options, f"would restore {names or 'nothing but fixed codes'}{measured}, results in {folder}")


def print_options(options: Options) -> TrainingModel:
    """Print the options in force and the networks' sizes; the model, which was built without memory, is returned."""
    model = unallocated_model(options)
    betas = {key: o.param_groups[0]["betas"] for key, o in model.optimizers.items() if "betas" in o.param_groups[0]}
    print(resolved_yaml(options, betas))
    for key, network in model.networks.items():
        count = sum(p.numel() for p in network.parameters())
        frozen = ", frozen" if key in model.frozen else ""
        source = options.path.pretrain.get("network_" + key.removeprefix("net_"))
        weights = f", weights from {source}" if source else ""
        print(f"{key}: {type(network).__name__}, {count:,} parameters ({bytes_text(module_bytes([network]))}){frozen}{weights}")
    return model


def _print_training_memory(model: TrainingModel, options: Options) -> None:
    """What lies in each process's memory always, and what each phase adds to it."""
    section = options.datasets["train"]
    states = {key: state_bytes(optimizer) for key, optimizer in model.optimizers.items()}
    always = {
        "networks": module_bytes(model.networks.values()),
        "moving averages": module_bytes(model.ema.values()),
        "networks in losses": module_bytes(model.losses.values()),
        **{f"states of {key} ({options.train.optimizers[key].type})": value for key, value in states.items()},
    }
    print("memory of each process, estimated")
    for what, value in always.items():
        print(f"  {what}: {bytes_text(value)}")
    dataset = dataset_of(section, options)
    shapes, labels = dataset.picture_shapes(), dataset.label_shapes()
    if not set(model.method.reads) <= shapes.keys() | labels.keys():
        print(f"  activations: unknown, as the sizes of the pictures of {section.name} are not in the options")
        print(f"  without them: {bytes_text(sum(always.values()))}")
        return
    try:
        rows = section.batch_size_per_gpu // options.train.accumulate
        phases = _phases(model, rows, shapes, labels, options)
    except NEEDS_CONTENT as error:
        print(f"  activations: unknown, as an iteration of {options.model_type} needs real data ({first_line(error)})")
        print(f"  without them: {bytes_text(sum(always.values()))}")
        return
    slices = f" in {options.train.accumulate} slices" if options.train.accumulate > 1 else ""
    print(f"  batches of {section.batch_size_per_gpu}{slices} ({shapes_text(shapes)}), {options.train.precision}:")
    for what, value in phases.peaks.items():
        print(f"    phase {what}: {bytes_text(value)}, with gradients of {bytes_text(phases.gradients[what])}")
    print(f"  at its highest: {bytes_text(sum(always.values()) + phases.peak)}")
    print(f"  {NOT_COUNTED}")


def _phases(model: TrainingModel, batch_size: int, shapes: Shapes, labels: Labels, options: Options) -> Phases:
    """The phases of the first iteration, and of those in which the method does something else."""
    turns = (turn.first for turn in model.method.turning_points().values())
    iterations = sorted({1, *(it for it in turns if it <= options.train.total_iter)})
    with _failures_told(options, "an iteration"):
        return measure_iterations(model, batch_size, shapes, iterations, labels)


def _print_restoring(key: str, options: Options) -> None:
    """What restoring one batch of a data set takes."""
    section = options.datasets[key]
    dataset = dataset_of(section, options)
    shapes = dataset.picture_shapes()
    if not shapes:
        print(f"restoring {section.name}: memory unknown, as the sizes of its pictures are not in the options")
        return
    batch = section.batch_size_per_gpu
    try:
        with _failures_told(options, "restoring"):
            value = measure_restoring(unallocated_model(options), batch, shapes, dataset.label_shapes())
    except NEEDS_CONTENT as error:
        print(f"restoring {section.name}: memory unknown, as {options.model_type} needs real data ({first_line(error)})")
        return
    print(f"restoring {section.name} in batches of {batch} ({shapes_text(shapes)}): {bytes_text(value)} beside the networks")


@contextmanager
def _failures_told(options: Options, what: str) -> Iterator[None]:
    """OptionError for what real data would meet too: shapes that do not fit, batches too small for a norm."""
    try:
        yield
    except NEEDS_CONTENT:
        raise
    except (UserError, RuntimeError, ValueError) as error:
        raise OptionError(f"{options.source}: {what} fails with these networks and pictures: {first_line(error)}") from None


def _print_end(options: Options, what: str) -> None:
    for note in options.notes:
        print(f"note: {note}")
    print("not looked at: whether folders and files of weights are there")
    print(f"{options.source}: all options are right; {what}")


def shapes_text(shapes: Mapping[str, tuple[int, int]]) -> str:
    """'gt 128x96, lq 32x24', width first."""
    return ", ".join(f"{key} {width}x{height}" for key, (height, width) in shapes.items())
