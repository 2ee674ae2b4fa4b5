"""Draw portraits into a folder, with exact labels.

    python scripts/make_synthetic_faces.py datasets/synthetic --count 1000 --size 512 --workers 4 --sheet

writes 000000.png ..., `labels.jsonl` (a line a picture: landmarks, boxes, domain, identity, attributes) and `landmarks.json`
(five points a picture).  It can be stopped and started again: finished pictures are kept.  No data is needed, and the same
arguments draw the same pictures everywhere.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from facerestore.data.convert import settle
from facerestore.data.image_io import write_image
from facerestore.data.parallel import parallel_map
from facerestore.data.synthetic import DOMAINS, REGIONS, Face, render_face
from facerestore.files import atomic_write
from scripts.common import Parser, run, whole

POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
FIXED = ("size", "seed", "pictures_per_person", "domain", "domains_as_folders", "format")  # what a folder has one of


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser("make_synthetic_faces.py", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the pictures and labels")
    parser.add_argument("--count", type=whole(1), default=1000, help="how many pictures (default: 1000)")
    parser.add_argument("--size", type=whole(32), default=512, help="side of a picture in pixels (default: 512)")
    parser.add_argument("--seed", type=whole(0), default=0, help="which people and pictures (default: 0)")
    parser.add_argument("--start", type=whole(0), default=0, help="number of the first picture (default: 0)")
    parser.add_argument("--pictures-per-person", type=whole(1), default=1, help="pictures in a row of one person (default: 1)")
    parser.add_argument("--domain", choices=DOMAINS, help="only faces of this domain")
    parser.add_argument("--domains-as-folders", action="store_true", help=f"sort pictures into {' and '.join(DOMAINS)}")
    parser.add_argument("--format", choices=("png", "jpg"), default="png", help="of the pictures (default: png)")
    parser.add_argument("--masks", action="store_true", help="also write masks/NAME.png, whose values number the regions")
    parser.add_argument("--workers", type=whole(1), default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument("--sheet", action="store_true", help="also write sheet.jpg, an overview of the first 40 pictures")
    return parser.parse_args(argv)


def draw(options: argparse.Namespace, index: int) -> dict[str, Any]:
    """Draw and write picture `index`; its line of labels."""
    cv2.setNumThreads(1)
    domain = DOMAINS.index(options.domain) if options.domain else None
    face = render_face(options.seed, index, options.size, index // options.pictures_per_person, domain)
    folder = f"{DOMAINS[face.domain]}/" if options.domains_as_folders else ""
    name = f"{folder}{index:06d}.{options.format}"
    if options.masks:
        write_image(options.out / "masks" / f"{folder}{index:06d}.png", face.regions)
    write_image(options.out / name, face.image)
    return line(name, index, face)


def line(name: str, index: int, face: Face) -> dict[str, Any]:
    def rounded(values: Any) -> list:
        return np.asarray(values, float).round(2).tolist()

    return {
        "file": name, "index": index, "identity": face.identity, "domain": DOMAINS[face.domain],
        "points5": rounded(face.points5), "landmarks68": rounded(face.landmarks68),
        "boxes": {part: rounded(box) for part, box in face.boxes.items()},
        "attributes": {k: round(v, 3) if isinstance(v, float) else v for k, v in face.attributes.items()},
    }  # fmt: skip


def finished(options: argparse.Namespace) -> dict[int, dict[str, Any]]:
    """Lines of labels, by index, of the pictures that are there; a line that was cut off counts for nothing."""
    file, lines = options.out / "labels.jsonl", {}
    for text in file.read_text().splitlines() if file.exists() else ():
        try:
            entry = json.loads(text)
        except json.JSONDecodeError:
            continue
        stem = Path(entry["file"]).with_suffix(".png")
        if (options.out / entry["file"]).exists() and (not options.masks or (options.out / "masks" / stem).exists()):
            lines[entry["index"]] = entry
    return lines


def write_labels(options: argparse.Namespace, lines: dict[int, dict[str, Any]]) -> None:
    ordered = [lines[i] for i in sorted(lines)]
    atomic_write(options.out / "labels.jsonl", "".join(json.dumps(entry) + "\n" for entry in ordered))
    points = {entry["file"]: dict(zip(POINTS, entry["points5"], strict=True)) for entry in ordered}
    atomic_write(options.out / "landmarks.json", json.dumps(points, indent=1) + "\n")


def draw_missing(options: argparse.Namespace) -> dict[int, dict[str, Any]]:
    """Draw what is not there yet, noting each picture's labels once it is written."""
    lines = finished(options)
    write_labels(options, lines)
    indices = range(options.start, options.start + options.count)
    missing = [i for i in indices if i not in lines]
    with (options.out / "labels.jsonl").open("a") as file:
        done = parallel_map(partial(draw, options), missing, options.workers)
        for entry in tqdm(done, total=options.count, initial=options.count - len(missing), unit="face"):
            lines[entry["index"]] = entry
            file.write(json.dumps(entry) + "\n")
            file.flush()
    write_labels(options, lines)
    return lines


def write_sheet(options: argparse.Namespace, lines: dict[int, dict[str, Any]], side: int = 160, columns: int = 8) -> None:
    """The first pictures, small, in one."""
    entries = [lines[i] for i in sorted(lines)][: 5 * columns]
    columns = min(columns, len(entries))
    sheet = np.full((math.ceil(len(entries) / columns) * side, columns * side, 3), 255, np.uint8)
    for i, entry in enumerate(entries):
        picture = cv2.imread(str(options.out / entry["file"]))[..., ::-1]
        top, left = i // columns * side, i % columns * side
        sheet[top : top + side, left : left + side] = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(options.out / "sheet.jpg"), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


def make(options: argparse.Namespace) -> None:
    settle(options.out, {key: getattr(options, key) for key in FIXED} | {"regions": list(REGIONS)})
    lines = draw_missing(options)
    if options.sheet:
        write_sheet(options, lines)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    return run("make_synthetic_faces.py", lambda: make(options))


if __name__ == "__main__":
    sys.exit(main())
