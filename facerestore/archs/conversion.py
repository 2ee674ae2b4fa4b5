"""StyleGAN2's and GFPGAN's weights from one form or naming to another.

The clean form is the bilinear one with its scales folded into its weights (and back): equal functions.  GFPGANv1 and
StyleGAN2Generator have the bilinear networks' keys, but resample by FIR filters, and clean weights made of theirs draw other
pictures: at the borders, and where GFPGANv1's U-Net halves the side.

Names of: rosinality's stylegan2-pytorch (model.py), whose layers are the same; NVIDIA's stylegan2-ada-pytorch
(training/networks.py), whose scales are the same, and whose demodulation leaves the scale out that it cancels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from facerestore.archs.layers.equalized import SQRT2
from facerestore.archs.layers.recognition import Keywords, State
from facerestore.errors import CheckpointError, listed
from facerestore.registry import ARCHS

Shape = tuple[int, ...]

CLEAN_OF = {
    "GFPGANv1": "GFPGANv1Clean",
    "GFPGANBilinear": "GFPGANv1Clean",
    "StyleGAN2Generator": "StyleGAN2GeneratorClean",
    "StyleGAN2GeneratorBilinear": "StyleGAN2GeneratorClean",
    "StyleGAN2GeneratorSFT": "StyleGAN2GeneratorCSFT",
}
BILINEAR_OF = {"GFPGANv1Clean": "GFPGANBilinear", "StyleGAN2GeneratorClean": "StyleGAN2GeneratorBilinear"}
ONLY_EQUALIZED = ("lr_mlp", "resample_kernel")  # keywords that clean networks do not have
LR_MLP = 0.01


class Folded(NamedTuple):
    """What becomes of a weight in the clean form: its key, what it is multiplied by, its shape."""

    key: str
    factor: float
    shape: Shape


def to_clean(state: Mapping[str, Tensor], lr_mlp: float = LR_MLP) -> State:
    """The clean form of a generator's or GFPGAN's weights.

    Args:
        state: weights of GFPGANBilinear or StyleGAN2GeneratorBilinear (or of the FIR networks: see above)
        lr_mlp: the mapping network's, which the weights do not tell
    """
    rules = {key: folded(key, tuple(value.shape), lr_mlp) for key, value in state.items()}
    return {rule.key: (state[key] * rule.factor).reshape(rule.shape) for key, rule in rules.items()}


def to_bilinear(state: Mapping[str, Tensor], kind: str, keywords: Keywords, lr_mlp: float = LR_MLP) -> State:
    """The way back: weights whose function, in the bilinear network, is that of the clean ones.

    Args:
        state: clean weights
        kind: their network, a key of `BILINEAR_OF`
        keywords: its keywords
        lr_mlp: of the mapping network that they are for
    """
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in ARCHS.get(BILINEAR_OF[kind])(**keywords).state_dict().items()}
    rules = {key: folded(key, shape, lr_mlp) for key, shape in shapes.items()}
    return {key: (state[rule.key] / rule.factor).reshape(shapes[key]) for key, rule in rules.items()}


def folded(key: str, shape: Shape, lr_mlp: float = LR_MLP) -> Folded:
    """The rule for one weight, by its key in the equalized form.

    sqrt(2) leaky_relu(s w x + b) = leaky_relu((sqrt(2) s w) x + sqrt(2) b), with s = 1 / sqrt(fan in); a block's sum over
    sqrt(2) takes this gain away again.
    """
    decoder = key.startswith("stylegan_decoder.")
    head, name = ("stylegan_decoder.", key.removeprefix("stylegan_decoder.")) if decoder else ("", key)
    new, factor, new_shape = _folded_decoder(name, shape, lr_mlp) or _folded_unet(name, shape)
    return Folded(head + new, factor, new_shape)


def _folded_decoder(name: str, shape: Shape, lr_mlp: float) -> Folded | None:
    """A StyleGAN2 generator's; None for other keys."""
    if match := re.fullmatch(r"style_mlp\.(\d+)\.(weight|bias)", name):
        scale = 1 / math.sqrt(shape[1]) if match[2] == "weight" else 1.0
        return Folded(f"style_mlp.{2 * int(match[1]) - 1}.{match[2]}", SQRT2 * lr_mlp * scale, shape)
    if name.endswith("modulation.weight"):
        return Folded(name, 1 / math.sqrt(shape[1]), shape)
    if name.endswith("modulated_conv.weight"):
        return Folded(name, 1 / math.sqrt(math.prod(shape[2:])), shape)
    if re.fullmatch(r"style_conv(1|s\.\d+)\.activate\.bias", name):
        return Folded(name.replace("activate.bias", "bias"), SQRT2, (1, shape[0], 1, 1))
    if re.fullmatch(r"style_conv(1|s\.\d+)\.weight", name):
        return Folded(name, SQRT2, shape)
    if re.match(r"constant_input|noises|to_rgb|style_conv", name):
        return Folded(name, 1.0, shape)
    return None


# Keys of the U-Net in both forms, and whether the sqrt(2) of an activation comes in (1), or a block's takes it away (-1).
UNET = [
    (r"(conv_body_first|final_conv)\.0\.(weight)", r"\1.\2", 1),
    (r"(conv_body_first|final_conv)\.1\.(bias)", r"\1.\2", 1),
    (r"(conv_body_(?:down|up)\.\d+\.conv1)\.[01]\.(weight|bias)", r"\1.\2", 1),
    (r"(conv_body_down\.\d+\.conv2)\.[12]\.(weight|bias)", r"\1.\2", 0),
    (r"(conv_body_up\.\d+\.conv2)\.(?:activation\.)?(weight|bias)", r"\1.\2", 0),
    (r"(conv_body_(?:down|up)\.\d+\.skip)\.(?:1\.)?(weight)", r"\1.\2", -1),
    (r"(condition_(?:scale|shift)\.\d+\.0)\.(weight|bias)", r"\1.\2", 1),
    (r"(condition_(?:scale|shift)\.\d+\.2|toRGB\.\d+|final_linear)\.(weight|bias)", r"\1.\2", 0),
]


def _folded_unet(name: str, shape: Shape) -> Folded:
    for pattern, new, gain in UNET:
        if re.fullmatch(pattern, name):
            scale = 1 / math.sqrt(math.prod(shape[1:])) if name.endswith("weight") else 1.0
            return Folded(re.sub(pattern, new, name), SQRT2**gain * scale, shape)
    raise CheckpointError(f"{name!r} is no weight of StyleGAN2's generator or of GFPGAN in the original form")


def with_our_names(state: Mapping[str, Tensor]) -> State:
    """Weights of rosinality's or NVIDIA's StyleGAN2 under our names; any others as they are.

    What follows from the keywords (FIR kernels) is left out, and the mean latent, which `mean_latent` computes anew.

    Raises:
        CheckpointError: they are of a conditional network, or one with other blocks than the published
    """
    if "input.input" in state:
        return _renamed(state, ROSINALITY_GENERATOR, "rosinality's generator")
    if "convs.0.0.weight" in state and "final_linear.0.weight" in state:
        return _renamed(state, ROSINALITY_DISCRIMINATOR, "rosinality's discriminator")
    if "synthesis.b4.const" in state:
        return _renamed(state, NVIDIA_GENERATOR, "NVIDIA's generator")
    if "b4.fc.weight" in state:
        return _renamed(state, _nvidia_discriminator(state), "NVIDIA's discriminator")
    return dict(state)


DROPPED = r".*(kernel|resample_filter)|mapping\.w_avg"
ROSINALITY_GENERATOR = [
    (r"style\.(\d+)\.(weight|bias)", lambda m: f"style_mlp.{m[1]}.{m[2]}"),
    (r"input\.input", lambda m: "constant_input.weight"),
    (r"noises\.noise_(\d+)", lambda m: f"noises.noise{m[1]}"),
    (r"conv(1|s\.\d+)\.conv\.(weight|modulation\..*)", lambda m: f"style_conv{m[1]}.modulated_conv.{m[2]}"),
    (r"conv(1|s\.\d+)\.noise\.weight", lambda m: f"style_conv{m[1]}.weight"),
    (r"conv(1|s\.\d+)\.activate\.bias", lambda m: f"style_conv{m[1]}.activate.bias"),
    (r"to_rgb(1|s\.\d+)\.conv\.(weight|modulation\..*)", lambda m: f"to_rgb{m[1]}.modulated_conv.{m[2]}"),
    (r"to_rgb(1|s\.\d+)\.bias", lambda m: f"to_rgb{m[1]}.bias"),
]
ROSINALITY_DISCRIMINATOR = [
    (r"convs\.(.*)", lambda m: f"conv_body.{m[1]}"),
    (r"final_(conv|linear)\.(.*)", lambda m: f"final_{m[1]}.{m[2]}"),
]


def _level(side: str) -> int:
    """0 for 4 pixels a side, 1 for 8, ..."""
    return int(side).bit_length() - 3


def _nvidia_conv(match: re.Match) -> str:
    level = _level(match[1])
    return "style_conv1" if level == 0 else f"style_convs.{2 * level - 2 + int(match[2])}"


def _nvidia_rgb(match: re.Match) -> str:
    level = _level(match[1])
    return "to_rgb1" if level == 0 else f"to_rgbs.{level - 1}"


def _nvidia_noise(match: re.Match) -> str:
    return f"noises.noise{2 * _level(match[1]) - 1 + int(match[2])}"


_CONV = r"synthesis\.b(\d+)\.conv([01])\."
_RGB = r"synthesis\.b(\d+)\.torgb\."
NVIDIA_GENERATOR = [
    (r"mapping\.fc(\d+)\.(weight|bias)", lambda m: f"style_mlp.{int(m[1]) + 1}.{m[2]}"),
    (r"synthesis\.b4\.const", lambda m: "constant_input.weight"),
    (_CONV + "weight", lambda m: f"{_nvidia_conv(m)}.modulated_conv.weight"),
    (_CONV + r"affine\.(weight|bias)", lambda m: f"{_nvidia_conv(m)}.modulated_conv.modulation.{m[3]}"),
    (_CONV + "bias", lambda m: f"{_nvidia_conv(m)}.activate.bias"),
    (_CONV + "noise_strength", lambda m: f"{_nvidia_conv(m)}.weight"),
    (_CONV + "noise_const", _nvidia_noise),
    (_RGB + "weight", lambda m: f"{_nvidia_rgb(m)}.modulated_conv.weight"),
    (_RGB + r"affine\.(weight|bias)", lambda m: f"{_nvidia_rgb(m)}.modulated_conv.modulation.{m[2]}"),
    (_RGB + "bias", lambda m: f"{_nvidia_rgb(m)}.bias"),
]
UNSQUEEZED = [  # shapes that ours have around the same numbers
    (r"style_conv.*\.weight|to_rgb.*modulated_conv\.weight|constant_input\.weight", lambda v: v[None]),
    (r"to_rgb.*\.bias", lambda v: v.view(1, -1, 1, 1)),
    (r"noises\..*", lambda v: v[None, None]),
]


def _nvidia_discriminator(state: Mapping[str, Tensor]) -> list:
    largest = max(_level(match[1]) for key in state if (match := re.match(r"b(\d+)\.", key)))

    def block(match: re.Match) -> str:
        return f"conv_body.{largest - _level(match[1]) + 1}"

    index = {"weight": 0, "bias": 1}
    return [
        (r"b(\d+)\.fromrgb\.(weight|bias)", lambda m: f"conv_body.0.{index[m[2]]}.{m[2]}"),
        (r"b(\d+)\.conv0\.(weight|bias)", lambda m: f"{block(m)}.conv1.{index[m[2]]}.{m[2]}"),
        (r"b(\d+)\.conv1\.(weight|bias)", lambda m: f"{block(m)}.conv2.{index[m[2]] + 1}.{m[2]}"),
        (r"b(\d+)\.skip\.weight", lambda m: f"{block(m)}.skip.1.weight"),
        (r"b4\.conv\.(weight|bias)", lambda m: f"final_conv.{index[m[1]]}.{m[1]}"),
        (r"b4\.(fc|out)\.(weight|bias)", lambda m: f"final_linear.{('fc', 'out').index(m[1])}.{m[2]}"),
    ]


def _renamed(state: Mapping[str, Tensor], rules: list, whose: str) -> State:
    found: State = {}
    unknown = []
    for key, value in state.items():
        if re.fullmatch(DROPPED, key):
            continue
        name = next((new(match) for pattern, new in rules if (match := re.fullmatch(pattern, key))), None)
        if name is None:
            unknown.append(key)
            continue
        found[name] = _shaped(name, value) if rules is NVIDIA_GENERATOR else value
    if unknown:
        raise CheckpointError(
            f"these seem to be weights of {whose}, but {listed(unknown, 3)} have no place here: only networks without labels, "
            "of the published blocks, can be converted"
        )
    return found


def _shaped(name: str, value: Tensor) -> Tensor:
    if "modulation" in name:
        return value
    return next((shape(value) for pattern, shape in UNSQUEEZED if re.fullmatch(pattern, name)), value)
