"""Several trainings in a row, each with the weights of earlier ones, and a gate after each: CodeFormer's three stages.
Stages that are rows of a table are measured side by side in the end (facerestore/engine/comparison.py): an ablation.

A recipe is a YAML file (options/codeformer_recipe.yml is one):

    stages:
      codebook:                                   # any name
        options: options/codeformer_stage1_release.yml
        gate: {codebook_usage: {at_least: 0.6}}   # a term of the training's curves, mean of its last ten values
      codes:
        options: options/codeformer_stage2_release.yml
        takes: {network_g.vqgan_path: codebook.net_g}
        gate: {code_accuracy: {on: held_out, above: lookup}}  # a figure of the last validation, and of which method it is more
        row: predicted by a transformer           # the table's row with its figures
    set: [datasets.train.dataroot_gt=FOLDER]      # for all stages; a stage may have a `set` of its own

All stages are checked before the first begins.  A stage that has its last checkpoint is passed over, one that was interrupted
goes on.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from facerestore.config import Options, load_options
from facerestore.config.tree import from_file
from facerestore.engine.logs import LOSSES, Curves, read_curves
from facerestore.errors import OptionError, UserError, listed, nearest
from facerestore.registry import REQUIRED, Parameter, bind, parameters_of

ROOT = Path(__file__).resolve().parents[2]
LAST = 10  # values of a curve that a gate looks at


@dataclass(frozen=True)
class Gate:
    """Bounds on a term of the training's curves, or on a figure of its last validation.

    Args:
        at_least: the smallest value that passes
        at_most: the largest value that passes
        on: the validation set on which it was measured; by default it is a term of the training
        of: the method of which it is the figure there
        above: another method there, whose figure must be smaller
    """

    at_least: float | None = None
    at_most: float | None = None
    on: str | None = None
    of: str = "restored"
    above: str | None = None

    def __post_init__(self) -> None:
        if self.above and not self.on:
            raise OptionError("methods are compared on a validation set: name it as `on`", ("above",))

    def why_not(self, value: float, other: float | None = None) -> str | None:
        """What is missing where `value` does not pass; `other` is what the method `above` has reached."""
        if self.at_least is not None and not value >= self.at_least:
            return f"at least {self.at_least:g}"
        if self.at_most is not None and not value <= self.at_most:
            return f"at most {self.at_most:g}"
        if other is not None and not value > other:
            return f"more than the {other:.4g} of {self.above}"
        return None


@dataclass(frozen=True)
class Stage:
    """One training of a recipe.

    Args:
        options: its option file, from the working directory
        takes: option -> STAGE.net_X: a network of an earlier stage, whose last weights that option names
        set: options to change, as `--set` has them
        gate: bounds on terms of its curves, without which the recipe stops
        row: what the table in the end calls its figures on its `test*` (or else `val*`) data sets; by default it is not there
    """

    options: str
    takes: dict[str, Annotated[str, Meta(pattern=r"^[\w-]+\.net_\w+$")]] = field(default_factory=dict)
    set: tuple[str, ...] = ()
    gate: dict[str, dict[str, float | str]] = field(default_factory=dict)
    row: Annotated[str, Meta(min_length=1)] | None = None


@dataclass(frozen=True)
class Planned:
    """A stage with its options, checked."""

    name: str
    stage: Stage
    options: Options
    overrides: tuple[str, ...]
    taken: dict[str, Path]  # option -> the weights of an earlier stage that it names
    gates: dict[str, Gate]

    @property
    def folder(self) -> Path:
        return Path(self.options.path.experiments_root) / self.options.name

    def weights(self, network: str) -> Path:
        """The last checkpoint of `net_X`."""
        suffix = self.options.logger.checkpoint_format
        return self.folder / "models" / f"{network}_{self.options.train.total_iter}.{suffix}"

    @property
    def done(self) -> bool:
        return all(self.weights(net).exists() for net in self.made)

    @property
    def made(self) -> list[str]:
        """The networks that it trains."""
        return ["net_" + key.removeprefix("optim_") for key in self.options.train.optimizers]


def read_recipe(path: str | os.PathLike, overrides: Iterable[str] = ()) -> list[Planned]:
    """The stages of a recipe with their options.

    Args:
        path: the file
        overrides: options to change in all stages, as `--set` has them

    Raises:
        OptionError: the recipe, or the options of a stage, are wrong
    """
    tree = from_file(path)
    try:
        sections, common = _content(tree.data)
        stages = {name: _stage(name, section) for name, section in sections.items()}
        planned: dict[str, Planned] = {}
        for name, stage in stages.items():
            planned[name] = _planned(name, stage, planned, (*common, *overrides))
    except OptionError as error:
        raise tree.located(error) from None
    return list(planned.values())


def _content(data: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    top = [Parameter("stages", dict[str, dict], REQUIRED, "trainings by name"), Parameter("set", tuple[str, ...], (), "")]
    given = bind(top, data, "a recipe")
    if not given.get("stages"):
        raise OptionError("a recipe needs `stages`: one or more trainings by name", ("stages",))
    return given["stages"], given.get("set", ())


def _stage(name: str, section: dict[str, Any]) -> Stage:
    try:
        return Stage(**bind(parameters_of(Stage), section, "a stage"))
    except OptionError as error:
        raise error.within(("stages", name)) from None


def _planned(name: str, stage: Stage, earlier: dict[str, Planned], common: tuple[str, ...]) -> Planned:
    """A stage, its weights wired to earlier ones."""
    taken: dict[str, Path] = {}
    for option, source in stage.takes.items():
        other, network = source.split(".")
        where = ("stages", name, "takes", option)
        if other not in earlier:
            hint = nearest(other, earlier) or (f" (there are {listed(list(earlier))})" if earlier else "")
            raise OptionError(f"there is no stage {other!r} before {name!r}{hint}", where)
        if network not in earlier[other].made:
            raise OptionError(f"stage {other!r} trains no {network}, only {listed(earlier[other].made)}", where)
        taken[option] = earlier[other].weights(network)
    overrides = (*common, *stage.set, *(f"{option}={file}" for option, file in taken.items()))
    options = load_options(stage.options, overrides)
    if options.train is None:
        raise OptionError(f"{stage.options} has no `train` section", ("stages", name, "options"))
    if clash := next((p.name for p in earlier.values() if p.options.name == options.name), None):
        raise OptionError(f"stages {clash!r} and {name!r} are both called {options.name!r}", ("stages", name))
    gates = {term: _gate(name, term, bounds) for term, bounds in stage.gate.items()}
    return Planned(name, stage, options, overrides, taken, gates)


def _gate(stage: str, term: str, bounds: dict[str, float | str]) -> Gate:
    try:
        return Gate(**bind(parameters_of(Gate), bounds, "a gate"))
    except OptionError as error:
        raise error.within(("stages", stage, "gate", term)) from None


def run_recipe(planned: Iterable[Planned], processes: int = 1, say: Callable[[str], Any] = print) -> None:
    """Train stage after stage, from where an earlier call was interrupted.

    Args:
        planned: the stages
        processes: training processes of each stage
        say: told what begins

    Raises:
        UserError: a stage failed, or did not pass its gate
    """
    for stage in planned:
        if stage.done:
            say(f"stage {stage.name}: done already ({stage.folder})")
        else:
            say(f"stage {stage.name}: {stage.stage.options} ({stage.folder})")
            code = subprocess.run(_command(stage, processes), check=False).returncode
            if code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
                raise UserError(f"stage {stage.name} was stopped before its end; the same command goes on from there")
            if code:
                raise UserError(f"stage {stage.name} ended with exit code {code}; the same command goes on from there")
            if not stage.done:
                raise UserError(f"stage {stage.name} was stopped before its end; the same command goes on from there")
        pass_gates(stage, say)


def _command(stage: Planned, processes: int) -> list[str]:
    return [*program("train.py", stage.stage.options, stage.overrides, processes), "--auto_resume"]


def program(name: str, options: str, overrides: Iterable[str], processes: int) -> list[str]:
    """The command that runs train.py or test.py on an option file, changed by `overrides`."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    changes = [word for override in overrides for word in ("--set", override)]
    return [sys.executable, *launcher, str(ROOT / name), "-opt", options, *changes]


def pass_gates(stage: Planned, say: Callable[[str], Any] = print) -> None:
    """UserError where a curve of a finished stage ends out of its bounds."""
    charts = read_curves(stage.folder)
    for term, gate in stage.gates.items():
        what = f"{term} on {gate.on}" if gate.on else term
        value, other = (_reached(stage, charts, term, gate, of) for of in (gate.of, gate.above))
        if missing := gate.why_not(value, other):
            raise UserError(
                f"stage {stage.name}: {what} ended at {value:.4g}, and the recipe asks for {missing}: the next stage would "
                "learn little from it; train it longer or otherwise, or change the gate"
            )
        say(f"stage {stage.name}: {what} {value:.4g} passes" + (f" ({gate.above} {other:.4g})" if gate.above else ""))


def _reached(stage: Planned, charts: Curves, term: str, gate: Gate, method: str | None) -> float | None:
    """Where a term of the training ended, or the figure of a method in the last validation; None for no method."""
    if method is None:
        return None
    if gate.on is None:
        curves = charts.get(LOSSES, {})
        if term not in curves:
            raise UserError(f"stage {stage.name}: its gate looks at {term!r}, which was not logged{nearest(term, curves)}")
        return statistics.fmean(value for _, value in curves[term][-LAST:])
    chart = f"{gate.on}: {term}"
    if chart not in charts:
        raise UserError(f"stage {stage.name}: its gate looks at {chart!r}, which was not measured{nearest(chart, charts)}")
    if method not in charts[chart]:
        known = listed(list(charts[chart]))
        raise UserError(f"stage {stage.name}: its gate looks at {chart!r} of {method!r}, but there are {known} alone")
    return charts[chart][method][-1][1]
