"""Runs a published training step (a `train_*` case) through `load_options`, `build_model` and `step`, and compares."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from facerestore.config import load_options
from facerestore.engine import build_model
from facerestore.engine.training import TrainingModel
from tests import parity

VGG_BLOCKS = {"vgg19": [2, 2, 4, 4, 4], "vgg16": [2, 2, 3, 3, 3]}
OURS = {"hq_vqgan_fix": "net_vqgan", "in": "lq", "in_large_de": "lq_large"}  # what the published code calls otherwise


def vgg_state(kind: str, seed: int) -> dict[str, torch.Tensor]:
    """A file's content as torchvision has it: `features.N.weight` and `.bias` of the convolutions."""
    state, n, channels = {}, 0, 3
    for convolutions, width in zip(VGG_BLOCKS[kind], (64, 128, 256, 512, 512), strict=True):
        for _ in range(convolutions):
            for key, shape in ((f"features.{n}.weight", (width, channels, 3, 3)), (f"features.{n}.bias", (width,))):
                state[key] = torch.from_numpy(parity.weight(key, shape, seed, False).copy())
            channels, n = width, n + 2
        n += 1
    return state


def lpips_state(seed: int) -> dict[str, torch.Tensor]:
    """LPIPS's linear layers, under the authors' keys."""
    keys = {f"lin{k}.model.1.weight": (1, width, 1, 1) for k, width in enumerate((64, 128, 256, 512, 512))}
    return {key: torch.from_numpy(abs(parity.weight(key, shape, seed, False))) for key, shape in keys.items()}


def build(case: dict, folder: Path) -> TrainingModel:
    """The case's method, its networks filled as the reference's were."""
    config = case["config"]
    options = copy.deepcopy(config["options"])
    options |= {"name": "parity", "model_type": config["model"], "legacy": case.get("legacy", False)}
    options["train"] = {"total_iter": 1_000_000, "randomize_noise": False} | options["train"]
    if "ema_decay" in config:
        base, _, power = config["ema_decay"].partition(" ** ")  # 0.5 ** (32 / 10000)
        above, below = power.strip("()").split(" / ")
        options["train"]["ema_decay"] = float(base) ** (float(above) / float(below))
    for key, section in options["train"].items():
        if key.startswith("optim_"):  # as the figures' were: a fused one rounds otherwise, which train_srgan makes 1.5e-2 of
            section["fused"] = False
    for key in options:
        if key.startswith("network_"):
            options[key]["weights"] = "random"
            if options[key]["type"] == "CodeFormer":
                options[key]["nf"] = config.get("codeformer_nf", 64)
    if config["iterations"][0] != 1:  # these were reached by a jump: the learning rate stayed where it was
        options["train"]["scheduler"] = None
    if perceptual := options["train"].get("perceptual_opt"):
        kind, fill = ("vgg16", "lpips_fill") if "lpips_fill" in config else ("vgg19", "vgg19_fill")
        torch.save(vgg_state(kind, config[fill]["seed"]), folder / "vgg.pth")
        perceptual["weights"] = str(folder / "vgg.pth")
        if kind == "vgg16":
            torch.save(lpips_state(config[fill]["seed"]), folder / "lpips.pth")
            perceptual["lpips_weights"] = str(folder / "lpips.pth")
    model = build_model(load_options(options))
    for name, fill in config["fill"].items():
        parity.fill_(network(model, name), fill["seed"], fill["equalized"])
    return model


def network(model: TrainingModel, name: str) -> torch.nn.Module:
    name = OURS.get(name, name.replace("network_", "net_"))
    return model.ema[name.removesuffix("_ema")] if name.endswith("_ema") else model.networks[name]


def batch(case: dict, it: int) -> dict[str, torch.Tensor]:
    return {
        OURS.get(key, key): torch.tensor(s["values"], dtype=torch.float32)
        if "values" in s
        else parity.draw(s["shape"], s["seed"], s["name"].format(iter=it), s.get("low"), s.get("high"))
        for key, s in case["config"]["batch"].items()
    }


def draw_as_recorded(model: TrainingModel, seed: int) -> None:
    """Latents by their place in the iteration, and the noise of path lengths, as the reference had them."""
    count: dict[int, int] = {}

    def draw(name: str, shape, it: int) -> torch.Tensor:
        if "path" in name:
            return parity.draw(shape, seed, f"path{it}")
        count[it] = count.get(it, 0) + 1
        return parity.draw(shape, seed, f"z{it}.{count[it]}")

    model.draw = draw


def errors(
    name: str, folder: Path, undecided: Mapping[str, int] | None = None, double: bool = False
) -> dict[str, tuple[float, float]]:
    """(error, tolerance) of every figure that the case holds and that a training step leaves behind.

    Of a figure that `undecided` names one number is left out: the one at this place.  `double`: in double precision.
    """
    case, stored = parity.load(name)
    model = build(case, folder)
    if double:
        to_double(model)
    if "noise_seed" in case["config"]:
        draw_as_recorded(model, case["config"]["noise_seed"])
    names = {k.split(".")[1] for k in stored if k.startswith("delta.")}
    before = {n: {k: p.detach().clone() for k, p in network(model, n).named_parameters()} for n in names}
    terms: dict[str, dict[int, float]] = {}
    rates = []
    for it in case["config"]["iterations"]:
        given = {k: v.double() if double and v.is_floating_point() else v for k, v in batch(case, it).items()}
        for key, value in model.step(given, it).items():
            terms.setdefault(key, {})[it] = float(value)
        now = [o.param_groups[0]["lr"] for o in model.optimizers.values()]
        rates.append(now + now[-1:] * (len(case.get("optimizers", now)) - len(now)))  # the reference: one for each part
    found = {}
    for key, want in stored.items():
        got = figure(key, case, model, before, terms, rates)
        if got is None or case["tolerance"][key] is None:  # none: a gradient that is 0 but for rounding
            continue
        if key in (undecided or {}):
            got = parity.summary(got, limit=want.size) if isinstance(got, torch.Tensor) else got
            got, want = (np.delete(values, undecided[key]) for values in (got, want))
        found[key] = parity.relative_error(got, want), case["tolerance"][key]
    return found


def to_double(model: TrainingModel) -> None:
    """Networks, averages and losses of double precision, whose parameters the optimizers know already."""
    own = [value for value in vars(model.method).values() if isinstance(value, torch.nn.Module)]
    for module in (*model.networks.values(), *model.ema.values(), *model.losses.values(), *own):
        module.double()


def figure(key: str, case: dict, model: TrainingModel, before: dict, terms: dict, rates: list):
    kind, _, rest = key.partition(".")
    if kind == "loss":
        return np.array([terms[rest][it] for it in case["logged_at"][rest]])
    if kind == "lr":
        return np.array(rates)
    if kind == "delta":
        name, parameter = rest.split(".", 1)
        return dict(network(model, name).named_parameters())[parameter].detach() - before[name][parameter]
    if kind == "norm":
        name = rest.split(".", 1)[1]
        after = dict(network(model, name).named_parameters())
        return np.array([float((after[k].detach() - before[name][k]).norm()) for k in case["parameters"][name]])
    if kind == "mean_path_length":
        return model.method.mean_path_length.numpy()
    if kind == "buffer":
        name, buffer = rest.split(".", 1)
        return dict(network(model, name).named_buffers())[buffer]
    return None
