"""Train the stages of a recipe, each with the weights of those before it, and compare those that are rows of a table.

    python scripts/run_recipe.py options/codeformer_recipe.yml --set datasets.train.dataroot_gt=FOLDER

All option files are checked first.  It can be stopped, even killed, and started again: it goes on from the last checkpoint.
Where a stage does not pass its gate (too few codes in use, too few predicted right) it stops and says so, with exit code 2.
Stages with a `row` are tested in the end, and stand side by side in results/RECIPE/table.json and report.html: an ablation.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from facerestore.engine.comparison import compare, rows_of
from facerestore.engine.recipe import read_recipe, run_recipe
from scripts.common import Parser, run, whole


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser("run_recipe.py", description=__doc__.splitlines()[0])
    parser.add_argument("recipe", help="the recipe (YAML)")
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="an option of all stages; as many as you like",
    )
    parser.add_argument("--processes", type=whole(1), default=1, help="training processes of each stage (default: 1)")
    parser.add_argument("--check", action="store_true", help="check recipe and options, and stop")
    return parser.parse_args(argv)


def train(given: argparse.Namespace) -> None:
    planned = read_recipe(given.recipe, given.set)
    folder = Path(planned[0].options.path.results_root) / Path(given.recipe).stem
    rows = rows_of(planned, folder)
    if given.check:
        print(f"{given.recipe}: {len(planned)} stages, all options are well")
        return
    run_recipe(planned, given.processes, say)
    if rows:
        compare(rows, folder, given.processes, say)


def say(line: str) -> None:
    print(line, flush=True)


def main(argv: list[str] | None = None) -> int:
    given = arguments(argv)
    return run("run_recipe.py", lambda: train(given))


if __name__ == "__main__":
    sys.exit(main())
