"""Write the statistics of a folder of faces that `calculate_fid` takes as its `reference`.

    python scripts/fid_statistics.py datasets/ffhq/ffhq_512 --output ffhq_512.npz

The folder may be an LMDB (NAME.lmdb).  pytorch-fid reads the file too, and this project reads pytorch-fid's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from facerestore.data import build_dataset
from facerestore.data.loader import evaluation_loader
from facerestore.metrics import build_metric
from facerestore.metrics.fid import write_statistics
from scripts.common import Parser, run, whole


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser("fid_statistics.py", description=__doc__.splitlines()[0])
    parser.add_argument("input", help="folder of the pictures, or NAME.lmdb")
    parser.add_argument("--output", required=True, metavar="FILE", help="the statistics, .npz")
    parser.add_argument(
        "--weights", default="published", metavar="FILE", help="pytorch-fid's Inception (default: fetched, if it is not there)"
    )
    parser.add_argument("--batch", type=whole(1, 4096), default=16, help="pictures at a time (default: 16)")
    parser.add_argument("--workers", type=whole(0, 1024), default=0, help="processes that read (default: none beside this one)")
    given = parser.parse_args(argv)
    if not given.output.endswith(".npz"):
        parser.error(f"--output: must end with .npz, not {given.output!r}")
    return given


def measure(given: argparse.Namespace) -> None:
    backend = {"type": "lmdb" if given.input.endswith(".lmdb") else "disk"}
    pictures = build_dataset({"type": "SingleImageDataset", "dataroot_lq": given.input, "io_backend": backend})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    count = len(pictures)  # a wrong folder is told before weights are fetched
    metric = build_metric({"type": "calculate_fid", "weights": given.weights}).to(device)
    seen = metric.statistics()
    for batch in evaluation_loader(pictures, given.batch, given.workers, name=given.input):
        seen.add(metric.features(batch["lq"].to(device) / 255))
    write_statistics(given.output, seen)
    print(f"{given.output}: statistics of {count} pictures")


def main(argv: list[str] | None = None) -> int:
    given = arguments(argv)
    return run("fid_statistics.py", lambda: measure(given))


if __name__ == "__main__":
    sys.exit(main())
