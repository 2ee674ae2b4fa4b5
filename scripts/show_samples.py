"""Show what a network will see: the first samples of a training, on one sheet.

    python scripts/show_samples.py -opt options/gfpgan_v1.yml
    python scripts/show_samples.py -opt options/gfpgan_v1.yml --replay 00012 3 --repeat 0

Inputs, targets, boxes and masks, and what chance decided about each.  These are the training's own samples: the first of
an epoch, in its order.  `--replay` shows one of them again, large, with every number; nothing depends on what ran before.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from facerestore.config import Options, load_options
from facerestore.data.base import FaceDataset, SampleKey
from facerestore.data.contact_sheet import Card, all_facts, contact_sheet, facts, panels
from facerestore.data.image_io import write_image
from facerestore.data.names import without_extension
from facerestore.data.sampler import StreamSampler
from facerestore.errors import DataError, OptionError, listed, nearest
from facerestore.registry import DATASETS
from scripts.common import Parser, run, whole

SMALL, LARGE = 240, 512  # about how large a picture is drawn, in pixels: of many samples, of a replayed one


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser("show_samples.py", description=__doc__.splitlines()[0])
    parser.add_argument("-opt", "--opt", required=True, metavar="FILE", help="the option file (YAML)")
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="datasets.train.gt_size=128; as many as you like",
    )
    parser.add_argument("--data", default="train", metavar="KEY", help="which of the file's `datasets` (default: train)")
    parser.add_argument("--count", type=whole(1, 200), default=12, help="how many samples (default: 12)")
    parser.add_argument("--epoch", type=whole(0), default=0, help="of which epoch, from 0 (default: 0)")
    parser.add_argument(
        "--replay", nargs=2, metavar=("NAME", "EPOCH"), help="one sample: a picture's name or path, and its epoch"
    )
    parser.add_argument("--repeat", type=whole(0), default=0, help="which sample of that picture in that epoch (default: 0)")
    parser.add_argument("--output", metavar="FILE", help="the sheet, .png or .jpg (default: samples_NAME.png in this folder)")
    given = parser.parse_args(argv)
    if given.replay and not given.replay[1].isdecimal():
        parser.error(f"--replay: the epoch must be a whole number from 0, not {given.replay[1]!r}")
    if given.repeat and not given.replay:
        parser.error("--repeat belongs to --replay NAME EPOCH")
    return given


def show(given: argparse.Namespace) -> None:
    options = load_options(given.opt, given.set)
    if given.data not in options.datasets:
        raise OptionError(f"{given.opt}: it has no data set {given.data!r}, only {listed(list(options.datasets)) or 'none'}")
    with options.naming("datasets", given.data):
        dataset = build(options, given.data)
        len(dataset)
    if given.replay:
        keys = [SampleKey(find(dataset, given.replay[0]), int(given.replay[1]), given.repeat)]
    else:
        keys = first_keys(options, given.data, given.epoch, given.count, len(dataset))
    if given.data != "train" and any(key.epoch or key.repeat for key in keys):
        raise OptionError(f"{given.data} is read the same way every time: it has no epoch but 0, and no repeat but 0")
    cards = [card(dataset, key, full=bool(given.replay)) for key in keys]
    if given.replay:
        print(cards[0].name, cards[0].origin, *(f"  {name}: {text}" for name, text in cards[0].facts), sep="\n")
    sheet = contact_sheet(*heading(options, given, len(dataset)), cards, side=LARGE if given.replay else SMALL)
    output = given.output or default_output(options.name, given, keys[0])
    write_image(output, sheet)
    print(output)


def build(options: Options, key: str) -> FaceDataset:
    """The data set, with the seed that it is trained or tested with."""
    dataset = DATASETS.build(options.datasets[key].component, options.inherited_by_data)
    dataset.seed = options.manual_seed
    return dataset


def first_keys(options: Options, key: str, epoch: int, count: int, length: int) -> list[SampleKey]:
    """The first samples of an epoch, in the order in which the loader gives them; at most the whole epoch."""
    if key != "train":
        return [SampleKey(index, epoch) for index in range(min(count, length))]
    section = options.datasets[key]
    sampler = StreamSampler(
        length,
        batch_size=1,
        seed=options.manual_seed,
        shuffle=section.use_shuffle,
        enlarge_ratio=section.dataset_enlarge_ratio,
        crops_per_image=section.crops_per_image,
    )
    start = epoch * sampler.epoch_length
    return [sampler.key(start + place) for place in range(min(count, sampler.epoch_length))]


def find(dataset: FaceDataset, text: str) -> int:
    """The index of the picture that a log calls `text`: its name in the data set, or its path, or the end of its name."""
    names = [dataset.name(index) for index in range(len(dataset))]
    stem = without_extension(text)
    exact = [name for name in names if name in (text, stem)]
    by_path = sorted((name for name in names if stem.endswith(f"/{name}")), key=len)[-1:]  # `1` and `a/1` end `data/a/1`
    by_end = [name for name in names if name.endswith(f"/{stem}")]
    found = exact or by_path or by_end
    if len(found) != 1:
        hint = f"several: {listed(found, 5)}" if found else f"none{nearest(stem, names) or f' (but {listed(names, 3)})'}"
        raise DataError(f"--replay {text}: of pictures with this name, the data set has {hint}")
    return names.index(found[0])


def card(dataset: FaceDataset, key: SampleKey, full: bool) -> Card:
    """A sample with its words: in short, or every number."""
    sample, explained = dataset[key], dataset.explain(key)
    origin = [f"epoch {key.epoch}", *([f"repeat {key.repeat}"] if key.repeat or full else [])]
    origin += [word if value else f"not {word}" for word, value in explained.items() if isinstance(value, bool)]
    words = all_facts(explained, sample) if full else facts(explained, sample)
    name, path = dataset.name(key.index), sample.get("gt_path", sample.get("lq_path", ""))
    if path and not without_extension(path).endswith(name):  # `on_bad_image: skip`
        origin.append(f"cannot be read; in its place {path}")
    return Card(name, ", ".join(origin), panels(sample), words)


def heading(options: Options, given: argparse.Namespace, length: int) -> tuple[str, str]:
    """Title and subtitle of the sheet."""
    section = options.datasets[given.data]
    title = section.name if section.name == given.data else f"{section.name} ({given.data})"
    which = "one sample" if given.replay else "the first samples"
    which += f" of epoch {given.epoch}" if given.data == "train" and not given.replay else ""
    return title, f"{options.name} · {section.type}, pictures: {length} · {which} · manual_seed {options.manual_seed}"


def default_output(name: str, given: argparse.Namespace, key: SampleKey) -> str:
    """In the working directory: experiments/NAME is the training's own, which it moves aside."""
    words = ["samples", name] + ([given.data] if given.data != "train" else [])
    if given.replay:
        words += [Path(without_extension(given.replay[0])).name, f"epoch{key.epoch}"]
        words += [f"repeat{key.repeat}"] if key.repeat else []
    return "_".join(words) + ".png"


def main(argv: list[str] | None = None) -> int:
    given = arguments(argv)
    return run("show_samples.py", lambda: show(given))


if __name__ == "__main__":
    sys.exit(main())
