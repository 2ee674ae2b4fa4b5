"""CodeFormer beside PyPI's spandrel_extra_arches: restoring a face of 512 pixels with the same weights, in turns, in one run.

pip install --no-deps spandrel spandrel_extra_arches einops    (or a PYTHONPATH with them)
python benchmarks/codeformer_speed.py [--repeats 3] [--threads 2] [--quick] [--compile] [--stage2]

Both hold the same random weights; that their pictures are equal is checked before anything is timed.  The times are the best of
the repeats, by the clock and by the time that the processors worked, which other programs disturb less.  `--stage2` times an
iteration of stage II (the code cross-entropy; encoder and transformer learn) against a loop that has gradients computed of the
whole published network.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.gfpgan_speed import Cost, processor
from facerestore.archs import build_network

PUBLISHED = "spandrel_extra_arches.architectures.CodeFormer.__arch.codeformer"
W = 0.5  # of the features that the picture gives
TOLERANCE = 1e-3  # of pictures of random weights, relative to their largest value


def is_installed() -> bool:
    return all(importlib.util.find_spec(name) for name in ("spandrel", "spandrel_extra_arches", "einops"))


def restoration(network: Callable[[Tensor], Tensor], face: Tensor, bf16: bool) -> Callable[[], Tensor]:
    """What restores the face once."""

    @torch.inference_mode()
    def restore() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            return network(face)

    return restore


def sides(published: nn.Module | None, ours: nn.Module, compiled: bool) -> dict[str, Callable[[], Tensor]]:
    """What is compared, by name."""
    face = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0)) * 2 - 1
    last = face.to(memory_format=torch.channels_last)
    mine = lambda x: ours(x, w=W, adain=True).image  # noqa: E731
    found: dict[str, Callable[[], Tensor]] = {}
    if published:
        theirs = lambda x: published(x, weight=W)[0]  # noqa: E731
        found["published, float32"] = restoration(theirs, face, bf16=False)
        found["published, channels-last"] = restoration(theirs, last, bf16=False)
        found["published, bf16, channels-last"] = restoration(theirs, last, bf16=True)
    found["float32"] = restoration(mine, face, bf16=False)
    found["bf16"] = restoration(mine, face, bf16=True)
    if compiled:
        fast = torch.compile(ours)
        found["compiled, float32"] = restoration(lambda x: fast(x, w=W, adain=True).image, last, bf16=False)
        found["compiled, bf16"] = restoration(lambda x: fast(x, w=W, adain=True).image, last, bf16=True)
    return found


def stage_two(published: nn.Module | None, ours: nn.Module) -> dict[str, Callable[[], Tensor]]:
    """An iteration's gradients of the code cross-entropy; of the published network all that it has are computed."""
    face = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0)) * 2 - 1
    codes = torch.randint(0, 1024, (1, 256), generator=torch.Generator().manual_seed(0))

    def learn(network: nn.Module, logits: Callable[[], Tensor]) -> Tensor:
        network.zero_grad()
        loss = cross_entropy(logits().transpose(1, 2), codes)
        loss.backward()
        return loss.detach()

    found = {}
    if published:
        published.requires_grad_(True)
        found["published, whole network"] = lambda: learn(published, lambda: published(face, weight=0)[1])
    return found | {"codes alone": lambda: learn(ours, lambda: ours(face, code_only=True).logits)}


def measured(runs: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, Cost]:
    """The best cost of each, in turns; the first turn warms up."""
    costs: dict[str, list[Cost]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter(), time.process_time()
            run()
            costs[name].append(Cost(time.perf_counter() - start[0], time.process_time() - start[1]))
    return {n: Cost(min(c.wall for c in found[1:]), min(c.processor for c in found[1:])) for n, found in costs.items()}


def report(costs: dict[str, Cost]) -> None:
    """A line each, with its ratio to the first."""
    base = next(iter(costs.values()))
    for name, cost in costs.items():
        print(
            f"  {name:32} {cost.wall:7.2f} s, of processors {cost.processor:7.2f} s, "
            f"{base.wall / cost.wall:5.2f} times as fast ({base.processor / cost.processor:.2f} by processors)",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="of which the best counts (default: 3)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: torch's")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well, which takes minutes first")
    parser.add_argument("--stage2", action="store_true", help="an iteration of stage II as well")
    parser.add_argument("--quick", action="store_true", help="of the published network float32 alone")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads, {processor()}\n")
    torch.manual_seed(0)
    ours, published = build_network({"type": "CodeFormer", "vqgan_path": "random"}).eval(), None
    if is_installed():
        published = importlib.import_module(PUBLISHED).CodeFormer().eval()
        published.load_state_dict(ours.state_dict())
    else:
        print("spandrel_extra_arches is not installed: this project is measured alone (see --help)")
    runs = sides(published, ours, options.compile)
    if options.quick:
        runs = {name: run for name, run in runs.items() if name in ("published, float32", "float32", "bf16")}
    if published:
        truth, mine = runs["published, float32"](), runs["float32"]()
        error = float((truth - mine).abs().max() / truth.abs().max())
        print(f"largest difference of the two pictures, relative: {error:.1e}")
        if error > TOLERANCE:
            raise SystemExit("the two do not compute the same: nothing is timed")
    print("restoring, 512 pixels, batch 1, w = 0.5")
    report(measured(runs, options.repeats))
    if options.stage2:
        print("stage II, gradients of an iteration, 512 pixels, batch 1")
        report(measured(stage_two(published, ours), options.repeats))


if __name__ == "__main__":
    main()
