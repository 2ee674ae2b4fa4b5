"""Our small StyleGAN2 networks under the keys and shapes that others' programs give theirs, written down layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

State = dict[str, Tensor]
FIR = torch.ones(4, 4)  # the buffers that others keep in their state


def rosinality_generator(network: nn.Module) -> State:
    own, levels = network.state_dict(), len(network.sides)
    state = {"input.input": own["constant_input.weight"]}
    for i in range(1, len(network.style_mlp)):
        state |= {f"style.{i}.{kind}": own[f"style_mlp.{i}.{kind}"] for kind in ("weight", "bias")}
    convs = [("style_conv1", "conv1")] + [(f"style_convs.{i}", f"convs.{i}") for i in range(2 * levels)]
    for mine, theirs in convs:
        state |= _rosinality_conv(own, f"{mine}.modulated_conv", f"{theirs}.conv")
        state[f"{theirs}.noise.weight"] = own[f"{mine}.weight"]
        state[f"{theirs}.activate.bias"] = own[f"{mine}.activate.bias"]
        if theirs.startswith("convs") and int(theirs[6:]) % 2 == 0:
            state[f"{theirs}.conv.blur.kernel"] = FIR
    for mine, theirs in [("to_rgb1", "to_rgb1")] + [(f"to_rgbs.{i}", f"to_rgbs.{i}") for i in range(levels)]:
        state |= _rosinality_conv(own, f"{mine}.modulated_conv", f"{theirs}.conv")
        state[f"{theirs}.bias"] = own[f"{mine}.bias"]
        if theirs != "to_rgb1":
            state[f"{theirs}.upsample.kernel"] = FIR
    return state | {f"noises.noise_{i}": noise for i, noise in enumerate(network.stored_noise())}


def _rosinality_conv(own: State, mine: str, theirs: str) -> State:
    return {f"{theirs}.{kind}": own[f"{mine}.{kind}"] for kind in ("weight", "modulation.weight", "modulation.bias")}


def rosinality_discriminator(network: nn.Module) -> State:
    own = network.state_dict()
    state = {key.replace("conv_body.", "convs."): value for key, value in own.items()}
    for i in range(1, len(network.conv_body)):
        state |= {f"convs.{i}.conv2.0.kernel": FIR, f"convs.{i}.skip.0.kernel": FIR}
    return state


def nvidia_generator(network: nn.Module) -> State:
    own = network.state_dict()
    state = {"synthesis.b4.const": own["constant_input.weight"][0], "mapping.w_avg": torch.zeros(16)}
    for i in range(1, len(network.style_mlp)):
        state |= {f"mapping.fc{i - 1}.{kind}": own[f"style_mlp.{i}.{kind}"] for kind in ("weight", "bias")}
    layers = [("b4.conv1", "style_conv1"), ("b4.torgb", "to_rgb1")]
    for level, side in enumerate(network.sides):
        layers += [(f"b{side}.conv0", f"style_convs.{2 * level}"), (f"b{side}.conv1", f"style_convs.{2 * level + 1}")]
        layers += [(f"b{side}.torgb", f"to_rgbs.{level}")]
    noises = iter(network.stored_noise())
    for theirs, mine in layers:
        name = f"synthesis.{theirs}"
        state[f"{name}.weight"] = own[f"{mine}.modulated_conv.weight"][0]
        for kind in ("weight", "bias"):
            state[f"{name}.affine.{kind}"] = own[f"{mine}.modulated_conv.modulation.{kind}"]
        if "torgb" in theirs:
            state[f"{name}.bias"] = own[f"{mine}.bias"].flatten()
        else:
            state[f"{name}.bias"] = own[f"{mine}.activate.bias"]
            state[f"{name}.noise_strength"] = own[f"{mine}.weight"][0]
            state[f"{name}.noise_const"] = next(noises)[0, 0]
            state[f"{name}.resample_filter"] = FIR
    for side in (4, *network.sides):
        state[f"synthesis.b{side}.resample_filter"] = FIR
    return state


def nvidia_discriminator(network: nn.Module) -> State:
    own, side = network.state_dict(), network.out_size
    state = {f"b{side}.fromrgb.{kind}": own[f"conv_body.0.{i}.{kind}"] for i, kind in enumerate(("weight", "bias"))}
    for i in range(1, len(network.conv_body)):
        block, name = f"conv_body.{i}", f"b{side // 2 ** (i - 1)}"
        state |= {f"{name}.conv0.weight": own[f"{block}.conv1.0.weight"], f"{name}.conv0.bias": own[f"{block}.conv1.1.bias"]}
        state |= {f"{name}.conv1.weight": own[f"{block}.conv2.1.weight"], f"{name}.conv1.bias": own[f"{block}.conv2.2.bias"]}
        state |= {f"{name}.skip.weight": own[f"{block}.skip.1.weight"], f"{name}.resample_filter": FIR}
    state |= {"b4.conv.weight": own["final_conv.0.weight"], "b4.conv.bias": own["final_conv.1.bias"]}
    for i, name in enumerate(("fc", "out")):
        state |= {f"b4.{name}.{kind}": own[f"final_linear.{i}.{kind}"] for kind in ("weight", "bias")}
    return state
