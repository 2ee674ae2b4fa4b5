"""In-painting by a network that predicts codes, beside one that looks up the nearest, the more is masked.

    python benchmarks/inpainting.py FACES --predictor transformer=codeformer_inpainting.pth --predictor nearest=vqgan.pth

FACES is a folder of aligned faces of the networks' size.  A predictor is a file of weights or an option file: a VQGAN looks up
the nearest codes; so does a CodeFormer with `predictor: nearest`.  Strokes grow over each face, the same ones for all
predictors; where they are, a picture is painted anew, and all else is kept.  What is measured is the whole picture, against
the one that was masked: means over all faces.  The table (Markdown) names the share that was in fact masked, and tells the
same of the picture with its strokes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from facerestore.data.degradations.masks import apply_mask, sample_growing_masks
from facerestore.data.image_io import read_image
from facerestore.engine.logs import progress_bar
from facerestore.engine.measuring import picture_figures
from facerestore.engine.restoring import open_restorer
from facerestore.errors import DataError, OptionError
from facerestore.inference.faces import CONDITIONS, composed, find_pictures
from facerestore.inference.restorer import Restorer
from facerestore.metrics import build_metric
from facerestore.metrics.base import AnyMetric
from scripts.common import Parser, run, whole

Scores = dict[tuple[float, str], list[dict[str, float]]]  # (share asked for, predictor) -> figures of each picture
MASKED = "masked"  # among the figures: the share that was
UNTOUCHED = "strokes left"  # among the predictors


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser("inpainting.py", description=__doc__.splitlines()[0])
    parser.add_argument("faces", help="a picture, or a folder of pictures")
    parser.add_argument("--predictor", action="append", required=True, metavar="NAME=FILE", help="as often as you like")
    parser.add_argument(
        "--shares", type=share, nargs="+", default=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],
        help="of the pixels that are masked (default: 0.1 to 0.7)",
    )  # fmt: skip
    parser.add_argument("--limit", type=whole(1), default=100, help="faces, from the first on (default: 100)")
    parser.add_argument("--seed", type=whole(0), default=0, help="of the strokes (default: 0)")
    parser.add_argument("--lpips", nargs=2, metavar=("ALEXNET", "LINEAR"), help="files of LPIPS's weights, to measure it too")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where the networks run (default: a GPU where there is one)")
    return parser.parse_args(argv)


def share(text: str) -> float:
    """The type of a share of the pixels."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 0.95:
        raise argparse.ArgumentTypeError(f"must be a number above 0, at most 0.95, not {text!r}")
    return value


def compare(given: argparse.Namespace) -> None:
    predictors = {}
    for named in given.predictor:
        name, equals, file = named.partition("=")
        if not equals:
            raise OptionError(f"--predictor {named}: give a name and a file, as nearest={named}")
        predictors[name] = open_restorer(file, "inpaint", device=given.device)[0]
    metrics = {"PSNR": build_metric({"type": "calculate_psnr"}), "SSIM": build_metric({"type": "calculate_ssim"})}
    if given.lpips:
        files = dict(zip(("weights", "lpips_weights"), given.lpips, strict=True))
        metrics["LPIPS"] = build_metric({"type": "calculate_lpips", "net": "alex", **files})
    files = list(find_pictures([given.faces]).values())[: given.limit]
    scores: Scores = {}
    with progress_bar(len(files), what="faces", unit="img") as bar:
        for number, file in enumerate(files):
            measure(file, np.random.default_rng([given.seed, number]), sorted(given.shares), predictors, metrics, scores)
            bar.update()
    print(f"{len(files)} faces of {given.faces}")
    print(table(scores))


def measure(
    file: str,
    rng: np.random.Generator,
    shares: Sequence[float],
    predictors: Mapping[str, Restorer],
    metrics: Mapping[str, AnyMetric],
    scores: Scores,
) -> None:
    """Add one picture's figures to `scores`."""
    image = read_image(file)
    truth = tensor(image)
    for wanted, mask in zip(shares, sample_growing_masks(rng, *image.shape[:2], shares), strict=True):
        seen = apply_mask(image, mask)
        scores.setdefault((wanted, UNTOUCHED), []).append(figures_of(seen, mask, metrics, truth))
        for name, restorer in predictors.items():
            told = CONDITIONS["inpaint"] if restorer.network.fuses_input else ()
            try:
                (painted,) = restorer.restore_batch([seen], *told)
            except DataError as error:
                raise DataError(f"picture {file}: {error}") from None
            whole_picture = composed(image, painted, mask > 0)
            scores.setdefault((wanted, name), []).append(figures_of(whole_picture, mask, metrics, truth))


def figures_of(image: np.ndarray, mask: np.ndarray, metrics: Mapping[str, AnyMetric], truth: torch.Tensor) -> dict[str, float]:
    """What is measured of one picture, and how much of it was masked."""
    return {MASKED: float((mask > 0).mean()), **picture_figures(metrics, tensor(image), truth)}


def tensor(image: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, 3) to (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def table(scores: Scores) -> str:
    """A line for each share and predictor."""
    columns = [name for name in next(iter(scores.values()))[0] if name != MASKED]
    lines = ["| masked | predictor | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    for (_, name), figures in scores.items():
        means = {column: np.mean([picture[column] for picture in figures]) for column in (MASKED, *columns)}
        values = [f"{means[column]:.2f}" if column == "PSNR" else f"{means[column]:.4f}" for column in columns]
        lines.append(f"| {means[MASKED]:.1%} | {name} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    given = arguments(argv)
    return run("inpainting.py", lambda: compare(given), "interrupted")


if __name__ == "__main__":
    sys.exit(main())
