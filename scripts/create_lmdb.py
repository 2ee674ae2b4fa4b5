"""Put a folder of pictures into an LMDB, as BasicSR and this project read it (`io_backend: {type: lmdb}`).

    python scripts/create_lmdb.py --input datasets/ffhq/ffhq_512 --output datasets/ffhq/ffhq_512.lmdb --workers 8

It can be stopped, even killed, and started again: finished pictures of the same input are kept.  `meta_info.txt` appears
when all are there.  8-bit PNGs and JPEGs are checked and stored as they are; other pictures become PNGs; `--png` encodes all
anew.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from facerestore.data.convert import Recipe, convert, is_lmdb, open_source
from facerestore.data.lmdb_storage import unreadable_upstream
from facerestore.errors import DataError, listed
from scripts.common import Parser, add_conversion_arguments, run, whole


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser("create_lmdb.py", description=__doc__.splitlines()[0])
    parser.add_argument("--input", required=True, help="folder, .zip, .tar or LMDB of pictures; keys are their names")
    parser.add_argument("--output", required=True, help="the LMDB to make, NAME.lmdb")
    parser.add_argument("--size", type=whole(1), help="shrink to this shorter side; smaller pictures stay (default: no change)")
    parser.add_argument(
        "--format",
        choices=("keep", "png", "jpg", "webp"),
        default="keep",
        help="of the stored pictures (default: keep the files' bytes)",
    )
    parser.add_argument("--png", action="store_const", const="png", dest="format", help="the same as --format png")
    add_conversion_arguments(parser)
    return parser.parse_args(argv)


def create(options: argparse.Namespace) -> None:
    if not is_lmdb(options.output):
        raise DataError(f"--output {options.output}: let its name end with .lmdb, which BasicSR asks for")
    source = open_source(options.input, "--input")
    names = source.names()
    if hidden := unreadable_upstream(names):
        print(
            f"create_lmdb.py: BasicSR cannot read {len(hidden)} of the names, those with dots or letters beyond ASCII "
            f"({listed(hidden, 3)}); this project can",
            file=sys.stderr,
        )
    recipe = Recipe(options.format, options.size, False, options.filter, options.quality, options.compression)
    outcome = convert(
        source, dict(zip(names, names, strict=True)), names, recipe, options.output, options.workers, options.skip_bad
    )
    print(f"{options.output}: {outcome}")


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    return run("create_lmdb.py", lambda: create(options))


if __name__ == "__main__":
    sys.exit(main())
