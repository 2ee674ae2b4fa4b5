"""The rows of a recipe side by side: what each of its stages makes of the same pictures, as one table (an ablation).

Every row is measured by test.py on the `test*` (or else `val*`) data sets of its option file.  Its figures are kept as soon as
they are there; a row whose weights and options are those of before is not measured again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from facerestore.config import Options, load_options
from facerestore.data.image_io import read_image, tensor_to_image
from facerestore.data.loader import evaluation_loader
from facerestore.engine.children import program, run_program
from facerestore.engine.evaluation import evaluation_sets
from facerestore.engine.logs import number
from facerestore.engine.origins import Origin
from facerestore.engine.recipe import Planned
from facerestore.engine.report import DataSection, Picture, write_report
from facerestore.engine.scores import BASELINES, directions
from facerestore.errors import DataError, OptionError
from facerestore.files import atomic_write
from facerestore.registry import MODELS

Figures = dict[str, dict[str, dict[str, float | str]]]  # data set -> row -> metric -> value; infinity as text, as in JSON
SHARED = (*BASELINES, "lookup")  # methods that do not depend on what a row has learnt: what was given, and the VQGAN alone


@dataclass(frozen=True)
class Row:
    """A stage that is measured, and how.

    Args:
        stage: what is measured, trained
        options: its file's, for the test
        overrides: what is changed in that file for the test
    """

    stage: Planned
    options: Options
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the table calls it."""
        return self.stage.stage.row

    @property
    def folder(self) -> Path:
        """Where test.py leaves what it finds."""
        return Path(self.options.path.results_root) / self.options.name

    @property
    def kind(self) -> str:
        """Of which data sets its figures are: those of a test, or where there are none, of the validation."""
        return "test" if any(key.startswith("test") for key in self.options.datasets) else "val"

    def origin(self) -> Origin:
        """What its figures come from: options, and weights of it and of the stages before."""
        return Origin.of(self.options.raw, {**{net: self.stage.weights(net) for net in self.stage.made}, **self.stage.taken})


def rows_of(planned: Iterable[Planned], folder: str | Path) -> list[Row]:
    """The stages that have a `row`, ready to be measured into `folder`.

    Raises:
        OptionError: the options of one do not hold for a test, or two rows have one name
    """
    rows: dict[str, Row] = {}
    for stage in planned:
        if (name := stage.stage.row) is None:
            continue
        if name in rows:
            raise OptionError(f"stages {rows[name].stage.name!r} and {stage.name!r} are both the row {name!r} of the table")
        for_training = MODELS.get(stage.options.model_type).needed_to_train
        made = {net.replace("net_", "network_", 1): stage.weights(net) for net in stage.made}
        weights = [f"path.pretrain_{key}={path}" for key, path in made.items() if key not in for_training]
        overrides = (*stage.overrides, f"path.results_root={folder}", *weights)
        rows[name] = Row(stage, load_options(stage.stage.options, overrides), overrides)
    return list(rows.values())


@dataclass
class Table:
    """What was measured, as `table.json` keeps it.

    Args:
        states: row -> the origin of its figures
        figures: row -> data set -> method of the test -> metric -> value
        protocols: metric -> how it was measured
    """

    states: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Figures] = field(default_factory=dict)
    protocols: dict[str, Any] = field(default_factory=dict)

    def by_set(self, rows: Sequence[str]) -> Figures:
        """The table of every data set: a line for each row, and for each other method of its test."""
        found: Figures = {}
        for row in rows:
            for dataset, methods in self.figures[row].items():
                for method, values in methods.items():
                    found.setdefault(dataset, {}).setdefault(label(row, method), values)
        return found


def label(row: str, method: str) -> str:
    """How the table calls a method of a row's test."""
    if method in SHARED:
        return method
    return row if method == "restored" else f"{row}, {method}"


def compare(rows: Sequence[Row], folder: Path, processes: int = 1, say: Callable[[str], Any] = print) -> Table:
    """Measure the rows that were not measured yet, and write `table.json` and `report.html` to `folder`.

    Args:
        rows: what is measured
        folder: where it is written; the figures of an earlier call are there
        processes: processes of each test
        say: told what begins, and the table in the end

    Raises:
        StoppedError: it was asked to stop
        UserError: a test failed
    """
    table = read_table(folder / "table.json")
    names = [row.name for row in rows]
    for name, row in zip(names, rows, strict=True):
        state = row.origin().as_json()
        if table.states.get(name) == state:
            say(f"row {name}: measured already")
            continue
        say(f"row {name}: {row.folder}")
        command = program("test.py", row.stage.stage.options, row.overrides, processes)
        run_program(command, f"the test of row {name!r}")
        scores = json.loads((row.folder / "scores.json").read_text(encoding="utf-8"))
        table.states[name] = state
        table.figures[name] = {dataset: measured["mean"] for dataset, measured in scores["datasets"].items()}
        table.protocols |= scores["metrics"]
        _write(folder / "table.json", table, names)
    _write(folder / "table.json", table, names)
    figures = table.by_set(names)
    say("\n" + as_text(figures))
    if caption := caption_of(rows):
        say(f"\n{caption}")
    say(f"table: {folder / 'table.json'}; report: {_report(folder, rows, table, figures)}")
    return table


def read_table(path: Path) -> Table:
    """What an earlier call has measured; nothing yet where there is no file.

    Raises:
        DataError: the file is none of this program's
    """
    if not path.exists():
        return Table()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Table(content["states"], content["rows"], content["metrics"])
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path} is no table that was written here: move it away, and the rows are measured anew") from None


def _write(path: Path, table: Table, names: Sequence[str]) -> None:
    measured = [name for name in names if name in table.figures]
    content = {
        "datasets": table.by_set(measured),
        "metrics": table.protocols,
        "rows": table.figures,
        "states": table.states,
    }
    atomic_write(path, json.dumps(content, indent=2))


def caption_of(rows: Iterable[Row]) -> str:
    """What a reader should know of the rows whose figures are of a validation; nothing where all have test sets."""
    validated = [row.name for row in rows if row.kind == "val"]
    return f"Of validation sets, as the options have no `test_*` set: {', '.join(validated)}" if validated else ""


def as_text(figures: Figures) -> str:
    """The tables as lines of text, a paragraph for each data set; a dash where a row has no figure."""
    paragraphs = []
    for dataset, rows in figures.items():
        metrics = list(dict.fromkeys(metric for values in rows.values() for metric in values))
        lines = [[dataset, *metrics]]
        lines += [[row, *(number(float(values[m])) if m in values else "–" for m in metrics)] for row, values in rows.items()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        paragraphs.append("\n".join(_aligned(line, widths) for line in lines))
    return "\n\n".join(paragraphs)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """The first cell to the left, figures to the right."""
    figures = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "  ".join((cells[0].ljust(widths[0]), *figures))


def _report(folder: Path, rows: Sequence[Row], table: Table, figures: Figures) -> Path:
    """A page with the tables, and of every data set the first pictures as each row restored them."""
    means = {s: {row: {k: float(v) for k, v in of.items()} for row, of in lines.items()} for s, lines in figures.items()}
    sections = [DataSection(name, pictures, means[name], caption_of(rows)) for name, pictures in _pictures(rows, table).items()]
    better = directions(rows[0].options.val)
    return write_report(folder / "report.html", title=folder.name, sections=sections, better=better, protocols=table.protocols)


def _pictures(rows: Sequence[Row], table: Table) -> dict[str, list[Picture]]:
    """The first pictures of each data set, from the given one over the rows to the truth."""
    options, found = rows[0].options, {}
    for key, (section, dataset) in evaluation_sets(options, (rows[0].kind,)).items():
        where = section.name or key
        pictures = found.setdefault(where, [])
        for batch in islice(evaluation_loader(dataset, seed=dataset.seed), options.val.report_pictures):
            name = dataset.name(int(batch["index"][0]))
            given = {"LR": tensor_to_image(batch["lq"][0] / 255)}
            wanted = {"HR": tensor_to_image(batch["gt"][0] / 255)} if "gt" in batch else {}
            restored = [_restored(row, where, name, table.figures[row.name][where]) for row in rows]
            pictures.append(Picture(name, {**given, **{k: v for of_row in restored for k, v in of_row.items()}, **wanted}))
    return found


def _restored(row: Row, dataset: str, name: str, methods: Iterable[str]) -> dict[str, np.ndarray]:
    """What a row's test wrote of one picture, as the table calls it; nothing where it was asked to write none."""
    own = [method for method in methods if method not in BASELINES]
    suffix = row.options.val.suffix or row.options.name
    path = row.folder / "visualization" / dataset / name
    written = {m: path.with_name(f"{path.name}{f'_{m}' if len(own) > 1 else ''}_{suffix}.png") for m in own}
    return {label(row.name, method): read_image(file) for method, file in written.items() if file.exists()}
