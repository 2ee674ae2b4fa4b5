"""Runs the published iterations of StarGAN v2 (`train_stargan2*`) through `load_options`, `build_model` and `step`."""

from __future__ import annotations

import numpy as np
import torch

from facerestore.config import load_options
from facerestore.engine import build_model
from facerestore.engine.training import TrainingModel
from tests import parity

NETWORKS = {
    "generator": "net_g",
    "mapping_network": "net_mapping",
    "style_encoder": "net_style_encoder",
    "discriminator": "net_d",
    "fan": "net_fan",
}


def options(config: dict) -> dict:
    a = config["args"]
    picture, styles, domains = {"img_size": a["img_size"]}, {"style_dim": a["style_dim"]}, {"num_domains": a["num_domains"]}
    adam = {"type": "Adam", "lr": a["lr"], "betas": [a["beta1"], a["beta2"]], "weight_decay": a["weight_decay"]}
    adam["fused"] = False  # as the figures' were
    networks = {
        "network_g": {"type": "StarGANv2Generator", **picture, **styles, "w_hpf": a["w_hpf"]},
        "network_mapping": {"type": "StarGANv2MappingNetwork", "latent_dim": a["latent_dim"], **styles, **domains},
        "network_style_encoder": {"type": "StarGANv2StyleEncoder", **picture, **styles, **domains},
        "network_d": {"type": "StarGANv2Discriminator", **picture, **domains},
        **({"network_fan": {"type": "FAN", "weights": "random"}} if a["w_hpf"] else {}),
    }
    rates = {f"optim_{name}": adam for name in ("g", "d", "style_encoder")} | {"optim_mapping": adam | {"lr": a["f_lr"]}}
    weights = {key: a[key] for key in ("lambda_reg", "lambda_sty", "lambda_ds", "lambda_cyc", "ds_iter")}
    train = {"total_iter": 1000, "ema_decay": 0.999, **rates, **weights}
    return {"name": "parity", "model_type": "StarGANv2Model", **networks, "train": train}


def network(model: TrainingModel, name: str) -> torch.nn.Module:
    averaged = name.endswith("_ema")
    return (model.ema if averaged else model.networks)[NETWORKS[name.removesuffix("_ema")]]


def batch(config: dict, place: int) -> dict[str, torch.Tensor]:
    a, n = config["args"], config["batch"]
    shape = [n, 3, a["img_size"], a["img_size"]]
    pictures = {k: parity.draw(shape, config["seed"], f"{k}{place}", -1, 1) for k in ("x_src", "x_ref", "x_ref2")}
    latents = {k: parity.draw([n, a["latent_dim"]], config["seed"], f"{k}{place}") for k in ("z_trg", "z_trg2")}
    return {**pictures, **latents, **{k: torch.tensor(config[k][place]) for k in ("y_src", "y_ref")}}


def errors(name: str) -> dict[str, tuple[float, float]]:
    """(error, tolerance) of every figure of the case; where there is a tolerance for each iteration, of the worst."""
    case, stored = parity.load(name)
    config = case["config"]
    model = build_model(load_options(options(config)))
    for key, fill in config["fill"].items():
        parity.fill_(network(model, key), fill["seed"], fill["equalized"])
    if head := config.get("fan_head"):
        with torch.no_grad():
            network(model, "fan").l0.weight.mul_(head["weight_scale"])
            network(model, "fan").l0.bias.fill_(head["bias"])
    names = {k.split(".")[1] for k in stored if k.startswith("delta.")}
    before = {n: {k: p.detach().clone() for k, p in network(model, n).named_parameters()} for n in names}
    terms = [{k: float(v) for k, v in model.step(batch(config, i), i + 1).items()} for i in range(config["iterations"])]
    found = {}
    for key, want in stored.items():
        got, tolerance = figure(key, case, model, before, terms), case["tolerance"][key]
        if got is None:
            continue
        if isinstance(tolerance, list):
            least = 1e-3 * np.abs(want).max()
            away = [abs(g - w) / max(abs(w), least) / t for g, w, t in zip(got, want, tolerance, strict=True)]
            found[key] = max(away), 1.0
        else:
            found[key] = parity.relative_error(got, want), tolerance
    return found


def figure(key: str, case: dict, model: TrainingModel, before: dict, terms: list[dict[str, float]]):
    kind, _, rest = key.partition(".")
    if kind == "loss" and not rest.endswith("_total"):
        return np.array([at[rest.replace(".", "/", 1)] for at in terms])
    if kind == "lambda_ds":
        return np.array([model.method.diversity_weight(it) for it in range(1, len(terms) + 2)])
    if kind == "delta":
        name, parameter = rest.split(".", 1)
        return dict(network(model, name).named_parameters())[parameter].detach() - before[name][parameter]
    if kind == "norm":
        name = rest.split(".", 1)[1]
        after = dict(network(model, name).named_parameters())
        return np.array([float((after[k].detach() - before[name][k]).norm()) for k in case["parameters"][name]])
    if kind in ("output", "output_ema"):
        first, way = batch(case["config"], 0), kind.removeprefix("output")
        with torch.no_grad():
            style = network(model, f"mapping_network{way}")(first["z_trg"], first["y_ref"]).embedding
            return network(model, f"generator{way}")(first["x_src"], style, model.method.masks(first["x_src"])).image
    if kind in ("mask0", "mask1"):
        return model.method.masks(batch(case["config"], 0)["x_src"])[int(kind[-1])]
    return None
