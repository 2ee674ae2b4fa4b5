"""Features of torchvision's VGG networks by the layers' names.  Not registered: losses and metrics look through it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from facerestore.errors import OptionError, listed, nearest

VggType = Literal["vgg11", "vgg13", "vgg16", "vgg19"]

WIDTHS = (64, 128, 256, 512, 512)  # channels of the five blocks, a pooling after each
DEPTHS = {  # convolutions in each: columns A, B, D and E of the paper's table 1
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}


class VGGFeatures(nn.Module):
    """The features of some layers of a VGG, and no layer beyond the deepest of them.

    Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015, table 1.
    `convX_Y` is the output of a convolution, before its ReLU; `reluX_Y` is after it; `poolX` ends block X.

    forward: RGB pictures (N, 3, H, W) in [0, 1], or in [-1, 1] with `range_norm`, to {name: features (N, C, h, w)},
    where h is H / 2 for each pooling passed.  State-dict keys are torchvision's (`features.N.weight`), so that its
    files fill it; who uses it loads and freezes it.

    Source of the figures: BasicSR, basicsr/archs/vgg_arch.py.
    """

    def __init__(
        self,
        layer_name_list: Sequence[str],
        vgg_type: VggType = "vgg19",
        use_input_norm: bool = True,
        range_norm: bool = False,
    ):
        """
        Args:
            layer_name_list: names of the layers whose features are returned: conv5_4, relu2_2, pool3, ...
            vgg_type: which VGG
            use_input_norm: whether pictures in [0, 1] are brought to ImageNet's mean and deviation
            range_norm: whether pictures come in [-1, 1] and are mapped to [0, 1] first

        Raises:
            OptionError: there is no such layer, or none is named
        """
        super().__init__()
        names = layer_names(vgg_type)
        for name in layer_name_list:
            if name not in names:
                hint = nearest(name, names) or f" (it has {listed(names)})"
                raise OptionError(f"{vgg_type} has no layer called {name!r}{hint}", ("layer_name_list",))
        if not layer_name_list:
            raise OptionError("no layer is named whose features would be returned", ("layer_name_list",))
        self.torchvision_name, self.use_input_norm, self.range_norm = vgg_type, use_input_norm, range_norm
        self.wanted = frozenset(layer_name_list)
        self.names = names[: 1 + max(names.index(name) for name in layer_name_list)]
        self.features = nn.Sequential(*layers(self.names))
        for statistic, values in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
            self.register_buffer(statistic, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if self.range_norm:
            x = (x + 1) / 2
        if self.use_input_norm:
            x = (x - self.mean) / self.std
        found = {}
        for name, layer in zip(self.names, self.features, strict=True):
            x = layer(x)
            if name in self.wanted:
                found[name] = x
        return found


def layer_names(vgg_type: VggType) -> list[str]:
    """All layers in torchvision's order: conv1_1, relu1_1, ..., pool1, conv2_1, ..., pool5."""
    names = []
    for block, depth in enumerate(DEPTHS[vgg_type], start=1):
        for conv in range(1, depth + 1):
            names += [f"conv{block}_{conv}", f"relu{block}_{conv}"]
        names.append(f"pool{block}")
    return names


def layers(names: Sequence[str]) -> list[nn.Module]:
    """The modules of these names, the first of which is conv1_1."""
    modules: list[nn.Module] = []
    channels = 3
    for name in names:
        if name.startswith("conv"):
            width = WIDTHS[int(name[4]) - 1]
            modules.append(nn.Conv2d(channels, width, 3, padding=1))
            channels = width
        else:  # not in place: a convolution's output may be among what is returned
            modules.append(nn.ReLU() if name.startswith("relu") else nn.MaxPool2d(2))
    return modules
