"""Degraded samples a second and core, beside the published data set in the same run.

pip install --no-deps basicsr gfpgan    (any environment without them measures this project alone)
python benchmarks/degradation.py [--faces FOLDER] [--samples 100]

Both get decoded uint8 pictures and make the ground truth and its degraded copy; the two take turns, on one core; a figure is
processor time, the median over rounds.  Three faults of the published packages that stop them today are worked around here:
a module of torchvision that is gone, a JPEG quality that is no whole number, and packages that import everything.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import torch

from facerestore.data import build_dataset
from facerestore.data.base import FaceDataset, SampleKey
from facerestore.data.degradations import blur, color, jpeg, kernels, noise, pipeline
from facerestore.data.image_io import write_image
from facerestore.data.loader import training_loader
from facerestore.data.memory import keep_freed_memory
from facerestore.data.synthetic import render_face

PUBLISHED = {
    "use_hflip": True,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "out_size": 512,
    "blur_kernel_size": 41,
    "blur_sigma": [0.1, 10],
    "downsample_range": [0.8, 8],
    "noise_range": [0, 20],
    "jpeg_range": [60, 100],
    "color_jitter_prob": 0.3,
    "color_jitter_shift": 20,
    "color_jitter_pt_prob": 0.3,
    "gray_prob": 0.01,
}
MIXTURES = {
    "separable kernels (iso)": (["iso"], [1.0]),
    "published mixture (iso, aniso)": (["iso", "aniso"], [0.5, 0.5]),
}
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, help="folder of 512x512 pictures; drawn faces by default")
    parser.add_argument("--samples", type=int, default=100, help="samples of a round (default: 100)")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    keep_freed_memory()  # as the loader's workers do
    with tempfile.TemporaryDirectory() as folder:
        faces = options.faces or draw_faces(Path(folder))
        published = published_dataset()
        for title, (types, shares) in MIXTURES.items():
            compare(title, faces, {"kernel_list": types, "kernel_prob": shares}, published, options.samples)
        where_the_time_goes(faces, options.samples)
        through_the_loader(faces, options.samples)


def draw_faces(folder: Path, count: int = 4) -> Path:
    for i in range(count):
        write_image(folder / f"{i:05d}.png", render_face(0, i, 512).image)
    return folder


def our_dataset(faces: Path, **kernel_options: object) -> FaceDataset:
    return build_dataset({"type": "FFHQDegradationDataset", "dataroot_gt": str(faces), **PUBLISHED, **kernel_options})


def compare(title: str, faces: Path, kernel_options: dict, published: Callable | None, samples: int) -> None:
    dataset = our_dataset(faces, **kernel_options)
    picture = dataset.gt.read(dataset.names[0])
    dataset.gt.read = lambda name: picture
    makers = {"facerestore": lambda i: dataset.sample(0, dataset.rng(SampleKey(0, 0, i)))}
    if published:
        theirs = published(picture, kernel_options)
        makers["published"] = lambda i: theirs[0]
    times: dict[str, list[float]] = {name: [] for name in makers}
    for turn in range(ROUNDS + 1):  # the first warms up
        for name, make in makers.items():
            start = time.process_time()
            for i in range(samples):
                make(turn * samples + i)
            times[name].append((time.process_time() - start) / samples)
    seconds = {name: statistics.median(t[1:]) for name, t in times.items()}
    line = ", ".join(f"{name} {s * 1e3:.2f} ms a sample ({1 / s:.0f} a second and core)" for name, s in seconds.items())
    ratio = f": {seconds['published'] / seconds['facerestore']:.1f} times as fast" if published else ""
    print(f"{title}: {line}{ratio}")


def published_dataset() -> Callable | None:
    """What makes the published data set for one decoded picture; None where its packages are not installed."""
    if not all(importlib.util.find_spec(name) for name in ("basicsr", "gfpgan")):
        print("basicsr and gfpgan are not installed, so there is nothing to compare with: pip install --no-deps basicsr gfpgan")
        return None
    from torchvision.transforms import functional

    gone = ModuleType("torchvision.transforms.functional_tensor")
    gone.rgb_to_grayscale = functional.rgb_to_grayscale
    sys.modules[gone.__name__] = gone
    for name in ("basicsr", "gfpgan"):
        place = Path(importlib.util.find_spec(name).submodule_search_locations[0])
        for package, folder in ((name, place), (f"{name}.data", place / "data")):  # empty, so that they import nothing
            sys.modules[package] = ModuleType(package)
            sys.modules[package].__path__ = [str(folder)]
    degradations = importlib.import_module("basicsr.data.degradations")
    compress = degradations.add_jpg_compression
    degradations.add_jpg_compression = lambda image, quality=90: compress(image, int(quality))
    module = importlib.import_module("gfpgan.data.ffhq_degradation_dataset")

    def make(picture: np.ndarray, kernel_options: dict) -> object:
        module.imfrombytes = lambda data, float32: picture[..., ::-1].astype(np.float32) / 255
        module.paths_from_folder = lambda folder: ["picture"]
        module.FileClient = lambda *args, **kwargs: SimpleNamespace(get=lambda path: b"")
        module.get_root_logger = lambda: SimpleNamespace(info=lambda text: None)
        np.random.seed(0)
        random.seed(0)
        return module.FFHQDegradationDataset({"dataroot_gt": "", "io_backend": {"type": "disk"}, **PUBLISHED, **kernel_options})

    return make


def where_the_time_goes(faces: Path, samples: int) -> None:
    """Milliseconds of each step of the published mixture."""
    dataset = our_dataset(faces)
    picture = dataset.gt.read(dataset.names[0])
    spent = dict.fromkeys(("kernel", "blur and shrink", "noise", "JPEG", "enlarge", "colour", "to 8 bits"), 0.0)

    def timed(step: str, work: Callable, *args: object) -> object:
        start = time.process_time()
        result = work(*args)
        spent[step] += (time.process_time() - start) / samples * 1e3
        return result

    for i in range(samples):
        draw = dataset.draw(np.random.default_rng(i))
        small = (int(512 // draw.lq.factor),) * 2
        kernel = timed("kernel", kernels.make_kernel, draw.lq.kernel)
        lq = timed("blur and shrink", blur.blur_and_resize, picture, kernel, small)
        lq = timed("noise", noise.apply_noise, lq, draw.lq.noise)
        lq = timed("JPEG", jpeg.apply_jpeg, lq, draw.lq.jpeg_quality)
        lq = timed("enlarge", blur.resize, lq, (512, 512))
        lq = timed("colour", color.apply_color, lq, draw.color)
        timed("to 8 bits", pipeline.to_levels, lq)
    print("where the time goes: " + ", ".join(f"{step} {ms:.2f} ms" for step, ms in spent.items()))


def through_the_loader(faces: Path, samples: int) -> None:
    """Files in, batches out, by one worker."""
    loader = training_loader(our_dataset(faces), batch_size=4, num_workers=1)
    batches = iter(loader)
    for _ in range(4):
        next(batches)
    count = max(4, samples // 4)
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    print(f"files to batches: {4 * count / (time.perf_counter() - start):.0f} samples a second from one worker")


if __name__ == "__main__":
    main()
