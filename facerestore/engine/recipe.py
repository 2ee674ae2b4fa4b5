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

All stages are checked before the first begins: options, gates, and whether weights fit the networks that take them.  A stage
that has its last checkpoint is passed over, one that was interrupted goes on, and one that was trained from other weights or
options than the recipe's is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from facerestore.config import Options, load_options
from facerestore.config.tree import from_file
from facerestore.engine.children import program, run_program
from facerestore.engine.gates import Gate, pass_gates
from facerestore.engine.origins import ORIGIN_FILE, Origin, deciding, read_origin, write_origin
from facerestore.engine.resume import saved_iterations
from facerestore.engine.wiring import refuse_misfit
from facerestore.errors import OptionError, UserError, listed, nearest
from facerestore.registry import REQUIRED, Parameter, bind, parameters_of


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

    def origin(self) -> Origin:
        """What its weights come from when it is trained now."""
        return Origin.of(deciding(self.options, {str(file) for file in self.taken.values()}), self.taken)


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
    for option, source in stage.takes.items():
        try:
            refuse_misfit(option, options, source, earlier[source.split(".")[0]].options)
        except OptionError as error:
            raise error.within(("stages", name, "takes", option)) from None
    gates = {term: _gate(name, term, bounds, options) for term, bounds in stage.gate.items()}
    return Planned(name, stage, options, overrides, taken, gates)


def _gate(stage: str, term: str, bounds: dict[str, float | str], options: Options) -> Gate:
    try:
        gate = Gate(**bind(parameters_of(Gate), bounds, "a gate"))
        gate.check(term, options)
    except OptionError as error:
        raise error.within(("stages", stage, "gate", term)) from None
    return gate


def run_recipe(planned: Iterable[Planned], processes: int = 1, say: Callable[[str], Any] = print) -> None:
    """Train stage after stage, from where an earlier call was interrupted.

    Args:
        planned: the stages
        processes: training processes of each stage
        say: told what begins

    Raises:
        StoppedError: it was asked to stop, as a stage was
        UserError: a stage failed, was trained from something else, or did not pass its gate
    """
    for stage in planned:
        hold_to_origin(stage, say)
        if stage.done:
            say(f"stage {stage.name}: done already ({stage.folder})")
        else:
            say(f"stage {stage.name}: {stage.stage.options} ({stage.folder})")
            run_program(_command(stage, processes), f"stage {stage.name}")
            if not stage.done:
                raise UserError(f"stage {stage.name} was stopped before its end; the same command goes on from there")
            write_origin(stage.folder / ORIGIN_FILE, stage.origin())
        pass_gates(stage.name, stage.folder, stage.gates, say)


def hold_to_origin(stage: Planned, say: Callable[[str], Any] = print) -> None:
    """Note what a stage is trained from when it begins; refuse one that was trained from something else.

    Args:
        stage: the weights that it takes are there
        say: told where an earlier run has left no note

    Raises:
        UserError: it took other weights, or has come to its end with other options
    """
    file, now = stage.folder / ORIGIN_FILE, stage.origin()
    begun = stage.done or saved_iterations(stage.folder)
    then = read_origin(file) if begun else None
    if then is None:
        if begun:
            say(f"stage {stage.name}: warning: {stage.folder} does not say what it was trained from, and is taken as it is")
        write_origin(file, now)
        return
    other = [f"weights as {option}" for option in then.other_weights(now)]
    if stage.done and then.options != now.options:
        other.append("options")
    if other:
        raise UserError(
            f"stage {stage.name}: {stage.folder} was trained with other {' and '.join(other)} than the recipe has now: remove "
            f"the folder to train it anew, give the stage another `name`, or remove {ORIGIN_FILE} there to take it as it is"
        )


def _command(stage: Planned, processes: int) -> list[str]:
    return [*program("train.py", stage.stage.options, stage.overrides, processes), "--auto_resume"]
