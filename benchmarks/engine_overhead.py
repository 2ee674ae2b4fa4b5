"""What the engine adds to a bare loop of the same step, and whether memory stays flat.

python benchmarks/engine_overhead.py
python benchmarks/engine_overhead.py --set network_g.num_feat=32 network_g.num_block=4 datasets.train.batch_size_per_gpu=8
python benchmarks/engine_overhead.py --set datasets.train.gt_size=192 datasets.train.size=192 --device cuda
python benchmarks/engine_overhead.py --memory 10000

The bare loop is what one would write by hand: the same networks, losses, optimizers and averages, nothing around them.  Both
train in turns, in short blocks, and each block is held against the one beside it, so that a machine that slows down slows
both; the median of these ratios counts.  Exit code 1 where it is above 3 %.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from facerestore.config import load_options
from facerestore.data.batch import Batch
from facerestore.engine import build_model
from facerestore.engine.distributed import World
from facerestore.engine.ema import averaged_copy
from facerestore.engine.evaluation import dataset_of
from facerestore.engine.training import TrainingModel

Step = Callable[[Batch, int], object]
SR = Path(__file__).resolve().parents[1] / "options" / "debug" / "sr.yml"
ALLOWED = 0.03  # of a bare loop's time
PUBLISHED = ("network_g.num_feat=64", "network_g.num_block=16", "datasets.train.batch_size_per_gpu=16")  # MSRResNet, its batch


def bare_loop(model: TrainingModel, truth_is: tuple[float, float]) -> Step:
    """SRModel's step, written by hand over networks and an optimizer of its own."""
    network, (optimizer,), loss = model.networks["net_g"], model.optimizers.values(), model.losses["pixel_opt"]
    average = averaged_copy(network)
    theirs = [*network.parameters()]
    mine = [*average.parameters()]
    mean, std = truth_is
    device = model.world.device

    def pictures(images: torch.Tensor) -> torch.Tensor:
        return (images.to(device, non_blocking=True).float() / 255 - mean) / std

    def step(batch: Batch, it: int) -> None:
        lq, gt = pictures(batch.lq), pictures(batch.gt)
        optimizer.zero_grad(set_to_none=True)
        loss(network(lq).image, gt).backward()
        optimizer.step()
        torch._foreach_lerp_(mine, theirs, 0.1)

    return step


def seconds(step: Step, batch: Batch, its: range, device: torch.device) -> float:
    """Per iteration."""
    start = time.perf_counter()
    for it in its:
        step(batch, it)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / len(its)


def compare(steps: dict[str, Step], batch: Batch, blocks: int, length: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of an iteration by loop and block; the loops take turns."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for block in range(blocks + 1):
        order = list(steps) if block % 2 else list(reversed(steps))
        for name in order:
            taken[name].append(seconds(steps[name], batch, range(1 + block * length, 1 + (block + 1) * length), device))
    return {name: values[1:] for name, values in taken.items()}  # the first block warms up


def memory(device: torch.device) -> float:
    """MiB in use now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="over options/debug/sr.yml")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--blocks", type=int, default=80, help="measurements of each loop (default: 80)")
    parser.add_argument("--length", type=int, default=1, help="iterations of each (default: 1)")
    parser.add_argument("--memory", type=int, default=0, metavar="N", help="instead, memory over N iterations of it alone")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    options = load_options(SR, [*(() if arguments.memory else PUBLISHED), "train.scheduler=~", *arguments.set])
    world = World(device=device)
    section = options.datasets["train"]
    shapes = dataset_of(section, options).picture_shapes()
    size = section.batch_size_per_gpu
    batch = Batch({k: torch.randint(0, 256, (size, 3, *shape), dtype=torch.uint8) for k, shape in shapes.items()})
    model = build_model(options, world)
    if arguments.memory:
        marks = sorted({100, *(arguments.memory * k // 10 for k in range(1, 11))})
        for it in range(1, arguments.memory + 1):
            model.step(batch, it)
            if it in marks:
                print(f"after {it} iterations: {memory(device):.1f} MiB")
        return 0
    bare = bare_loop(build_model(options, world), (0.0, 1.0))
    found = compare({"engine": model.step, "bare loop": bare}, batch, arguments.blocks, arguments.length, device)
    for name, values in found.items():
        print(f"{name}: {statistics.median(values) * 1e3:.3f} ms an iteration")
    ratios = [engine / bare - 1 for engine, bare in zip(*found.values(), strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"the engine adds {middle:+.2%} (quartiles {low:+.2%} to {high:+.2%}); it may add {ALLOWED:.0%}")
    return int(middle > ALLOWED)


if __name__ == "__main__":
    raise SystemExit(main())
