"""Restore, colour or in-paint pictures of aligned faces, or folders of them.

    python scripts/restore.py FACES -opt options/codeformer_test.yml -w 0.7
    python scripts/restore.py FACES --weights codeformer.pth --sweep 0 0.25 0.5 0.75 1
    python scripts/restore.py GRAY --weights codeformer_colorization.pth --task colorize
    python scripts/restore.py FACES --weights codeformer_inpainting.pth --task inpaint --masks MASKS

Results are PNG files under the pictures' names, in results/TASK or --output.  The weights may be any network's from picture
to picture (a GFPGAN's); w is CodeFormer's alone.  What --task inpaint is not to paint it keeps, byte for byte, as it was read
(8 bits, RGB): white of the masks says what is missing, or strokes of pure white in the pictures themselves.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from facerestore.data.image_io import write_image
from facerestore.engine.logs import progress_bar
from facerestore.engine.restoring import open_restorer
from facerestore.errors import DataError, OptionError, listed
from facerestore.inference.faces import CONDITIONS, Faces, Result, find_pictures
from facerestore.inference.strip import labelled_strip
from scripts.common import Parser, run, whole


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser("restore.py", description=__doc__.splitlines()[0])
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="a picture, or a folder of pictures")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("-opt", "--opt", metavar="FILE", help="option file; its path.pretrain_network_g names the weights")
    source.add_argument("--weights", metavar="FILE", help="checkpoint, ours or published: the network is told by its content")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="changes the option file")
    parser.add_argument("--task", choices=tuple(CONDITIONS), default="restore", help="what is done (default: restore)")
    weight = parser.add_mutually_exclusive_group()
    weight.add_argument(
        "-w", "--fidelity", type=share, metavar="W",
        help="0 (quality) to 1 (fidelity); default: as the option file says, else 0.5; 0 to colorize, 1 to inpaint",
    )  # fmt: skip
    weight.add_argument("--sweep", type=share, nargs="+", metavar="W", help="several of them, side by side as NAME_sweep.png")
    parser.add_argument(
        "--adain", action=argparse.BooleanOptionalAction,
        help="colours and light of the input (default: as the option file says, else yes; no to inpaint)",
    )  # fmt: skip
    parser.add_argument("--masks", metavar="PLACE", help="to inpaint: a file for all pictures, or a folder with their names")
    parser.add_argument(
        "--other-size", choices=("resize", "refuse"), default="resize",
        help="what to do with square pictures that have not the network's size (default: resize)",
    )  # fmt: skip
    parser.add_argument("--output", metavar="FOLDER", help="where results are written (default: results/TASK)")
    parser.add_argument("--batch", type=whole(1), default=4, help="pictures that the network sees at once (default: 4)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="arithmetic (default: fp32)")
    parser.add_argument("--channels_last", "--channels-last", action="store_true", help="lay pictures out pixel by pixel")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where the network runs (default: a GPU where there is one)")
    given = parser.parse_args(argv)
    if given.masks and given.task != "inpaint":
        parser.error("--masks say what to inpaint: add --task inpaint")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here")
    return given


def share(text: str) -> float:
    """The type of w."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"w must be a number from 0 (quality) to 1 (fidelity), not {text!r}")
    return value


def restore(given: argparse.Namespace) -> None:
    pictures = find_pictures(given.inputs)
    folder = Path(given.output or f"results/{given.task}")
    ending = "_sweep.png" if given.sweep else ".png"
    targets = {name: folder / f"{name}{ending}" for name in pictures}
    for name, target in targets.items():
        if target.exists() and target.parent.samefile(Path(pictures[name]).parent):
            raise DataError(f"{target}: the result would take the place of a picture: name another folder (--output)")
    faces = open_faces(given)
    left_out, resized, painted = [], [], []
    with progress_bar(len(pictures), what=given.task, unit="img") as bar:
        for result in faces.results(pictures):
            if result.fault:
                left_out.append(result.name)
                bar.write(f"left out: {result.fault}", file=sys.stderr)
            else:
                resized += [result.name] if result.resized else []
                painted += [] if result.painted is None else [result.painted]
                write_image(targets[result.name], labelled_sweep(result) if given.sweep else next(iter(result.images.values())))
            bar.update()
    print(f"{folder}: {len(pictures) - len(left_out)} of {len(pictures)} pictures{conditions(faces)}")
    if painted:
        print(f"painted anew: {min(painted):.1%} to {max(painted):.1%} of a picture")
    if resized:
        side = faces.restorer.network.in_size
        print(f"resized to {side}x{side} for the network: {listed(resized, 5)}")
    if left_out:
        raise DataError(f"{len(left_out)} of {len(pictures)} pictures were left out, as said above: {listed(left_out, 5)}")


def open_faces(given: argparse.Namespace) -> Faces:
    """The network, and what it is told."""
    restorer, told = open_restorer(
        given.opt or given.weights, given.task, given.set,
        device=given.device, precision=given.precision, channels_last=given.channels_last,
    )  # fmt: skip
    asked = given.sweep or ([] if given.fidelity is None else [given.fidelity])
    if told is None and (asked or given.adain is not None):
        raise OptionError(f"w and adain are CodeFormer's, but {restorer.source} is a {restorer.kind}: leave them out")
    ws, adain = (asked or [told.w], told.adain if given.adain is None else given.adain) if told else ([None], None)
    return Faces(restorer, given.task, ws, adain, given.masks, given.other_size, given.batch)


def conditions(faces: Faces) -> str:
    """', w = 0.5, colours and light of the input', of a network that is told any."""
    if faces.adain is None:
        return ""
    return f", w = {listed([f'{w:g}' for w in faces.ws])}" + (", colours and light of the input" if faces.adain else "")


def labelled_sweep(result: Result) -> np.ndarray:
    """What was given, and beside it what became of it with each w."""
    return labelled_strip({"input": result.given, **{f"w = {w:g}": image for w, image in result.images.items()}})


def main(argv: list[str] | None = None) -> int:
    given = arguments(argv)
    return run("restore.py", lambda: restore(given), "interrupted; what is written is whole")


if __name__ == "__main__":
    sys.exit(main())
