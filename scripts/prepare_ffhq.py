"""Shrink FFHQ's published pictures to the size that faces are trained at, into a folder or an LMDB.

    python scripts/prepare_ffhq.py images1024x1024.zip datasets/ffhq/ffhq_512.lmdb --workers 8

The input is the folder `images1024x1024`, a .zip or .tar of it, or any folder of square faces.  It can be stopped, even
killed, and started again: finished pictures of the same input are kept.

Pictures are called by eight digits, whatever sub-folder they lie in: FFHQ's 00000/00042.png becomes 00000042.  So the published
FFHQ_eye_mouth_landmarks_512.pth and CodeFormer's latent codes call them, and one folder holds them all.  `--digits 0` keeps
names and sub-folders; names that are no numbers are always kept.
"""

from __future__ import annotations

import argparse
import posixpath
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from facerestore.data.convert import Recipe, convert, open_source
from facerestore.errors import DataError
from scripts.common import Parser, add_conversion_arguments, run, whole


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser("prepare_ffhq.py", description=__doc__.splitlines()[0])
    parser.add_argument("input", help="folder, .zip or .tar of the published pictures")
    parser.add_argument("output", help="a new folder, or NAME.lmdb")
    parser.add_argument("--size", type=whole(8), default=512, help="side of a picture in pixels (default: 512)")
    parser.add_argument("--format", choices=("png", "jpg", "webp"), default="png", help="of the pictures (default: png)")
    parser.add_argument(
        "--digits", type=whole(0, 12), default=8, help="of the names: 8 as landmark files have them (default); 0 keeps names"
    )
    parser.add_argument("--start", type=whole(0), default=0, help="place of the first picture, in order of names (default: 0)")
    parser.add_argument("--limit", type=whole(1), help="how many pictures (default: all)")
    add_conversion_arguments(parser)
    return parser.parse_args(argv)


def numbered(names: Iterable[str], digits: int) -> dict[str, str]:
    """Names in the input by names in the output."""
    given: dict[str, str] = {}
    for name in names:
        last = posixpath.basename(name)
        new = last.lstrip("0").zfill(digits) if digits and last.isascii() and last.isdigit() else name
        if new in given:
            raise DataError(f"pictures {given[new]} and {name} would both be called {new}: give one's folder, or --digits 0")
        given[new] = name
    return given


def prepare(options: argparse.Namespace) -> None:
    source = open_source(options.input, "the input")
    names = numbered(source.names(), options.digits)
    chosen = list(names)[options.start :][: options.limit]
    if not chosen:
        raise DataError(f"--start {options.start} is beyond the last of {len(names)} pictures")
    recipe = Recipe(options.format, options.size, True, options.filter, options.quality, options.compression)
    outcome = convert(source, names, chosen, recipe, options.output, options.workers, options.skip_bad)
    print(f"{options.output}: {outcome}, {options.size}x{options.size}")


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    return run("prepare_ffhq.py", lambda: prepare(options))


if __name__ == "__main__":
    sys.exit(main())
