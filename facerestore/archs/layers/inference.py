"""Equal forms of an autoencoder's layers for pictures that are restored on a CPU.

There a new tensor of a picture's size costs more than the arithmetic that fills it: its pages have to be handed out first.  So
nothing is kept that no gradient asks for, and what can be done in place is done in place.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PORTION = 1 << 17  # numbers that lie in a core's cache, with their squares


def frugal(module: nn.Module, x: Tensor) -> bool:
    """Whether a layer may take its form of this module: of channels-last features, on a CPU, by a network that restores, and is
    not being compiled."""
    watched = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return restores(module, x) and not watched and x.is_contiguous(memory_format=torch.channels_last)


def laid_out(module: nn.Module, x: Tensor) -> Tensor:
    """The pictures as the forms of this module want them, where they are to be taken: channels last."""
    return x.contiguous(memory_format=torch.channels_last) if restores(module, x) else x


def restores(module: nn.Module, x: Tensor) -> bool:
    """Whether pictures pass through a network on a CPU that is not in training, and nobody asks for gradients."""
    return x.device.type == "cpu" and not (module.training or torch.is_grad_enabled())


def normed_swish(norm: nn.GroupNorm, x: Tensor, out: Tensor) -> Tensor:
    """swish(norm(x)) of features (N, C, H, W), written into `out`, which may be x itself."""
    scale, shift = affine_of(norm, x)
    torch.addcmul(shift, x, scale, out=out)
    return F.silu(out, inplace=True)


def affine_of(norm: nn.GroupNorm, x: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift (N, C, 1, 1) that norm(x) comes to (Wu and He, Group Normalization, ECCV 2018, eq. 1 and 6)."""
    mean, square = (value.unflatten(1, (norm.num_groups, -1)).mean(2, keepdim=True) for value in moments(x))
    variance = (square - mean.square()).clamp(min=0)
    scale = (variance + norm.eps).rsqrt() * norm.weight.view(norm.num_groups, -1)
    shift = norm.bias.view(norm.num_groups, -1) - mean * scale
    return tuple(value.flatten(1)[:, :, None, None].to(x.dtype) for value in (scale, shift))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Means (N, C), float32, of each channel and of its squares, summed in portions that the processor's cache holds."""
    rows = x.permute(0, 2, 3, 1).flatten(1, 2)
    total = square = x.new_zeros((), dtype=torch.float32)
    for part in rows.split(max(1, PORTION // x.shape[1]), dim=1):
        part = part.float()
        total, square = total + part.sum(1), square + part.square().sum(1)
    return total / rows.shape[1], square / rows.shape[1]


def add_pointwise(feat: Tensor, x: Tensor, conv: nn.Conv2d) -> Tensor:
    """feat + conv(x), written into `feat`, of a 1 x 1 convolution: a product of matrices whose rows are positions."""
    rows, found = (value.permute(0, 2, 3, 1) for value in (x.to(feat.dtype), feat))
    weight, bias = (parameter.to(feat.dtype) for parameter in (conv.weight, conv.bias))
    for i in range(len(x)):
        product = found[i].flatten(0, 1)
        torch.addmm(product, rows[i].flatten(0, 1), weight.flatten(1).T, out=product)
    return feat.add_(bias.view(1, -1, 1, 1))


def doubled_and_convolved(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """conv(every pixel doubled) of a 3 x 3 convolution, without doubling: (N, C, H, W) to (N, C', 2H, 2W).

    Of the 3 x 3 pixels under the kernel at most 2 x 2 differ.  Pixels at even and odd rows and columns see different ones:
    four 2 x 2 convolutions with sums of the taps, 16 products a pixel of x instead of 36.
    """
    n, _, height, width = x.shape
    padded = F.pad(x, (1, 1, 1, 1))
    out = x.new_empty(n, 2 * height, 2 * width, conv.out_channels).permute(0, 3, 1, 2)
    for row, taps in enumerate(pairs(conv.weight, 2)):
        for column, kernel in enumerate(pairs(taps, 3)):
            seen = padded[:, :, row : row + height + 1, column : column + width + 1]
            out[:, :, row::2, column::2] = F.conv2d(seen, kernel, conv.bias)
    return out


def pairs(kernel: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Three taps along `dim` as the two of an even pixel, and the two of an odd one."""
    first, second, third = kernel.unbind(dim)
    return torch.stack((first, second + third), dim), torch.stack((first + second, third), dim)
