"""The published GFPGAN, as PyPI's basicsr 1.4.2 and gfpgan 1.3.8 have it, made to run on a CPU of today.

Worked around are: packages that import everything; a module of torchvision that is gone; the fused activation, which exists as
a CUDA extension alone (its formula takes its place); VGG19's weights, which would be a download (random ones take their
place); and crops of face parts, whose sides come out as 0 below 512 pixels (those of this project take their place).
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import math
import sys
from collections.abc import Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


def is_installed() -> bool:
    return all(importlib.util.find_spec(name) for name in ("basicsr", "gfpgan"))


def prepare() -> None:
    """Import the packages, once, with what stops them replaced."""
    from torchvision.transforms import functional

    gone = ModuleType("torchvision.transforms.functional_tensor")
    gone.rgb_to_grayscale = functional.rgb_to_grayscale
    sys.modules[gone.__name__] = gone
    place = importlib.util.find_spec("gfpgan").submodule_search_locations[0]
    for package, folder in (("gfpgan", place), ("gfpgan.archs", f"{place}/archs"), ("gfpgan.models", f"{place}/models")):
        sys.modules[package] = ModuleType(package)  # empty, so that they import nothing
        sys.modules[package].__path__ = [folder]
    for network in ("gfpganv1_arch", "arcface_arch"):  # which register themselves
        importlib.import_module(f"gfpgan.archs.{network}")
    for module in ("basicsr.ops.fused_act.fused_act", "basicsr.archs.stylegan2_arch"):
        importlib.import_module(module).fused_leaky_relu = activation
    vgg = importlib.import_module("basicsr.archs.vgg_arch")
    models = importlib.import_module("torchvision.models")
    vgg.vgg = SimpleNamespace(vgg19=lambda pretrained: models.vgg19(weights=None))


def activation(x: Tensor, bias: Tensor, negative_slope: float = 0.2, scale: float = math.sqrt(2)) -> Tensor:
    """The formula of the fused kernel."""
    return F.leaky_relu(x + bias.view(1, -1, *[1] * (x.dim() - 2)), negative_slope) * scale


def generator(keywords: Mapping[str, Any]) -> nn.Module:
    return importlib.import_module("gfpgan.archs.gfpganv1_arch").GFPGANv1(**keywords).eval()


class Training:
    """The published model and its own `optimize_parameters`."""

    def __init__(self, options: Mapping[str, Any], sides: Mapping[str, int]):
        """
        Args:
            options: networks and `train` as the option files have them
            sides: of the parts' crops
        """
        module = importlib.import_module("gfpgan.models.gfpgan_model")
        options = copy.deepcopy(dict(options)) | {"num_gpu": 0, "is_train": True, "dist": False, "rank": 0, "path": {}}
        module.roi_align = cropper(module.roi_align, sides)
        options["network_identity"]["weights"] = None
        for key in [key for key in options if key.startswith("network_")]:
            options[key].pop("weights", None)
        options["train"]["perceptual_opt"].pop("weights", None)
        self.model = unsaid(module.GFPGANModel, options)

    def step(self, batch: Mapping[str, Tensor], it: int) -> None:
        self.model.feed_data(batch)
        self.model.optimize_parameters(it)


def unsaid(kind: type, options: dict[str, Any]) -> Any:
    """The model, without its networks printed, and without the file of the identity network's weights."""
    kind.print_network = lambda self, network: None
    adam = kind.get_optimizer  # of today, which wants its betas to be floats
    kind.get_optimizer = lambda self, name, params, lr, betas: adam(self, name, params, lr, betas=tuple(map(float, betas)))
    kind.load_network = lambda self, network, path, strict=True, key="params": None
    return kind(options)


def cropper(published: Any, sides: Mapping[str, int]) -> Any:
    """`roi_align` with sides of its own: those of the eyes come first, two boxes a face."""

    def crop(picture: Tensor, boxes: Tensor, output_size: int) -> Tensor:
        part = "left_eye" if len(boxes) == 2 * len(picture) else "mouth"
        return Unscaled(published(picture, boxes=boxes, output_size=sides[part]))

    return crop


class Unscaled:
    """A crop; the published code multiplies it by the face's side over 512, rounded down, which is 0 below."""

    def __init__(self, crop: Tensor):
        self.crop = crop

    def __mul__(self, factor: int) -> Tensor:
        return self.crop
