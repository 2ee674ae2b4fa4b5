"""GFPGAN beside the published one: an iteration of training, restoring a face, and the memory of both, in one run.

pip install --no-deps basicsr gfpgan    (or a PYTHONPATH with both; without them this project is measured alone)
python benchmarks/gfpgan_speed.py [--tasks train512 train128 restore512] [--repeats 3]

Each side runs in a process of its own, with the same options (those of train_gfpgan_v1.yml, all losses, random weights), and
they take turns, an iteration each, so that both meet the same load.  A figure is the best of the repeats, by the clock and
by the time that the processors worked.  Memory is the peak of a process that stays resident, less what it was before the
model was built.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import published_gfpgan
from facerestore.archs import build_network
from facerestore.config import load_options
from facerestore.engine import build_model
from facerestore.models.gfpgan import PARTS, crop_side

GENERATOR = {  # options/train_gfpgan_v1.yml
    "num_style_feat": 512,
    "channel_multiplier": 1,
    "resample_kernel": [1, 3, 3, 1],
    "decoder_load_path": None,
    "fix_decoder": True,
    "num_mlp": 8,
    "lr_mlp": 0.01,
    "input_is_latent": True,
    "different_w": True,
    "narrow": 1,
    "sft_half": True,
}
TRAIN = {
    "optim_g": {"type": "Adam", "lr": 2e-3},
    "optim_d": {"type": "Adam", "lr": 2e-3},
    "optim_component": {"type": "Adam", "lr": 2e-3},
    "scheduler": {"type": "MultiStepLR", "milestones": [600000, 700000], "gamma": 0.5},
    "pixel_opt": {"type": "L1Loss", "loss_weight": 0.1, "reduction": "mean"},
    "L1_opt": {"type": "L1Loss", "loss_weight": 1, "reduction": "mean"},
    "pyramid_loss_weight": 1,
    "remove_pyramid_loss": 50000,
    "perceptual_opt": {
        "type": "PerceptualLoss",
        "layer_weights": {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1, "conv4_4": 1, "conv5_4": 1},
        "vgg_type": "vgg19",
        "use_input_norm": True,
        "perceptual_weight": 1,
        "style_weight": 50,
        "range_norm": True,
        "criterion": "l1",
        "weights": "random",
    },
    "gan_opt": {"type": "GANLoss", "gan_type": "wgan_softplus", "loss_weight": 0.1},
    "r1_reg_weight": 10,
    "gan_component_opt": {"type": "GANLoss", "gan_type": "vanilla", "real_label_val": 1.0, "fake_label_val": 0.0},
    "comp_style_weight": 200,
    "identity_weight": 10,
    "net_d_iters": 1,
    "net_d_init_iters": 0,
    "net_d_reg_every": 16,
}
BOXES = {"loc_left_eye": (145.5, 195, 235, 284.5), "loc_right_eye": (280, 192.5, 369, 281.5), "loc_mouth": (175, 330, 335, 490)}


@dataclass(frozen=True)
class Task:
    """What is measured: training or restoring, at which side, with how many faces."""

    training: bool
    side: int
    batch: int

    def __str__(self) -> str:
        return f"{'an iteration' if self.training else 'restoring'}, {self.side} pixels, batch {self.batch}"


TASKS = {"train512": Task(True, 512, 1), "train128": Task(True, 128, 4), "restore512": Task(False, 512, 1)}
SIDES = ("published, float32", "float32", "bf16, channels-last")


class Cost(NamedTuple):
    """Seconds by the clock, and of the processors."""

    wall: float
    processor: float


def options_of(task: Task) -> dict[str, Any]:
    networks = {
        "network_g": {"type": "GFPGANv1", "out_size": task.side, **GENERATOR},
        "network_d": {"type": "StyleGAN2Discriminator", "out_size": task.side, "channel_multiplier": 1},
        "network_identity": {"type": "ResNetArcFace", "block": "IRBlock", "layers": [2, 2, 2, 2], "use_se": False},
    }
    networks |= {f"network_d_{part}": {"type": "FacialComponentDiscriminator"} for part in PARTS}
    return {**networks, "train": TRAIN}


def batch_of(task: Task) -> dict[str, torch.Tensor]:
    """Faces of noise in [-1, 1], with boxes."""
    torch.manual_seed(0)
    shape = (task.batch, 3, task.side, task.side)
    boxes = {key: torch.tensor(box).mul(task.side / 512).repeat(task.batch, 1) for key, box in BOXES.items()}
    return {"lq": torch.rand(shape) * 2 - 1, "gt": torch.rand(shape) * 2 - 1, **boxes}


def published(task: Task) -> Callable[[int], Any]:
    """What runs an iteration (by its number) of the published code."""
    batch = batch_of(task)
    if task.training:
        sides = {part: crop_side(part, task.side) for part in PARTS}
        training = published_gfpgan.Training(options_of(task), sides)
        return partial(training.step, batch)
    network = published_gfpgan.generator({"out_size": task.side, **GENERATOR})
    return lambda it: restored(network, batch["lq"])


def ours(task: Task, bf16: bool) -> Callable[[int], Any]:
    """What runs an iteration of this project."""
    batch = batch_of(task)
    if task.training:
        return partial(build_model(load_options(our_options(task, bf16))).step, batch)
    network = build_network({"type": "GFPGANv1", "out_size": task.side, **GENERATOR, "decoder_load_path": "random"}).eval()
    if not bf16:
        return lambda it: restored(network, batch["lq"])
    network, face = (value.to(memory_format=torch.channels_last) for value in (network, batch["lq"]))
    return lambda it: restored(network, face, torch.autocast("cpu", dtype=torch.bfloat16))


def our_options(task: Task, bf16: bool) -> dict[str, Any]:
    options = options_of(task) | {"name": "benchmark", "model_type": "GFPGANModel", "manual_seed": 0, "path": {}}
    for key in [key for key in options if key.startswith("network_")]:
        options[key] = options[key] | {"weights": "random"}
    fast = {"precision": "bf16", "channels_last": True} if bf16 else {}
    return options | {"train": TRAIN | {"total_iter": 1000} | fast}


@torch.no_grad()
def restored(network: torch.nn.Module, face: torch.Tensor, precision: Any = None) -> Any:
    with precision or nullcontext():
        return network(face, return_rgb=False, randomize_noise=False)


def serve(connection: Connection, task: Task, name: str, threads: int) -> None:
    """Build one side, and run an iteration for each message; the answers are its cost, and at the end its memory."""
    torch.set_num_threads(threads)
    if name == SIDES[0]:
        published_gfpgan.prepare()
    before = resident("VmRSS")
    run = published(task) if name == SIDES[0] else ours(task, name == SIDES[2])
    connection.send("built")
    while it := connection.recv():
        start = time.perf_counter(), time.process_time()
        run(it)
        connection.send(Cost(time.perf_counter() - start[0], time.process_time() - start[1]))
    connection.send(resident("VmHWM") - before)


def resident(line: str) -> float:
    """MiB of this process that are (VmRSS), or were at most (VmHWM), in memory; Linux tells."""
    return int(re.search(rf"{line}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def measured(task: Task, sides: list[str], repeats: int, threads: int) -> dict[str, tuple[Cost, float]]:
    """Of each side its best cost, and its memory in MiB."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for name in sides:
        pipes[name], theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, task, name, threads), daemon=True)
        process.start()
        theirs.close()  # else the end of a process that failed would be waited for
        pipes[name].recv()
        processes.append(process)
    costs: dict[str, list[Cost]] = {name: [] for name in sides}
    for it in range(1, repeats + 2):
        for name, pipe in pipes.items():
            pipe.send(it)
            costs[name].append(pipe.recv())
    found = {}
    for name, pipe in pipes.items():
        pipe.send(0)
        timed = costs[name][1:]  # the first warms up
        found[name] = Cost(min(c.wall for c in timed), min(c.processor for c in timed)), pipe.recv()
    for process in processes:
        process.join()
    return found


def report(task: Task, found: dict[str, tuple[Cost, float]]) -> None:
    print(f"{task}")
    base = found.get(SIDES[0])
    for name, (cost, memory) in found.items():
        line = f"  {name:20} {1e3 * cost.wall:9.0f} ms, of processors {1e3 * cost.processor:9.0f} ms, memory {memory:7.0f} MiB"
        if base and name != SIDES[0]:
            line += (
                f"   {base[0].wall / cost.wall:4.1f} times as fast ({base[0].processor / cost.processor:4.1f} by processors)"
            )
            line += f", {memory / base[1]:.2f} of the memory"
        print(line, flush=True)


def processor() -> str:
    """What the processor is called, and which of the instructions it has that matter to bf16."""
    file = Path("/proc/cpuinfo")
    text = file.read_text() if file.exists() else ""
    name = re.search(r"model name\s*:\s*(.*)", text)
    flags = set(match[1].split()) if (match := re.search(r"flags\s*:\s*(.*)", text)) else set()
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
    return f"{name[1] if name else 'unknown processor'}: " + ", ".join(f"{'' if f in flags else 'no '}{f}" for f in wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="what to measure (default: all)")
    parser.add_argument("--repeats", type=int, default=3, help="iterations, of which the best counts (default: 3)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of each side (default: torch's)")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {options.threads} threads, {processor()}\n")
    sides = list(SIDES)
    if not published_gfpgan.is_installed():
        print("basicsr and gfpgan are not installed, so there is nothing to compare with: pip install --no-deps basicsr gfpgan")
        sides = sides[1:]
    for name in options.tasks:
        report(TASKS[name], measured(TASKS[name], sides, options.repeats, options.threads))


if __name__ == "__main__":
    main()
