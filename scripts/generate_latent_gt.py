"""Compute the codes of a data set's faces, and of their mirror images, for CodeFormer's second and third stage.

    python scripts/generate_latent_gt.py --input datasets/ffhq/ffhq_512 --output datasets/ffhq/latent_gt.pth \\
        --vqgan experiments/codeformer_stage1_release/models/net_g_latest.pth

Option files name the result as `datasets.train.latent_gt_path`; training then does without `network_vqgan`.  The script can
be stopped, even killed, and started again: what the same VQGAN has made of the same pictures is kept.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from facerestore.data.storage import Pictures
from facerestore.inference.latents import PART, write_codes
from scripts.common import Parser, run, whole


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser("generate_latent_gt.py", description=__doc__.splitlines()[0])
    parser.add_argument("--input", required=True, help="folder or LMDB of the faces, as `dataroot_gt` names it")
    parser.add_argument("--meta-info", help="text file that lists the pictures to use, as `meta_info_file` names it")
    parser.add_argument("--vqgan", required=True, help="checkpoint of stage I, ours or published")
    parser.add_argument("--output", required=True, help="the file of codes")
    parser.add_argument("--batch", type=whole(1), default=8, help="pictures that the network sees at once (default: 8)")
    parser.add_argument("--part", type=whole(1), default=PART, help=f"pictures between two savings (default: {PART})")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where the network runs (default: a GPU where there is one)")
    parser.add_argument(
        "--workers", type=whole(1), default=os.cpu_count() or 1, help="processes that read (default: one a core)"
    )
    parser.add_argument("--skip-bad", action="store_true", help="name and leave out pictures that cannot be used")
    return parser.parse_args(argv)


def generate(given: argparse.Namespace) -> None:
    kind = "lmdb" if given.input.rstrip("/").endswith(".lmdb") else "disk"
    pictures = Pictures(given.input, "--input", {"type": kind}, given.meta_info)
    device = torch.device(given.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    done = write_codes(pictures, given.vqgan, given.output, device, given.batch, given.workers, given.skip_bad, given.part)
    kept = f" ({done.present} were there already)" if done.present else ""
    print(f"{given.output}: codes of {done.made + done.present} pictures{kept}, with both flips")


def main(argv: list[str] | None = None) -> int:
    given = arguments(argv)
    return run("generate_latent_gt.py", lambda: generate(given))


if __name__ == "__main__":
    sys.exit(main())
