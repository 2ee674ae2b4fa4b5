"""Write where eyes, nose and mouth are in every picture of a folder of faces (JSON, for `component_path`).

    python scripts/prepare_landmarks.py datasets/ffhq/ffhq_512 --landmarks ffhq-dataset-v2.json
    python scripts/prepare_landmarks.py datasets/synthetic --landmarks datasets/synthetic/labels.jsonl
    python scripts/prepare_landmarks.py datasets/my_faces --detector mtcnn

Landmarks are read from a file (FFHQ's JSON; 68 or five points by name; the synthetic faces' labels; GFPGAN's .pth), or a
detector finds them: mtcnn by the extra `faces`, yunet by its model's file, or haar, which comes with OpenCV and is rough.
Beside the file lies a sheet of faces with the boxes drawn on them: look at it before you train.  It can be stopped, even
killed, and started again: finished pictures are kept.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from facerestore.data.convert import open_source
from facerestore.data.face_detectors import chosen, detector
from facerestore.data.image_io import write_image
from facerestore.data.landmarks import read_labels
from facerestore.data.measured_faces import EYES, Finder, FromDetector, FromLabels, measure, sheet
from facerestore.errors import DataError
from facerestore.files import digest
from scripts.common import Parser, run, whole


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser("prepare_landmarks.py", description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="folder, .zip, .tar or LMDB of square pictures, a face each")
    parser.add_argument("--landmarks", metavar="FILE", help="file of landmarks; without it a detector finds them")
    parser.add_argument(
        "--measured-on",
        type=whole(1),
        metavar="SIDE",
        help="side of the pictures that the landmarks belong to (default: what their file says, else each picture's own)",
    )
    parser.add_argument(
        "--detector",
        choices=("auto", "mtcnn", "haar", "yunet"),
        help="which detector (default: yunet where --model is given, else mtcnn where it is installed, else haar)",
    )
    parser.add_argument("--model", metavar="FILE", help="yunet's face_detection_yunet_*.onnx, from OpenCV's model zoo")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the file to write (default: FOLDER_landmarks.json)")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="the sheet, .png or .jpg (default: as --output, .png)")
    parser.add_argument("--count", type=whole(1, 400), default=24, help="faces on the sheet (default: 24)")
    parser.add_argument("--workers", type=whole(1), default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument("--skip-bad", action="store_true", help="name and leave out pictures that cannot be used")
    given = parser.parse_args(argv)
    if given.landmarks and (given.detector or given.model):
        parser.error("--landmarks and --detector exclude each other: the landmarks are there, or must be found")
    if given.measured_on and not given.landmarks:
        parser.error("--measured-on belongs to --landmarks FILE")
    if given.output and given.output.suffix != ".json":
        parser.error(f"--output {given.output}: let its name end with .json")
    return given


def finder(given: argparse.Namespace, pictures: list[str]) -> tuple[Finder, dict]:
    """What finds the parts, and what its results depend on."""
    if not given.landmarks:
        kind = chosen(given.detector or "auto", given.model)
        detector(kind, given.model)  # what is wrong with it is told before the first picture
        return FromDetector(kind, given.model), {"detector": kind, "model": given.model and digest(given.model)}
    labels = read_labels(given.landmarks, "--landmarks", given.measured_on)
    return FromLabels(labels, labels.match(pictures)), {"landmarks": digest(given.landmarks), "size": labels.size}


def prepare(given: argparse.Namespace) -> None:
    source = open_source(given.folder, "the input")
    output = given.output or Path(f"{given.folder.rstrip('/')}_landmarks.json")
    picture = given.sheet or output.with_suffix(".png")
    if picture.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise DataError(f"--sheet {picture}: let its name end with .png or .jpg")
    found, settings = finder(given, source.names())
    faces = measure(source, found, output, settings | {"folder": os.path.abspath(given.folder)}, given.workers, given.skip_bad)
    by = given.landmarks or settings["detector"]
    subtitle = f"{len(faces)} faces of {given.folder}, by {by}; eyes enlarged {EYES} times, as GFPGAN cuts them out"
    write_image(picture, sheet(source, faces, str(output), subtitle, given.count))
    if by == "haar":
        print("haar places nose and mouth by proportion, roughly: pip install -e '.[faces]' brings a better detector, mtcnn")
    print(f"{output}: {len(faces)} faces, by {by}; look at {picture}")


def main(argv: list[str] | None = None) -> int:
    given = arguments(argv)
    return run("prepare_landmarks.py", lambda: prepare(given))


if __name__ == "__main__":
    sys.exit(main())
