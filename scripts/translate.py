"""Translate pictures between domains with trained networks of StarGAN v2.

    python scripts/translate.py picture nets_ema_latest.pth me.png --reference her.png --domain 0 --output out.png
    python scripts/translate.py grid nets_ema_latest.pth SOURCES REFERENCES --domain 0 --output grid.png
    python scripts/translate.py latents nets_ema_latest.pth SOURCES --domain 1 --count 5 --output latents.png
    python scripts/translate.py video nets_ema_latest.pth SOURCES REFERENCES --domain 0 --output video.mp4

The file is what a training leaves as models/nets_ema_latest.pth, or a published nets_ema.ckpt (with --fan wing.ckpt where
a network for CelebA-HQ comes without its FAN).  SOURCES and REFERENCES are pictures or folders of them.  A domain is
called as the training's folder was, or by its number: folders are numbered by the alphabet.  Published files know numbers
alone.  Pictures are resized to the side that the networks were built for.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from facerestore.data.augment import Crop
from facerestore.data.domains import resized
from facerestore.data.image_io import read_image, write_image
from facerestore.data.names import EXTENSIONS, natural
from facerestore.data.storage import walk
from facerestore.errors import DataError, OptionError, listed
from facerestore.files import refuse_unwritable
from facerestore.inference.translator import Translator, mosaic, write_video
from scripts.common import Parser, run, whole


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser("translate.py", description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="picture, grid, latents or video")
    said = {
        "picture": "one picture, by a reference or a latent code",
        "grid": "sources above, references on the left",
        "latents": "sources above, their translations by latent codes below",
        "video": "from reference to reference, or without references from latent code to latent code",
    }
    for kind, text in said.items():
        one = kinds.add_parser(kind, help=text, description=text)
        one.add_argument("weights", metavar="FILE", help="all networks in one file")
        one.add_argument("sources", metavar="SOURCES", help="a picture, or a folder of pictures")
        if kind == "grid":
            one.add_argument("reference", metavar="REFERENCES", help="a picture, or a folder of pictures")
        elif kind == "video":
            one.add_argument("reference", metavar="REFERENCES", nargs="?", help="two pictures or more")
        elif kind == "picture":
            one.add_argument("--reference", metavar="FILE", help="whose style is taken; a latent code's by default")
        one.add_argument("--domain", required=True, help="name or number of the target domain")
        one.add_argument("--output", required=True, metavar="FILE", help="the picture, or the video (.mp4)")
        one.add_argument("--fan", metavar="FILE", help="weights of the face alignment network, where FILE holds none")
        if kind != "picture":
            one.add_argument("--limit", type=whole(1, 100), default=8, help="first pictures of a folder (default: 8)")
        if kind in ("latents", "video"):
            one.add_argument("--count", type=whole(2, 100), default=4, help="latent codes (default: 4)")
        if kind != "grid":
            one.add_argument("--seed", type=whole(0, 2**63 - 1), default=0, help="of the latent codes (default: 0)")
        if kind == "video":
            one.add_argument("--frames", type=whole(2, 1000), default=30, help="from style to style (default: 30)")
    parser.set_defaults(count=1, limit=1, seed=0)
    return parser.parse_args(argv)


def translate(given: argparse.Namespace) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    translator = Translator.from_file(given.weights, given.fan, device)
    domain, named = translator.number_of(given.domain), getattr(given, "reference", None)
    if given.kind == "video" and Path(given.output).suffix.lower() != ".mp4":
        raise OptionError(f"--output {given.output}: a video's name ends with .mp4")
    if given.kind == "picture" and (folder := next((f for f in (given.sources, named) if f and Path(f).is_dir()), None)):
        raise OptionError(f"{folder}: a folder, but one picture is translated: name a picture, or take grid or latents")
    files = [None if place is None else files_of(place)[: given.limit] for place in (given.sources, named)]
    refuse_unwritable(given.output)
    sources, references = (read and pictures(read, translator.img_size).to(device) for read in files)
    z = torch.randn((given.count, translator.mapping.latent_dim), generator=torch.Generator().manual_seed(given.seed))
    styles = (
        translator.styles_of_latents(z.to(device), domain)
        if references is None
        else translator.styles_of_references(references, domain)
    )
    if given.kind == "grid":
        write_image(given.output, translator.reference_grid(sources, references, styles))
    elif given.kind == "latents":
        write_image(given.output, translator.style_grid(sources, styles))
    elif given.kind == "picture":
        write_image(given.output, mosaic([[translator.translate(sources[:1], styles[None, :1])[0, 0]]]))
    elif len(styles) < 2:
        raise DataError(f"{named}: a video goes from one reference to the next: give a folder with two or more")
    else:
        write_video(given.output, translator.interpolation(sources, styles, given.frames))
    print(given.output)


def pictures(files: list[str], side: int) -> Tensor:
    """(N, 3, side, side) in [-1, 1]."""
    images = [read_image(file) for file in files]
    whole_ones = [resized(image, Crop(0, 0, *image.shape[:2]), side).copy() for image in images]
    return torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in whole_ones]).float() / 127.5 - 1


def files_of(place: str) -> list[str]:
    """The picture, or all pictures below a folder in natural order; two may have one name, with different endings."""
    if not os.path.exists(place):
        raise DataError(f"{place or repr(place)}: no such picture or folder")
    if not os.path.isdir(place):
        return [place]
    found = [str(Path(place) / file) for file in sorted(walk(place), key=natural)]
    if not found:
        raise DataError(f"folder {place} holds no picture (files that end with {listed(sorted(EXTENSIONS))})")
    return found


def main(argv: list[str] | None = None) -> int:
    given = arguments(argv)
    return run("translate.py", lambda: translate(given), "interrupted; nothing was written")


if __name__ == "__main__":
    sys.exit(main())
